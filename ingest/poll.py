"""One poll of one institution: read what is new, take or quarantine each row, clean what changed, store batch by batch.

`poll` does it in this process and may hang with a driver that hangs; `in_child` does it in a process of its own that is killed at a wall-clock
deadline, and is what everybody outside calls. What was stored before the end stays stored, with the cursor that belongs to it.
"""

import hashlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa

from core import logs
from core.db import connect, database_now, transaction
from core.errors import ValuerError
from core.identity import Keyring
from ingest import cursor, load, mapping, quarantine
from ingest.cleaning import Cleaned, cleaned
from ingest.files import FileSource
from ingest.mapping import FileConfig, Mapping
from ingest.rows import Incoming, Reason, Reject, Rows
from ingest.sources import Batch, Source
from ingest.sql import SqlSource

SYSTEMIC = frozenset(Reason) - {Reason.EMPTY_FINDINGS, Reason.EMPTY_IMPRESSION, Reason.NO_KEY}
"""Reasons that speak of a wrong mapping rather than of a poor report."""
BREAKER_ROWS, BREAKER_SHARE = 50, 0.2
"""More rejects of one batch than both of these stop the poll: better to stand still than to file a whole hospital under quarantine."""
SHARE_OF_DEADLINE = 0.5
"""A poll that has so much to read that it takes longer than this share of its deadline ends in good order and is continued at once."""

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["ingest.poll"])


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


@dataclass(frozen=True, slots=True)
class Job:
    """What a child has to know. Passed over a pipe, never on a command line."""

    database_url: str
    mapping_file: Path
    key_file: Path
    deadline_s: float
    resume: dict[str, Any]
    log_level: str


def poll(
    engine: sa.Engine,
    source: Source,
    of: Mapping,
    keyring: Keyring,
    *,
    budget_s: float,
    resume: dict[str, Any],
    told: Callable[[PollResult], None],
) -> PollResult:
    """Polls `source` in this process; `told` hears of every stored batch.

    Raises:
        Retryable: our own database went away. Broken: the source does not fit the mapping.
        sqlalchemy.exc.SQLAlchemyError: the source's database failed.
    """
    began = time.monotonic()
    result = PollResult(of.code)
    clock = source.clock()
    with transaction(engine) as session:
        skew = clock - database_now(session)
        if cursor.jumped(session, of.code, skew):
            cursor.failed(session, of.code, "clock_jump", skew)
            return replace(
                result, error="clock_jump", message=f"The clock of {of.code} jumped; nothing was read this time."
            )
        positions = cursor.positions(session, of.code)
        wrong = quarantine.open_sources(session, of.code)
    batches = _Batches(engine, of, keyring, wrong)
    stopped: dict[str, Any] | None = None
    # one thread stores a batch while this one reads and cleans the next: the database and we work at the same time
    with (
        ThreadPoolExecutor(1, thread_name_prefix="store") as storer,
        closing(source.batches(positions, clock, resume)) as unread,
    ):
        storing: Future[PollResult] | None = None
        for batch in unread:
            prepared = batches.prepare(batch)
            if storing is not None:
                result = _told(told, total(result, storing.result()), began)
                if result.error is not None:
                    return result
            storing = storer.submit(batches.store, prepared)
            if time.monotonic() - began > budget_s:
                stopped = {**resume, batch.stream: batch.resume}
                break
        if storing is not None:
            result = _told(told, total(result, storing.result()), began)
    if result.error is not None:
        return result
    if stopped is not None:
        return replace(result, more=True, resume=stopped)
    with transaction(engine) as session:
        drifted = cursor.succeeded(session, of.code, source.streams(), skew)
    for stream in drifted:
        logs.event("columns_changed", level=logging.WARNING, institution=of.code, stream=stream)
    return replace(result, seconds=time.monotonic() - began)


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


class _Prepared(NamedTuple):
    batch: Batch
    taken: list[Incoming]
    rejects: list[Reject]
    copy_lines: bytes
    touched: dict[str, datetime]


