"""How far a stream of an institution has been read. The position moves forward only, in the transaction that stores the rows.

Each poll looks again from `overlap_s` before the position, inclusively, up to the source's own clock less `settle_s`; rows that it has already
are recognised by their content, so looking twice costs little and a row that was committed late is not lost. Knows no database of a hospital.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session, col, select

from core.tables import Cursor

WHOLE = "*"
"""The row that stands for all streams of an institution: when it was last polled, how far its clock is off, why the last poll failed."""

OLDEST = datetime(1900, 1, 1, tzinfo=UTC)
"""Times before this are no times: zero dates and placeholders."""
FUTURE = timedelta(days=1)
"""Rows dated further ahead than this are mistakes that no later poll would reach in time."""
JUMP = timedelta(seconds=60)
"""A source clock that moved by more than this against ours since the last poll is not trusted for that poll."""
SKEWED = timedelta(seconds=5)
"""A source clock that is further off than this is worth a warning; it harms nothing, since a source's times are compared with its own clock."""


@dataclass(frozen=True, slots=True)
class Position:
    """The last row read: its time and its key, in the source's order (time, key). For a file, its date and its size."""

    at: datetime
    key: str


@dataclass(frozen=True, slots=True)
class Window:
    """What one poll reads of a database: rows with `since <= time <= until`, and the strays outside `OLDEST … ahead` or without any time."""

    since: datetime
    until: datetime
    ahead: datetime


def window(
    position: Position | None, clock: datetime, *, overlap_s: float, settle_s: float, first: datetime = OLDEST
) -> Window:
    """The window of a poll that starts at the source's `clock`; without a position it begins at `first`.

    A position that lies ahead of the clock was reached while the clock was wrong: then the overlap is counted from the clock, so that what is
    written now is found all the same.
    """
    since = first if position is None else max(OLDEST, min(position.at, clock) - timedelta(seconds=overlap_s))
    return Window(since, clock - timedelta(seconds=settle_s), clock + FUTURE)


def positions(session: Session, institution: str) -> dict[str, Position]:
    """The position of each stream that has one."""
    rows = session.exec(select(Cursor).where(Cursor.institution == institution))
    return {
        row.stream: Position(row.position_at, row.position_key or "") for row in rows if row.position_at is not None
    }


def jumped(session: Session, institution: str, skew: timedelta) -> bool:
    """Whether the source's clock moved against ours since the last poll by more than clocks do."""
    last = session.get(Cursor, (institution, WHOLE))
    return last is not None and last.skew_ms is not None and abs(skew - timedelta(milliseconds=last.skew_ms)) > JUMP


def advance(session: Session, institution: str, stream: str, position: Position | None, rows: int) -> None:
    """Counts `rows` as read and moves the position forward to `position`; None leaves it where it is."""
    values: dict[str, Any] = {"institution": institution, "stream": stream, "rows_read": rows}
    if position is not None:
        values |= {"position_at": position.at, "position_key": position.key}
    statement = insert(Cursor).values(**values)
    new = statement.excluded
    changes: dict[str, Any] = {"rows_read": col(Cursor.rows_read) + new.rows_read}
    if position is not None:
        here = sa.tuple_(col(Cursor.position_at), col(Cursor.position_key))
        forward = sa.or_(col(Cursor.position_at).is_(None), here < sa.tuple_(new.position_at, new.position_key))
        changes |= {
            name: sa.case((forward, new[name]), else_=getattr(Cursor, name)) for name in ("position_at", "position_key")
        }
    session.execute(statement.on_conflict_do_update(index_elements=["institution", "stream"], set_=changes))


def succeeded(session: Session, institution: str, streams: Mapping[str, str], skew: timedelta) -> list[str]:
    """Marks a poll as done. `streams` are those it opened, with the fingerprint of their columns; returns those whose columns changed."""
    changed = []
    for stream, fingerprint in streams.items():
        known = session.get(Cursor, (institution, stream))
        if known is not None and known.schema_fingerprint not in (None, fingerprint):
            changed.append(stream)
        _upsert(
            session, institution, stream, {"polled_at": sa.func.clock_timestamp(), "schema_fingerprint": fingerprint}
        )
    well = dict.fromkeys(("failed_at", "failing_since", "failure", "failure_message"))
    whole = {"polled_at": sa.func.clock_timestamp(), "skew_ms": _milliseconds(skew), **well}
    _upsert(session, institution, WHOLE, whole)
    return changed


def failed(
    session: Session, institution: str, code: str, skew: timedelta | None = None, message: str | None = None
) -> None:
    """Notes that a poll failed and why; every position stays."""
    now = sa.func.clock_timestamp()
    values: dict[str, Any] = {"failed_at": now, "failing_since": now, "failure": code, "failure_message": message}
    if skew is not None:
        values["skew_ms"] = _milliseconds(skew)
    changes = values | {"failing_since": sa.func.coalesce(col(Cursor.failing_since), now)}
    _upsert(session, institution, WHOLE, values, changes)


def scheduled(session: Session, institution: str, in_s: float | None) -> None:
    """Notes when the ingest process means to poll next; None: not any more."""
    soon = None if in_s is None else sa.func.clock_timestamp() + timedelta(seconds=in_s)
    _upsert(session, institution, WHOLE, {"next_at": soon})


def _milliseconds(skew: timedelta) -> int:
    return round(skew.total_seconds() * 1000)


def _upsert(
    session: Session, institution: str, stream: str, values: dict[str, Any], changes: dict[str, Any] | None = None
) -> None:
    statement = insert(Cursor).values(institution=institution, stream=stream, rows_read=0, **values)
    session.execute(statement.on_conflict_do_update(index_elements=["institution", "stream"], set_=changes or values))
