"""Reports out of an institution's database, read-only and, where the database can, in one snapshot per poll.

What differs between databases stands in `ingest.dialects`. The institution's SELECT becomes a subquery that is filtered and ordered by its cursor
columns and streamed by a server-side cursor, so that a large table costs one pass and no memory. Rows whose time is missing, impossible or far
ahead are read in a second, short query.
"""

import hashlib
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from core.errors import Broken
from ingest.cursor import OLDEST, Position, window
from ingest.dialects import of_url
from ingest.mapping import Mapping as InstitutionMapping
from ingest.origin import REQUIRED, WORDS, SqlConfig
from ingest.overlap import row_hash
from ingest.sources import BATCH, Batch, Resume, Unknown

STREAM = "reports"
ASKED = 500
"""Rows that are asked for by key in one query."""


@lru_cache(maxsize=16)
def _engine(address: sa.URL, deadline_s: float) -> sa.Engine:
    """Kept for the process's next poll, which then need not ask the server who it is; it holds no connection."""
    return of_url(address).engine(address, deadline_s)


_textual: dict[tuple[str, str, str], bool] = {}


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
        self.dialect = mapping.dialect()
        self._engine = _engine(mapping.address(), deadline_s)
        self.connection = self._engine.connect().execution_options(**self.dialect.execution)
        self._begin()
        # a colon in the institution's SQL is a cast or a literal, never a parameter of ours
        self._text = sa.text(self._config.sql.replace(":", "\\:"))
        self._columns, self._fingerprint = self._probe()
        body = self._text.columns(*(sa.column(word) for word in self._columns))
        self._rows = body.subquery("source_rows")
        self._time = self._rows.c[mapping.cursor.time]
        self._key = self._rows.c[mapping.cursor.key]
        self._digest = row_hash(self.connection.dialect.name, self._columns)

    def _begin(self) -> None:
        """Session zone as the mapping's, so that local times compare with local times; then one read-only snapshot where there is such a thing."""
        for statement in self.dialect.opening(self._config.zone):
            self.connection.exec_driver_sql(statement)
        if self.dialect.snapshot is not None:
            self.connection.commit()
            self.connection.exec_driver_sql(self.dialect.snapshot)

    def _probe(self) -> tuple[tuple[str, ...], str]:
        nothing = sa.text(f"SELECT * FROM ({self._text.text}) source_rows WHERE 1 = 0")  # noqa: S608 - a reviewed file
        try:
            result = self.connection.execute(nothing)
        except sa.exc.DBAPIError as error:
            if error.connection_invalidated:
                raise
            # no row is read here, so what the server says names tables and columns only
            told = str(error.orig).strip().splitlines()[0]
            raise Broken(
                f"{self._mapping.file.name}: the database does not understand the SELECT, or no longer does: {told}",
                code="select_refused",
            ) from None
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
        return self.dialect.now(self.connection.exec_driver_sql(self.dialect.clock).scalar_one(), self._config.zone)

    def streams(self) -> Mapping[str, str]:
        """The one stream of a database."""
        return {STREAM: self._fingerprint}

    def batches(
        self, positions: Mapping[str, Position], clock: datetime, resume: Resume, unknown: Unknown | None = None
    ) -> Generator[Batch, None, None]:
        """Rows by (time, key), then the strays. `resume` is (time, key) of the last row read, or of a stray (None, key), as the source gave
        them; what follows it strictly is read, since the next poll of its own looks back anyway. With `unknown`, of the rows up to the position
        only those are read that it asks for, where the database can hash a row."""
        start = self._config.live_from
        seen = window(
            positions.get(STREAM),
            clock,
            overlap_s=self._config.overlap_s,
            settle_s=self._config.settle_s,
            first=OLDEST if start is None else self._config.moment(start),
        )
        textual = self._written_times()
        last_at, last_key = resume.get(STREAM, (None, None))
        at, key = self._columns.index(self._mapping.cursor.time), self._columns.index(self._mapping.cursor.key)
        if textual is not None and (last_at is not None or last_key is None):
            begin = self._time >= (self._bound(seen.since, textual) if last_at is None else last_at)
            position = positions.get(STREAM)
            if unknown is not None and last_at is None and position is not None and self._digest is not None:
                read = self._bound(min(position.at, seen.until), textual)
                yield from self._overlap([begin, self._time <= read], unknown, clock)
                begin = self._time > read
            window_ = [begin, self._time <= self._bound(seen.until, textual)]
            after = [] if last_at is None else [sa.or_(self._time > last_at, self._key > last_key)]
            for rows in self._stream([*window_, *after], [self._time, self._key]):
                yield Batch(
                    STREAM, self._columns, rows, self._position(rows, at, key), (rows[-1][at], rows[-1][key]), clock
                )
        stray: sa.ColumnElement[bool] = self._time.is_(None)
        if textual is not None:
            oldest, ahead = self._bound(OLDEST, textual), self._bound(seen.ahead, textual)
            stray = sa.or_(stray, self._time < oldest, self._time > ahead)
        where = [stray] if last_at is not None or last_key is None else [stray, self._key > last_key]
        for rows in self._stream(where, [self._key]):
            yield Batch(STREAM, self._columns, rows, None, (None, rows[-1][key]), clock)

    def _overlap(self, where: list[sa.ColumnElement[bool]], unknown: Unknown, as_of: datetime) -> Iterator[Batch]:
        """The rows that `unknown` asks for. A poll that stops among them begins again: those that are stored are known then."""
        key = self._rows.c["source_id"]
        asked: list[Any] = []
        for rows in self._stream([*where], [], [key, self._digest]):
            asked += unknown((row[0], row[1]) for row in rows)
        for start in range(0, len(asked), ASKED):
            some = asked[start : start + ASKED]
            named = key.in_([each for each in some if each is not None])
            wanted = sa.or_(named, key.is_(None)) if None in some else named
            for rows in self._stream([*where, wanted], [self._time, self._key]):
                yield Batch(STREAM, self._columns, rows, None, (None, None), as_of)

    def _written_times(self) -> bool | None:
        """Whether times are texts, told by one that is there; None when there is none. A process asks once, as long as the columns stay the same."""
        here = (str(self._engine.url), self._text.text, self._fingerprint)
        if here not in _textual:
            query = sa.select(self._time).where(self._time.is_not(None))
            sample = self.connection.execute(query.limit(1) if self.dialect.limits else query).scalar()
            if sample is None:
                return None
            _textual[here] = isinstance(sample, str)
        return _textual[here]

    def _read(self) -> list[sa.ColumnElement[Any]]:
        """Every column, those with a charset of their own as bytes."""
        return [
            sa.literal_column(self.dialect.as_bytes.format(column=f"source_rows.{word}")).label(word)
            if word in self._config.decode
            else self._rows.c[word]
            for word in self._columns
        ]

    def _stream(
        self, where: list[sa.ColumnElement[bool]], order: list[Any], columns: list[Any] | None = None
    ) -> Iterator[list[tuple[Any, ...]]]:
        query = sa.select(*(self._read() if columns is None else columns)).where(*where).order_by(*order)
        result = self.connection.execution_options(stream_results=True, max_row_buffer=BATCH).execute(query)
        try:  # as the driver gives them: rows of SQLAlchemy's own would be made only to be taken apart again
            while rows := result.cursor_strategy.fetchmany(result, result.cursor, BATCH):
                yield list(map(tuple, rows))
        finally:
            if self.dialect.closes_early:  # else `close` drops the connection instead
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
        self.connection.invalidate()
        self.connection.close()
        self._engine.dispose()
