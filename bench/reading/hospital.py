"""The hospital that the ingest benchmark reads: one PostgreSQL database with one table of generated reports in the shape of the paper's Table 1.

All six pretend houses write into the table of the first, in the order of time, as a reporting system's own table grows. It is a database of its
own on the given server, made once and dropped by the caller.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import psycopg
import sqlalchemy as sa
from psycopg import sql

from sandbox.facts import PretendReport
from sandbox.generator import generate
from sandbox.hospitals import SCHEMAS
from sandbox.presets import TOTAL
from sandbox.records import RECORDS

TABLE = "his_1.report"
CODE = "bench"
SEED = 5


def build(server: sa.URL, name: str, rows: int) -> sa.URL:
    """The address of the hospital's database on `server`, with `rows` reports; one that has them already is left as it is."""
    address = server.set(drivername="postgresql", database=name)
    with psycopg.connect(_text(server), autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is None:
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    with psycopg.connect(_text(address)) as connection:
        if connection.execute("SELECT to_regclass(%s)", [TABLE]).fetchone() == (None,):
            _fill(connection, rows)
        connection.commit()
        connection.autocommit = True
        connection.execute(f"VACUUM (ANALYZE) {TABLE}")
    return address


def drop(server: sa.URL, name: str) -> None:
    """Removes the hospital."""
    with psycopg.connect(_text(server), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def first(address: sa.URL, rows: int) -> str:
    """The name of a view of the oldest `rows` reports."""
    name = f"his_1.first_{rows}"
    with psycopg.connect(_text(address)) as connection:
        connection.execute(f"CREATE OR REPLACE VIEW {name} AS SELECT * FROM {TABLE} WHERE report_id <= {rows}")  # noqa: S608 - our own names
    return name


def span(address: sa.URL, rows: int) -> float:
    """Seconds before the newest report in which there are `rows`."""
    query = f"SELECT extract(epoch FROM max(updated_at) - min(updated_at)) FROM (SELECT updated_at FROM {TABLE} ORDER BY updated_at DESC LIMIT {rows}) last"  # noqa: S608
    with psycopg.connect(_text(address)) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return float(row[0])


CODED = (
    "sex", "age", "modality", "body_region", "exam_item", "patient_source", "status", "author_id", "author_title", "reviewer_id", "reviewer_title",
)  # fmt: skip
"""Columns whose values `ingest.rows` looks at once each; it remembers no other."""


def again(address: sa.URL) -> dict[str, float]:
    """How often what is read has been met before: of the coded values, which are remembered, and of the findings, which are not."""
    query = f"SELECT count(*), {', '.join(f'count(DISTINCT {word})' for word in (*CODED, 'findings'))} FROM {TABLE}"  # noqa: S608
    with psycopg.connect(_text(address)) as connection:
        rows, *distinct, findings = connection.execute(query).fetchone() or (1,)
    return {
        "codes_met_before": round(1 - sum(distinct) / (rows * len(CODED)), 4),
        "findings_met_before": round(1 - findings / rows, 4),
    }


def describe(folder: Path, address: sa.URL, table: str, overlap_s: float = 72 * 3600) -> Path:
    """The institution file that reads `table`: that of the sandbox's first house, at another place."""
    text = (SCHEMAS / "house-1.toml").read_text("utf-8").replace("sandbox-1", CODE).replace(TABLE, table)
    path = folder / f"{CODE}.toml"
    connection = f'url = "{_text(address.set(password=None))}"\noverlap_s = {overlap_s}'
    if address.password:
        (folder / "password").write_text(str(address.password), "utf-8")
        connection += '\npassword_file = "password"'
    path.write_text(text.replace("@CONNECTION@", connection), "utf-8")
    return path


def _fill(connection: psycopg.Connection, rows: int) -> None:
    connection.execute((SCHEMAS / "house-1.sql").read_bytes())
    connection.execute(f"CREATE TEMP TABLE made AS SELECT * FROM {TABLE} WITH NO DATA")  # noqa: S608
    columns: list[str] = []
    with connection.cursor() as cursor:
        reports = _reports(rows)
        head = next(reports)
        columns = list(RECORDS[1](head, head.signed_at))
        with cursor.copy(f"COPY made ({', '.join(columns)}) FROM STDIN") as copy:
            copy.write_row(_values(head))
            for report in reports:
                copy.write_row(_values(report))
    names = ", ".join(columns)
    connection.execute(
        f"INSERT INTO {TABLE} (report_id, {names})"  # noqa: S608
        f" SELECT row_number() OVER (ORDER BY updated_at, accession_no), {names} FROM made ORDER BY updated_at, accession_no"
    )


def _reports(rows: int) -> Iterator[PretendReport]:
    # a small hospital gets at least twenty reports of each house, which may be more than its share
    return islice(generate("paper", scale=rows / TOTAL, seed=SEED), rows)


def _values(report: PretendReport) -> tuple[object, ...]:
    record = RECORDS[1](report, report.signed_at)
    record["accession_no"] = f"{report.house}{record['accession_no']}"  # unique within a house only
    return tuple(record.values())


def _text(url: sa.URL) -> str:
    return url.render_as_string(hide_password=False)
