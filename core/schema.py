"""Which revision of the schema this release works with. Every process asks before it works; migrations/ makes it so."""

import sqlalchemy as sa

from core import db
from core.errors import Broken

REVISION = "0008"
"""The newest revision in migrations/versions; a test holds it to that."""


def revision(engine: sa.Engine) -> str | None:
    """The revision of a database; None when it was never migrated.

    Raises:
        Retryable: the database cannot be reached.
    """
    with db.transaction(engine) as session:
        if session.execute(sa.select(sa.func.to_regclass("public.alembic_version"))).scalar_one() is None:
            return None
        found: str | None = session.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
        return found


def require(engine: sa.Engine) -> None:
    """Refuses to work on a schema of another release.

    Raises:
        Broken: the database is at another revision than this release's.
        Retryable: the database cannot be reached.
    """
    found = revision(engine)
    if found != REVISION:
        raise Broken(
            f"The database is at revision {found or 'none'}, this release needs {REVISION}: run `valuer migrate`.",
            code="schema",
        )
