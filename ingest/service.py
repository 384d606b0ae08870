"""The ingest process: polls every institution on its own schedule, at most a few at a time, until it is told to stop.

Also what the command line asks for: one poll of everything (`run_once`), where each institution stands (`status`), and the table of what there
is (`stats`). The polls themselves are `ingest.poll`, each in a child process that cannot hang this one.
"""

import logging
import multiprocessing
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session

from core import embedded, institutions, logs, processes, queue, schema
from core.db import connect, transaction
from core.errors import Broken, Invalid, NotFound, Retryable
from core.identity import Keyring
from core.settings import IngestSettings
from ingest import cursor, mapping
from ingest.poll import Job, PollResult, in_child, total

AT_ONCE = 4
"""Institutions polled at the same time; the rest wait their turn."""
TICK_S = 0.2
LOOK_S = 2.0
"""How often the folder of institution files is looked at."""


def run_once(
    engine: sa.Engine, settings: IngestSettings, keyring: Keyring, names: Iterable[str] | None = None
) -> dict[str, PollResult]:
    """Polls the named institutions, or all that have a source, until each has nothing more; one that fails does not stop the others.

    Sign-offs that it finds are in the results; nobody is rung for them.

    Raises:
        Invalid: an institution file's `[institution]` table is wrong. NotFound: a name has no file with a source.
        Broken: `keyring` is not of the key file that the polls will use.
    """
    if Keyring.load(settings.master_key_file).key_id != keyring.key_id:
        raise Broken("The key file is not the one that this process works with.")
    files = _files(engine, settings)
    wanted = list(files) if names is None else list(dict.fromkeys(names))
    for name in wanted:
        if name not in files:
            raise NotFound(f"No institution file in {settings.institutions_dir} describes a source for {name}.")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        polls = {name: pool.submit(_poll, engine, settings, name, files[name], threading.Event()) for name in wanted}
        return {name: each.result() for name, each in polls.items()}


def _files(engine: sa.Engine, settings: IngestSettings) -> dict[str, Path]:
    """Institution files that have a source, by code; the database learns of all institutions on the way."""
    profiles = institutions.load_profiles(settings.institutions_dir)
    with transaction(engine) as session:
        institutions.sync(session, profiles)
    return mapping.with_source(settings.institutions_dir)


def _poll(engine: sa.Engine, settings: IngestSettings, code: str, file: Path, stopping: threading.Event) -> PollResult:
    """Polls until nothing is left and notes a failure, unless it is that we are stopping."""
    whole, more = PollResult(code), True
    while more and not stopping.is_set():
        job = Job(
            engine.url.render_as_string(hide_password=False),
            file,
            settings.master_key_file,
            settings.poll_deadline_s,
            whole.resume,
            settings.log_level,
        )
        part = in_child(job, code)
        more = part.more and part.error is None and part.resume != whole.resume
        whole = total(whole, part)
    if whole.error not in (None, "busy") and not stopping.is_set():
        try:
            with transaction(engine) as session:
                cursor.failed(session, code, str(whole.error))
        except Retryable:
            pass  # our own database is away, and that is the failure
    logs.event(
        "polled",
        level=logging.INFO if whole.error is None else logging.WARNING,
        institution=code,
        read=whole.rows_read,
        stored=whole.stored,
        quarantined=whole.quarantined,
        seconds=round(whole.seconds, 3),
        failure=whole.error,
    )
    return whole


# --- the process ---------------------------------------------------------------------------------------------------------------


