"""The ingest process as it is started: it polls on schedule, notices new files, stops when told to and leaves nobody behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
import pytest
import sqlalchemy as sa

from core import db, processes
from core.errors import NotFound
from ingest import service
from tests.ingest.hospital import Hospital


def wait_for(true: Callable[[], bool], seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.1)


def start(hospital: Hospital, broker_url: str) -> "subprocess.Popen[str]":
    environment = {
        **os.environ,
        "VALUER_HOME": str(hospital.settings.home),
        "VALUER_DATABASE_URL": hospital.ours.url.set(drivername="postgresql").render_as_string(hide_password=False),
        "VALUER_BROKER_URL": broker_url,
    }
    log = (hospital.settings.home / "ingest.log").open("w")
    with log:
        return subprocess.Popen([sys.executable, "-m", "ingest.service"], env=environment, stderr=log, text=True)


def running(hospital: Hospital, pid: int) -> bool:
    with db.transaction(hospital.ours) as session:
        return any(each.pid == pid and each.state == "ready" for each in processes.alive(session, "ingest"))


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_the_process_polls_on_schedule_and_stops_clean(north: Hospital, broker_url: str, sign: signal.Signals) -> None:
    path = north.settings.institutions_dir / "north.toml"
    path.write_text(path.read_text("utf-8").replace("settle_s = 0", "settle_s = 0\nevery_s = 0.2"), "utf-8")
    north.write(1)
    process = start(north, broker_url)
    try:
        wait_for(lambda: len(north.reports()) == 1)
        north.write(2)
        wait_for(lambda: len(north.reports()) == 2)
        family = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.send_signal(sign)
        process.wait(30)
    log = (north.settings.home / "ingest.log").read_text("utf-8")
    assert process.returncode == 0
    assert '"event": "polled"' in log
    assert "吴桐桐" not in log
    wait_for(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in family), 10)
    with db.transaction(north.ours) as session:
        assert session.execute(sa.text("SELECT count(*) FROM processes")).scalar_one() == 0


def test_a_process_that_is_killed_takes_its_polls_with_it(north: Hospital, broker_url: str) -> None:
    north.write(1)
    process = start(north, broker_url)
    wait_for(lambda: len(north.reports()) == 1)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    wait_for(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in family), 15)
    assert north.poll().error is None


def test_an_invalid_file_fails_its_own_institution_with_a_sentence(north: Hospital) -> None:
    north.write(1)
    (north.settings.institutions_dir / "other.toml").write_text(
        "[institution]\ncode = 'other'\nname = 'Other'\n[source]\nkind = 'sql'\nsql = 'SELECT 1'\n[codes.status]\n1 = 'final'\n"
    )
    results = service.run_once(north.ours, north.settings, north.keyring)
    assert results["north"].stored == 1
    assert (results["other"].error, results["other"].stored) == ("invalid", 0)
    assert str(results["other"].message).startswith("other.toml:6: source.sql: no column is named source_id")
    with db.transaction(north.ours) as session:
        failures = {row["name"]: row["failure"] for row in service.status(session)}
    assert failures == {"north": None, "other": "invalid"}


def test_an_institution_that_nobody_described_is_refused(north: Hospital) -> None:
    with pytest.raises(NotFound, match="describes a source for nowhere"):
        service.run_once(north.ours, north.settings, north.keyring, ["nowhere"])


def test_a_file_that_appears_while_the_process_runs_is_read(north: Hospital, broker_url: str) -> None:
    north.write(1)
    path = north.settings.institutions_dir / "north.toml"
    away = path.rename(north.settings.home / "north.toml")
    process = start(north, broker_url)
    try:
        wait_for(lambda: running(north, process.pid))
        away.rename(path)
        wait_for(lambda: len(north.reports()) == 1)
    finally:
        process.terminate()
        process.wait(30)
