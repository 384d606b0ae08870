"""Where the pretend hospitals keep their rows: a PostgreSQL schema, a MariaDB table, or a folder of exported files.

These are the hospitals' own databases, not ours: each `write` is one transaction of its own connection. Writing what is already there does
nothing, or replaces it where asked.
"""

import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pymysql
from psycopg import sql

from sandbox.records import Record

Line = tuple[str, str, int, str]


class Store(Protocol):
    """One hospital's keeping place."""

    def clock(self) -> datetime:
        """The hospital's own clock, aware."""
        ...

    def write(self, rows: Sequence[Record], lines: Sequence[Line], *, replace: bool) -> int:
        """Adds rows, one per accession, and returns how many were new or replaced. Without `replace` those that exist are left alone."""
        ...


class PostgresStore:
    """A schema of the sandbox database; `second` is the table of text lines, where there is one."""

    def __init__(
        self, connection: psycopg.Connection[Any], table: str, accession: str, second: str | None = None
    ) -> None:
        self._connection, self._accession = connection, accession
        self._table = sql.Identifier(*table.split("."))
        self._second = sql.Identifier(*second.split(".")) if second else None

    def clock(self) -> datetime:
        """The server's clock."""
        row = self._connection.execute("SELECT clock_timestamp()").fetchone()
        self._connection.commit()
        assert row is not None  # noqa: S101 - SELECT without FROM has one row
        return row[0].astimezone(UTC)  # type: ignore[no-any-return]

    def write(self, rows: Sequence[Record], lines: Sequence[Line], *, replace: bool) -> int:
        """COPY into a temporary table, then one upsert."""
        if not rows:
            return 0
        columns = sql.SQL(", ").join(map(sql.Identifier, rows[0]))
        names = {"table": self._table, "columns": columns, "key": sql.Identifier(self._accession)}
        changes = sql.SQL(", ").join(
            sql.SQL("{0} = EXCLUDED.{0}").format(sql.Identifier(column))
            for column in rows[0]
            if column != self._accession
        )
        action = sql.SQL("UPDATE SET {}").format(changes) if replace else sql.SQL("NOTHING")
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.execute(
                sql.SQL(
                    "CREATE TEMP TABLE incoming ON COMMIT DROP AS SELECT {columns} FROM {table} WITH NO DATA"
                ).format(**names)
            )
            with cursor.copy(sql.SQL("COPY incoming ({columns}) FROM STDIN").format(**names)) as copy:
                for row in rows:
                    copy.write_row(tuple(row.values()))
            cursor.execute(
                sql.SQL(
                    "INSERT INTO {table} ({columns}) SELECT {columns} FROM incoming ON CONFLICT ({key}) DO {action}"
                ).format(action=action, **names)
            )
            written = cursor.rowcount
            if self._second is not None:
                self._write_lines(cursor, lines, replace=replace)
        self._connection.commit()
        return written

    def _write_lines(self, cursor: psycopg.Cursor[Any], lines: Sequence[Line], *, replace: bool) -> None:
        names = {"second": self._second}
        cursor.execute(
            sql.SQL("CREATE TEMP TABLE incoming_lines ON COMMIT DROP AS SELECT * FROM {second} WITH NO DATA").format(
                **names
            )
        )
        with cursor.copy("COPY incoming_lines FROM STDIN") as copy:
            for line in lines:
                copy.write_row(line)
        if replace:
            cursor.execute(
                sql.SQL("DELETE FROM {second} WHERE report_id IN (SELECT report_id FROM incoming_lines)").format(
                    **names
                )
            )
        new = (
            "SELECT * FROM incoming_lines n WHERE NOT EXISTS (SELECT 1 FROM {second} o WHERE o.report_id = n.report_id)"
        )
        cursor.execute(sql.SQL("INSERT INTO {second} " + new).format(**names))


class MariaStore:
    """One GBK table. As in many real ones the server is not strict: a character that GBK lacks is stored as `?`."""

    def __init__(self, connection: "pymysql.connections.Connection[Any]", table: str, accession: str) -> None:
        self._connection, self._table, self._accession = connection, table, accession
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION sql_mode = 'NO_ENGINE_SUBSTITUTION'")

    def clock(self) -> datetime:
        """The server's clock."""
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT UTC_TIMESTAMP(6)")
            row = cursor.fetchone()
        assert row is not None  # noqa: S101 - SELECT without FROM has one row
        return row[0].replace(tzinfo=UTC)  # type: ignore[no-any-return]

    def write(self, rows: Sequence[Record], lines: Sequence[Line], *, replace: bool) -> int:
        """One multi-row INSERT; `lines` belong to another hospital and are none here."""
        if not rows:
            return 0
        columns = list(rows[0])
        places = ", ".join(["%s"] * len(columns))
        names = ", ".join(f"`{column}`" for column in columns)
        statement = f"INSERT {'' if replace else 'IGNORE '}INTO `{self._table}` ({names}) VALUES ({places})"  # noqa: S608 - our own names
        if replace:
            changes = ", ".join(f"`{column}` = VALUES(`{column}`)" for column in columns if column != self._accession)
            statement += f" ON DUPLICATE KEY UPDATE {changes}"
        with self._connection.cursor() as cursor:
            if not replace:
                known = self._known(cursor, [row[self._accession] for row in rows])
                rows = [row for row in rows if row[self._accession] not in known]
            if rows:
                cursor.executemany(statement, [tuple(row.values()) for row in rows])
        self._connection.commit()
        return len(rows)

    def _known(self, cursor: Any, accessions: list[str]) -> set[str]:
        places = ", ".join(["%s"] * len(accessions))
        query = f"SELECT `{self._accession}` FROM `{self._table}` WHERE `{self._accession}` IN ({places})"  # noqa: S608
        cursor.execute(query, accessions)
        return {row[0] for row in cursor.fetchall()}


class FileStore:
    """A folder of CSV exports, one more per write; nothing that was exported is ever changed."""

    def __init__(self, folder: Path, charset: str, accession: str, *, line_end: str = "\r\n") -> None:
        self._folder, self._charset, self._accession, self._line_end = folder, charset, accession, line_end
        folder.mkdir(parents=True, exist_ok=True)

    def clock(self) -> datetime:
        """This machine's clock, which also dates the files."""
        return datetime.now(UTC)

    def write(self, rows: Sequence[Record], lines: Sequence[Line], *, replace: bool) -> int:
        """A new file with what is new (or, to replace, with everything); readers never see half of one."""
        if not replace:
            known = self._known()
            rows = [row for row in rows if row[self._accession] not in known]
        if not rows:
            return 0
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]), lineterminator=self._line_end)
        writer.writeheader()
        writer.writerows(rows)
        target = self._folder / f"export-{len(list(self._folder.glob('*.csv'))) + 1:04d}.csv"
        partial = target.with_suffix(".part")
        # a character that the charset lacks becomes `?`, as it does in the exports of real systems
        partial.write_bytes(text.getvalue().encode(self._charset, "replace"))
        partial.replace(target)
        return len(rows)

    def _known(self) -> set[str]:
        known: set[str] = set()
        for path in sorted(self._folder.glob("*.csv")):
            with path.open(encoding=self._charset, newline="") as file:
                known.update(row[self._accession] for row in csv.DictReader(file))
        return known
