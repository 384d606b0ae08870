"""The ways of reading the hospital: ours as it is, ours without cleaning, dlt, and COPY. Each runs once, in a process of its own."""

import os
import resource
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psycopg
import sqlalchemy as sa

from core import db, institutions
from core.identity import Keyring
from ingest import mapping
from ingest.cleaner import Cleaner
from ingest.cleaning import Cleaned, Cleaning, Uncleaned
from ingest.poll import poll
from ingest.rows import Incoming
from ingest.sql import SqlSource

HOURS = 3600.0


@dataclass(frozen=True, slots=True)
class Task:
    """What one run reads, and where it puts it. `table` is in `hospital`; the institution file and the key lie in `home`."""

    hospital: str
    table: str
    target: str
    home: Path


@dataclass(frozen=True, slots=True)
class Run:
    """One run: wall-clock seconds, and the seconds that its own process computed (the servers' are not in it)."""

    rows: int
    seconds: float
    cpu_s: float
    quarantined: int = 0

    @property
    def rows_per_s(self) -> int:
        """Rows of the source per second of wall clock."""
        return round(self.rows / self.seconds)


def whole(task: Task) -> Run:
    """From the hospital's rows to cleaned, de-identified, versioned, queryable reports."""
    return _polled(task, Cleaner())


def mover(task: Task) -> Run:
    """The same way with texts as they are: neither cleaned nor de-identified, and their hash that of the row."""
    return _polled(task, _AsReceived())


class _AsReceived(Cleaner):
    """Cleans nothing."""

    def __init__(self) -> None:
        super().__init__(beside=False)

    def begin(self, rows: Sequence[Uncleaned], cleaning: Cleaning, *, more: bool) -> Future[list[Cleaned]]:
        """The texts of each row as they are, in this process."""
        taken: Future[list[Cleaned]] = Future()
        taken.set_result([_as_received(row) for row in rows if isinstance(row, Incoming)])
        return taken


def _as_received(row: Incoming) -> Cleaned:
    texts = (row.findings, row.impression, row.history, row.prior_impression)
    return Cleaned(*texts, row.content_hash, None, (), "as received")


def _polled(task: Task, cleaner: Cleaner) -> Run:
    folder = task.home / "institutions"
    engine = db.connect(task.target, pool_size=4)
    with db.transaction(engine) as session:
        institutions.sync(session, institutions.load_profiles(folder))
    of = mapping.load(next(folder.glob("*.toml")))
    keyring = Keyring.load(task.home / "master.key", create=True)
    began, computed = time.monotonic(), _computed()
    source = SqlSource(of, deadline_s=HOURS)
    result = poll(engine, source, of, keyring, budget_s=HOURS, resume={}, told=lambda _: None, cleaner=cleaner)
    source.close()
    cleaner.close()
    seconds, computed = time.monotonic() - began, _computed() - computed
    assert result.error is None, result.message
    engine.dispose()
    return Run(result.rows_read, seconds, computed, result.quarantined)


def dlt_best(task: Task) -> Run:
    """dlt's SQL source with merge, as fast as its settings go: Arrow tables, CSV files, COPY."""
    return _dlt(task, "pyarrow", "csv")


def dlt_default(task: Task) -> Run:
    """dlt's SQL source with merge, as it comes."""
    return _dlt(task, "sqlalchemy", "insert_values")


def _dlt(task: Task, backend: Literal["pyarrow", "sqlalchemy"], files: Literal["csv", "insert_values"]) -> Run:
    os.environ |= {
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "RUNTIME__LOG_LEVEL": "CRITICAL",
        "DLT_DATA_DIR": str(task.home),
    }
    warnings.simplefilter("ignore")  # what dlt says of its own dependencies is not ours to mend
    import dlt
    from dlt.sources.sql_database import sql_table

    began, computed = time.monotonic(), _computed()
    schema, _, name = task.table.partition(".")
    pipeline = dlt.pipeline(
        "bench",
        destination=dlt.destinations.postgres(credentials=_with_password(task.target)),
        dataset_name="reports",
        pipelines_dir=str(task.home / "pipelines"),
    )
    table = sql_table(
        credentials=task.hospital.replace("postgresql://", "postgresql+psycopg://", 1),
        table=name,
        schema=schema,
        backend=backend,
        chunk_size=10_000,
        primary_key="report_id",
        write_disposition={"disposition": "merge", "strategy": "delete-insert"},
        reflection_level="full_with_precision",
    )
    pipeline.run(table, loader_file_format=files)
    seconds, computed = time.monotonic() - began, _computed() - computed
    with psycopg.connect(task.target) as connection:
        found = connection.execute(f"SELECT count(*) FROM reports.{name}").fetchone()  # noqa: S608 - our own name
    assert found is not None
    return Run(found[0], seconds, computed)


def _with_password(address: str) -> str:
    """dlt asks for a password where the server asks for none."""
    url = sa.make_url(address)
    return url.set(password=url.password or "none").render_as_string(hide_password=False)


def raw_copy(task: Task) -> Run:
    """COPY out of one connection into the other, into a table without an index: what moving the bytes takes."""
    began, computed = time.monotonic(), _computed()
    with psycopg.connect(task.hospital) as source, psycopg.connect(task.target) as target:
        described = source.execute(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0",
            [task.table],
        ).fetchall()
        target.execute(f"CREATE TABLE copied ({', '.join(f'{name} {kind}' for name, kind in described)})")
        with (
            source.cursor() as reads,
            target.cursor() as writes,
            reads.copy(f"COPY (SELECT * FROM {task.table}) TO STDOUT") as out,  # noqa: S608
            writes.copy("COPY copied FROM STDIN") as into,
        ):
            for piece in out:
                into.write(piece)
        target.commit()
        seconds, computed = time.monotonic() - began, _computed() - computed
        copied = target.execute("SELECT count(*) FROM copied").fetchone()
    assert copied is not None
    return Run(copied[0], seconds, computed)


def _computed() -> float:
    return sum(
        used.ru_utime + used.ru_stime
        for used in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


RUNS: dict[str, Callable[[Task], Run]] = {
    "ours": whole,
    "mover": mover,
    "dlt": dlt_best,
    "dlt_default": dlt_default,
    "copy": raw_copy,
}
