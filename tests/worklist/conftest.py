"""The worklist over a real database and a real broker: two hospitals, a key of every role, people, and drafts put where a worker would."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import sqlalchemy as sa
import uvicorn
from fastapi.testclient import TestClient
from psycopg import sql
from sqlmodel import SQLModel

from core import db, queue
from core.embedded import Servers
from core.identity import Keyring
from core.settings import WorklistSettings
from tests.builders import institution
from tests.worklist.door import Door
from worklist import access
from worklist.app import Server, create_app


@pytest.fixture(scope="session")
def worklist_engine(servers: Servers, template: str) -> Iterator[sa.Engine]:
    """A migrated database of the worklist's tests: emptied before each of them, which is much faster than making a new one."""
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE test_worklist TEMPLATE {}").format(sql.Identifier(template)))
    url = sa.make_url(servers.database_url).set(database="test_worklist").render_as_string(hide_password=False)
    engine = db.connect(url)
    yield engine
    engine.dispose()


@pytest.fixture
def database(worklist_engine: sa.Engine) -> sa.Engine:
    """That database, empty."""
    tables = reversed(SQLModel.metadata.sorted_tables)
    with db.transaction(worklist_engine) as session:
        session.execute(sa.text(";".join(f"DELETE FROM {table.name}" for table in tables)))
    return worklist_engine


@pytest.fixture
def settings(home: Path) -> WorklistSettings:
    return WorklistSettings(home=home)


@pytest.fixture
def door(settings: WorklistSettings, database: sa.Engine, keyring: Keyring, broker_url: str) -> Iterator[Door]:
    """Two hospitals, north (signs here) and south; keys system, viewer, admin, and system-south; people li (north) and ma (south)."""
    queue.configure(broker_url)
    app = create_app(settings, database, keyring)
    with TestClient(app, base_url="http://worklist.test") as client:
        door = Door(app, client, database)
        with db.transaction(database) as session:
            institution(session, "north", sign="sign_here")
            institution(session, "south")
            for name, role, code in (
                ("system", "system", "north"),
                ("viewer", "viewer", "north"),
                ("admin", "admin", None),
                ("system-south", "system", "south"),
                ("viewer-south", "viewer", "south"),
            ):
                door.keys[name] = access.create_key(session, name, role, code, by="test")
            for login, role, code in (
                ("li", "radiologist", "north"),
                ("ma", "radiologist", "south"),
                ("chief", "admin", None),
            ):
                user = access.create_user(
                    session, login, f"Dr {login}", by="test", role=role, grade="senior", institution=code
                )
                door.tokens[login] = access.create_token(session, user, by="test", lasts=timedelta(hours=1))
        yield door


@pytest.fixture
def served(door: Door) -> Iterator[str]:
    """The address of the same application under uvicorn, for what a test client cannot do: streams."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(uvicorn.Config(door.app, port=port, log_config=None, access_log=False, timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{port}"
    for _ in range(200):
        try:
            httpx.get(f"{address}/healthz")
            break
        except httpx.TransportError:
            time.sleep(0.02)
    yield address
    server.should_exit = True
    thread.join(timeout=10)
    assert not thread.is_alive()


Later = Callable[[Callable[[], Any]], threading.Thread]


@pytest.fixture
def later() -> Iterator[Later]:
    """Does something in another thread, after a moment."""
    threads: list[threading.Thread] = []

    def start(deed: Callable[[], Any]) -> threading.Thread:
        timer = threading.Timer(0.4, deed)
        timer.start()
        threads.append(timer)
        return timer

    yield start
    for thread in threads:
        thread.join()
