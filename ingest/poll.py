"""One poll of one institution: read what is new, take or quarantine each row, clean what changed, store batch by batch.

It happens in this process and may hang with a driver that hangs; `ingest.child` does it in a process that is killed at a deadline. What was stored
before the end stays stored, with the cursor that belongs to it.
"""

import gc
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa

from core import logs
from core.db import database_now, transaction
from core.identity import Keyring
from ingest import cursor, load, quarantine
from ingest.cleaner import Cleaner
from ingest.cleaning import Cleaned, cleaning_of
from ingest.mapping import Mapping
from ingest.origin import SqlConfig
from ingest.overlap import Overlap
from ingest.reasons import Reason
from ingest.rows import Incoming, Reject, Rows
from ingest.sources import BATCH, Batch, Source

SYSTEMIC = frozenset(Reason) - {Reason.EMPTY_FINDINGS, Reason.EMPTY_IMPRESSION, Reason.NO_KEY}
"""Reasons that speak of a wrong mapping rather than of a poor report."""
BREAKER_ROWS, BREAKER_SHARE = 50, 0.02
"""More rejects of one batch than both of these stop the poll: better to stand still than to file a whole hospital under quarantine."""
SHARE_OF_DEADLINE = 0.5
"""A poll that has so much to read that it takes longer than this share of its deadline ends in good order and is continued at once."""
MANY = 10_000
"""So many new reports change what the planner has to know."""
AHEAD = 2
"""So many batches are read ahead of the one that is stored: one is mapped while the one before it is cleaned."""


@dataclass(frozen=True, slots=True)
class PollResult:
    """What a poll did. `rows_read` = `stored` + `unchanged` + `quarantined`; `error` is a code, `message` its sentence. `more` says that it ended
    early and `resume` where; `sign_offs` wait for their score."""

    institution: str
    rows_read: int = 0
    stored: int = 0
    unchanged: int = 0
    quarantined: int = 0
    seconds: float = 0.0
    error: str | None = None
    message: str | None = None
    more: bool = False
    sign_offs: tuple[UUID, ...] = ()
    resume: dict[str, Any] = field(default_factory=dict)


def poll(
    engine: sa.Engine,
    source: Source,
    of: Mapping,
    keyring: Keyring,
    *,
    budget_s: float,
    resume: dict[str, Any],
    told: Callable[[PollResult], None],
    cleaner: Cleaner | None = None,
) -> PollResult:
    """Polls `source` in this process; `told` hears of every stored batch. `cleaner` makes the texts that a model may read; None: in
    this process.

    Raises:
        Retryable: our own database went away. Broken: the source does not fit the mapping.
        sqlalchemy.exc.SQLAlchemyError: the source's database failed.
    """
    began = time.monotonic()
    clock = source.clock()
    with transaction(engine) as session:
        skew = clock - database_now(session)
        if cursor.jumped(session, of.code, skew):
            cursor.failed(session, of.code, "clock_jump", skew)
            return PollResult(
                of.code, error="clock_jump", message=f"The clock of {of.code} jumped; nothing was read this time."
            )
        positions = cursor.positions(session, of.code)
    if abs(skew) > cursor.SKEWED:
        logs.event("clock_skew", level=logging.WARNING, institution=of.code, seconds=round(skew.total_seconds(), 1))
    overlap = Overlap(engine, of, keyring)
    batches = source.batches(positions, clock, resume, overlap.unknown)
    result = take(
        engine,
        of,
        keyring,
        batches,
        budget_s=budget_s,
        resume=resume,
        told=told,
        cleaner=cleaner,
        overlap=overlap,
        live=isinstance(of.source, SqlConfig),
    )
    if result.error is not None or result.more:
        return result
    with transaction(engine) as session:
        drifted = cursor.succeeded(session, of.code, source.streams(), skew)
    overlap.dealt_with()
    for stream in drifted:
        logs.event("columns_changed", level=logging.WARNING, institution=of.code, stream=stream)
    return replace(result, seconds=time.monotonic() - began)


def take(
    engine: sa.Engine,
    of: Mapping,
    keyring: Keyring,
    unread: Generator[Batch, None, None],
    *,
    budget_s: float,
    resume: dict[str, Any],
    told: Callable[[PollResult], None],
    cleaner: Cleaner | None = None,
    overlap: Overlap | None = None,
    live: bool = False,
) -> PollResult:
    """Takes or quarantines every row of `unread` and stores it, batch by batch: what every lane does with what it read. Moves the cursor to each
    batch's position and says nothing of how the institution stands. `live` rows come out of the source's own table, which holds one version of
    each report: it was edited in place when it says something else at the same time. Raises what `poll` raises."""
    began = time.monotonic()
    result = PollResult(of.code)
    # a batch is read and mapped here while the one before it is cleaned elsewhere and the one before that is stored by a thread
    with (
        _few_collections(),
        ThreadPoolExecutor(1, thread_name_prefix="store") as storer,
        closing(unread),
    ):
        batches = _Batches(engine, of, keyring, cleaner or Cleaner(beside=False), overlap, live)
        storing: Future[PollResult] | None = None
        for prepared in batches.prepared(unread, began + budget_s):
            if storing is not None:
                result = _told(told, total(result, storing.result()), began)
                if result.error is not None:
                    return result
            storing = storer.submit(batches.store, prepared)
        if storing is not None:
            result = _told(told, total(result, storing.result()), began)
    if result.stored >= MANY:
        with transaction(engine) as session:
            load.analyse(session)
    if (last := batches.stopped_after) is not None and result.error is None:
        return replace(result, more=True, resume={**resume, last.stream: last.resume})
    return result


