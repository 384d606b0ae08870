"""The search for duplicates, once in each daily window: by a process of its own at low priority, which is gone when the window closes.

What a search does stands in `ingest.duplicates`. One that the end of its window stopped goes on in the next.
"""

import logging
import multiprocessing
import multiprocessing.process
import os
import signal
import sys
import time
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from core import logs
from core.db import connect, transaction
from core.errors import Retryable
from core.hours import Hours
from ingest import duplicates
from ingest.child import Place
from ingest.processes import die_with_parent

NICE = 10
GRACE_S = 60.0
"""How long after its window a search may be at its last block before it is killed."""
AGAIN_S = 3600.0
"""After a search that failed, the next is tried this much later."""
_processes = multiprocessing.get_context("forkserver")


@dataclass
class Nightly:
    """The one search of the ingest process. `hours` are by this machine's clock; None: there is none."""

    engine: sa.Engine
    where: Place
    hours: Hours | None
    _process: multiprocessing.process.BaseProcess | None = None
    _ends: float = 0.0
    _due: float = 0.0

    def round(self) -> None:
        """Starts a search when it is due, and sees to the one that runs.

        Raises:
            Retryable: our own database cannot be reached.
        """
        if self._process is not None:
            self._see_to(self._process)
        elif self.hours is not None and time.monotonic() >= self._due:
            now = datetime.now().astimezone()
            if self.hours.open_at(now.time()) and not self._done(self.hours.opened(now)):
                self._start((self.hours.closes(now) - now).total_seconds())

    def _done(self, since: datetime) -> bool:
        with transaction(self.engine) as session:
            return duplicates.searched_since(session, since)

    def _start(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds
        self._process = _processes.Process(target=_search, args=(self.where, seconds), name="ingest-duplicates")
        self._process.start()

    def _see_to(self, process: multiprocessing.process.BaseProcess) -> None:
        if process.is_alive():
            if time.monotonic() < self._ends + GRACE_S:
                return
            process.kill()
            process.join()
        if process.exitcode:
            self._due = time.monotonic() + AGAIN_S
            logs.event("duplicates_failed", level=logging.WARNING, status=process.exitcode)
        process.close()
        self._process = None


def _search(where: Place, seconds: float) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides about us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent()
    os.nice(NICE)
    logs.configure(where.log_level, "ingest")
    engine = connect(where.database_url, pool_size=2, application="ingest")
    began = time.monotonic()
    try:
        found = duplicates.search(engine, until=began + seconds)
    except Retryable as error:
        logs.event("duplicates_wait", level=logging.WARNING, error=error)
        sys.exit(1)
    logs.event(
        "duplicates_searched",
        examined=found.examined,
        near=found.near,
        exact=found.exact,
        seconds=round(time.monotonic() - began, 1),
    )
