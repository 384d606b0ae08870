"""Engine, `transaction()` and `move()`: the only place that begins or ends a database transaction.

Callers get a session and never commit it. Time that decides anything (leases, deadlines) is the database's, never this machine's.
"""

import os
import secrets
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from psycopg.errors import QueryCanceled
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlmodel import Session, SQLModel

from core.errors import Broken, Retryable
from core.states import MOVES, RequestState


def new_id() -> uuid.UUID:
    """A UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then 74 random bits. Made here because PostgreSQL 15 has none."""
    milliseconds = time.time_ns() // 1_000_000
    value = (
        (milliseconds & (1 << 48) - 1) << 80
        | 0x7 << 76
        | secrets.randbits(12) << 64
        | 0b10 << 62
        | secrets.randbits(62)
    )
    return uuid.UUID(int=value)


def connect(url: str, *, pool_size: int = 10, application: str = "valuer", role: str | None = None) -> sa.Engine:
    """An engine over psycopg 3 for `postgresql://…`; its sessions run in UTC and its errors carry no parameter values.

    `role` is taken at the start of each session: the drafting worker works as `valuer_worker`, which cannot read identities.
    """
    scheme, _, rest = url.partition("://")
    if scheme.split("+")[0] not in ("postgresql", "postgres"):
        raise Broken(f"VALUER_DATABASE_URL must be a postgresql:// address, not {scheme}://")
    return sa.create_engine(
        f"postgresql+psycopg://{rest}",
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        pool_recycle=1800,
        hide_parameters=True,
        connect_args={
            "application_name": f"{application}-{os.getpid()}",
            "connect_timeout": 10,
            "options": "-c timezone=UTC -c statement_timeout=60000 -c idle_in_transaction_session_timeout=120000"
            + (f" -c role={role}" if role else ""),
            "keepalives_idle": 30,
            "prepare_threshold": 5,
        },
    )


@contextmanager
def transaction(engine: sa.Engine) -> Iterator[Session]:
    """A session inside one transaction: committed when the block ends, rolled back when it raises.

    Raises:
        Retryable: the database cannot be reached or went away, so that callers never meet a driver's error.
    """
    try:
        with Session(engine, expire_on_commit=False) as session, session.begin():
            yield session
    except OperationalError as error:
        if isinstance(error.orig, QueryCanceled):
            raise Retryable("The database took too long for a statement.", code="database_slow") from error
        raise Retryable("The database cannot be reached.", code="database_away") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise Retryable("The database connection was lost.", code="database_away") from error
        raise


def move(
    session: Session,
    row: type[SQLModel],
    where: Mapping[str, Any],
    *,
    to: RequestState,
    from_: RequestState | frozenset[RequestState],
    **values: Any,
) -> bool:
    """Moves the draft request that matches `where` from one of `from_` to `to`, setting `values`; False says that it was no longer there.

    A count of 0 is an answer, not an error: somebody else moved it first, or the lease in `where` is no longer held.
    """
    sources = from_ if isinstance(from_, frozenset) else frozenset({from_})
    illegal = [source for source in sources if to not in MOVES[source]]
    if illegal:
        raise Broken(f"No legal move from {', '.join(sorted(illegal))} to {to}.")
    table = row.__table__  # type: ignore[attr-defined]  # set by SQLModel's metaclass
    statement = sa.update(table).where(table.c.state.in_(sorted(sources)))
    for column, value in where.items():
        statement = statement.where(table.c[column] == value)
    result = session.execute(statement.values(state=to, **values))
    return bool(result.rowcount)  # type: ignore[attr-defined]  # a CursorResult for every UPDATE


def database_now(session: Session) -> Any:
    """The database's clock at this moment (not the transaction's start)."""
    return session.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
