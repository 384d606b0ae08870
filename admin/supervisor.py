"""Starts every process of the product as a command, starts again what dies, and stops them in order.

One supervisor per home; what it knows of its children is in `supervisor.json` of the home, for `valuer status` and
`valuer down`. It does none of the work itself, and needs nothing but the embedded pair or the configured servers.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from core import db, embedded, institutions
from core.daemon import log_file
from core.errors import Broken, Refused
from core.identity import Keyring
from core.place import make_home
from core.settings import Settings
from core.tables import Identity
from migrations import run as migrations


@dataclass(frozen=True, slots=True)
class Service:
    """One process: its name, how it is started, in which stage it is stopped, and how long it may take."""

    name: str
    command: tuple[str, ...]
    stage: int
    grace_s: float


SERVICES = (
    Service("score", ("worker.app", "score"), 1, 10.0),
    Service("worker", ("worker.app", "draft"), 1, 15.0),
    Service("clerk", ("core.clerk",), 2, 5.0),
    Service("ingest", ("ingest.service",), 0, 10.0),
    Service("training", ("training.service",), 0, 10.0),
    Service("worklist", ("worklist.app",), 0, 8.0),
)
"""The doors and sources stop first, then who works for them, then the clerk, at last the servers."""

TICK_S = 0.2
PROBE_S = 2.0
LONGEST_WAIT_S = 30.0
STEADY_S = 60.0
"""A process that ran for so long has its count of failures forgotten."""
FAILURES = 4
LOG_LIMIT = 16 * 1024 * 1024


class _Child:
    """One service's present process, or the time at which the next one starts."""

    def __init__(self, service: Service, log: Path, environment: Mapping[str, str], watched: int) -> None:
        self.service = service
        self.failures = 0
        self.restarts = 0
        self.starts_at = time.monotonic()
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0
        self._log, self._environment, self._watched = log, environment, watched

    @property
    def pid(self) -> int | None:
        """Its pid while it runs."""
        return None if self._process is None else self._process.pid

    def tend(self) -> int | None:
        """Starts it when it is due; returns the exit status when it just ended."""
        now = time.monotonic()
        if self._process is None:
            if now >= self.starts_at:
                self._start()
            return None
        status = self._process.poll()
        if status is None:
            if now - self._began > STEADY_S:
                self.failures = 0
            return None
        self._end_group()
        self.failures += 1
        self.restarts += 1
        self.starts_at = now + min(0.5 * 2 ** (self.failures - 1), LONGEST_WAIT_S)
        return status

    def _start(self) -> None:
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "admin.child", str(self._watched), *self.service.command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(self._environment),
                pass_fds=(self._watched,),
                start_new_session=True,  # Ctrl-C is for the supervisor, which stops them in order
            )
        self._began = time.monotonic()

    def ask_to_stop(self) -> None:
        """SIGTERM, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def stopped_by(self, deadline: float) -> None:
        """Waits until the deadline, then kills it with all that it started."""
        if self._process is None:
            return
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, deadline - time.monotonic()))
        self._end_group()

    def _end_group(self) -> None:
        """Kills what is left of the process and of what it started itself."""
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None


class Supervisor:
    """All processes of one home. `say` gets a sentence for the person in front of it whenever something changes."""

    def __init__(
        self,
        settings: Settings,
        servers: embedded.Servers,
        port: int,
        say: Callable[[str], None],
        services: Sequence[Service] = SERVICES,
    ) -> None:
        self._settings, self._servers, self._say = settings, servers, say
        self._pipe = os.pipe()
        environment = {
            # threads of torch that spin while they wait take the cores from everything that runs beside them
            "OMP_WAIT_POLICY": "PASSIVE",
            **os.environ,  # passed on, not read: each process reads its own settings
            "VALUER_HOME": str(settings.home),
            "VALUER_DATABASE_URL": servers.database_url,
            "VALUER_BROKER_URL": servers.broker_url,
            "VALUER_PORT": str(port),
        }
        self._children = [
            _Child(service, log_file(settings.home, service.name), environment, self._pipe[0]) for service in services
        ]
        self.stopping = threading.Event()
        self._probed = time.monotonic()

    def run(self) -> None:
        """Tends the processes until `stopping` is set, then stops them; returns when none is left."""
        try:
            while not self.stopping.is_set():
                self.tend()
                self.stopping.wait(TICK_S)
        finally:
            self.stop()

    def tend(self) -> None:
        """One look at every process and, now and then, at the embedded pair and the logs."""
        changed = False
        for child in self._children:
            before = child.pid
            status = child.tend()
            if status is not None:
                wait = child.starts_at - time.monotonic()
                self._say(f"{child.service.name} ended with {_told(status)}; it starts again in {wait:.1f} s.")
            changed = changed or child.pid != before
        if changed:
            self._write()
        if time.monotonic() - self._probed > PROBE_S:
            self._tend_servers()
            self._tend_logs()
            self._probed = time.monotonic()

    def failing(self) -> str | None:
        """Name of a process that ended again and again right after its start."""
        return next((child.service.name for child in self._children if child.failures >= FAILURES), None)

    def stop(self) -> None:
        """Stops every process, stage by stage."""
        for stage in sorted({child.service.stage for child in self._children}):
            stage_children = [child for child in self._children if child.service.stage == stage]
            for child in stage_children:
                child.ask_to_stop()
            began = time.monotonic()
            for child in stage_children:
                child.stopped_by(began + child.service.grace_s)
        state_file(self._settings.home).unlink(missing_ok=True)
        for descriptor in self._pipe:
            os.close(descriptor)

    def _tend_servers(self) -> None:
        """Brings back an embedded server that died; the processes wait for it meanwhile."""
        configured = {"postgres": self._settings.database_url, "valkey": self._settings.broker_url}
        ours = {name for name, url in configured.items() if url is None}
        dead = [each.name for each in embedded.status(self._settings.home) if each.name in ours and not each.alive]
        if not ours or not dead:
            return
        self._say(f"{' and '.join(dead)} died; starting again.")
        try:
            embedded.ensure(self._settings.home, postgres="postgres" in ours, valkey="valkey" in ours)
        except Broken as error:
            self._say(error.message)

    def _tend_logs(self) -> None:
        for child in self._children:
            log = self._settings.home / "log" / f"{child.service.name}.log"
            if log.exists() and log.stat().st_size > LOG_LIMIT:  # the process keeps writing to the same file
                shutil.copyfile(log, log.with_name(f"{log.name}.1"))
                os.truncate(log, 0)

    def _write(self) -> None:
        state = {
            "pid": os.getpid(),
            "processes": [
                {
                    "name": child.service.name,
                    "state": "running" if child.pid else "waiting",
                    "pid": child.pid,
                    "restarts": child.restarts,
                }
                for child in self._children
            ],
        }
        path = state_file(self._settings.home)
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(state))
        draft.replace(path)


def state_file(home: Path) -> Path:
    """Where a running supervisor writes what it knows."""
    return home / "supervisor.json"


def state(home: Path) -> dict[str, Any] | None:
    """What the running supervisor of this home last wrote; None when none runs."""
    try:
        with (home / ".supervised").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except FileNotFoundError:
        return None
    except BlockingIOError:
        with suppress(FileNotFoundError, ValueError):
            found: dict[str, Any] = json.loads(state_file(home).read_text())
            return found
        return {"pid": None, "processes": []}


@contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Makes this process the supervisor of the home.

    Raises:
        Refused: there is another one.
    """
    make_home(home)
    with (home / ".supervised").open("wb") as lock:
        deadline = time.monotonic() + 1.0  # longer than `state` holds it for a look
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Refused(f"{home} is already running; `valuer down` stops it.", code="running") from None
                time.sleep(0.05)
        yield


def prepare(settings: Settings, servers: embedded.Servers) -> bool:
    """Makes a home ready for its processes: schema, keys, institutions. Says whether the schema was changed.

    Raises:
        Broken: the key file is missing although the database holds what only that key can open.
    """
    settings.institutions_dir.mkdir(parents=True, exist_ok=True)
    engine = db.connect(servers.database_url, pool_size=2, application="admin")
    try:
        changed = migrations.upgrade(engine)
        with db.transaction(engine) as session:
            used = session.execute(sa.select(sa.exists().select_from(Identity))).scalar_one()
            if used and not settings.master_key_file.exists():
                raise Broken(
                    f"{settings.master_key_file} is missing, and the database needs that very key: restore it."
                )
            Keyring.load(settings.master_key_file, create=True)
            institutions.sync(session, institutions.load_profiles(settings.institutions_dir))
    finally:
        engine.dispose()
    return changed


def _told(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
