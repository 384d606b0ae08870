"""Reports out of a PostgreSQL, MySQL or MariaDB database, read-only and in one snapshot per poll.

The institution's SELECT becomes a subquery that is filtered and ordered by its cursor columns and streamed by a server-side cursor, so that
a large table costs one pass and no memory. Rows whose time is missing, impossible or far ahead are read in a second, short query.
"""

import hashlib
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from core.errors import Broken
from ingest.cursor import OLDEST, Position, window
from ingest.mapping import REQUIRED, WORDS, SqlConfig
from ingest.mapping import Mapping as InstitutionMapping
from ingest.sources import BATCH, Batch, Resume

STREAM = "reports"
CONNECT_S = 10


class SqlSource:
    """One institution's database. Nothing is read before `clock`."""

    def __init__(self, mapping: InstitutionMapping, *, deadline_s: float) -> None:
        """Connects. Driver timeouts are set to `deadline_s` and not relied upon: some drivers hang all the same, and then the poll's parent
        kills this process.

        Raises:
            sqlalchemy.exc.OperationalError: the database does not answer.
            Broken: its SELECT does not yield what the mapping needs.
        """
        assert isinstance(mapping.source, SqlConfig)  # noqa: S101 - the caller chose by kind
        self._mapping, self._config = mapping, mapping.source
        url = mapping.address()
        self._dialect = "postgresql" if url.drivername.startswith("postgresql") else "mysql"
        self._engine = sa.create_engine(
            url, poolclass=NullPool, hide_parameters=True, connect_args=self._options(url, deadline_s)
        )
        self._connection = self._engine.connect()
        if self._dialect == "postgresql":
            self._connection = self._connection.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        self._begin()
        # a colon in the institution's SQL is a cast or a literal, never a parameter of ours
        self._text = sa.text(self._config.sql.replace(":", "\\:"))
        self._columns, self._fingerprint = self._probe()
        body = self._text.columns(*(sa.column(word) for word in self._columns))
        self._rows = body.subquery("source_rows")
        self._time = self._rows.c[mapping.cursor.time]
        self._key = self._rows.c[mapping.cursor.key]

    def _options(self, url: sa.URL, deadline_s: float) -> dict[str, Any]:
        if self._dialect == "postgresql":
            theirs = url.query.get("options", "")
            own = " ".join(
                f"-c {name}={int(deadline_s * 1000)}"
                for name in ("statement_timeout", "idle_in_transaction_session_timeout")
            )
            return {"connect_timeout": CONNECT_S, "application_name": "valuer-ingest", "options": f"{theirs} {own}"}
        return {
            "connect_timeout": CONNECT_S,
            "read_timeout": max(1, int(deadline_s)),
            "write_timeout": CONNECT_S,
            "charset": "utf8mb4",
        }

    def _begin(self) -> None:
        """Session zone as the mapping's, so that local times compare with local times; then one read-only snapshot."""
        if self._dialect == "postgresql":
            self._connection.execute(
                sa.text("SELECT set_config('TimeZone', :zone, false)"), {"zone": self._config.timezone}
            )
            return
        offset = datetime.now(self._config.zone).strftime("%z")
        self._connection.execute(sa.text("SET time_zone = :offset"), {"offset": f"{offset[:3]}:{offset[3:]}"})
        self._connection.commit()
        self._connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")

    def _probe(self) -> tuple[tuple[str, ...], str]:
        result = self._connection.execute(sa.text(f"SELECT * FROM ({self._text.text}) source_rows WHERE 1 = 0"))  # noqa: S608 - a reviewed file
        names = tuple(result.keys())
        description = result.cursor.description if result.cursor is not None else ()
        cursor = self._mapping.cursor
        for word in (*REQUIRED, cursor.time, cursor.key):
            if word not in names:
                raise Broken(f"{self._mapping.file.name}: the SELECT yields no {word}.", code="missing_column")
        if unknown := sorted(set(names) - WORDS):
            raise Broken(
                f"{self._mapping.file.name}: the SELECT yields {', '.join(unknown)}, which is no word of ours.",
                code="unknown_column",
            )
        return names, hashlib.sha256(repr([tuple(column)[:5] for column in description]).encode()).hexdigest()[:16]

    def clock(self) -> datetime:
        """The server's clock."""
        if self._dialect == "postgresql":
            now: datetime = self._connection.execute(sa.text("SELECT clock_timestamp()")).scalar_one()
            return now.astimezone(UTC)
        return self._connection.execute(sa.text("SELECT UTC_TIMESTAMP(6)")).scalar_one().replace(tzinfo=UTC)  # type: ignore[no-any-return]

    def streams(self) -> Mapping[str, str]:
        """The one stream of a database."""
        return {STREAM: self._fingerprint}

    def batches(
        self, positions: Mapping[str, Position], clock: datetime, resume: Resume
    ) -> Generator[Batch, None, None]:
        """Rows by (time, key), then the strays. `resume` is (time, key) of the last row read, or of a stray (None, key), as the source gave
        them; what follows it strictly is read, since the next poll of its own looks back anyway."""
        seen = window(positions.get(STREAM), clock, overlap_s=self._config.overlap_s, settle_s=self._config.settle_s)
        sample = self._connection.execute(sa.select(self._time).where(self._time.is_not(None)).limit(1)).scalar()
        textual = isinstance(sample, str)
        last_at, last_key = resume.get(STREAM, (None, None))
        at, key = self._columns.index(self._mapping.cursor.time), self._columns.index(self._mapping.cursor.key)
        if sample is not None and (last_at is not None or last_key is None):
            since = self._bound(seen.since, textual) if last_at is None else last_at
            window_ = [self._time >= since, self._time <= self._bound(seen.until, textual)]
            after = [] if last_at is None else [sa.or_(self._time > last_at, self._key > last_key)]
            for rows in self._stream([*window_, *after], [self._time, self._key]):
                yield Batch(
                    STREAM, self._columns, rows, self._position(rows, at, key), (rows[-1][at], rows[-1][key]), clock
                )
        stray: sa.ColumnElement[bool] = self._time.is_(None)
        if sample is not None:
            oldest, ahead = self._bound(OLDEST, textual), self._bound(seen.ahead, textual)
            stray = sa.or_(stray, self._time < oldest, self._time > ahead)
        where = [stray] if last_at is not None or last_key is None else [stray, self._key > last_key]
        for rows in self._stream(where, [self._key]):
            yield Batch(STREAM, self._columns, rows, None, (None, rows[-1][key]), clock)

    def _stream(self, where: list[sa.ColumnElement[bool]], order: list[Any]) -> Iterator[list[tuple[Any, ...]]]:
        query = sa.select(self._rows).where(*where).order_by(*order)
        result = self._connection.execution_options(stream_results=True, max_row_buffer=BATCH).execute(query)
        try:
            for rows in result.partitions(BATCH):
                yield [tuple(row) for row in rows]
        finally:
            # MySQL's driver would read the whole rest first; there `close` drops the connection instead
            if self._dialect == "postgresql":
                result.close()

    def _bound(self, moment: datetime, textual: bool) -> datetime | str:
        """A bound as the cursor column writes times: local, without a zone, as text where the column is text."""
        return self._config.written(moment) if textual else moment.astimezone(self._config.zone).replace(tzinfo=None)

    def _position(self, rows: list[tuple[Any, ...]], at: int, key: int) -> Position | None:
        for row in reversed(rows):
            with suppress(ValueError):
                return Position(self._config.moment(row[at]), str(row[key]))
        return None

    def close(self) -> None:
        """Drops the connection without reading what is left of a result."""
        self._connection.invalidate()
        self._connection.close()
        self._engine.dispose()
