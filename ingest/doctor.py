"""Whether an institution's source can be relied upon, looked at on site: speed, clock, characters, cursor, truncation, codes, and that we cannot write.

Reads only; the one thing it tries to do is to drop a table of a random name that does not exist, which a read-only transaction has to refuse. What it says
holds figures, column names and codes, never a row. What is looked at in a database stands in `ingest.looks`.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from core import institutions
from core.errors import ValuerError
from ingest import trial, writing
from ingest.looks import SQL_LOOKS, Finding, Level, told
from ingest.mapping import Mapping
from ingest.origin import FileConfig
from ingest.patient import TRIED, Patient
from ingest.sql import STREAM


def examine(of: Mapping, known_fingerprint: str | None = None, *, deadline_s: float = 60.0) -> list[Finding]:
    """Every check of a source. A source that cannot be reached has the one finding that says so. `known_fingerprint` is that of the last poll."""
    if isinstance(of.source, FileConfig):
        return [*(finding for look in FILE_LOOKS for finding in _looked(look, of)), *_stages(of)]
    try:
        patient = Patient(of, deadline_s=deadline_s)
    except ValuerError as error:
        return [Finding("connection", "wrong", error.message)]
    except sa.exc.SQLAlchemyError as error:
        return [Finding("connection", "wrong", f"{of.dialect().title} does not answer as it should: {told(error)}")]
    with closing(patient):
        found = [finding for look in SQL_LOOKS for finding in _looked(look, patient)]
    dialect = of.dialect()
    live = [Finding("proof", "ok" if dialect.live else "look", f"{dialect.title}: {dialect.proof}.")]
    return [*found, *_schema(patient.streams()[STREAM], known_fingerprint), *_rows(of), *_stages(of), *live]


def record(folder: Path, code: str, findings: list[Finding], at: datetime) -> Path:
    """Keeps the findings as the institution's acceptance record: one JSON file per examination, never overwritten."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{code}-{at.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}.json"
    content = {
        "institution": code,
        "at": at.isoformat(),
        "worst": worst(findings),
        "findings": [asdict(each) for each in findings],
    }
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(content, file, ensure_ascii=False, indent=1)
    return path


def worst(findings: Iterable[Finding]) -> Level:
    """The worst level of all."""
    levels: tuple[Level, ...] = ("ok", "look", "wrong")
    return max((each.level for each in findings), key=levels.index, default="ok")


# --- files ------------------------------------------------------------------------------------------------------------------


def _folder(of: Mapping) -> Iterator[Finding]:
    assert isinstance(of.source, FileConfig)  # noqa: S101 - chosen by kind
    folder = of.file.parent / of.source.path
    if not folder.is_dir():
        yield Finding("folder", "wrong", f"there is no folder {of.source.path}.")
        return
    files = [path for path in folder.glob(of.source.pattern) if path.is_file()]
    others = sum(path.is_file() for path in folder.iterdir()) - len(files)
    if not files:
        yield Finding("folder", "wrong", f"no file is called {of.source.pattern}; {others} are called otherwise.", 0)
        return
    unread = [path.name for path in files if not os.access(path, os.R_OK)]
    newest = max(path.stat().st_mtime for path in files)
    age = (time.time() - newest) / 3600
    says = f"{len(files)} files ({others} are called otherwise), the newest {age:.1f} hours old."
    yield Finding(
        "folder", "wrong" if unread else "ok", says if not unread else f"{unread[0]} cannot be read.", len(files)
    )
    if os.access(folder, os.W_OK) and os.geteuid() != 0:
        yield Finding("account", "look", "we may write into the folder; reading is all we need.")
    if of.source.format != "excel":
        for path in files[:5]:
            found = writing.charset_of(path.read_bytes())
            if found not in (of.source.charset, "utf-16") and not (found == "utf-8" and path.read_bytes().isascii()):
                yield Finding(
                    "charset",
                    "look",
                    f"{path.name} looks like {found or 'no charset we know'}, and the file says {of.source.charset}.",
                )


def _file_rows(of: Mapping) -> Iterator[Finding]:
    yield from _rows(of)


FILE_LOOKS: tuple[Callable[[Mapping], Iterator[Finding]], ...] = (_folder, _file_rows)


# --- both -------------------------------------------------------------------------------------------------------------------


def _rows(of: Mapping) -> list[Finding]:
    """The first rows under the real rules: what would be accepted, what not and why."""
    try:
        tried = trial.run(of, TRIED)
    except (ValuerError, sa.exc.SQLAlchemyError) as error:
        return [Finding("trial", "wrong", error.message if isinstance(error, ValuerError) else told(error))]
    if not tried.read:
        return [Finding("trial", "wrong", "there is no row to try.", 0)]
    refused = sum(tried.rejected.values())
    why = ", ".join(f"{count} {reason}" for reason, count in tried.rejected.most_common(5))
    lossy = tried.excluded.get("lossy_source", 0)
    found = [
        Finding(
            "trial",
            "look" if refused else "ok",
            f"of {tried.read} rows {tried.accepted} would be accepted"
            + (f", {refused} quarantined ({why})." if refused else "."),
            refused / tried.read,
        )
    ]
    if refused > tried.read * 0.2:
        found = [Finding("trial", "wrong", found[0].says, found[0].value)]
    if lossy:
        found.append(
            Finding(
                "lossy",
                "look",
                f"{lossy} reports have a ? where a character was (cm²): lost at the source, they never train.",
                lossy,
            )
        )
    return found


def _stages(of: Mapping) -> list[Finding]:
    """How far a model may go with the institution's examinations."""
    profile = institutions.look(of.file.parent)[0].get(of.file)
    if profile is None:
        return []  # its own mistake is told where the file is loaded
    if not profile.stages:
        says = "no [institution.stages] stands in the file, so everything is live: drafts are shown as soon as a version serves."
        return [Finding("stage", "ok" if profile.sandbox else "look", says)]
    told_by = ", ".join(f"{key} {stage}" for key, stage in profile.stages.items())
    return [
        Finding("stage", "ok", f"{told_by} (collect: no draft; shadow: drafted and scored, not shown; live: shown).")
    ]


def _schema(fingerprint: str, known: str | None) -> list[Finding]:
    if known is None:
        return [Finding("schema", "ok", f"fingerprint {fingerprint}; no poll has seen it before.")]
    if known != fingerprint:
        return [
            Finding(
                "schema",
                "look",
                f"columns changed since the last poll ({known} to {fingerprint}): types, widths or names.",
            )
        ]
    return [Finding("schema", "ok", f"columns are those of the last poll ({fingerprint}).")]


def _looked(look: Callable[[Any], Iterator[Finding]], at: Any) -> list[Finding]:
    """What a check finds; one that fails is a finding itself, and the others go on."""
    name = look.__name__.strip("_").replace("_", " ")
    try:
        return list(look(at))
    except ValuerError as error:
        return [Finding(name, "wrong", error.message)]
    except sa.exc.SQLAlchemyError as error:
        return [Finding(name, "wrong", f"the database refused this look: {told(error)}")]
