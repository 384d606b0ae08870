"""Tells waiting handlers which requests have changed: one short look at the database for all of them, while anybody waits.

Holds no transaction and no connection between looks, and decides nothing: who is told a change looks the request up again. The answer is
never late because of another transaction: every look goes back to the oldest transaction that ran at the look before, and what was
told already is left out. (The change feed of core.requests is stricter: it promises an order that a cursor can be kept of.)
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa
from starlette.concurrency import run_in_threadpool

from core import db, logs
from core.errors import Retryable

_HORIZON = sa.text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
_CHANGED = sa.text(
    """
    SELECT changed.*, pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS horizon
    FROM (VALUES (1)) AS always LEFT JOIN (
        SELECT r.id, r.institution, r.state, r.draft_version, r.changed_xid
        FROM institutions i CROSS JOIN LATERAL (SELECT * FROM draft_requests WHERE institution = i.code AND changed_xid >= :horizon) r
    ) AS changed ON true
    """  # one statement, so that rows and horizon are of one snapshot; per institution, so that the index on changed_xid serves it
)


@dataclass(frozen=True, slots=True)
class Change:
    """A request that is no longer as it was."""

    id: UUID
    institution: str
    state: str
    draft_version: int | None


class Listener:
    """What one waiting handler is told: changes of one institution (None: all) or of one request."""

    def __init__(self, institution: str | None, request_id: UUID | None) -> None:
        self._institution, self._request_id = institution, request_id
        self._changes: asyncio.Queue[Change | None] = asyncio.Queue()

    def tell(self, change: Change) -> None:
        if self._institution in (None, change.institution) and self._request_id in (None, change.id):
            self._changes.put_nowait(change)

    def close(self) -> None:
        self._changes.put_nowait(None)

    async def next(self, seconds: float) -> Change | None:
        """The next change, or None when there was none for `seconds` or the process is stopping."""
        try:
            return await asyncio.wait_for(self._changes.get(), seconds)
        except TimeoutError:
            return None


class Watch:
    """Looks every `interval` seconds while anybody listens."""

    def __init__(self, engine: sa.Engine, interval: float = 0.2) -> None:
        self._engine, self._interval = engine, interval
        self._listeners: set[Listener] = set()
        self._task: asyncio.Task[None] | None = None
        self._begun = asyncio.Event()
        self._sees = False
        self._horizon = 0
        self._told: set[tuple[UUID, int]] = set()
        self.closing = False

    @asynccontextmanager
    async def listen(self, institution: str | None = None, request_id: UUID | None = None) -> AsyncIterator[Listener]:
        """A listener that misses nothing which commits after this has been entered.

        Raises:
            Retryable: the database cannot be reached, so nothing could be promised.
        """
        listener = Listener(institution, request_id)
        self._listeners.add(listener)
        if self._task is None or self._task.done():
            self._begun.clear()
            self._task = asyncio.create_task(self._look_on())
        try:
            await self._begun.wait()
            if not self._sees and not self.closing:
                raise Retryable("The database cannot be reached.", code="database_away")
            yield listener
        finally:
            self._listeners.discard(listener)

    def close(self) -> None:
        """Wakes everybody who waits, since the process is stopping."""
        self.closing = True
        for listener in self._listeners:
            listener.close()

    async def _look_on(self) -> None:
        pause, self._sees = self._interval, False
        self._told.clear()
        while self._listeners and not self.closing:
            try:
                if not self._sees:
                    self._horizon = await run_in_threadpool(self._first_horizon)
                    self._sees = True
                    self._begun.set()
                for change in await run_in_threadpool(self._changes):
                    for listener in self._listeners:
                        listener.tell(change)
                pause = self._interval
            except Exception as error:  # whatever it is, the next look comes; those who have just come are sent away
                pause = min(pause * 2, 5.0)
                logs.event("watch_failed", level=logging.WARNING, error=type(error).__name__)
                self._begun.set()
            await asyncio.sleep(pause)
        self._begun.set()  # who came while the process was stopping

    def _first_horizon(self) -> int:
        with db.transaction(self._engine) as session:
            return int(session.execute(_HORIZON).scalar_one())

    def _changes(self) -> list[Change]:
        with db.transaction(self._engine) as session:
            rows = session.execute(_CHANGED, {"horizon": self._horizon}).all()
        self._horizon = rows[0].horizon
        changed = {
            (row.id, row.changed_xid): Change(row.id, row.institution, row.state, row.draft_version)
            for row in rows
            if row.id is not None
        }
        new = [change for key, change in changed.items() if key not in self._told]
        self._told = set(changed)
        return new
