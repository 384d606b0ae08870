"""What every package's tests stand on: a real PostgreSQL and a real Valkey, and a fresh migrated database per test.

The servers are the embedded pair in a directory of their own below the temporary folder, never the developer's.
A run that was killed leaves its servers behind; the next run finds and removes them.
"""

import fcntl
import os
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql
from sqlmodel import Session

from core import db, embedded
from core.identity import Keyring
from migrations import run

PREFIX = "valuer-test-"

# a run that was started in the background of a script ignores Ctrl-C, and so would every command that a test starts and stops
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def servers_required() -> Callable[[str], None]:
    """Call it with the reason where a server is missing: skips, or fails when VALUER_REQUIRE_SERVERS=1 forbids that."""

    def missing(reason: str) -> None:
        if os.environ.get("VALUER_REQUIRE_SERVERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)

    return missing


@pytest.fixture(scope="session")
def new_server_home() -> Iterator[Callable[[], Path]]:
    """Makes homes that can hold embedded servers, and removes them with their servers at the end of the run."""
    _remove_forgotten()
    made: list[tuple[Path, int]] = []

    def make() -> Path:
        home = Path(tempfile.mkdtemp(prefix=PREFIX))
        home.chmod(0o711)  # as root the servers run as another user, who has to get in
        descriptor = _hold(home)
        assert descriptor is not None
        made.append((home, descriptor))
        return home

    yield make
    for home, descriptor in made:
        _remove(home)
        os.close(descriptor)


@pytest.fixture(scope="session")
def server_home(new_server_home: Callable[[], Path]) -> Path:
    """The home of the servers of this test run."""
    return new_server_home()


@pytest.fixture(scope="session")
def servers(server_home: Path) -> embedded.Servers:
    """The running pair."""
    return embedded.ensure(server_home)


@pytest.fixture(scope="session")
def template(servers: embedded.Servers) -> str:
    """Name of a migrated, empty database that others are copied from."""
    _administer(servers, "CREATE DATABASE {}", "template_migrated")
    engine = db.connect(_address(servers, "template_migrated"), pool_size=1)
    run.upgrade(engine)
    engine.dispose()
    return "template_migrated"


@pytest.fixture
def database_url(servers: embedded.Servers, template: str) -> Iterator[str]:
    """Address of a fresh migrated database, dropped after the test."""
    name = f"test_{uuid.uuid4().hex}"
    _administer(servers, "CREATE DATABASE {} TEMPLATE {}", name, template)
    yield _address(servers, name)
    _administer(servers, "DROP DATABASE {} WITH (FORCE)", name)


@pytest.fixture
def database(database_url: str) -> Iterator[sa.Engine]:
    """An engine on a fresh migrated database."""
    engine = db.connect(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def session(database: sa.Engine) -> Iterator[Session]:
    """A session in one transaction on the fresh database, committed when the test ends."""
    with db.transaction(database) as opened:
        yield opened


@pytest.fixture
def broker_url(servers: embedded.Servers) -> str:
    """Address of the running Valkey, emptied before the test."""
    import redis

    with redis.Redis(unix_socket_path=servers.broker_url.removeprefix("redis+socket://")) as client:
        client.flushall()
    return servers.broker_url


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty data root for one test."""
    made = tmp_path / "home"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def keyring(home: Path) -> Keyring:
    """The keys of that data root."""
    return Keyring.load(home / "master.key", create=True)


@pytest.fixture(scope="session")
def base_model_cache() -> Path:
    """The demo base model, imported from its packages once (most of a minute) and kept for later runs."""
    from worker.engine.weights import DEMO, base_model

    kept = os.environ.get("VALUER_TEST_MODELS")
    return base_model(DEMO, Path(kept) if kept else Path(__file__).parents[1] / ".valuer-test" / "models")


def _address(servers: embedded.Servers, database: str) -> str:
    return sa.make_url(servers.database_url).set(database=database).render_as_string(hide_password=False)


def _administer(servers: embedded.Servers, statement: str, *names: str) -> None:
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(*(sql.Identifier(name) for name in names)))


def _hold(home: Path) -> int | None:
    """Marks a test home as used, for as long as this process lives; None when another run uses it."""
    descriptor = os.open(home / ".test-run", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_forgotten() -> None:
    for home in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        new = time.time() - home.stat().st_mtime < 60  # a run beside this one may be about to mark it
        if home.stat().st_uid == os.geteuid() and not new and (descriptor := _hold(home)) is not None:
            _remove(home)
            os.close(descriptor)


def _remove(home: Path) -> None:
    embedded.stop(home)
    outside = (home / "servers").resolve()
    shutil.rmtree(home)
    shutil.rmtree(outside, ignore_errors=True)
