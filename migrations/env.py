"""Alembic's entry point: works on the connection that `migrations.run` gives it, else on the settings' database."""

import sqlalchemy as sa
from alembic import context
from sqlmodel import SQLModel

import core.tables  # noqa: F401  # fills SQLModel.metadata
from core import db, embedded
from core.settings import Settings


def _include(thing: object, name: str | None, kind: str, reflected: bool, compared: object) -> bool:
    return not (kind == "table" and name == "alembic_version")


def _run(connection: sa.Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        compare_type=True,
        compare_server_default=True,
        transaction_per_migration=True,
        include_object=_include,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    _run(given)
else:
    with embedded.running(Settings()) as servers:
        engine = db.connect(servers.database_url, pool_size=1)
        with engine.connect() as connection:
            _run(connection)
            connection.commit()
        engine.dispose()