class Service:
    """Polls on schedule until `stopping` is set. Files that are added, changed or removed count from the next look on."""

    def __init__(self, engine: sa.Engine, settings: IngestSettings) -> None:
        self.stopping = threading.Event()
        self._engine, self._settings = engine, settings
        self._files: dict[str, Path] = {}
        self._looked, self._seen = float("-inf"), ""
        self._due: dict[str, float] = {}
        self._running: dict[str, Future[PollResult]] = {}

    def run(self) -> None:
        """Rounds until told to stop; then running polls are ended, which loses nothing but their last batch's work."""
        pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="poll")
        try:
            while not self.stopping.is_set():
                try:
                    self._round(pool)
                except Retryable as error:
                    logs.event("ingest_waits", level=logging.WARNING, error=error.code)
                except Invalid as error:
                    logs.event("institution_file_invalid", level=logging.ERROR, error=error)
                self.stopping.wait(TICK_S)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.kill()
            pool.shutdown(wait=True)

    def _round(self, pool: ThreadPoolExecutor) -> None:
        """Collects what has ended, looks at the files now and then, and starts what is due."""
        for code, running in list(self._running.items()):
            if running.done():
                del self._running[code]
                if (error := running.exception()) is not None:
                    logs.event("poll_failed", level=logging.ERROR, institution=code, error=error)
                else:
                    for sign_off in running.result().sign_offs:
                        queue.ring_score(sign_off)
                self._due[code] = time.monotonic() + self._every(code)
        if time.monotonic() - self._looked > LOOK_S:
            self._looked = time.monotonic()
            if (seen := self._folder()) != self._seen:
                self._files, self._seen = _files(self._engine, self._settings), seen
        for code, file in self._files.items():
            if code not in self._running and time.monotonic() >= self._due.get(code, 0.0):
                self._running[code] = pool.submit(_poll, self._engine, self._settings, code, file, self.stopping)

    def _folder(self) -> str:
        """Changes when an institution file is added, changed or removed."""
        files = sorted(self._settings.institutions_dir.glob("*.toml"))
        return repr([(file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files])

    def _every(self, code: str) -> float:
        try:
            return mapping.load(self._files[code]).source.every_s or self._settings.poll_s
        except (Invalid, KeyError):
            return self._settings.poll_s


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


# --- what there is -------------------------------------------------------------------------------------------------------------


def status(session: Session) -> list[dict[str, Any]]:
    """Where each institution stands: when it was last read, how far its clock is off, why it failed, how much there is."""
    query = sa.text(
        "SELECT i.code, i.name, i.sandbox, c.polled_at, extract(epoch FROM clock_timestamp() - c.polled_at) AS fresh_s, c.skew_ms, c.failure,"
        " c.failed_at, (SELECT coalesce(sum(rows_read), 0) FROM cursors WHERE institution = i.code) AS rows_read,"
        " (SELECT max(position_at) FROM cursors WHERE institution = i.code) AS position_at,"
        " (SELECT count(*) FROM reports WHERE institution = i.code) AS reports,"
        " (SELECT count(*) FROM quarantine WHERE institution = i.code AND resolved_at IS NULL) AS quarantined"
        " FROM institutions i LEFT JOIN cursors c ON c.institution = i.code AND c.stream = :whole ORDER BY i.code"
    )
    return [
        {
            "name": row.code,
            "title": row.name,
            "sandbox": row.sandbox,
            "polled_at": _iso(row.polled_at),
            "fresh_s": None if row.fresh_s is None else round(float(row.fresh_s), 1),
            "position_at": _iso(row.position_at),
            "skew_ms": row.skew_ms,
            "failure": row.failure,
            "failed_at": _iso(row.failed_at),
            "rows_read": int(row.rows_read),
            "reports": row.reports,
            "quarantined": row.quarantined,
        }
        for row in session.execute(query, {"whole": cursor.WHOLE})
    ]


def stats(session: Session) -> list[dict[str, Any]]:
    """What could be learnt from, as Table 1 of the paper counts it: per institution and split the reports by sex, modality and body system,
    and the range of ages; beside it, how many reports are kept out and why. A report of two systems counts in both."""
    query = sa.text(
        "SELECT institution, split, sex, modality, systems, CASE WHEN status IN ('final', 'amended') THEN excluded ELSE status END AS kept_out,"
        " count(*) AS number, min(age) AS youngest, max(age) AS oldest FROM reports GROUP BY 1, 2, 3, 4, 5, 6"
    )
    tables: dict[tuple[str, str], dict[str, Any]] = {}
    for row in session.execute(query):
        empty: dict[str, Any] = {
            "reports": 0,
            "age": None,
            "sex": Counter(),
            "modality": Counter(),
            "system": Counter(),
            "kept_out": Counter(),
        }
        table = tables.setdefault((row.institution, row.split), empty)
        if row.kept_out is not None:
            table["kept_out"][row.kept_out] += row.number
            continue
        table["reports"] += row.number
        table["sex"][row.sex] += row.number
        table["modality"][row.modality] += row.number
        for system in row.systems or ("unknown",):
            table["system"][system] += row.number
        ages = [age for age in (*(table["age"] or ()), row.youngest, row.oldest) if age is not None]
        table["age"] = [min(ages), max(ages)] if ages else None
    return [
        {"institution": institution, "split": split, **table} for (institution, split), table in sorted(tables.items())
    ]


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


if __name__ == "__main__":
    main()
