"""`valuer ingest doctor`: whether an institution's database or folder can be relied upon, kept as its acceptance record."""

from typing import TYPE_CHECKING, Annotated

import typer

from admin import console
from core.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ingest.looks import Finding

_SHOWN = {"ok": "  ok", "look": "LOOK", "wrong": "STOP"}


def doctor(
    name: Annotated[str, typer.Argument(help="The institution's code")],
    deadline: Annotated[float, typer.Option(min=1, help="Seconds that one statement may take")] = 60.0,
    json: console.Json = False,
) -> None:
    """Examine an institution's source on site, without writing there; exit status 1 if reports would be lost or wrong."""
    from datetime import UTC, datetime

    from core.errors import Broken, Refused
    from ingest import doctor as looks
    from ingest import mapping

    settings = console.read(Settings)
    files = mapping.with_source(settings.institutions_dir)
    if name not in files:
        there = ", ".join(files) or "none"
        raise Refused(f"No institution file with a source has the code {name}; there are: {there}.", code="institution")
    of = mapping.load(files[name])
    findings = looks.examine(of, _fingerprint(settings, name), deadline_s=deadline)
    kept = looks.record(settings.home / "acceptance", name, findings, datetime.now(UTC))
    worst = looks.worst(findings)
    data = {
        "institution": name,
        "worst": worst,
        "record": str(kept),
        "findings": [{"name": f.name, "level": f.level, "says": f.says, "value": f.value} for f in findings],
    }
    console.answer(json, data, _page(findings, f"Kept as {kept}."))
    if worst == "wrong":
        raise Broken("Reports would be lost or wrong: mend what says STOP.")


def _fingerprint(settings: Settings, name: str) -> str | None:
    """The columns that the last poll saw; None where there is no running installation yet."""
    from core.db import transaction
    from core.errors import ValuerError
    from core.tables import Cursor
    from ingest.sql import STREAM

    if not settings.database_url and not (settings.home / "servers").exists():
        return None
    try:
        with console.opened(settings) as here, transaction(here.engine) as session:
            row = session.get(Cursor, (name, STREAM))
            return None if row is None else row.schema_fingerprint
    except ValuerError:
        return None


def _page(findings: "list[Finding]", kept: str) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    lines = [Text(f"{_SHOWN[each.level]} {each.name}: {each.says}") for each in findings]
    return Group(*lines, Text(""), Text(kept))
