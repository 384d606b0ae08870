"""Engine, `transaction()` and `move()`: the only place that begins or ends a database transaction.

Callers get a session and never commit it. Time that decides anything (leases, deadlines) is the database's, never this machine's.
"""

import os
import select
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.errors import DiskFull, QueryCanceled
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlmodel import Session, SQLModel

from core.errors import Broken, Retryable
from core.states import MOVES, RequestState


def new_id() -> uuid.UUID:
    """A UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then 74 random bits. Made here because PostgreSQL 15 has none."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10))
    value = (milliseconds & (1 << 48) - 1) << 80 | 0x7 << 76 | 0b10 << 62
    return uuid.UUID(int=value | (random >> 62 & 0xFFF) << 64 | random & (1 << 62) - 1)


def new_ids(count: int) -> list[str]:
    """That many of them as hex digits, in ascending order, for a fraction of the time that each alone would take."""
    head = (time.time_ns() // 1_000_000 & (1 << 48) - 1) << 80 | 0x7 << 76 | 0b10 << 62
    noise = os.urandom(10 * count)
    made = []
    for at in range(0, len(noise), 10):
        random = int.from_bytes(noise[at : at + 10])
        made.append(head | (random >> 62 & 0xFFF) << 64 | random & (1 << 62) - 1)
    return [f"{each:032x}" for each in sorted(made)]


def connect(url: str, *, pool_size: int = 10, application: str = "valuer", role: str | None = None) -> sa.Engine:
    """An engine over psycopg 3 for `postgresql://…`; its sessions run in UTC and its errors carry no parameter values.

    `role` is taken at the start of each session: the drafting worker works as `valuer_worker`, which cannot read identities.
    """
    scheme, _, rest = url.partition("://")
    if scheme.split("+")[0] not in ("postgresql", "postgres"):
        raise Broken(f"VALUER_DATABASE_URL must be a postgresql:// address, not {scheme}://")
    engine = sa.create_engine(
        f"postgresql+psycopg://{rest}",
        pool_size=pool_size,
        max_overflow=pool_size,
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
    sa.event.listen(engine, "checkout", _still_there)
    return engine


def _still_there(connection: Any, record: object, proxy: object) -> None:
    """Passes over a pooled connection that its server has closed. A server says goodbye on the socket and an idle one says nothing, so that
    a look at the socket tells what a `SELECT 1` would, without its round trip."""
    if connection.closed:
        raise sa.exc.InvalidatePoolError("The connection is closed.")
    socket = select.poll()
    socket.register(connection.fileno(), select.POLLIN)
    if socket.poll(0):
        raise sa.exc.InvalidatePoolError("The server has closed the connection.")


@contextmanager
def transaction(engine: sa.Engine) -> Iterator[Session]:
    """A session inside one transaction: committed when the block ends, rolled back when it raises.

    Raises:
        Retryable: the database cannot be reached or went away, so that callers never meet a driver's error.
    """
    try:
        with Session(engine, expire_on_commit=False) as session, session.begin():
            yield session
    except (OperationalError, psycopg.OperationalError) as error:  # COPY goes past SQLAlchemy
        reason = error.orig if isinstance(error, OperationalError) else error
        if isinstance(reason, DiskFull):
            raise Retryable(
                "Our own database has no room left on its disk; nothing was stored.", code="database_full"
            ) from error
        if isinstance(reason, QueryCanceled):
            raise Retryable("The database took too long for a statement.", code="database_slow") from error
        raise Retryable("The database cannot be reached.", code="database_away") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise Retryable("The database connection was lost.", code="database_away") from error
        raise


@contextmanager
def statement(engine: sa.Engine) -> Iterator[Session]:
    """A session for one statement, which is its own transaction: PostgreSQL needs to be told neither BEGIN nor COMMIT, two round trips of three.

    Raises:
        Retryable: as `transaction`.
    """
    with transaction(engine) as session:
        session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        yield session


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
    result = session.execute(moving(row, where, to=to, from_=from_, **values))
    return bool(result.rowcount)  # type: ignore[attr-defined]  # a CursorResult for every UPDATE


def moving(
    row: type[SQLModel],
    where: Mapping[str, Any],
    *,
    to: RequestState,
    from_: RequestState | frozenset[RequestState],
    **values: Any,
) -> sa.Update:
    """The statement of `move`, for those who put more into the same round trip. Raises Broken for a move that is not legal."""
    sources = from_ if isinstance(from_, frozenset) else frozenset({from_})
    illegal = [source for source in sources if to not in MOVES[source]]
    if illegal:
        raise Broken(f"No legal move from {', '.join(sorted(illegal))} to {to}.")
    table = row.__table__  # type: ignore[attr-defined]  # set by SQLModel's metaclass
    statement = sa.update(table).where(table.c.state.in_(sorted(sources)))
    for column, value in where.items():
        statement = statement.where(table.c[column] == value)
    return statement.values(state=to, **values)


def inserting(row: type[SQLModel], columns: Sequence[str], name: str, *, once: bool = False) -> sa.CTE:
    """An INSERT inside of another statement, which is built once: its values are given at each execution, by `bound`.

    With `once` a row that is there already stays as it is.
    """
    table = row.__table__  # type: ignore[attr-defined]  # set by SQLModel's metaclass
    statement = insert(table).values(
        {column: sa.bindparam(f"{name}_{column}", type_=table.c[column].type) for column in columns}
    )
    return (statement.on_conflict_do_nothing() if once else statement).cte(name)


def bound(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values for what was built under `name`, as `<name>_<column>`."""
    return {f"{name}_{column}": value for column, value in values.items()}


def database_now(session: Session) -> Any:
    """The database's clock at this moment (not the transaction's start)."""
    return session.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
