"""What differs between the databases that we read: driver, time limits, the statements that begin a poll, their clock, how a column gives its bytes.

Data only; `ingest.sql` asks for nothing that does not stand here. `live` says whether the tests read a running server of this kind. Oracle, SQL Server
and ODBC have been compiled and inspected, never run: no such server stands beside this repository.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.dialects import registry

from core.errors import Broken

CONNECT_S = 10
registry.register("odbc.pyodbc", "ingest.odbc", "GenericOdbc")

Options = Callable[[sa.URL, float], dict[str, Any]]
"""Arguments of the driver's connect, from the address and the seconds that one statement may take."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """One kind of database. `begin` are statements at the start of a poll, in which `{zone}` and `{offset}` stand for the mapping's zone;
    `snapshot` is the one that opens the transaction, where a plain BEGIN is not enough."""

    drivername: str
    title: str
    options: Options
    clock: str
    utc: bool
    as_bytes: str
    begin: tuple[str, ...] = ()
    snapshot: str | None = None
    execution: dict[str, Any] = field(default_factory=dict)
    extra: str | None = None
    live: bool = False
    proof: str = "not run against a live server; what is sent was compiled and read only"
    limits: bool = True
    """Whether it knows how to give the first row only."""
    inspects: bool = True
    """Whether it can be asked for its tables and keys."""
    closes_early: bool = True
    """Whether a result may be closed without its rest being read first."""
    refuses_writes: bool = False
    """Whether the poll's own transaction refuses writes whatever the account may do."""
    nests_with: bool = True
    """Whether a WITH may stand in a subquery."""

    def now(self, value: datetime, zone: ZoneInfo) -> datetime:
        """What `clock` gave, in UTC."""
        return (value if value.tzinfo else value.replace(tzinfo=UTC if self.utc else zone)).astimezone(UTC)

    def opening(self, zone: ZoneInfo) -> tuple[str, ...]:
        """`begin` for a mapping's zone."""
        offset = datetime.now(zone).strftime("%z")
        return tuple(statement.format(zone=zone.key, offset=f"{offset[:3]}:{offset[3:]}") for statement in self.begin)

    def engine(self, url: sa.URL, deadline_s: float) -> sa.Engine:
        """An engine without a pool. Raises Broken when the driver cannot be loaded."""
        try:
            return sa.create_engine(
                url, poolclass=sa.NullPool, hide_parameters=True, connect_args=self.options(url, deadline_s)
            )
        except ImportError as error:
            raise Broken(
                f"The driver for {self.title} cannot be loaded ({error}): pip install 'chatradio-valuer[{self.extra}]'"
                f"{', and the system needs unixODBC' if self.extra == 'odbc' else ''}.",
                code="no_driver",
            ) from None


def _postgresql(url: sa.URL, deadline_s: float) -> dict[str, Any]:
    theirs = url.query.get("options", "")
    limits = ("statement_timeout", "idle_in_transaction_session_timeout")
    own = " ".join(f"-c {name}={int(deadline_s * 1000)}" for name in limits)
    return {"connect_timeout": CONNECT_S, "application_name": "valuer-ingest", "options": f"{theirs} {own}"}


def _mysql(url: sa.URL, deadline_s: float) -> dict[str, Any]:
    return {
        "connect_timeout": CONNECT_S,
        "read_timeout": max(1, int(deadline_s)),
        "write_timeout": CONNECT_S,
        "charset": "utf8mb4",
    }


def _mssql(url: sa.URL, deadline_s: float) -> dict[str, Any]:
    # read_only asks an availability group for a readable replica; it forbids nothing by itself
    limits = {"login_timeout": CONNECT_S, "timeout": max(1, int(deadline_s))}
    return {**limits, "charset": "UTF-8", "appname": "valuer-ingest", "read_only": True}


def _oracle(url: sa.URL, deadline_s: float) -> dict[str, Any]:
    return {"tcp_connect_timeout": float(CONNECT_S), "expire_time": 1, "program": "valuer-ingest"}


def _odbc(url: sa.URL, deadline_s: float) -> dict[str, Any]:
    return {"timeout": CONNECT_S, "readonly": True}


POSTGRESQL = Dialect(
    "postgresql+psycopg",
    "PostgreSQL",
    _postgresql,
    clock="SELECT clock_timestamp()",
    utc=True,
    as_bytes="convert_to({column}, getdatabaseencoding())",
    begin=("SELECT set_config('TimeZone', '{zone}', false)",),
    execution={"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
    live=True,
    proof="read by our tests on a live server",
    refuses_writes=True,
)
MYSQL = Dialect(
    "mysql+pymysql",
    "MySQL/MariaDB",
    _mysql,
    clock="SELECT UTC_TIMESTAMP(6)",
    utc=True,
    as_bytes="CAST({column} AS BINARY)",
    # a read-only transaction alone lets DDL through, which ends it first; a read-only session does not (measured on MariaDB 10.11)
    begin=("SET time_zone = '{offset}'", "SET SESSION TRANSACTION READ ONLY"),
    snapshot="START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
    live=True,
    proof="read by our tests on a live server",
    closes_early=False,  # the driver would read the whole rest first
    refuses_writes=True,
)
MSSQL = Dialect(
    "mssql+pymssql",
    "SQL Server",
    _mssql,
    clock="SELECT SYSUTCDATETIME()",
    utc=True,
    as_bytes="CAST({column} AS varbinary(max))",
    # READ COMMITTED and never NOLOCK: dirty and doubled rows are worse than a wait; the loser of a deadlock is always we
    begin=("SET LOCK_TIMEOUT 10000", "SET DEADLOCK_PRIORITY LOW", "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"),
    extra="mssql",
    closes_early=False,
    nests_with=False,
)
ORACLE = Dialect(
    "oracle+oracledb",
    "Oracle",
    _oracle,
    clock="SELECT SYS_EXTRACT_UTC(SYSTIMESTAMP) FROM DUAL",
    utc=True,
    as_bytes="UTL_RAW.CAST_TO_RAW({column})",
    # a session of a Chinese client sorts by pinyin and compares by bytes; our pages need one order for both
    begin=("ALTER SESSION SET TIME_ZONE = '{offset}'", "ALTER SESSION SET NLS_SORT = BINARY NLS_COMP = BINARY"),
    snapshot="SET TRANSACTION READ ONLY",
    extra="oracle",
    refuses_writes=True,
)
ODBC = Dialect(
    "odbc+pyodbc",
    "ODBC",
    _odbc,
    clock="SELECT {fn NOW()}",
    utc=False,
    as_bytes="{column}",  # no two servers cast alike: the SELECT does it
    extra="odbc",
    inspects=False,
    proof="PostgreSQL and MariaDB are read through their ODBC drivers by our tests; Caché and IRIS were not run against a live server",
    limits=False,
)

DIALECTS = {
    "postgresql": POSTGRESQL,
    "postgres": POSTGRESQL,
    "mysql": MYSQL,
    "mariadb": MYSQL,
    "mssql": MSSQL,
    "oracle": ORACLE,
    "odbc": ODBC,
}
"""By the scheme of a source's address."""


def of_url(url: sa.URL) -> Dialect:
    """The dialect of an address. Raises ValueError for a database that we do not read."""
    scheme = url.drivername.split("+")[0]
    if scheme not in DIALECTS:
        raise ValueError(f"{scheme} is not read; {', '.join(DIALECTS)} are")
    return DIALECTS[scheme]
