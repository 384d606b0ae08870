"""A home of its own with the embedded pair, one institution, one registered version, and our processes started and stopped by hand.

Nothing here looks inside the product: requests go through the HTTP door, and what became of them is read from PostgreSQL.
"""

import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg

from bench.ward.engine import BASE_DIGEST
from core import db, embedded, institutions, registry
from core.identity import Keyring
from migrations import run
from worklist import access

INSTITUTION = "bench"
FINDINGS = "右肺上叶见实性小结节影，长径约6mm，边缘光滑。左侧胸腔见弧形水样影。纵隔淋巴结不大，心影大小正常。"
COMMANDS = {
    "worklist": ("worklist.app",),
    "clerk": ("core.clerk",),
    "score": ("worker.app", "score"),
}


class House:
    """The servers and processes; `close` ends them all and removes the home."""

    def __init__(self, **settings: str) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="valuer-bench-"))
        self.home.chmod(0o711)  # as root the servers run as another user, who has to get in
        self.port = _free_port()
        self.servers = embedded.ensure(self.home)
        self._settings = settings
        self._broker_url: str | None = None
        self._running: list[subprocess.Popen[bytes]] = []
        self.doors: list[http.client.HTTPConnection] = []
        Keyring.load(self.home / "master.key", create=True)
        engine = db.connect(self.servers.database_url, pool_size=1)
        run.upgrade(engine)
        with db.transaction(engine) as session:
            profile = institutions.Profile(code=INSTITUTION, name="Bench hospital")
            institutions.sync(session, {INSTITUTION: profile})
            self.key = access.create_key(session, "bench", "system", INSTITUTION, by="process:bench")
            registry.register(session, _version(self.home / "models" / "pretend-1"))
            registry.promote(session, "pretend-1", "process:bench")
        engine.dispose()

    def over(self, broker_url: str) -> None:
        """Processes started from now on ring over this broker instead of the embedded Valkey."""
        self._broker_url = broker_url

    def start(self, name: str, *arguments: str, count: int = 1) -> list[subprocess.Popen[bytes]]:
        """Starts a process of ours (`worker`: around the pretend engine); its log is in the home."""
        command = COMMANDS.get(name, ("bench.ward.worker",))
        kept = {key: value for key, value in os.environ.items() if not key.startswith("VALUER_")}
        environment = {**kept, "VALUER_HOME": str(self.home), "VALUER_PORT": str(self.port), **self._settings}
        if self._broker_url is not None:
            environment["VALUER_BROKER_URL"] = self._broker_url
        log = self.home / f"{name}.log"
        started = []
        for _ in range(count):
            with log.open("ab") as errors:
                started.append(
                    subprocess.Popen(
                        [sys.executable, "-m", *command, *arguments],
                        env=environment,
                        stdout=errors,
                        stderr=errors,
                        cwd=Path(__file__).parents[2],
                    )
                )
        self._running += started
        return started

    def stop(self, *processes: subprocess.Popen[bytes]) -> None:
        """Ends processes and waits for them."""
        for process in processes:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in processes:
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process in self._running:
                self._running.remove(process)

    def close(self) -> None:
        """Ends everything."""
        for door in self.doors:
            door.close()
        self.stop(*self._running)
        embedded.stop(self.home)
        outside = (self.home / "servers").resolve()
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.rmtree(outside, ignore_errors=True)

    def __enter__(self) -> "House":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reading(self) -> psycopg.Connection[Any]:
        """A connection that reads from outside the product."""
        return psycopg.connect(self.servers.database_url, autocommit=True)

    def until(self, true: Callable[[], bool], seconds: float = 60.0, every: float = 0.05) -> None:
        """Waits until something is true. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while not true():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not so after {seconds:.0f} s; the logs are in {self.home}")
            time.sleep(every)

    def ready(self, kind: str, count: int = 1) -> bool:
        """Whether `count` processes of this kind say that they are ready, and the door can be reached."""
        if kind == "worklist" and not self._listens():
            return False
        with self.reading() as connection:
            row = connection.execute(
                "SELECT count(*) FROM processes WHERE kind = %s AND state = 'ready' AND heartbeat_at > now() - interval '20 s'",
                [kind],
            ).fetchone()
        return row is not None and row[0] >= count

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False


class Door:
    """One reporting system's open connection to the HTTP door."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._connection = http.client.HTTPConnection("127.0.0.1", house.port, timeout=30)
        house.doors.append(self._connection)
        self._headers = {"Authorization": f"Bearer {house.key}", "Content-Type": "application/json"}

    def send(self, accession: str, **changes: Any) -> tuple[int, dict[str, Any]]:
        """Status and answer of one request."""
        body = {
            "institution": INSTITUTION,
            "accession": accession,
            "modality": "CT",
            "body_part": "chest",
            "patient": {"id": f"P-{accession}", "sex": "F", "age": 61},
            "findings": FINDINGS,
            "priority": "routine",
            **changes,
        }
        return self.call("POST", "/v1/requests", body)

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        """Status and answer of a call; raises OSError or http.client.HTTPException when the door is away."""
        content = None if body is None else json.dumps(body).encode()
        try:
            self._connection.request(method, path, content, self._headers)
            answer = self._connection.getresponse()
            return answer.status, json.loads(answer.read() or b"{}")
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _version(folder: Path) -> Path:
    """A finished model version whose adapter is a few bytes: the pretend engine reads none of it."""
    folder.mkdir(parents=True)
    content = b"pretend"
    (folder / "adapter_model.safetensors").write_bytes(content)
    manifest = {
        "id": folder.name,
        "base": {"model": "pretend", "digest": BASE_DIGEST},
        "adapter": {"r": 8},
        "weights": "nf4+adapter",
        "prompt": {"template": "brief", "version": "brief-0"},
        "training": {},
        "scope": [],
        "sandbox_only": False,
        "files": {"adapter_model.safetensors": hashlib.sha256(content).hexdigest()},
        "created_at": "2026-01-01T00:00:00Z",
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
