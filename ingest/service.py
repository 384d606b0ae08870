"""The ingest process: every institution on its own schedule, a few at a time, until it is told to stop.

Two lanes: polls, and beside them, one at a time, the daily comparison and the backfill of one more day, so that neither ever makes a poll wait; and
once a night the search for duplicates (`ingest.nightly`).
Also what the command line asks for: one poll of everything (`run_once`) and the other lanes by hand. Each piece of work happens in a child process
(`ingest.child`) that cannot hang this one; what there is stands in `ingest.standing`.
"""

import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import sqlalchemy as sa
from sqlmodel import Session

from core import embedded, institutions, logs, processes, queue, schema
from core.db import connect, transaction
from core.errors import Broken, Invalid, NotFound, Retryable
from core.hours import Hours
from core.identity import Keyring
from core.settings import IngestSettings
from core.tables import Institution
from ingest import backfill, cursor, mapping, reconcile
from ingest.child import Child, Job, Place, Told
from ingest.mapping import Mapping
from ingest.nightly import Nightly
from ingest.origin import FileConfig
from ingest.poll import PollResult, total

AT_ONCE = 4
"""Institutions polled at the same time; the rest wait their turn."""
TICK_S = 0.2
LOOK_S = 2.0
"""How often the folder of institution files is looked at."""
ASIDE_S = 30.0
"""How often it is looked whether there is something to compare or to backfill."""
DAILY = timedelta(hours=24)
AGAIN_S = 3600.0
"""After a comparison or a backfill that failed, the next is tried this much later."""
KEPT, KEPT_S = 16, 300.0
"""At most so many children wait for the next poll of their institution, and only when it comes within this time."""


def place(engine: sa.Engine, settings: IngestSettings) -> Place:
    """What children have to know."""
    url = engine.url.render_as_string(hide_password=False)
    return Place(url, settings.master_key_file, settings.log_level, settings.home)


def run_once(
    engine: sa.Engine, settings: IngestSettings, keyring: Keyring, names: Iterable[str] | None = None
) -> dict[str, PollResult]:
    """Polls the named institutions, or all that have a source, until each has nothing more; one that fails does not stop the others.

    Sign-offs that it finds are in the results; nobody is rung for them.

    Raises:
        NotFound: a name has no file with a source. Invalid: its file is wrong.
        Broken: `keyring` is not of the key file that the polls will use.
    """
    if Keyring.load(settings.master_key_file).key_id != keyring.key_id:
        raise Broken("The key file is not the one that this process works with.")
    files, faults = look(engine, settings)
    wanted = list(files) if names is None else list(dict.fromkeys(names))
    for name in wanted:
        if name not in files:
            raise faults.get(name) or NotFound(
                f"No institution file in {settings.institutions_dir} describes a source for {name}."
            )

    def polled(name: str) -> PollResult:
        child = Child(place(engine, settings), name)
        try:
            return _poll(engine, settings, child, name, files[name], threading.Event())
        finally:
            child.close()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        polls = {name: pool.submit(polled, name) for name in wanted}
        results = {name: each.result() for name, each in polls.items()}
    if names is None:
        results |= {code: PollResult(code, error="invalid", message=fault.message) for code, fault in faults.items()}
    return results


def look(engine: sa.Engine, settings: IngestSettings) -> tuple[dict[str, Path], dict[str, Invalid]]:
    """Institution files that have a source, by code, and what is wrong with those that cannot be read; the database learns of the institutions on
    the way, and of what is wrong with them. A file that is too broken to tell its code counts under its own name.

    Raises:
        Retryable: our own database cannot be reached.
    """
    profiles, broken = institutions.look(settings.institutions_dir)
    faults = {path.stem: fault for path, fault in broken.items()}
    with transaction(engine) as session:
        institutions.sync(session, {profile.code: profile for profile in profiles.values()})
        for code, fault in faults.items():
            if session.get(Institution, code) is not None:
                cursor.failed(session, code, fault.code, message=fault.message)
    return mapping.with_source(settings.institutions_dir), faults


def _poll(
    engine: sa.Engine, settings: IngestSettings, child: Child, code: str, file: Path, stopping: threading.Event
) -> PollResult:
    """Polls until nothing is left and notes a failure, unless it is that we are stopping."""
    whole, more = PollResult(code), True
    while more and not stopping.is_set():
        part = child.work(Job(file, settings.poll_deadline_s, resume=whole.resume))
        more = part.more and part.error is None and part.resume != whole.resume
        whole = total(whole, part)
    if whole.error not in (None, "busy") and not stopping.is_set():
        with suppress(Retryable), transaction(engine) as session:  # our own database may be away, and be the failure
            cursor.failed(session, code, str(whole.error), message=whole.message)
    _log("polled", whole)
    return whole


