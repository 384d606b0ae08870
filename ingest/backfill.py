"""The past of an institution, day by day, beside the polls and never in their way: asked for by a person, kept in a ledger, slowed on purpose.

A day is done when all its rows are stored or in quarantine, and is begun again when it was not finished: loading a row twice changes nothing, so
that a backfill that was killed ends like one that was not. Moves no cursor.
"""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import partial

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session, col

from core.db import transaction
from core.identity import Keyring
from core.tables import BackfillDay
from ingest.days import DaySource
from ingest.mapping import Mapping
from ingest.poll import PollResult, take, total
from ingest.sources import BATCH, Batch

PAUSE_S = 10.0
"""The longest pause between two batches: a slow rate makes batches small rather than pauses long, since the source holds a result open."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where an institution's backfill stands."""

    days: int
    done: int
    rows_read: int
    stored: int
    quarantined: int


def ask(session: Session, institution: str, first: date, last: date) -> int:
    """Puts every day of a span into the ledger, but for those that stand there; how many are new."""
    days = [first + timedelta(days=each) for each in range((last - first).days + 1)]
    if not days:
        return 0
    statement = insert(BackfillDay).values(
        [{"institution": institution, "day": day, "rows_read": 0, "stored": 0, "quarantined": 0} for day in days]
    )
    new = statement.on_conflict_do_nothing(index_elements=["institution", "day"]).returning(col(BackfillDay.day))
    return len(session.execute(new).all())


def waiting(session: Session, institution: str) -> list[date]:
    """Days that are not done, newest first: what is recent is worth most."""
    query = sa.select(col(BackfillDay.day)).where(
        col(BackfillDay.institution) == institution, col(BackfillDay.done_at).is_(None)
    )
    return list(session.execute(query.order_by(col(BackfillDay.day).desc())).scalars())


def forget(session: Session, institution: str) -> int:
    """Takes the days that are not done out of the ledger; how many there were."""
    query = sa.delete(BackfillDay).where(
        col(BackfillDay.institution) == institution, col(BackfillDay.done_at).is_(None)
    )
    return len(session.execute(query.returning(col(BackfillDay.day))).all())


def progress(session: Session, institution: str) -> Progress:
    """The ledger in numbers."""
    query = sa.text(
        "SELECT count(*), count(done_at), coalesce(sum(rows_read), 0), coalesce(sum(stored), 0), coalesce(sum(quarantined), 0)"
        " FROM backfill_days WHERE institution = :institution"
    )
    return Progress(*map(int, session.execute(query, {"institution": institution}).one()))


def may_run(of: Mapping, now: datetime) -> bool:
    """Whether the institution's hours for backfills are on."""
    return of.backfill.open_at(now.astimezone(of.source.zone).time())


def oldest(of: Mapping, *, deadline_s: float) -> PollResult:
    """The first day that the source has, as `resume["oldest"]`. Raises Refused for a folder."""
    with closing(DaySource(of, deadline_s=deadline_s)) as source:
        return PollResult(of.code, resume={"oldest": source.oldest()})


def fetch(
    engine: sa.Engine,
    of: Mapping,
    keyring: Keyring,
    days: Sequence[date],
    *,
    deadline_s: float,
    told: Callable[[PollResult], None],
) -> PollResult:
    """Fetches these days and marks each in the ledger when it is done.

    Raises:
        Refused: the source is a folder. Retryable: our own database went away.
        sqlalchemy.exc.SQLAlchemyError: the source's database failed.
    """
    result = PollResult(of.code)
    rate = of.backfill.rows_per_s
    size = BATCH if rate is None else max(1, min(BATCH, int(rate * PAUSE_S)))
    with closing(DaySource(of, deadline_s=deadline_s)) as source:
        for day in days:
            batches = source.spanned(day, size=size)
            part = take(
                engine,
                of,
                keyring,
                batches if rate is None else _slowed(batches, rate),
                budget_s=float("inf"),
                live=True,
                resume={},
                told=partial(_added, told, result),
            )
            result = total(result, part)
            if part.error is not None:
                return result
            with transaction(engine) as session:
                _done(session, of.code, day, part)
            told(result)
    return replace(result, resume={})


def _added(told: Callable[[PollResult], None], before: PollResult, part: PollResult) -> None:
    told(total(before, part))


def _slowed(batches: Generator[Batch, None, None], rows_per_s: float) -> Generator[Batch, None, None]:
    """The batches, at most so many rows a second."""
    with closing(batches):
        for batch in batches:
            began = time.monotonic()
            yield batch
            time.sleep(max(0.0, len(batch.rows) / rows_per_s - (time.monotonic() - began)))


def _done(session: Session, institution: str, day: date, part: PollResult) -> None:
    session.execute(
        sa.update(BackfillDay)
        .where(col(BackfillDay.institution) == institution, col(BackfillDay.day) == day)
        .values(
            rows_read=part.rows_read,
            stored=part.stored,
            quarantined=part.quarantined,
            done_at=sa.func.clock_timestamp(),
        )
    )