class _Batches:
    """What happens to each batch of one poll. `wrong` are source keys with an open row in quarantine."""

    def __init__(self, engine: sa.Engine, of: Mapping, keyring: Keyring, wrong: set[str]) -> None:
        self._engine, self._of, self._keyring, self._wrong = engine, of, keyring, wrong
        self._rows = Rows(of, keyring)

    def prepare(self, batch: Batch) -> _Prepared:
        """Takes or rejects each row and cleans those that bring something new."""
        taken, rejects = self._rows.take(batch)
        with transaction(self._engine) as session:
            held = load.known(session, self._of.code, [row.source_id for row in taken])
        fresh: list[tuple[Incoming, Cleaned]] = []
        touched: dict[str, datetime] = {}
        for row in taken:
            known = held.get(row.source_id)
            if known is None or known.content_hash != row.content_hash:
                dated = row if row.modified_at is not None else row._replace(modified_at=batch.as_of)
                fresh.append((dated, cleaned(dated)))
            elif row.modified_at is not None and (known.modified_at is None or known.modified_at < row.modified_at):
                touched[row.source_id] = row.modified_at
        return _Prepared(batch, taken, rejects, load.lines(self._of.code, self._of.language, fresh), touched)

    def store(self, prepared: _Prepared) -> PollResult:
        """Rows, rejects and position in one transaction."""
        batch, taken, rejects, copy_lines, touched = prepared
        code, read = self._of.code, len(taken) + len(rejects)
        systemic = sum(reject.reason in SYSTEMIC for reject in rejects)
        stuck = systemic > BREAKER_ROWS and systemic > BREAKER_SHARE * read
        mended = self._wrong.intersection(row.source_id for row in taken)
        with transaction(self._engine) as session:
            if touched:
                load.touch(session, code, touched)
            stored = load.store(session, code, copy_lines)
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


# --- in a process of its own ---------------------------------------------------------------------------------------------------


def in_child(job: Job, code: str) -> PollResult:
    """Polls in a child process that is gone, one way or another, when the deadline has passed. Never raises for what a source does."""
    began = time.monotonic()
    here, there = _processes.Pipe(duplex=False)
    child = _processes.Process(target=_child, args=(there, job), name=f"ingest-{code}", daemon=True)
    child.start()
    there.close()
    last, ended, late = PollResult(code), False, False
    try:
        while not ended:
            left = job.deadline_s - (time.monotonic() - began)
            if left <= 0 or not here.poll(left):
                late = True
                break
            last, ended = here.recv()
    except EOFError:
        pass  # it died; what it stored before is in `last`
    finally:
        child.kill()  # it has said its last word, or has nothing to say any more; what it holds open may not delay us
        child.join()
        here.close()
    last = replace(last, seconds=time.monotonic() - began)
    if ended:
        return last
    message = f"The poll of {code} did not end within {job.deadline_s:g} s." if late else f"The poll of {code} died."
    return replace(last, error="deadline" if late else "crashed", message=message)


def _child(pipe: Connection, job: Job) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides about us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.setswitchinterval(0.0005)  # the storing thread has little to do and must not wait long for its turn
    threading.Thread(target=_die_with_parent, daemon=True).start()
    logs.configure(job.log_level, "ingest")
    engine = connect(job.database_url, pool_size=2, application="ingest")
    code = job.mapping_file.stem
    told = PollResult(code)

    def tell(result: PollResult) -> None:
        nonlocal told
        told = result
        pipe.send((result, False))

    try:
        of = mapping.load(job.mapping_file)
        code = of.code
        told = replace(told, institution=code)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as guard:
            lock = {"key": lock_of(code)}
            if not guard.execute(sa.text("SELECT pg_try_advisory_lock(:key)"), lock).scalar_one():
                pipe.send((replace(told, error="busy", message=f"Another process is polling {code}."), True))
                return
            try:
                source: Source = (
                    FileSource(of) if isinstance(of.source, FileConfig) else SqlSource(of, deadline_s=job.deadline_s)
                )
                budget_s = job.deadline_s * SHARE_OF_DEADLINE
                result = poll(
                    engine, source, of, Keyring.load(job.key_file), budget_s=budget_s, resume=job.resume, told=tell
                )
            finally:
                guard.execute(sa.text("SELECT pg_advisory_unlock(:key)"), lock)
    except ValuerError as error:
        result = replace(told, error=error.code, message=error.message)
    except (sa.exc.OperationalError, sa.exc.InterfaceError) as error:
        logs.event("source_away", level=logging.WARNING, institution=code, error=error)
        result = replace(told, error="source_away", message=f"The database of {code} cannot be reached or went away.")
    except sa.exc.SQLAlchemyError as error:
        logs.event("source_failed", level=logging.ERROR, institution=code, error=error)
        result = replace(
            told, error="source_failed", message=f"The database of {code} refused our query ({type(error).__name__})."
        )
    except Exception as error:  # whatever it is, it is this institution's poll that failed and the others go on
        logs.event("poll_failed", level=logging.ERROR, institution=code, error=error)
        result = replace(
            told, error="broken", message=f"The poll of {code} failed ({type(error).__name__}); the log says where."
        )
    pipe.send((result, True))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def lock_of(code: str) -> int:
    """Key of the advisory lock of an institution: one poll of it at a time, on however many machines."""
    return int.from_bytes(hashlib.sha256(f"valuer ingest {code}".encode()).digest()[:8], signed=True)
