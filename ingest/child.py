"""Work on an institution's source in a process of its own, which is gone when its wall-clock deadline has passed, whatever a driver or a network does.

A child stays for the next piece of work of its institution, so that a poll that finds nothing new costs no start; it is replaced after an error,
after many pieces, and when it has grown. Every lane comes through here: polls (`ingest.poll`), `ingest.reconcile`, `ingest.backfill`.
"""

import atexit
import hashlib
import logging
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import psutil
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from core import logs
from core.db import connect
from core.errors import Retryable, ValuerError
from core.identity import Keyring
from ingest import backfill, mapping, reconcile
from ingest.cleaner import Cleaner
from ingest.files import FileSource
from ingest.origin import FileConfig
from ingest.poll import SHARE_OF_DEADLINE, PollResult, poll
from ingest.processes import die_with_parent
from ingest.sources import Source
from ingest.sql import SqlSource

PIECES, GROWN_MB = 1000, 512
"""A child is replaced after so many pieces of work, or when it holds this much memory."""
GRACE_S = 0.2

Lane = Literal["poll", "reconcile", "backfill", "oldest"]
Told = Callable[[PollResult], None]
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["ingest.child"])
_up: "set[Child]" = set()


@atexit.register
def _close_all() -> None:
    """No child is a daemon, since it may have a process of its own; so they are ended here, or this process would wait for them."""
    for child in list(_up):
        child.close()


