"""Migrations on a real PostgreSQL: once, at once, and never backwards without being told."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
import sqlalchemy as sa

from core import db, embedded, schema
from core.errors import Broken
from migrations import run


@pytest.fixture
def empty(servers: embedded.Servers) -> sa.Engine:
    """An engine on a database that was never migrated."""
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS never_migrated WITH (FORCE)")
        connection.execute("CREATE DATABASE never_migrated")
    url = sa.make_url(servers.database_url).set(database="never_migrated").render_as_string(hide_password=False)
    return db.connect(url)


def test_an_empty_database_is_refused_until_it_is_migrated(empty: sa.Engine) -> None:
    with pytest.raises(Broken, match="valuer migrate"):
        schema.require(empty)
    assert run.upgrade(empty) is True
    schema.require(empty)
    assert run.upgrade(empty) is False
    empty.dispose()


def test_four_processes_that_migrate_at_once_do_it_once(empty: sa.Engine) -> None:
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: run.upgrade(empty), range(4)))
    assert sorted(done) == [False, False, False, True]
    empty.dispose()


def test_a_database_of_a_newer_release_is_left_alone(database: sa.Engine) -> None:
    with db.transaction(database) as session:
        session.execute(sa.text("UPDATE alembic_version SET version_num = 'later'"))
    with pytest.raises(Broken, match="run the newer one"):
        run.upgrade(database)
    with pytest.raises(Broken, match="later"):
        schema.require(database)
    assert schema.revision(database) == "later"


def test_a_column_that_no_revision_made_is_told(database: sa.Engine) -> None:
    assert run.differences(database) == []
    with db.transaction(database) as session:
        session.execute(sa.text("ALTER TABLE reports ADD COLUMN surplus text"))
    assert len(run.differences(database)) == 1