def _log(event: str, result: PollResult) -> None:
    logs.event(
        event,
        level=logging.INFO if result.error is None else logging.WARNING,
        institution=result.institution,
        read=result.rows_read,
        stored=result.stored,
        quarantined=result.quarantined,
        seconds=round(result.seconds, 3),
        failure=result.error,
    )


# --- the process ---------------------------------------------------------------------------------------------------------------


@dataclass
class _Site:
    """One institution of the process. `due` and `aside_due` are on the monotonic clock."""

    file: Path
    child: Child
    beside: Child
    due: float = 0.0
    aside_due: float = 0.0
    running: Future[PollResult] | None = None
    aside: Future[PollResult] | None = None

    def close(self) -> None:
        self.child.close()
        self.beside.close()


@dataclass
class Service:
    """Polls on schedule until `stopping` is set. Files that are added, changed or removed count from the next look on."""

    engine: sa.Engine
    settings: IngestSettings
    stopping: threading.Event = field(default_factory=threading.Event)
    _sites: dict[str, _Site] = field(default_factory=dict)
    _leaving: list[_Site] = field(default_factory=list)
    _seen: str = ""
    _looked: float = float("-inf")
    _looked_aside: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        hours = self.settings.duplicates_hours
        self._nightly = Nightly(
            self.engine, place(self.engine, self.settings), None if hours == "never" else Hours.of(hours)
        )

    def run(self) -> None:
        """Rounds until told to stop; then running work is ended, which loses nothing but its last batch."""
        polls = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="poll")
        aside = ThreadPoolExecutor(1, thread_name_prefix="aside")
        try:
            while not self.stopping.is_set():
                try:
                    self._round(polls, aside)
                except Retryable as error:
                    logs.event("ingest_waits", level=logging.WARNING, error=error.code)
                self.stopping.wait(TICK_S)
        finally:
            for pool in (polls, aside):
                pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.kill()
            for pool in (polls, aside):
                pool.shutdown(wait=True)
            for site in (*self._sites.values(), *self._leaving):
                site.close()

    def _round(self, polls: ThreadPoolExecutor, aside: ThreadPoolExecutor) -> None:
        """Collects what has ended, looks at the files now and then, and starts what is due."""
        for code, site in self._sites.items():
            if site.running is not None and site.running.done():
                self._ended(code, site, site.running)
            if site.aside is not None and site.aside.done():
                error, site.aside = _told(code, site.aside), None
                site.aside_due = time.monotonic() + (AGAIN_S if error else 0)
                self._looked_aside = float("-inf")  # a backfill goes on with its next day at once
        if time.monotonic() - self._looked > LOOK_S:
            self._looked = time.monotonic()
            self._look()
        for code, site in self._sites.items():
            if site.running is None and time.monotonic() >= site.due:
                site.running = polls.submit(
                    _poll, self.engine, self.settings, site.child, code, site.file, self.stopping
                )
        if time.monotonic() - self._looked_aside > ASIDE_S:
            self._looked_aside = time.monotonic()
            self._start_aside(aside)
            self._nightly.round()

    def _ended(self, code: str, site: _Site, running: Future[PollResult]) -> None:
        site.running = None
        _told(code, running)
        every = self._every(site.file)
        site.due = time.monotonic() + every
        kept = [each for each in self._sites.values() if each.child.is_up and each.running is None]
        if every > KEPT_S or len(kept) > KEPT:
            site.child.close()
        with transaction(self.engine) as session:
            cursor.scheduled(session, code, every)

    def _look(self) -> None:
        """Follows the folder: sites of files that appeared, went or changed."""
        folder = self.settings.institutions_dir
        for site in [each for each in self._leaving if each.running is None or each.running.done()]:
            site.close()
            self._leaving.remove(site)
        with suppress(FileNotFoundError):  # one went between the look and its date: the next look tells
            files = sorted(folder.glob("*.toml"))
            seen = repr([(file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files])
            if seen == self._seen:
                return
            found, faults = look(self.engine, self.settings)
            for code, fault in faults.items():
                logs.event("institution_file_invalid", level=logging.ERROR, institution=code, error=fault)
            for code in [each for each in self._sites if each not in found]:
                self._leaving.append(self._sites.pop(code))
                with transaction(self.engine) as session:
                    cursor.scheduled(session, code, None)
            where = place(self.engine, self.settings)
            for code, file in found.items():
                site = self._sites.setdefault(code, _Site(file, Child(where, code), Child(where, code)))
                site.file = file
            self._seen = seen

    def _every(self, file: Path) -> float:
        try:
            return mapping.load(file).source.every_s or self.settings.poll_s
        except (Invalid, OSError):
            return self.settings.poll_s

    def _start_aside(self, aside: ThreadPoolExecutor) -> None:
        """One piece of the slow lanes for each institution that has any, within its hours."""
        for site in self._sites.values():
            if site.aside is not None or time.monotonic() < site.aside_due:
                continue
            try:
                of = mapping.load(site.file)
            except (Invalid, OSError):
                continue
            with transaction(self.engine) as session:
                job = self._aside_job(session, of)
            if job is not None:
                site.aside = aside.submit(_beside, site.beside, job)

    def _aside_job(self, session: Session, of: Mapping) -> Job | None:
        if isinstance(of.source, FileConfig) or not backfill.may_run(of, datetime.now(UTC)):
            return None
        if reconcile.due(session, of.code, DAILY):
            return Job(of.file, self.settings.poll_deadline_s, "reconcile", days=_days(of, reconcile.DAYS))
        if of.backfill.hours is not None and (days := backfill.waiting(session, of.code)):
            return Job(of.file, self.settings.poll_deadline_s, "backfill", days=(days[0],))
        return None


def _told(code: str, ended: Future[PollResult]) -> str | None:
    """Rings for the sign-offs of work that has ended; its error, if it had one."""
    if (error := ended.exception()) is not None:
        logs.event("poll_failed", level=logging.ERROR, institution=code, error=error)
        return "broken"
    for sign_off in ended.result().sign_offs:
        queue.ring_score(sign_off)
    return ended.result().error


def _beside(child: Child, job: Job) -> PollResult:
    """A piece of a slow lane; its child does not wait for the next."""
    try:
        result = child.work(job)
    finally:
        child.close()
    _log({"reconcile": "reconciled", "backfill": "backfilled"}[job.lane], result)
    return result


def _days(of: Mapping, days: int) -> tuple[date, ...]:
    return reconcile.last_days(datetime.now(of.source.zone).date(), days)


# --- by hand -------------------------------------------------------------------------------------------------------------------


def reconcile_now(engine: sa.Engine, settings: IngestSettings, file: Path, days: int, told: Told) -> PollResult:
    """Compares the last `days` days of an institution now.

    Raises:
        Invalid: the institution file is wrong.
    """
    of = mapping.load(file)
    child = Child(place(engine, settings), of.code)
    try:
        return child.work(Job(file, settings.poll_deadline_s, "reconcile", days=_days(of, days)), told)
    finally:
        child.close()


def backfill_now(engine: sa.Engine, settings: IngestSettings, file: Path, told: Told) -> PollResult:
    """Works off the days that the institution's ledger waits for, newest first, until there is none or something fails.

    Raises:
        Invalid: the institution file is wrong. Retryable: our own database cannot be reached.
    """
    of = mapping.load(file)
    child = Child(place(engine, settings), of.code)
    whole = PollResult(of.code)
    try:
        while whole.error is None:
            with transaction(engine) as session:
                days = backfill.waiting(session, of.code)
            if not days:
                break
            part = child.work(
                Job(file, settings.poll_deadline_s, "backfill", days=(days[0],)),
                partial(_added, told, whole),
            )
            whole = total(whole, part)
    finally:
        child.close()
    return whole


def _added(told: Told, before: PollResult, part: PollResult) -> None:
    told(total(before, part))


def oldest_day(engine: sa.Engine, settings: IngestSettings, file: Path) -> PollResult:
    """The first day that an institution's database has, as `resume["oldest"]`."""
    child = Child(place(engine, settings), file.stem)
    try:
        return child.work(Job(file, settings.poll_deadline_s, "oldest"))
    finally:
        child.close()


def main() -> None:
    """Runs until SIGTERM or Ctrl-C."""
    settings = IngestSettings()
    logs.configure(settings.log_level, "ingest")
    servers = embedded.resolve(settings)
    engine = connect(servers.database_url, pool_size=AT_ONCE + 2, application="ingest")
    schema.require(engine)
    queue.configure(servers.broker_url)
    Keyring.load(settings.master_key_file)
    service = Service(engine, settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: service.stopping.set())
    presence = processes.Presence(engine, "ingest").start()
    presence.update("ready")
    try:
        service.run()
    finally:
        presence.stop()
        engine.dispose()


if __name__ == "__main__":
    main()