@contextmanager
def _few_collections() -> Iterator[None]:
    """A batch makes a hundred thousand objects and no cycles; looking for cycles every 700 objects took a quarter of the time."""
    before = gc.get_threshold()
    gc.set_threshold(100_000)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _told(told: Callable[[PollResult], None], result: PollResult, began: float) -> PollResult:
    result = replace(result, seconds=time.monotonic() - began)
    told(result)
    return result


def total(before: PollResult, part: PollResult) -> PollResult:
    """Two parts of one institution's polls as one; what was said last counts."""
    return replace(
        part,
        rows_read=before.rows_read + part.rows_read,
        stored=before.stored + part.stored,
        unchanged=before.unchanged + part.unchanged,
        quarantined=before.quarantined + part.quarantined,
        seconds=before.seconds + part.seconds,
        sign_offs=before.sign_offs + part.sign_offs,
    )


class _Begun(NamedTuple):
    """A batch whose texts are being cleaned. `fresh` are the rows that bring something new."""

    batch: Batch
    taken: list[Incoming]
    rejects: list[Reject]
    fresh: list[Incoming]
    unseen: set[str]
    touched: dict[str, datetime]
    cleaned: Future[list[Cleaned]]


class _Prepared(NamedTuple):
    """A batch that is ready to be stored."""

    batch: Batch
    taken: list[Incoming]
    rejects: list[Reject]
    lines: load.Lines
    touched: dict[str, datetime]


class _Batches:
    """What happens to each batch of one poll. `stopped_after` is the batch after which time was up."""

    def __init__(
        self,
        engine: sa.Engine,
        of: Mapping,
        keyring: Keyring,
        cleaner: Cleaner,
        overlap: Overlap | None,
        live: bool,
    ) -> None:
        self._engine, self._of, self._keyring = engine, of, keyring
        self._cleaner, self._cleaning, self._overlap, self._live = cleaner, cleaning_of(of), overlap, live
        cleaner.reading()
        self._rows = Rows(of, keyring)
        self.stopped_after: Batch | None = None

    def prepared(self, unread: Iterator[Batch], until: float) -> Iterator[_Prepared]:
        """The batches, ready to be stored; none is read after the monotonic time `until`. When the source fails, what it gave before comes first."""
        begun: deque[_Begun] = deque()
        failure: Exception | None = None
        try:
            for batch in unread:
                begun.append(self._begin(batch))
                while begun and (len(begun) >= AHEAD or begun[0].cleaned.done()):
                    yield self._finish(begun.popleft())
                if time.monotonic() > until:
                    self.stopped_after = batch
                    break
        except sa.exc.SQLAlchemyError as error:
            failure = error
        while begun:
            yield self._finish(begun.popleft())
        if failure is not None:
            raise failure

    @cached_property
    def _wrong(self) -> set[str]:
        """Source keys with an open row in quarantine; a poll without a single row never asks."""
        with transaction(self._engine) as session:
            return quarantine.open_sources(session, self._of.code)

    def _begin(self, batch: Batch) -> _Begun:
        """Takes or rejects each row and begins to clean those that bring something new."""
        taken, rejects = self._rows.take(batch)
        with transaction(self._engine) as session:
            held = load.known(session, self._of.code, [row.source_id for row in taken])
        times = Counter(row.source_id for row in taken)
        fresh: list[Incoming] = []
        touched: dict[str, datetime] = {}
        for row in taken:
            known = held.get(row.source_id)
            # of a key that comes twice all rows are compared with each other, or two of one moment would take turns
            if known is None or known.content_hash != row.content_hash or times[row.source_id] > 1:
                fresh.append(row if row.modified_at is not None else row._replace(modified_at=batch.as_of))
            elif row.modified_at is not None and (known.modified_at is None or known.modified_at < row.modified_at):
                touched[row.source_id] = row.modified_at
        unseen = {row.source_id for row in fresh} - held.keys()
        cleaned = self._cleaner.begin(fresh, self._cleaning, more=len(batch.rows) >= BATCH)
        return _Begun(batch, taken, rejects, fresh, unseen, touched, cleaned)

    def _finish(self, begun: _Begun) -> _Prepared:
        pairs = list(zip(begun.fresh, begun.cleaned.result(), strict=True))
        lines = load.lines(self._of.code, self._of.language, pairs, begun.unseen)
        return _Prepared(begun.batch, begun.taken, begun.rejects, lines, begun.touched)

    def store(self, prepared: _Prepared) -> PollResult:
        """Rows, rejects and position in one transaction."""
        batch, taken, rejects, lines, touched = prepared
        code, read = self._of.code, len(taken) + len(rejects)
        systemic = sum(reject.reason in SYSTEMIC for reject in rejects)
        stuck = systemic > BREAKER_ROWS and systemic > BREAKER_SHARE * read
        mended = self._wrong.intersection(row.source_id for row in taken)
        with transaction(self._engine) as session:
            if touched:
                load.touch(session, code, touched)
            stored = load.store(session, code, lines, self._of.by_time, live=self._live)
            if self._overlap is not None and (met := self._overlap.met(row.source_id for row in taken)):
                load.remember(session, code, met)
            if mended:
                quarantine.resolve(session, code, sorted(mended))
            quarantine.put(session, self._keyring, code, batch.stream, self._of.version, rejects)
            if not stuck:
                cursor.advance(session, code, batch.stream, batch.position, read)
        self._wrong -= mended
        self._wrong.update(reject.source_id for reject in rejects if reject.source_id is not None)
        return PollResult(
            code,
            read,
            stored.reports,
            len(taken) - stored.reports,
            len(rejects),
            error="too_many_rejects" if stuck else None,
            message=f"{systemic} of {read} rows did not fit the mapping of {code}; the cursor stays."
            if stuck
            else None,
            sign_offs=stored.sign_offs,
        )
