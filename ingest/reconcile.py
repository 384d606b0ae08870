"""The daily comparison of an institution's database with what we hold: it finds and fetches what polls cannot have seen.

Per day of the source's cursor time: a row whose key we do not hold was missed; a day whose sum differs from the last comparison was changed in place,
perhaps without a new time; both are read again and loaded. A report whose key the source no longer has is missed once and excluded from the second
comparison in a row on; it comes back when the key does. Decides nothing about a row (that is `ingest.poll.take`).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session, col, select

from core import audit, sign_offs
from core.db import transaction
from core.identity import Keyring
from core.tables import Absence, ReconciledDay, Report
from ingest import quarantine
from ingest.days import DaySource, DaySum
from ingest.exclusions import COPIES, Exclusion
from ingest.mapping import FINAL, Mapping
from ingest.poll import PollResult, take, total
from ingest.rows import Rows

DAYS = 30
"""How many days before today are compared unless somebody says otherwise."""
MISSED = 2
"""Comparisons in a row that must miss a report before it is excluded."""
MANY, SHARE = 50, 0.2
"""More absences than both of these are a view that shows less than before, not reports that were deleted: nothing is excluded for them."""


def last_days(today: date, days: int) -> tuple[date, ...]:
    """So many whole days before today, oldest first."""
    return tuple(today - timedelta(days=back) for back in range(days, 0, -1))


def due(session: Session, institution: str, every: timedelta) -> bool:
    """Whether something has been read of the institution, and its last comparison is older than that."""
    query = sa.text(
        "SELECT EXISTS (SELECT 1 FROM cursors WHERE institution = :institution AND position_at IS NOT NULL) AND NOT EXISTS"
        " (SELECT 1 FROM reconciled_days WHERE institution = :institution AND compared_at > clock_timestamp() - CAST(:every AS interval))"
    )
    return bool(session.execute(query, {"institution": institution, "every": every}).scalar_one())


def compare(
    engine: sa.Engine,
    of: Mapping,
    keyring: Keyring,
    days: Sequence[date],
    *,
    deadline_s: float,
    told: Callable[[PollResult], None],
) -> PollResult:
    """Compares these days. The result's `resume` counts `compared`, `differing` (days with something to fetch, or changed) and `absent`.

    Raises:
        Refused: the source is a folder. Retryable: our own database went away.
        sqlalchemy.exc.SQLAlchemyError: the source's database failed.
    """
    rows = Rows(of, keyring)
    result = PollResult(of.code, resume={"compared": 0, "differing": 0, "absent": 0})
    there: set[str] = set()
    with closing(DaySource(of, deadline_s=deadline_s)) as source:
        with transaction(engine) as session:
            before = _receipts(session, of.code, days)
            waiting = quarantine.open_sources(session, of.code)
        for day in days:
            now = source.summed(day)
            keys = {each for each in map(rows.source_id, source.source_keys(day)) if each is not None}
            there |= keys
            with transaction(engine) as session:
                unknown = keys - waiting - _held(session, of.code, keys)
            counted = {**result.resume, "compared": result.resume["compared"] + 1}
            part = PollResult(of.code)
            if unknown or before.get(day) != now:
                part = take(
                    engine,
                    of,
                    keyring,
                    source.spanned(day),
                    budget_s=float("inf"),
                    live=True,
                    resume={},
                    told=lambda _: None,
                )
                counted["differing"] += bool(part.stored or unknown or day in before)
            result = replace(total(result, part), resume=counted)
            if result.error is not None:
                return result
            with transaction(engine) as session:
                _receive(session, of.code, day, now, part.stored)
            told(result)
        with transaction(engine) as session:
            suspects = _suspects(session, of.code, source, days, there)
        gone = set(suspects)
        if gone:  # a key that moved to another day is not gone: only the source's whole list of keys can say
            for each in source.source_keys():
                gone.discard(rows.source_id(each) or "")
    held = len(there) + len(gone)
    if len(gone) > MANY and len(gone) > SHARE * held:
        message = f"{len(gone)} of {held} reports are gone from {of.code} at once; does its view show less than before? None was excluded."
        return replace(result, error="too_many_absent", message=message)
    with transaction(engine) as session:
        _note_absences(session, of.code, {suspects[key].id for key in gone})
        _count_absences(session, of.code, Counter(source.day_of(suspects[key].modified_at) for key in gone))
    return replace(result, resume={**result.resume, "absent": len(gone)})


class _Suspect(NamedTuple):
    id: UUID
    modified_at: datetime | None


def _receipts(session: Session, institution: str, days: Sequence[date]) -> dict[date, DaySum]:
    query = select(ReconciledDay).where(ReconciledDay.institution == institution, col(ReconciledDay.day).in_(days))
    return {row.day: DaySum(row.source_rows, row.source_hash) for row in session.exec(query)}


def _held(session: Session, institution: str, source_ids: Iterable[str]) -> set[str]:
    query = sa.text("SELECT source_id FROM reports WHERE institution = :institution AND source_id = ANY(:ids)")
    return set(session.execute(query, {"institution": institution, "ids": list(source_ids)}).scalars())


def _receive(session: Session, institution: str, day: date, now: DaySum, fetched: int) -> None:
    values = {"source_rows": now.rows, "source_hash": now.hash, "fetched": fetched, "absent": 0}
    statement = insert(ReconciledDay).values(institution=institution, day=day, **values)
    changes = values | {"compared_at": sa.func.clock_timestamp()}
    session.execute(statement.on_conflict_do_update(index_elements=["institution", "day"], set_=changes))


def _suspects(
    session: Session, institution: str, source: DaySource, days: Sequence[date], there: set[str]
) -> dict[str, "_Suspect"]:
    """Reports that should stand in these days and do not, and those that were missed before."""
    if not days:
        return {}
    query = select(Report.source_id, Report.id, Report.modified_at).where(
        Report.institution == institution,
        sa.or_(
            sa.and_(
                col(Report.modified_at) >= source.bounds(min(days))[0],
                col(Report.modified_at) < source.bounds(max(days))[1],
            ),
            col(Report.id).in_(select(Absence.report_id).where(Absence.institution == institution)),
        ),
    )
    return {source_id: _Suspect(*rest) for source_id, *rest in session.exec(query) if source_id not in there}


def _count_absences(session: Session, institution: str, absent: dict[date | None, int]) -> None:
    for day, number in absent.items():
        session.execute(
            sa.update(ReconciledDay)
            .where(col(ReconciledDay.institution) == institution, col(ReconciledDay.day) == day)
            .values(absent=number)
        )


def _note_absences(session: Session, institution: str, gone: set[UUID]) -> None:
    """Counts those that are gone again, excludes those that were gone before, and takes back what is there again."""
    known = {row.report_id: row for row in session.exec(select(Absence).where(Absence.institution == institution))}
    for identity in sorted(gone):
        row = known.get(identity)
        if row is None:
            session.add(Absence(report_id=identity, institution=institution))
            continue
        row.times += 1
        row.last_missed_at = session.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        if row.times == MISSED:
            report = session.get_one(Report, identity)
            row.excluded_before, report.excluded = report.excluded, Exclusion.ABSENT
            session.flush()
            audit.record(session, "process:ingest", "report.absent", f"report:{identity}", institution=institution)
            sign_offs.withdraw_ris(session, report, gone_since=row.first_missed_at)
    for identity, row in known.items():
        if identity in gone:
            continue
        if row.times >= MISSED:
            report = session.get_one(Report, identity)
            if report.excluded == Exclusion.ABSENT:
                report.excluded = None if row.excluded_before in COPIES else row.excluded_before
            session.flush()
            audit.record(session, "process:ingest", "report.returned", f"report:{identity}", institution=institution)
            if report.status in FINAL:
                sign_offs.match_ris(session, report)
        session.delete(row)
