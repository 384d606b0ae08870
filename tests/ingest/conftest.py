"""Pretend hospitals as real databases for the tests of ingest: the six of the sandbox, or one table that a test fills itself."""

import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from sqlmodel import SQLModel

from core import db
from core.embedded import Servers
from core.identity import Keyring
from core.settings import IngestSettings
from tests.ingest.hospital import Hospital, drop_from_mariadb, mariadb_answers


@pytest.fixture(scope="session")
def ingest_engine(servers: Servers, template: str) -> Iterator[sa.Engine]:
    """A migrated database of ingest's tests: emptied before each of them, which is much faster than making a new one."""
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE test_ingest TEMPLATE {template}")
    engine = db.connect(
        sa.make_url(servers.database_url).set(database="test_ingest").render_as_string(hide_password=False)
    )
    yield engine
    engine.dispose()


@pytest.fixture
def database(ingest_engine: sa.Engine) -> sa.Engine:
    """That database, empty."""
    tables = ", ".join(table.name for table in SQLModel.metadata.sorted_tables)
    with db.transaction(ingest_engine) as session:
        session.execute(sa.text(f"TRUNCATE {tables}"))
    return ingest_engine


@pytest.fixture
def settings(home: Path, keyring: Keyring) -> IngestSettings:
    """Settings of the ingest process on this test's home."""
    (home / "institutions").mkdir()
    return IngestSettings(home=home, poll_deadline_s=60, log_level="ERROR")


@pytest.fixture(scope="session")
def mariadb_url(servers_required: Callable[[str], None]) -> str:
    """A real MariaDB, where one answers on this machine."""
    return mariadb_answers(servers_required)


@pytest.fixture
def north(settings: IngestSettings, database: sa.Engine, keyring: Keyring) -> Iterator[Hospital]:
    """A hospital with one PostgreSQL table, in a schema of its own."""
    hospital = Hospital.postgres("north", database, settings, keyring)
    yield hospital
    hospital.connection.execute("DROP SCHEMA his CASCADE")
    hospital.close()


@pytest.fixture
def south(settings: IngestSettings, database: sa.Engine, keyring: Keyring, mariadb_url: str) -> Iterator[Hospital]:
    """A hospital with one MariaDB table in GBK, in a database of its own."""
    name = f"south_{uuid.uuid4().hex[:8]}"
    hospital = Hospital.mariadb("south", name, database, settings, keyring)
    yield hospital
    hospital.close()
    drop_from_mariadb(name)


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port that accepts connections and never says a word."""
    listener = socket.create_server(("127.0.0.1", 0))
    taken: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                taken.append(listener.accept()[0])
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()
    for connection in taken:
        connection.close()
