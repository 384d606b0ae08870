"""The ingest process as it is started: it polls on schedule, notices new files, stops when told to and leaves nobody behind."""

import signal

import psutil
import pytest
import sqlalchemy as sa

from core import db
from core.errors import NotFound
from ingest import service, standing
from tests.ingest.hospital import Hospital
from tests.ingest.process import running, start, wait_for


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
        failures = {row["name"]: row["failure"] for row in standing.status(session)}
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


def test_a_file_that_breaks_while_the_process_runs_stops_its_own_institution_until_it_is_mended(
    north: Hospital, broker_url: str
) -> None:
    north.write(1)
    path = north.settings.institutions_dir / "north.toml"
    text = path.read_text("utf-8").replace("settle_s = 0", "settle_s = 0\nevery_s = 0.2")
    path.write_text(text, "utf-8")
    other = north.settings.institutions_dir / "other.toml"
    other.write_text(text.replace('code = "north"', 'code = "other"'), "utf-8")

    def failure(code: str) -> tuple[str | None, str | None]:
        with db.transaction(north.ours) as session:
            row = next((each for each in standing.status(session) if each["name"] == code), None)
        return (None, None) if row is None else (row["failure"], row["message"])

    process = start(north, broker_url)
    try:
        wait_for(lambda: len(north.reports()) == 1)
        other.write_text(text.replace('code = "north"', 'code = "other'), "utf-8")
        wait_for(lambda: failure("other")[0] == "invalid")
        assert str(failure("other")[1]).startswith("other.toml")
        north.write(2)
        wait_for(lambda: len(north.reports()) == 2)
        assert failure("north") == (None, None)
        other.write_text(text.replace('code = "north"', 'code = "other"'), "utf-8")
        wait_for(lambda: failure("other") == (None, None))
        other.unlink()
        wait_for(lambda: next_polls(north)["other"] is None)
        assert next_polls(north)["north"] is not None
    finally:
        process.terminate()
        process.wait(30)
    assert process.returncode == 0


def next_polls(hospital: Hospital) -> dict[str, str | None]:
    with db.transaction(hospital.ours) as session:
        return {row["name"]: row["next_at"] for row in standing.status(session)}


def test_a_file_that_cannot_be_parsed_hides_no_other(north: Hospital) -> None:
    north.write(1)
    (north.settings.institutions_dir / "broken.toml").write_text("[institution\n", "utf-8")
    results = service.run_once(north.ours, north.settings, north.keyring)
    assert (results["north"].stored, results["broken"].error) == (1, "invalid")
    assert str(results["broken"].message).startswith("broken.toml")


def test_a_failure_says_since_when_and_in_a_sentence(north: Hospital) -> None:
    north.write(1)
    north.poll()
    path = north.settings.institutions_dir / "north.toml"
    text = path.read_text("utf-8")
    path.write_text(text.replace("part, changed", "part, name, changed"), "utf-8")
    seen = []
    for _ in range(2):
        north.poll()
        with db.transaction(north.ours) as session:
            (row,) = standing.status(session)
            seen.append((row["failure"], row["message"], row["failing_since"], row["failed_at"]))
    assert seen[0][:3] == seen[1][:3]
    assert seen[0][1] == "north.toml: the SELECT yields name, which is no word of ours."
    assert seen[0][3] < seen[1][3]
    path.write_text(text, "utf-8")
    north.poll()
    with db.transaction(north.ours) as session:
        (row,) = standing.status(session)
    assert (row["failure"], row["message"], row["failing_since"]) == (None, None, None)
    assert row["lag_s"] > 0
