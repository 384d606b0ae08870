"""A look at a stranger's database or exported file: its tables or sheets, their columns and some values. Reads only, stores nothing, decides nothing.

What the columns mean is guessed by `ingest.guess`; what is made of the guesses stands in `ingest.proposal`.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from core.errors import Invalid, Refused
from ingest import excel, guess, writing
from ingest.dialects import Dialect, of_url
from ingest.writing import Column

SAMPLE_ROWS = 2000
LOOK_S = 60.0
"""Seconds that one statement of a look may take."""
MOST_TABLES = 500
_PROSE = re.compile(r"[。；]|，.*，|.{41}", re.DOTALL)
"""What a line of a report has and a line of headers has not."""
_DELIMITERS = (",", "\t", ";", "|")
_SYSTEM_SCHEMAS = frozenset(
    {
        "information_schema", "INFORMATION_SCHEMA", "sys", "guest", "system", "xdb", "mdsys", "ctxsys", "wmsys", "dbsnmp", "outln", "olapsys", "ordsys",
        "audsys", "gsmadmin_internal", "lbacsys", "dvsys", "ojvmsys", "appqossys",
    }
)  # fmt: skip
"""Schemas of PostgreSQL, SQL Server and Oracle that hold no reports; PostgreSQL's pg_… beside them."""


@dataclass(frozen=True, slots=True)
class Table:
    """One table, view or sheet: its columns with values of its first rows (all rows of a sheet), how many rows it has, and its primary key."""

    name: str
    columns: tuple[Column, ...]
    rows: int
    key: tuple[str, ...] = ()

    def column(self, name: str) -> Column:
        """The column of that name."""
        return next(column for column in self.columns if column.name == name)


@dataclass(frozen=True, slots=True)
class Sheets:
    """An exported file: how it is written, and its tables."""

    format: str
    charset: str
    delimiter: str
    tables: tuple[Table, ...]


class Database:
    """An open look at a database, in one read-only transaction where the database has such a thing."""

    def __init__(self, connection: sa.Connection, dialect: Dialect) -> None:
        self.connection, self.dialect = connection, dialect
        self._quote = connection.dialect.identifier_preparer.quote

    def quoted(self, name: str) -> str:
        """A table's or column's name as the database's SQL writes it; `schema.table` by its parts."""
        return self._quote(name)

    def joined(self, *texts: str) -> str:
        """Texts written one after the other."""
        if self.dialect.title in ("MySQL/MariaDB", "SQL Server"):
            return f"CONCAT({', '.join(texts)})"
        return " || ".join(texts)

    def named(self, table: str) -> str:
        """A table's name, with its schema or without, for FROM."""
        return ".".join(self._quote(part) for part in table.split("."))

    def tables(self) -> list[tuple[str, int]]:
        """The tables and views that look like reports, best first: how many of our words their columns' names are.

        Raises Refused where a driver cannot be asked for them.
        """
        if not self.dialect.inspects:
            raise Refused(f"{self.dialect.title} cannot be asked for its tables: name one by --table.", code="no_table")
        inspector = sa.inspect(self.connection)
        found: list[tuple[str, int]] = []
        default = inspector.default_schema_name
        for schema in self._schemas(inspector):
            names = [*inspector.get_view_names(schema), *inspector.get_table_names(schema)]
            for name in names[:MOST_TABLES]:
                table = name if schema in (None, default) else f"{schema}.{name}"
                words = {each.word for each in guess.words(_inspected(inspector, table)) if each.sure}
                if words & {"findings", "impression", "report_text"}:
                    found.append((table, len(words)))
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))

    def table(self, name: str) -> Table:
        """One table with values of its first rows. Raises Refused when there is none of that name."""
        key: tuple[str, ...] = ()
        try:
            if self.dialect.inspects:
                inspector = sa.inspect(self.connection)
                schema, _, bare = name.rpartition(".")
                columns = _inspected(inspector, name)
                key = tuple(inspector.get_pk_constraint(bare, schema or None)["constrained_columns"])
            else:
                nothing = sa.text(f"SELECT * FROM {self.named(name)} WHERE 1 = 0")  # noqa: S608 - quoted
                columns = [Column(column, ()) for column in self.connection.execute(nothing).keys()]  # noqa: SIM118 - no dict
        except sa.exc.NoSuchTableError:
            columns = []
        if not columns:
            raise Refused(f"There is no table or view {name} that this account may read.", code="no_table")
        chosen = sa.select(sa.text(", ".join(self._quote(column.name) for column in columns))).select_from(
            sa.text(self.named(name))
        )
        query = chosen.limit(SAMPLE_ROWS) if self.dialect.limits else chosen
        rows = self.connection.execute(query).fetchmany(SAMPLE_ROWS)
        count = self.connection.execute(sa.text(f"SELECT count(*) FROM {self.named(name)}")).scalar_one()  # noqa: S608 - quoted above
        filled = [Column(c.name, tuple(row[at] for row in rows), c.type, c.width) for at, c in enumerate(columns)]
        return Table(name, tuple(filled), int(count), key)

    def codes(self, table: str, column: str) -> Counter[str]:
        """Every value of a column and how often it stands there; at most 200 of them."""
        name = self._quote(column)
        query = sa.text(f"SELECT {name}, count(*) FROM {self.named(table)} GROUP BY {name}")  # noqa: S608 - quoted above
        rows = self.connection.execute(query).fetchmany(200)
        found: Counter[str] = Counter()
        for value, count in rows:
            if text := code(value):
                found[text] += int(count)
        return found

    def _schemas(self, inspector: sa.Inspector) -> list[str | None]:
        if self.dialect.drivername.startswith("mysql"):
            return [None]  # its schemas are the server's other databases
        return [
            name for name in inspector.get_schema_names() if name not in _SYSTEM_SCHEMAS and not name.startswith("pg_")
        ]


