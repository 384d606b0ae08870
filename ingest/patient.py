"""A database under examination: an institution's source as a poll opens it, and the questions that `ingest.doctor` asks of it. Reads only."""

import time
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from ingest.dialects import MYSQL
from ingest.mapping import Mapping
from ingest.origin import TEXTS
from ingest.sql import SqlSource

TRIED = 5000
"""Rows that are looked at one by one."""


class Patient(SqlSource):
    """A database under examination."""

    def __init__(self, mapping: Mapping, *, deadline_s: float) -> None:
        """Connects as a poll does, and takes the time."""
        began = time.perf_counter()
        super().__init__(mapping, deadline_s=deadline_s)
        self.connect_ms = (time.perf_counter() - began) * 1000
        self.mapping = mapping

    def newest(self) -> list[tuple[Any, Any]]:
        """Time and key of the newest rows."""
        query = sa.select(self._time, self._key).where(self._time.is_not(None)).order_by(self._time.desc())
        result = self.connection.execute(query.limit(TRIED) if self.dialect.limits else query)
        rows = [tuple(row) for row in result.fetchmany(TRIED)]
        result.close()
        return [(at, key) for at, key in rows]

    def window(self) -> sa.Select[Any]:
        """The query of an ordinary poll: the last overlap."""
        now = self.clock()
        textual = bool(self._written_times())
        since = self._bound(now - timedelta(seconds=self._config.overlap_s), textual)
        return (
            sa.select(*self._read())
            .where(self._time >= since, self._time <= self._bound(now, textual))
            .order_by(self._time, self._key)
        )

    def widths(self) -> dict[str, int]:
        """How many characters each text's column holds, where the driver knows."""
        result = self.connection.execute(sa.text(f"SELECT * FROM ({self._text.text}) source_rows WHERE 1 = 0"))  # noqa: S608 - a reviewed file
        description: Any = result.cursor.description if result.cursor is not None else ()
        place, divisor = (3, 4) if self.dialect is MYSQL else (2, 1)
        return {
            str(each[0]).lower(): int(each[place]) // divisor
            for each in description
            if isinstance(each[place], int) and 0 < each[place] < 100_000
        }

    def texts(self) -> dict[str, list[str]]:
        """The report texts of some rows, by word; a word without any is left out."""
        query = sa.select(*self._read())
        result = self.connection.execute(query.limit(TRIED) if self.dialect.limits else query)
        rows = result.fetchmany(TRIED)
        result.close()
        found: dict[str, list[str]] = {}
        for place, word in enumerate(self._columns):
            if word in TEXTS and (
                texts := [text for row in rows if (text := _text(row[place], self._config.charset_of(word)))]
            ):
                found[word] = texts
        return found

    def nulls(self) -> tuple[int, int]:
        """How many rows there are, and how many have no time."""
        row = self.connection.execute(
            sa.select(sa.func.count(), sa.func.count(self._time)).select_from(self._rows)
        ).one()
        return int(row[0]), int(row[0]) - int(row[1])

    def values(self, word: str) -> list[tuple[str, int]]:
        """The values of a code column with their counts."""
        if word not in self._columns:
            return []
        column = self._rows.c[word]
        query = sa.select(column, sa.func.count()).group_by(column)
        return [
            (str(value).strip(), int(count))
            for value, count in self.connection.execute(query).fetchmany(1000)
            if value is not None
        ]


def _text(value: Any, charset: str) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode(charset, "ignore")  # for its length only
    return "" if value is None else str(value)
