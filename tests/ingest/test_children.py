"""The processes that read: kept while all is well, gone at their deadline whatever hangs, and nobody else waits for them."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pymysql
import pytest
import sqlalchemy as sa

from core import db
from ingest import service, standing
from ingest.child import Child, Job, idle_poll_ms
from tests.ingest.hospital import NOON, Hospital

DEADLINE_S = 4.0


def kept(hospital: Hospital) -> Child:
    return Child(service.place(hospital.ours, hospital.settings), hospital.code)


def job(hospital: Hospital, deadline_s: float = 60) -> Job:
    return Job(hospital.settings.institutions_dir / f"{hospital.code}.toml", deadline_s)


def pid_of(worker: Child) -> int | None:
    return None if worker._process is None else worker._process.pid


def test_a_child_stays_for_the_next_poll_and_is_replaced_after_an_error(north: Hospital) -> None:
    north.write(1)
    worker = kept(north)
    service.look(north.ours, north.settings)
    try:
        assert worker.work(job(north)).stored == 1
        first = pid_of(worker)
        north.write(2)
        assert worker.work(job(north)).stored == 1
        assert pid_of(worker) == first
        file = job(north).mapping_file
        text = file.read_text("utf-8")
        file.write_text(text.replace('"1" = "final"', '"1" = "finale"'), "utf-8")
        assert worker.work(job(north)).error == "invalid"
        file.write_text(text, "utf-8")
        north.write(3)
        assert worker.work(job(north)).stored == 1
        assert pid_of(worker) not in (None, first)
    finally:
        worker.close()
    assert first is not None
    assert not psutil.pid_exists(first)


def test_a_child_that_dies_is_replaced(north: Hospital) -> None:
    north.write(1)
    worker = kept(north)
    service.look(north.ours, north.settings)
    try:
        worker.work(job(north))
        pid = pid_of(worker)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], 5)
        north.write(2)
        results = [worker.work(job(north)) for _ in range(2)]
    finally:
        worker.close()
    assert results[-1].error is None
    assert sum(result.stored for result in results) == 1


def test_a_poll_by_a_child_that_is_there_costs_no_start(north: Hospital) -> None:
    for key in range(50):
        north.write(key)
    service.look(north.ours, north.settings)
    times = idle_poll_ms(service.place(north.ours, north.settings), job(north), "north", times=10)
    worker = kept(north)
    try:
        began = worker.work(job(north)).seconds * 1000
    finally:
        worker.close()
    assert min(times) < began


@pytest.mark.parametrize("scheme", ["mariadb", "postgresql"])
def test_a_listener_that_says_nothing_ends_at_the_deadline(north: Hospital, black_hole: int, scheme: str) -> None:
    mute = Hospital(
        "mute", None, f'url = "{scheme}://a@127.0.0.1:{black_hole}/x"', north.ours, north.settings, north.keyring
    )
    mute.describe()
    service.look(north.ours, north.settings)
    worker = kept(mute)
    north.poll()  # the processes that children are forked from are up now
    began = time.monotonic()
    try:
        result = worker.work(job(mute, DEADLINE_S))
    finally:
        worker.close()
    assert time.monotonic() - began < DEADLINE_S + 2
    assert result.error in ("deadline", "source_away")


@pytest.fixture
def frozen(servers_required: Callable[[str], None]) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    """A MariaDB of this test's own, which may be stopped in the middle of a word; its port and its process."""
    server, installer = shutil.which("mariadbd"), shutil.which("mariadb-install-db")
    if server is None or installer is None:
        servers_required("no mariadbd on this machine")
        return
    home = Path(tempfile.mkdtemp(prefix="valuer-test-mariadb-"))
    user = ["--user=mysql"] if os.geteuid() == 0 else []
    if user:
        shutil.chown(home, "mysql")
    subprocess.run(
        [installer, f"--datadir={home}", *user, "--auth-root-authentication-method=normal", "--skip-test-db"],
        check=True,
        capture_output=True,
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [server, "--no-defaults", f"--datadir={home}", f"--port={port}", "--bind-address=127.0.0.1", f"--socket={home}/s",
         f"--pid-file={home}/p", *user],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    ends = time.monotonic() + 60
    while True:
        try:
            pymysql.connect(host="127.0.0.1", port=port, user="root", password="").close()
            break
        except pymysql.err.OperationalError:
            assert time.monotonic() < ends, "mariadbd did not start"
            time.sleep(0.2)
    yield port, process
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait()
    shutil.rmtree(home)


def test_a_stopped_mariadb_makes_only_its_own_institution_wait(
    north: Hospital, frozen: tuple[int, "subprocess.Popen[bytes]"]
) -> None:
    port, process = frozen
    with (
        pymysql.connect(host="127.0.0.1", port=port, user="root", password="", autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("CREATE DATABASE his")
        cursor.execute(
            "CREATE TABLE his.report (k INT PRIMARY KEY, acc TEXT, pid TEXT, name TEXT, st TEXT, yx TEXT, zd TEXT, sex TEXT, age TEXT,"
            " dev TEXT, part TEXT, changed DATETIME)"
        )
    stopped = Hospital(
        "stopped", None, f'url = "mariadb://root@127.0.0.1:{port}/his"', north.ours, north.settings, north.keyring
    )
    stopped.describe()
    north.write(1)
    quick = north.settings.model_copy(update={"poll_deadline_s": DEADLINE_S})
    assert all(each.error is None for each in service.run_once(north.ours, quick, north.keyring).values())
    process.send_signal(signal.SIGSTOP)
    north.write(2)
    began = time.monotonic()
    results = service.run_once(north.ours, quick, north.keyring)
    assert time.monotonic() - began < DEADLINE_S + 2 + 2  # and two for starting the children
    assert results["stopped"].error in ("deadline", "source_away")
    assert results["stopped"].seconds < DEADLINE_S + 2
    assert results["north"].stored == 1
    with db.transaction(north.ours) as session:
        rows = {row["name"]: row for row in standing.status(session)}
    assert rows["stopped"]["failing_since"] is not None
    assert "stopped" in rows["stopped"]["message"]
    process.send_signal(signal.SIGCONT)
    assert service.run_once(north.ours, quick, north.keyring)["stopped"].error is None
    with db.transaction(north.ours) as session:
        assert {row["name"]: row["failing_since"] for row in standing.status(session)} == {
            "north": None,
            "stopped": None,
        }


def test_our_own_database_going_away_in_the_middle_of_a_poll_loses_nothing(north: Hospital) -> None:
    north.connection.execute(
        "INSERT INTO report SELECT n, 'A-'||n, 'P-'||n, NULL, '1', '右肺上叶见结节影，编号'||n||'。', '右肺上叶结节。', 'F', '50', 'CT', '胸部',"
        " %s + n * interval '1 second' FROM generate_series(1, 12000) n",
        [NOON],
    )
    service.look(north.ours, north.settings)
    worker = kept(north)
    over = threading.Event()

    def cut() -> None:
        with north.ours.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not over.wait(0.02):
                connection.execute(
                    sa.text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'ingest-%'"
                    )
                )

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        result = worker.work(job(north))
        over.set()
        cutter.join()
        rest = worker.work(job(north))
    finally:
        over.set()
        worker.close()
    assert result.error == "database_away"
    assert rest.error is None
    assert len(north.reports()) == 12000
