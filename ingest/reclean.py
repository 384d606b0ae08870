"""Cleaned texts made anew from the raw ones when the rules or a department's statements have changed. Reads no source.

Batch by batch, each in one transaction; what is done carries the new version, so a pass that was stopped goes on where it was. What a source once told
of a patient is not stored: identifiers that were taken out of a text before, and that no rule would find, are read off the two texts and stay out.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Session, col, select

from clinical.deidentify import PLACEHOLDER
from clinical.text import clean
from core import vocabulary
from core.db import transaction
from core.errors import NotFound
from core.states import ReportStatus
from core.tables import Absence, Institution, Report
from ingest.cleaning import Cleaned, Cleaning, cleaned_batch
from ingest.exclusions import COPIES, Exclusion

BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Recleaned:
    """What a pass did: reports made anew, and how many of them read differently now."""

    institution: str
    reports: int
    changed: int


class _Stored(NamedTuple):
    """A report as it lies in the database, in the shape that cleaning reads."""

    id: UUID
    content_hash: str
    status: ReportStatus
    findings: str
    impression: str
    history: str | None
    prior_impression: str | None
    known: tuple[str, ...]
    before: tuple[str, str, str, str | None]


def reclean(
    engine: sa.Engine,
    home: Path,
    names: Iterable[str] | None = None,
    told: Callable[[str, int, int], None] = lambda name, done, of: None,
) -> list[Recleaned]:
    """Makes the cleaned texts of these institutions anew (None: of all) where they are of another version; `told` hears name, done and how many.

    Raises:
        NotFound: there is no such institution. Refused: a department's vocabulary is wrong.
    """
    with transaction(engine) as session:
        languages = {
            row.code: row.language for row in session.exec(select(Institution).order_by(col(Institution.code)))
        }
    wanted = list(languages) if names is None else list(names)
    for name in wanted:
        if name not in languages:
            raise NotFound(f"There is no institution called {name}.")
    return [
        _institution(engine, name, Cleaning(languages[name], vocabulary.of(home, name).phrases), told)
        for name in wanted
    ]


def _institution(engine: sa.Engine, name: str, cleaning: Cleaning, told: Callable[[str, int, int], None]) -> Recleaned:
    outdated = sa.and_(col(Report.institution) == name, col(Report.cleaning_version) != cleaning.version)
    with transaction(engine) as session:
        waiting = session.execute(sa.select(sa.func.count()).select_from(Report).where(outdated)).scalar_one()
    told(name, 0, waiting)
    done = changed = 0
    last: UUID | None = None
    while True:
        with transaction(engine) as session:
            query = select(Report).where(outdated).order_by(col(Report.id)).limit(BATCH)
            rows = session.exec(query if last is None else query.where(col(Report.id) > last)).all()
            if not rows:
                return Recleaned(name, done, changed)
            stored = [_stored(row) for row in rows]
            last = rows[-1].id
            session.expunge_all()
            changed += _update(session, list(zip(stored, cleaned_batch(stored, cleaning), strict=True)))
            done += len(rows)
        told(name, done, max(waiting, done))


def _stored(row: Report) -> _Stored:
    known = {
        piece
        for raw, read in ((row.findings_raw, row.findings), (row.impression_raw, row.impression))
        if PLACEHOLDER in read
        for piece in taken_out(raw, read)
    }
    return _Stored(
        row.id, row.content_hash, row.status, row.findings_raw, row.impression_raw, row.history, row.prior_impression,
        tuple(sorted(known)), (row.findings, row.impression, row.findings_hash, row.excluded),
    )  # fmt: skip


def taken_out(raw: str, read: str) -> list[str]:
    """The pieces of a raw text in whose place a cleaned one holds a gap, of two characters or more."""
    tidy = clean(raw).text
    found = []
    for what, start, end, first, last in SequenceMatcher(None, tidy, read, autojunk=False).get_opcodes():
        if what == "replace" and PLACEHOLDER in read[first:last]:
            found.append(tidy[start:end].strip())
    return [piece for piece in found if len(piece) >= 2]


def _update(session: Session, rows: list[tuple[_Stored, Cleaned]]) -> int:
    """Stores what changed, unless the report itself has changed meanwhile; returns how many texts read differently."""
    changed = 0
    values: list[dict[str, Any]] = []
    absent: dict[UUID, str | None] = {}
    for stored, cleaned in rows:
        findings, impression, findings_hash, excluded = stored.before
        changed += (findings, impression) != (cleaned.findings, cleaned.impression)
        copied = cleaned.excluded is None and excluded in COPIES and findings_hash == cleaned.findings_hash
        cut = cleaned.excluded is None and excluded == Exclusion.POSSIBLY_TRUNCATED  # the raw text is what it was
        if excluded == Exclusion.ABSENT:
            absent[stored.id] = cleaned.excluded
        if copied or cut or excluded == Exclusion.ABSENT:
            cleaned = cleaned._replace(excluded=excluded)  # cleaning has no say in what others keep out
        values.append(
            {
                "of_id": stored.id,
                "of_hash": stored.content_hash,
                "to_findings": cleaned.findings,
                "to_impression": cleaned.impression,
                "to_history": cleaned.history,
                "to_prior_impression": cleaned.prior_impression,
                "to_findings_hash": cleaned.findings_hash,
                "to_excluded": cleaned.excluded,
                "to_removed": list(cleaned.removed) or None,
                "to_cleaning_version": cleaned.version,
            }
        )
    table = Report.__table__  # type: ignore[attr-defined]  # set by SQLModel's metaclass
    columns = (
        "findings",
        "impression",
        "history",
        "prior_impression",
        "findings_hash",
        "excluded",
        "removed",
        "cleaning_version",
    )
    changes: dict[str, Any] = {column: sa.bindparam(f"to_{column}") for column in columns} | {
        "updated_at": sa.func.now()
    }
    same = (table.c.id == sa.bindparam("of_id")) & (table.c.content_hash == sa.bindparam("of_hash"))
    session.connection().execute(sa.update(table).where(same).values(changes), values)
    for identity, why in absent.items():  # what will be said of it when its institution has it again
        uncut = col(Absence.excluded_before).is_distinct_from(Exclusion.POSSIBLY_TRUNCATED)
        session.execute(sa.update(Absence).where(col(Absence.report_id) == identity, uncut).values(excluded_before=why))
    return changed


def removals(session: Session) -> list[dict[str, Any]]:
    """What cleaning took out of the stored reports: institution, cleaning version, statement or rule, places, reports; most places first."""
    query = sa.text(
        "SELECT institution, cleaning_version, term, count(*) AS places, count(DISTINCT id) AS reports"
        " FROM reports, unnest(removed) AS term WHERE removed IS NOT NULL GROUP BY 1, 2, 3 ORDER BY 1, 2, places DESC, term"
    )
    return [dict(row) for row in session.execute(query).mappings()]