@dataclass(frozen=True, slots=True)
class Place:
    """What a child knows for as long as it lives. Passed over a pipe, never on a command line."""

    database_url: str
    key_file: Path
    log_level: str
    home: Path


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work. A poll has `deadline_s` for all of it; the other lanes have it between one batch and the next."""

    mapping_file: Path
    deadline_s: float
    lane: Lane = "poll"
    resume: dict[str, Any] = field(default_factory=dict)
    days: tuple[date, ...] = ()


class Child:
    """The process that works for one institution: started when there is work, kept between pieces of it. For one thread at a time."""

    def __init__(self, place: Place, code: str) -> None:
        self._place, self._code = place, code
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None
        self._pieces = 0

    def work(self, job: Job, told: Told = lambda _: None) -> PollResult:
        """What came of the job; `told` hears of what was stored meanwhile. When the deadline has passed the process is gone, one way or another.
        Never raises for what a source does."""
        began = heard = time.monotonic()
        last, ended, late = PollResult(self._code), False, False
        try:
            pipe = self._started()
            pipe.send(job)
            while not ended:
                since = began if job.lane == "poll" else heard
                left = job.deadline_s - (time.monotonic() - since)
                if left <= 0 or not pipe.poll(left):
                    late = True
                    break
                last, ended = pipe.recv()
                heard = time.monotonic()
                told(last)
        except (EOFError, OSError):
            pass  # it died; what it stored before is in `last`
        finally:
            self._pieces += 1
            if not ended or last.error is not None or self._worn():
                self.close()
        last = replace(last, seconds=time.monotonic() - began)
        if ended:
            return last
        what = "poll" if job.lane == "poll" else job.lane
        message = (
            f"The {what} of {self._code} did not end within {job.deadline_s:g} s."
            if late
            else f"The {what} of {self._code} died."
        )
        return replace(last, error="deadline" if late else "crashed", message=message)

    @property
    def is_up(self) -> bool:
        """Whether a process waits for work, or is at it."""
        return self._process is not None

    def close(self) -> None:
        """Ends the process if there is one; what it holds open may not delay us."""
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.join(GRACE_S)  # one that waits for work ends by itself, and its cleaner with it
            self._process.kill()
            self._process.join()
            self._process.close()
        self._process, self._pipe, self._pieces = None, None, 0
        _up.discard(self)

    def _started(self) -> Connection:
        if self._pipe is not None and self._process is not None and self._process.is_alive():
            return self._pipe
        self.close()
        here, there = _processes.Pipe()
        child = _processes.Process(target=_child, args=(there, self._place), name=f"ingest-{self._code}", daemon=False)
        child.start()
        there.close()
        self._process, self._pipe = child, here
        _up.add(self)
        return here

    def _worn(self) -> bool:
        if self._process is None or self._pieces >= PIECES:
            return True
        with suppress(psutil.Error):
            return bool(psutil.Process(self._process.pid).memory_info().rss > GROWN_MB * 2**20)
        return True


def idle_poll_ms(place: Place, job: Job, code: str, times: int = 20) -> list[float]:
    """Milliseconds of each of so many polls by a child that has polled before: what a poll costs when there is nothing new."""
    child = Child(place, code)
    try:
        child.work(job)
        return [child.work(job).seconds * 1000 for _ in range(times)]
    finally:
        child.close()


def _child(pipe: Connection, place: Place) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides about us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cleaner = Cleaner(pipe)
    sys.setswitchinterval(0.0005)  # the storing thread has little to do and must not wait long for its turn
    die_with_parent()
    logs.configure(place.log_level, "ingest")
    engine = connect(place.database_url, pool_size=2, application="ingest")
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        pipe.send((_worked(engine, place, job, pipe, cleaner), True))


def _worked(engine: sa.Engine, place: Place, job: Job, pipe: Connection, cleaner: Cleaner) -> PollResult:
    """The job's result; whatever goes wrong, it is this institution's work that failed and the others go on."""
    code = job.mapping_file.stem
    told = PollResult(code)

    def tell(result: PollResult) -> None:
        nonlocal told
        told = result
        pipe.send((result, False))

    try:
        of = mapping.load(job.mapping_file, place.home)
        code = of.code
        told = replace(told, institution=code)
        with _alone(engine, code, job.lane) as alone:
            if not alone:
                return replace(told, error="busy", message=f"Another process does the {job.lane} of {code}.")
            return _done(engine, of, Keyring.load(place.key_file), job, tell, cleaner)
    except ValuerError as error:
        return replace(told, error=error.code, message=error.message)
    except (sa.exc.OperationalError, sa.exc.InterfaceError) as error:
        logs.event("source_away", level=logging.WARNING, institution=code, error=error)
        return replace(told, error="source_away", message=f"The database of {code} cannot be reached or went away.")
    except SQLAlchemyError as error:
        logs.event("source_failed", level=logging.ERROR, institution=code, error=error)
        return replace(
            told, error="source_failed", message=f"The database of {code} refused our query ({type(error).__name__})."
        )
    except Exception as error:
        logs.event("poll_failed", level=logging.ERROR, institution=code, error=error)
        return replace(
            told,
            error="broken",
            message=f"The {job.lane} of {code} failed ({type(error).__name__}); the log says where.",
        )


def _done(
    engine: sa.Engine, of: mapping.Mapping, keyring: Keyring, job: Job, tell: Told, cleaner: Cleaner
) -> PollResult:
    if job.lane == "reconcile":
        return reconcile.compare(engine, of, keyring, job.days, deadline_s=job.deadline_s, told=tell)
    if job.lane == "backfill":
        return backfill.fetch(engine, of, keyring, job.days, deadline_s=job.deadline_s, told=tell)
    if job.lane == "oldest":
        return backfill.oldest(of, deadline_s=job.deadline_s)
    source: Source = FileSource(of) if isinstance(of.source, FileConfig) else SqlSource(of, deadline_s=job.deadline_s)
    budget_s = job.deadline_s * SHARE_OF_DEADLINE
    with closing(source):
        return poll(engine, source, of, keyring, budget_s=budget_s, resume=job.resume, told=tell, cleaner=cleaner)


@contextmanager
def _alone(engine: sa.Engine, code: str, lane: Lane) -> Iterator[bool]:
    """Whether nobody else does this for the institution, on whatever machine; held until the block ends or our database goes away.

    Raises:
        Retryable: our own database cannot be reached.
    """
    key = {"key": lock_of(code, lane)}
    try:
        guard = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        alone = guard.execute(sa.text("SELECT pg_try_advisory_lock(:key)"), key).scalar_one()
    except sa.exc.DBAPIError as error:
        raise Retryable("Our own database cannot be reached.", code="database_away") from error
    try:
        yield bool(alone)
    finally:
        try:
            if alone:
                guard.execute(sa.text("SELECT pg_advisory_unlock(:key)"), key)
            guard.close()
        except sa.exc.DBAPIError:
            guard.invalidate()  # the server has let go of the lock already


def lock_of(code: str, lane: Lane = "poll") -> int:
    """Key of the advisory lock of a lane of an institution: one at a time, on however many machines."""
    name = f"valuer ingest {code}" if lane == "poll" else f"valuer ingest {lane} {code}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
