"""The product as a person runs it: the `valuer` command on a home of its own, with real servers, real workers and the real 4-bit model."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from core import embedded

FAST = {
    "VALUER_LEASE_S": "4",
    "VALUER_HEARTBEAT_S": "1",
    "VALUER_RING_AGAIN_S": "3",
    "VALUER_IN_FLIGHT": "4",
}
"""Short leases, so that a killed worker's requests come back within seconds."""


def free_port() -> int:
    """A port that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    """The caller's environment without any setting of ours, and with these."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("VALUER_")}
    return {**kept, **more}


def valuer(*arguments: str, timeout: float = 840, **settings: str) -> dict[str, Any]:
    """Runs a command with `--json` and returns its object."""
    command = [sys.executable, "-m", "admin.main", *arguments, "--json"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=environment(**settings), check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    assert isinstance(answer, dict)
    return answer


@dataclass
class Town:
    """A home with its six hospitals."""

    home: Path
    port: int
    first: dict[str, Any]

    @property
    def database_url(self) -> str:
        return embedded.ensure(self.home).database_url

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Reads PostgreSQL from outside the product."""
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(query, values).fetchall()  # type: ignore[arg-type]

    def demo(self, *options: str) -> dict[str, Any]:
        """`valuer demo --once` on this home."""
        return valuer("demo", "--once", "--home", str(self.home), "--port", str(self.port), *options)


@dataclass
class Running:
    """`valuer up` on a town."""

    town: Town
    process: subprocess.Popen[bytes]

    def status(self) -> dict[str, Any]:
        return valuer("status", VALUER_HOME=str(self.town.home), VALUER_PORT=str(self.town.port))

    def pid(self, name: str) -> int:
        (found,) = [each["pid"] for each in self.status()["processes"] if each["name"] == name]
        return int(found)

    def until(self, true: Callable[[], bool], seconds: float = 120) -> None:
        """Waits until something is true, while the supervisor lives."""
        deadline = time.monotonic() + seconds
        while not true():
            assert self.process.poll() is None, "valuer up has ended"
            assert time.monotonic() < deadline, f"not so after {seconds} s"
            time.sleep(0.2)

    def http(self) -> httpx.Client:
        """The reporting system of hospital 1."""
        secrets = json.loads((self.town.home / "demo-secrets.json").read_text())
        return self.client(secrets["sandbox-1"])

    def client(self, secret: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {secret}"}
        return httpx.Client(base_url=f"http://127.0.0.1:{self.town.port}", headers=headers, timeout=30, trust_env=False)


@pytest.fixture(scope="session")
def new_town(new_server_home: Callable[[], Path], base_model_cache: Path) -> Callable[..., Town]:
    """Makes homes on which the demo has run once with these options."""

    def make(*options: str) -> Town:
        home = new_server_home()
        (home / "models").mkdir()
        (home / "models" / "base-demo").symlink_to(base_model_cache)
        made = Town(home, free_port(), {})
        made.first = made.demo(*options)
        return made

    return make


@pytest.fixture(scope="session")
def town(new_town: Callable[..., Town]) -> Town:
    """A home on which the demo has run once."""
    return new_town()


@pytest.fixture
def running(town: Town) -> Iterator[Running]:
    """Every process of the product, up on the town."""
    command = [sys.executable, "-m", "admin.main", "up", "--home", str(town.home), "--port", str(town.port)]
    process = subprocess.Popen(command, env=environment(**FAST), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    up = Running(town, process)
    try:
        up.until(lambda: _ready(town.port))
        yield up
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=120)


def _ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).is_success
    except httpx.TransportError:
        return False
