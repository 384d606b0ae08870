"""`valuer ingest reconcile` and `backfill` as a person runs them: what they answer, and that they can be stopped and go on."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import date, timedelta
from typing import Any

import pytest

from core import db
from ingest import backfill
from tests.ingest.hospital import NOON, Hospital


class Desk:
    """A terminal at the installation."""

    def __init__(self, hospital: Hospital, broker_url: str) -> None:
        url = hospital.ours.url.set(drivername="postgresql").render_as_string(hide_password=False)
        ours = {
            "HOME": str(hospital.settings.home),
            "DATABASE_URL": url,
            "BROKER_URL": broker_url,
            "LOG_LEVEL": "ERROR",
        }
        self.environment = {**os.environ, **{f"VALUER_{name}": value for name, value in ours.items()}}

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """A command that runs."""
        command = [sys.executable, "-m", "admin.main", "ingest", *arguments]
        return subprocess.Popen(
            command,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str) -> tuple[int, dict[str, Any], str]:
        """A command's status, its JSON and what it said beside."""
        with self.start(*arguments, "--json") as run:
            out, aside = run.communicate(timeout=120)
        return run.returncode, json.loads(out.splitlines()[-1]) if out else {}, aside


@pytest.fixture
def desk(north: Hospital, broker_url: str) -> Desk:
    for day in range(3):
        for each in range(4):
            north.write(10 * day + each, at=NOON + timedelta(days=day, minutes=each))
    return Desk(north, broker_url)


def test_a_backfill_says_how_far_it_is_and_does_each_day_once(north: Hospital, desk: Desk) -> None:
    code, data, aside = desk.run("backfill", "north", "--from", "2025-06-01", "--to", "2025-06-02")
    assert code == 0, aside
    assert data == {"name": "north", "days": 2, "done": 2, "left": 0, "rows_read": 8, "stored": 8, "quarantined": 0}
    assert len(north.reports()) == 8
    code, data, _ = desk.run("backfill", "north", "--to", "2025-06-03")  # from the source's first day
    assert (code, data["days"], data["rows_read"], len(north.reports())) == (0, 3, 12, 12)


def test_ctrl_c_stops_a_backfill_and_says_how_to_go_on(north: Hospital, desk: Desk) -> None:
    path = north.settings.institutions_dir / "north.toml"
    text = path.read_text("utf-8")
    path.write_text(text + "\n[backfill]\nrows_per_s = 1\n", "utf-8")
    with desk.start("backfill", "north", "--from", "2025-06-01", "--to", "2025-06-03") as run:
        done = 0
        ends = time.monotonic() + 60
        while not done:
            assert time.monotonic() < ends
            with db.transaction(north.ours) as session:
                done = backfill.progress(session, "north").done
            time.sleep(0.05)
        os.killpg(run.pid, signal.SIGINT)
        out, aside = run.communicate(timeout=30)
    assert run.returncode == 0, aside
    assert "Stopped; what is done stays done." in aside
    assert "2 days are left: `valuer ingest backfill north` goes on" in " ".join(out.split())
    path.write_text(text, "utf-8")
    code, data, _ = desk.run("backfill", "north")
    assert (code, data["done"], data["left"], len(north.reports())) == (0, 3, 0, 12)


def test_outside_of_its_hours_a_backfill_is_only_asked_for(north: Hospital, desk: Desk) -> None:
    path = north.settings.institutions_dir / "north.toml"
    with db.transaction(north.ours) as session:
        hour = int(
            session.connection()
            .exec_driver_sql("SELECT extract(hour FROM now() AT TIME ZONE 'Asia/Shanghai')")
            .scalar_one()
        )
    begins, ends = (hour + 3) % 24, (hour + 5) % 24
    path.write_text(path.read_text("utf-8") + f'\n[backfill]\nhours = "{begins:02}:00-{ends:02}:00"\n', "utf-8")
    code, data, _ = desk.run("backfill", "north", "--from", "2025-06-01", "--to", "2025-06-03")
    assert (code, data["done"], data["left"]) == (0, 0, 3)
    code, data, _ = desk.run("backfill", "north", "--now")
    assert (code, data["done"], data["left"]) == (0, 3, 0)
    desk.run("backfill", "north", "--from", "2025-05-01", "--to", "2025-05-09")
    assert desk.run("backfill", "north", "--forget")[1] == {"name": "north", "forgotten": 9}


def test_a_comparison_answers_in_days_and_rows(north: Hospital, desk: Desk) -> None:
    days = (date.today() - date(2025, 5, 31)).days + 1  # noqa: DTZ011 - a day more does no harm
    north.write(1, at=NOON + timedelta(days=200))
    north.poll()
    north.write(99)
    code, data, aside = desk.run("reconcile", "north", "--days", str(days))
    assert code == 0, aside
    (row,) = data["institutions"]
    assert (row["name"], row["differing"], row["fetched"], row["absent"], row["error"]) == ("north", 1, 1, 0, None)
    assert row["compared"] == days
    code, _, aside = desk.run("reconcile", "nowhere")
    assert (code, "describes a source for nowhere" in aside) == (2, True)
