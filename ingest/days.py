"""An institution's database by days of its cursor time: what reconciliation compares and backfill fetches. Moves no cursor.

Rows without a usable time belong to no day; every poll reads them all.
"""

import hashlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

import sqlalchemy as sa

from core.errors import Refused
from ingest.cursor import OLDEST
from ingest.mapping import Mapping
from ingest.origin import FileConfig
from ingest.overlap import row_hash
from ingest.sources import BATCH, Batch
from ingest.sql import STREAM, SqlSource


@dataclass(frozen=True, slots=True)
class DaySum:
    """How many rows a day has, and the sum over a hash of each, so that their order does not matter."""

    rows: int
    hash: str


class DaySource(SqlSource):
    """One institution's database, opened for a few of its days in one read-only snapshot."""

    def __init__(self, of: Mapping, *, deadline_s: float) -> None:
        """Connects, as every source does.

        Raises:
            Refused: the source is a folder: its files are read whole whenever they change.
        """
        if isinstance(of.source, FileConfig):
            raise Refused(
                f"{of.code} is a folder of files, which are read whole whenever they change; only databases have days.",
                code="no_days",
            )
        super().__init__(of, deadline_s=deadline_s)
        self._textual = bool(self._written_times())

    def bounds(self, day: date) -> tuple[datetime, datetime]:
        """When a day begins and ends in the source's zone."""
        zone = self._config.zone
        return datetime.combine(day, time(), zone), datetime.combine(day + timedelta(days=1), time(), zone)

    def day_of(self, moment: datetime | None) -> date | None:
        """The day of a moment in the source's zone."""
        return None if moment is None else moment.astimezone(self._config.zone).date()

    def summed(self, day: date) -> DaySum:
        """The day's rows in one number: every column of each row where the database can hash them, else time and key."""
        if (row_hash := self._row_hash()) is None:
            pairs = [(str(row[0]), str(row[1])) for row in self._execute([self._time, self._key], day)]
            total = sum(int.from_bytes(hashlib.sha256("\x1f".join(pair).encode()).digest()[:7]) for pair in pairs)
            return DaySum(len(pairs), str(total))
        sums = self._execute([sa.func.count(), sa.func.sum(row_hash)], day).one()
        return DaySum(int(sums[0]), str(sums[1] or 0))

    def source_keys(self, day: date | None = None) -> Iterator[Any]:
        """The source's own key of each row of a day, or of every row that there is."""
        yield from self._execute([self._rows.c["source_id"]], day).scalars()

    def spanned(self, day: date, *, size: int = BATCH) -> Generator[Batch, None, None]:
        """The day's rows by (time, key), so many at a time, without a position."""
        result = self._execute(self._read(), day, order=[self._time, self._key], stream=size)
        as_of = self.bounds(day)[0]
        try:
            for rows in result.partitions(size):
                yield Batch(STREAM, self._columns, [tuple(row) for row in rows], None, None, as_of)
        finally:
            if self.dialect.closes_early:
                result.close()

    def oldest(self) -> date | None:
        """The first day that has a row."""
        since = self._bound(OLDEST, self._textual)
        first = self.connection.execute(sa.select(sa.func.min(self._time)).where(self._time > since)).scalar()
        return None if first is None else self.day_of(self._config.moment(first))

    def _execute(
        self, what: list[Any], day: date | None, *, order: list[Any] | None = None, stream: int = BATCH
    ) -> Any:
        query = sa.select(*what).select_from(self._rows)
        if day is not None:
            begins, ends = (self._bound(bound, self._textual) for bound in self.bounds(day))
            query = query.where(self._time >= begins, self._time < ends)
        options = {"stream_results": True, "max_row_buffer": stream}
        return self.connection.execution_options(**options).execute(query.order_by(*(order or [])))

    def _row_hash(self) -> sa.ColumnElement[int] | None:
        """60 bits of a row's hash, where the database makes one."""
        kind = self.connection.dialect.name
        if (digest := row_hash(kind, self._columns)) is None:
            return None
        if kind == "postgresql":
            return sa.literal_column(f"('x' || substr({digest}, 1, 15))::bit(60)::bigint")
        return sa.literal_column(f"CAST(conv(substr({digest}, 1, 15), 16, 10) AS unsigned)")
