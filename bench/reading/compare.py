"""Rows per second from a hospital's database to queryable reports, beside dlt and COPY over the same rows and the same server.

`ours` is the real poll with everything on: mapped, cleaned, de-identified, versioned, four indexes. `mover` is that poll without cleaning and
de-identification. `dlt` is dlt's SQL source with merge at its best settings, `dlt_default` as it comes; it cleans nothing, and its table has no index
but what merging needs. `copy` moves the bytes and no more. Every run has a fresh database and a process of its own; memory is that of the process
and its children, without the servers. Processor time a row stands beside the rate, since a busy machine changes it less: of the process that reads,
of its children, which clean, and of the server's sessions at the source and at the target, where the server runs on this machine. `idle_poll_ms` is the
median poll of a resident child with nothing new and every row present. No text is remembered: what is met again is only the codes, ages, titles and
doctors of `hospital.CODED`, and the line before the last says how often. The search for near duplicates is a pass of its own.

The servers: `--server` or BENCH_POSTGRES names one that holds both sides; otherwise the embedded one is started and removed.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import psycopg
import sqlalchemy as sa
from psycopg import sql

from bench.reading import hospital
from bench.reading.runs import RUNS, Run, Task
from core import db, embedded
from ingest.child import Child, Job, Place
from ingest.duplicates import search
from migrations import run as migrations
from sandbox.presets import TOTAL

QUICK = 40_000
CURVE = (10_000, 40_000, 100_000)
IDLE_POLLS = 15
OVERLAP_ROWS = 1500
"""What an idle poll looks over: three days of a house that signs 500 reports a day."""
_processes = multiprocessing.get_context("spawn")


def main() -> None:
    """Measures and prints one JSON object on the last line."""
    parser = argparse.ArgumentParser(description="Reading a hospital, beside dlt and beside COPY")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK:,} reports instead of {TOTAL:,}")
    parser.add_argument("--rows", type=int, help="as many reports as this")
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS), help="only these runs")
    parser.add_argument("--json", action="store_true", help="only the JSON line")
    parser.add_argument(
        "--server", default=os.environ.get("BENCH_POSTGRES"), help="PostgreSQL that may create databases"
    )
    options = parser.parse_args()
    rows = options.rows or (QUICK if options.quick else TOTAL)

    def say(text: str) -> None:
        if not options.json:
            print(text, flush=True)

    with tempfile.TemporaryDirectory(prefix="valuer-bench-") as folder, _server(Path(folder), options.server) as server:
        home = Path(folder) / "home"
        (home / "institutions").mkdir(parents=True)
        bench = Bench(server, home, rows)
        try:
            say(f"{rows:,} generated reports in the shape of Table 1 …")
            bench.build()
            say(f"PostgreSQL {bench.version}, {os.cpu_count()} cores")
            result = compare(bench, options.only, say)
        finally:
            bench.clear()
    print(json.dumps(result, ensure_ascii=False))


@contextmanager
def _server(folder: Path, address: str | None) -> Iterator[sa.URL]:
    if address is not None:
        yield sa.make_url(address)
        return
    folder.chmod(0o711)  # as root the server runs as another user, who has to get in
    home = folder / "server"
    home.mkdir(mode=0o711)
    try:
        url = sa.make_url(embedded.ensure(home, valkey=False).database_url)
        # a host that is a folder: the form that every driver understands
        yield sa.URL.create("postgresql", url.username, None, str(url.query["host"]), 5432, url.database)
    finally:
        embedded.stop(home)


class Bench:
    """The databases of one comparison, and runs over them."""

    def __init__(self, server: sa.URL, home: Path, rows: int) -> None:
        self.server, self.home, self.rows = server, home, rows
        self._names = {part: f"valuer_bench_{os.getpid()}_{part}" for part in ("hospital", "target")}
        self.version = ""

    def build(self) -> None:
        """Makes the hospital."""
        self.hospital = hospital.build(self.server, self._names["hospital"], self.rows)
        with psycopg.connect(_text(self.server)) as connection:
            self.version = str(connection.info.parameter_status("server_version")).split()[0]

    def clear(self) -> None:
        """Removes every database."""
        for name in self._names.values():
            hospital.drop(self.server, name)

    def target(self, *, migrated: bool) -> str:
        """The address of a fresh database."""
        hospital.drop(self.server, self._names["target"])
        with psycopg.connect(_text(self.server), autocommit=True) as connection:
            name = sql.Identifier(self._names["target"])
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(name))
        address = _text(self.server.set(database=self._names["target"]))
        if migrated:
            engine = db.connect(address, pool_size=1)
            migrations.upgrade(engine)
            engine.dispose()
        return address

    def measure(self, name: str, rows: int) -> "Measured":
        """One run over the oldest `rows` reports."""
        table = hospital.TABLE if rows == self.rows else hospital.first(self.hospital, rows)
        hospital.describe(self.home / "institutions", self.hospital, table)
        task = Task(_text(self.hospital), table, self.target(migrated=name in ("ours", "mover")), self.home)
        here, there = _processes.Pipe(duplex=False)
        process = _processes.Process(target=_in_process, args=(there, name, task))
        process.start()
        there.close()
        watch = _Watch(process.pid, self._names)
        try:
            run: Run = here.recv()
        except EOFError:
            raise SystemExit(f"The run {name} failed.") from None
        finally:
            watch.stop()
            process.join()
        spent = watch.computed()
        spent["process"] = run.cpu_s - spent.get("children", 0.0)  # which leaves out its start
        return Measured(
            run, watch.most / 2**20, {who: round(1e6 * s / run.rows, 1) for who, s in sorted(spent.items())}
        )

    def duplicates(self) -> dict[str, Any]:
        """The search for near duplicates among everything that `measure("ours", …)` has read."""
        engine = db.connect(_text(self.server.set(database=self._names["target"])), pool_size=4)
        began = time.monotonic()
        found = search(engine)
        seconds = time.monotonic() - began
        engine.dispose()
        return {
            "near_duplicates_s": round(seconds, 1),
            "near_duplicates_rows_per_s": round(found.examined / seconds),
            "near_duplicates": found.near,
        }

    def idle(self) -> dict[str, Any]:
        """Polls with nothing new, after `measure("ours", …)` has read everything: through the resident child that the ingest process keeps."""
        path = hospital.describe(
            self.home / "institutions",
            self.hospital,
            hospital.TABLE,
            overlap_s=hospital.span(self.hospital, OVERLAP_ROWS),
        )
        database = _text(self.server.set(database=self._names["target"]))
        place = Place(database, self.home / "master.key", "ERROR", self.home)
        child, times = Child(place, hospital.CODE), list[float]()
        try:
            for number in range(IDLE_POLLS + 3):
                began = time.monotonic()
                result = child.work(Job(path, 600.0))
                times.append(1000 * (time.monotonic() - began))
                assert result.error is None, result.message
                assert result.stored == 0
                if number >= 3:
                    assert result.unchanged == 0
        finally:
            child.close()
        return {
            "idle_poll_ms": round(statistics.median(times[3:]), 1),
            "idle_poll_max_ms": round(max(times[3:]), 1),
            "idle_overlap_rows": OVERLAP_ROWS,
        }


def compare(bench: Bench, names: list[str], say: Any) -> dict[str, Any]:
    """Every run over all rows, ours over growing parts of them too."""
    result: dict[str, Any] = {"rows": bench.rows}
    memory: list[float] = []
    for name in [each for each in names if each != "ours"]:
        measured = bench.measure(name, bench.rows)
        result[f"{name}_rows_per_s"] = measured.run.rows_per_s
        result[f"{name}_cpu_us"] = measured.cpu_us
        if name == "mover":
            memory.append(measured.peak_mb)
        say(_line(name, measured))
    if "ours" in names:
        curve = []
        for size in [*(size for size in CURVE if size < bench.rows), bench.rows]:
            measured = bench.measure("ours", size)
            memory.append(measured.peak_mb)
            curve.append({"rows": size, "rows_per_s": measured.run.rows_per_s, "peak_rss_mb": round(measured.peak_mb)})
            say(_line("ours", measured))
        result |= {
            "ours_rows_per_s": measured.run.rows_per_s,
            "ours_cpu_us": measured.cpu_us,
            "ours_cpu_us_per_row": round(1e6 * measured.run.cpu_s / measured.run.rows, 1),
            "quarantined": measured.run.quarantined,
            "curve": curve,
        }
        result |= bench.idle() | bench.duplicates() | hospital.again(bench.hospital)
        say(
            f"idle poll     {result['idle_poll_ms']} ms median, {result['idle_poll_max_ms']} ms at most, {OVERLAP_ROWS:,} rows in its overlap"
        )
        say(
            f"near duplicates of their own: {result['near_duplicates_s']} s, {result['near_duplicates_rows_per_s']:,} rows/s,"
            f" {result['near_duplicates']:,} found"
        )
        say(
            f"met before: {result['codes_met_before']:.1%} of coded values, remembered; {result['findings_met_before']:.1%} of findings, not"
        )
    if memory:
        result["peak_rss_mb"] = round(max(memory))
    return result


@dataclass(frozen=True, slots=True)
class Measured:
    """One run, the most memory that it held, and processor time a row by who spent it."""

    run: Run
    peak_mb: float
    cpu_us: dict[str, float]


def _line(name: str, measured: Measured) -> str:
    spent = ", ".join(f"{who} {us:.1f}" for who, us in measured.cpu_us.items())
    return f"{name:12} {measured.run.rows:9,} rows {measured.run.rows_per_s:9,} rows/s {measured.peak_mb:6.0f} MB; µs of processor a row: {spent}"


def _in_process(pipe: Connection, name: str, task: Task) -> None:
    pipe.send(RUNS[name](task))


class _Watch:
    """The most memory that a process and its children hold together, and what they and the server's sessions compute. Memory is looked at every 20 ms;
    sessions, since all processes have to be looked through for them, twice a second."""

    def __init__(self, pid: int | None, databases: dict[str, str]) -> None:
        self.most = 0
        self._process, self._databases, self._stopping = psutil.Process(pid), databases, threading.Event()
        self._seconds: dict[psutil.Process, tuple[str, float]] = {}
        self._before = {process: _cpu_s(process) for process, _ in self._sessions()}
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        looks = 0
        while not self._stopping.wait(0.02):
            with suppress(psutil.Error):
                children = self._process.children(recursive=True)
                self.most = max(self.most, sum(each.memory_info().rss for each in (self._process, *children)))
                self._seconds |= {child: ("children", _cpu_s(child)) for child in children}
            looks += 1
            if looks % 25 == 0:
                for process, part in self._sessions():
                    with suppress(psutil.Error):
                        self._seconds[process] = part, _cpu_s(process) - self._before.get(process, 0.0)

    def _sessions(self) -> Iterator[tuple[psutil.Process, str]]:
        for process in psutil.process_iter(["name", "cmdline"]):
            told = " ".join(process.info["cmdline"] or ()) if process.info["name"] == "postgres" else ""
            for part, database in self._databases.items():
                if database in told.split():
                    yield process, part

    def computed(self) -> dict[str, float]:
        """Seconds of processor time, by who spent them."""
        total: dict[str, float] = {}
        for who, seconds in self._seconds.values():
            total[who] = total.get(who, 0.0) + seconds
        return total

    def stop(self) -> None:
        """Ends looking."""
        self._stopping.set()
        self._thread.join()


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _text(url: sa.URL) -> str:
    return url.render_as_string(hide_password=False)