@contextmanager
def database(url: sa.URL, timezone: str) -> Iterator[Database]:
    """A look at the database at `url`, whose password is in it.

    Raises:
        Invalid: it is of no kind that we read. Broken: its driver is missing.
        sqlalchemy.exc.OperationalError: it does not answer.
    """
    try:
        dialect = of_url(url)
    except ValueError as error:
        raise Invalid(f"{error}.") from None
    engine = dialect.engine(url.set(drivername=dialect.drivername), LOOK_S)
    with engine.connect().execution_options(**dialect.execution) as connection:
        for statement in dialect.opening(ZoneInfo(timezone)):
            connection.exec_driver_sql(statement)
        if dialect.snapshot is not None:
            connection.commit()
            connection.exec_driver_sql(dialect.snapshot)
        yield Database(connection, dialect)
        connection.rollback()
    engine.dispose()


def file(path: Path, told_by: str, only: Sequence[str] = ()) -> Sheets:
    """A look at an exported file; `only` names the sheets to look at, none: all.

    Raises:
        Refused: there is no such file or sheet, or its characters are in no charset we know.
        Broken: it is an Excel file that cannot be opened.
    """
    try:
        with path.open("rb") as opened:
            head = opened.read(8)
    except OSError as error:
        raise Refused(f"{path} cannot be read ({error.strerror}).", code="no_file") from None
    if head[:4] == b"PK\x03\x04" or head == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
        found = [sheet for sheet in excel.sheets(path, told_by) if not sheet.is_empty()]
        if unknown := [name for name in only if name not in {sheet.name for sheet in found}]:
            there = ", ".join(sheet.name for sheet in found)
            raise Refused(f"{path.name} has no sheet {unknown[0]}; it has {there}.", code="no_sheet")
        tables = [_headed(sheet.name, sheet.cells) for sheet in found if not only or sheet.name in only]
        return Sheets("excel", "utf-8", ",", tuple(tables))
    content = path.read_bytes()
    charset = writing.charset_of(content)
    if charset is None:
        raise Refused(f"{path.name} is no text in UTF-8, GB18030, Big5 or UTF-16, and no Excel file.", code="charset")
    text = content.decode(charset, "replace").removeprefix(
        "\ufeff"
    )  # a broken line is told when it is read; here it only shows nothing
    if re.match(r"\s*\[\s*\{", text):
        raise Refused(f"{path.name} is one JSON array: write one object a line (jq -c '.[]').", code="json_array")
    if text.lstrip().startswith("{"):
        if charset == "utf-16":
            raise Refused(f"{path.name} is UTF-16; JSON lines are read as UTF-8 or GB18030.", code="charset")
        return Sheets("jsonl", charset, ",", (_objects(path.name, text),))
    delimiter = _delimiter(text)
    cells = [
        [excel.kept(cell) for cell in row]
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        if row
    ]
    return Sheets("csv", "utf-8" if charset == "utf-16" else charset, delimiter, (_headed(path.name, cells),))


def _inspected(inspector: sa.Inspector, table: str) -> list[Column]:
    schema, _, bare = table.rpartition(".")
    return [
        Column(str(each["name"]), (), str(each["type"]), getattr(each["type"], "length", None))
        for each in inspector.get_columns(bare, schema or None)
    ]


def code(value: Any) -> str:
    """A value as the text by which codes are compared; a blank one is empty."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value).strip()


def _headed(name: str, cells: list[list[Any]]) -> Table:
    """The table below the line that looks most like a header."""
    top = cells[: excel.HEADER_ROWS]
    scores = [
        len(guess.words([Column(excel.heading(cell), ()) for cell in row if cell not in (None, "")])) for row in top
    ]
    if not any(scores) and any(_PROSE.search(str(cell)) for row in top[:1] for cell in row if cell is not None):
        return Table(
            name, (), 0
        )  # it begins with a report: its texts are no names of columns, and nobody may read them as such
    header = scores.index(max(scores)) if any(scores) else 0
    names = [excel.heading(cell) for cell in cells[header]] if cells else []
    rows = [row for row in cells[header + 1 :] if any(cell not in (None, "") for cell in row)]
    columns = [
        Column(heading, tuple(row[at] if at < len(row) else None for row in rows))
        for at, heading in enumerate(names)
        if heading and heading not in names[:at]
    ]
    return Table(name, tuple(columns), len(rows))


def _objects(name: str, text: str) -> Table:
    rows = []
    for line in text.splitlines():
        try:
            item = json.loads(line)
        except ValueError:
            continue  # told when it is read; here it only shows nothing
        if isinstance(item, dict):
            rows.append(dict(_leaves(item)))
    names = list(dict.fromkeys(key for row in rows for key in row))
    return Table(name, tuple(Column(key, tuple(row.get(key) for row in rows)) for key in names), len(rows))


def _leaves(item: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """What an object holds, by paths such as `report.findings`; lists are no values of a column."""
    for key, value in item.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{key}.")
        elif not isinstance(value, list):
            yield f"{above}{key}", value


def _delimiter(text: str) -> str:
    """The delimiter under which some line looks most like a header; of equals the one that stands there most often."""
    lines = text.splitlines()[: excel.HEADER_ROWS]

    def fits(delimiter: str) -> tuple[int, int]:
        rows = list(csv.reader(lines, delimiter=delimiter))
        words = max((len(guess.words([Column(cell, ()) for cell in row if cell])) for row in rows), default=0)
        return words, max((len(row) for row in rows), default=0)

    return max(_DELIMITERS, key=fits)
