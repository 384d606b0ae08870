"""Schedules, drift, standing back for drafts, and notices of how a run ended."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlmodel import Session, select

from clinical.score import SCORER_VERSION
from core import processes
from core.db import database_now, transaction
from core.errors import NotFound, Refused
from core.identity import Keyring
from core.settings import TrainingSettings
from core.states import ReportStatus, RunState
from core.tables import DraftRequest, Report, ScoreRow, SignOff, TrainingRun, TrainingSchedule
from tests import builders
from tests.training.listening import listening
from tests.training.test_dataset import sign_off
from training import drift, notice, runs, schedule, standing
from training.drift import Day
from training.runs import Options
from training.service import Trainer


def signed(session: Session, count: int, institution: str = "north", start: int = 0, **changes: Any) -> None:
    for number in range(start, start + count):
        values = {
            "institution": institution,
            "source_id": f"s{number}",
            "status": ReportStatus.FINAL,
            "content_hash": str(number),
            "findings_hash": str(number),
            "systems": ["chest"],
            "findings_raw": "x",
            "impression_raw": "y",
            "findings": "x",
            "impression": "y",
            "cleaning_version": "1",
            "split": "train",
            **changes,
        }
        session.add(Report(**values))
    session.flush()


def backdate(session: Session, **ago: float) -> None:
    session.execute(sa.update(TrainingSchedule).values(created_at=database_now(session) - timedelta(**ago)))
    session.expire_all()


@pytest.fixture
def north(session: Session) -> Session:
    builders.institution(session, "north", role="train")
    builders.institution(session, "south", role="test")
    return session


def put(session: Session, **occasions: Any) -> TrainingSchedule:
    return schedule.put(session, "nightly", "smoke", Options(evaluate=5), "user:boss", **occasions)


def test_so_many_newly_signed_reports_start_one_run_and_no_second_before_it_ended(north: Session) -> None:
    row = put(north, after_reports=3)
    backdate(north, hours=1)
    signed(north, 2)
    signed(north, 5, "south", split="test")  # they may not train, so they are no reason to
    assert schedule.due(north, row) is None
    signed(north, 1, start=2)
    assert schedule.due(north, row) == "3 newly signed reports"
    [run] = schedule.start_due(north)
    assert (run.profile, runs.options(run).evaluate, run.requested_by) == ("smoke", 5, "process:schedule")
    signed(north, 9, start=10, ingested_at=database_now(north) + timedelta(hours=1))
    assert schedule.start_due(north) == []
    north.execute(sa.update(TrainingRun).values(state=RunState.DONE))
    assert len(schedule.start_due(north)) == 1


def test_impressions_signed_here_count_as_new_and_a_text_of_two_systems_counts_once(
    north: Session, keyring: Keyring
) -> None:
    row = put(north, after_reports=3)
    backdate(north, hours=1)
    signed(north, 1, systems=["head", "chest"])
    sign_off(north, keyring, 1, "unassisted")
    assert schedule.due(north, row) is None
    sign_off(north, keyring, 2, "unassisted")
    assert schedule.due(north, row) == "3 newly signed reports"
    backdate(north, hours=-1)
    assert schedule.due(north, row) is None  # all of it was signed before


def test_a_cron_line_is_due_once_its_time_has_passed_and_something_was_signed(north: Session) -> None:
    row = put(north, cron="* * * * *")
    backdate(north, minutes=5)
    assert schedule.due(north, row) is None
    signed(north, 1)
    assert schedule.due(north, row) == "the clock (* * * * *)"
    yearly = put(north, cron="0 0 1 1 *")
    north.execute(sa.update(TrainingSchedule).values(created_at=datetime(2026, 2, 1, tzinfo=UTC)))
    north.expire_all()
    passed = database_now(north) >= datetime(2027, 1, 1, tzinfo=UTC)
    assert (schedule.due(north, yearly) is not None) == passed


def test_two_workers_that_look_at_the_same_minute_start_one_run(database: sa.Engine) -> None:
    with transaction(database) as session:
        builders.institution(session, "north", role="train")
        put(session, cron="* * * * *")
        backdate(session, minutes=5)
        signed(session, 1)

    def look() -> int:
        with transaction(database) as session:
            return len(schedule.start_due(session))

    with transaction(database) as session:
        assert len(schedule.start_due(session)) == 1
        with ThreadPoolExecutor(1) as aside:
            assert aside.submit(look).result(timeout=30) == 0  # while the first has not committed yet
    assert look() == 0
    with transaction(database) as session:
        session.execute(sa.update(TrainingRun).values(state=RunState.FAILED))  # at once, in the same minute
    assert look() == 0
    with transaction(database) as session:
        assert len(runs.newest(session)) == 1


def test_a_clock_that_is_set_back_starts_nothing_twice(north: Session) -> None:
    row = put(north, cron="* * * * *")
    backdate(north, minutes=5)
    signed(north, 1)
    [run] = schedule.start_due(north)
    north.execute(sa.update(TrainingRun).values(state=RunState.DONE))
    row.last_run_at = database_now(north) + timedelta(hours=2)  # as the clock said before
    north.add(row)
    signed(north, 1, start=5)
    assert schedule.start_due(north) == []
    signed(north, 1, start=6, ingested_at=database_now(north) + timedelta(hours=3))
    assert schedule.start_due(north) == []
    assert runs.newest(north) == [run]


def test_a_schedule_without_an_occasion_or_with_nonsense_is_refused(session: Session) -> None:
    with pytest.raises(Refused, match="needs an occasion"):
        put(session)
    with pytest.raises(Refused, match="is no cron line"):
        put(session, cron="every night")
    with pytest.raises(Refused, match="no training profile"):
        schedule.put(session, "x", "huge", Options(), "user:boss", on_drift=True)
    with pytest.raises(NotFound):
        schedule.remove(session, "nightly", "user:boss")


def test_a_preview_names_what_is_new_and_what_stands_in_the_way(
    north: Session, tiny_base: Path, tmp_path: Path
) -> None:
    signed(north, 4)
    signed(north, 2, systems=["head", "chest"], start=10)
    found = schedule.preview(north, "smoke", tiny_base)
    assert found.weights_bytes == pytest.approx(2 * 320 * 64 * 2 + 2 * 36_864 * 4.127 / 8 + 5 * 64 * 2, rel=0.01)
    assert schedule.preview(north, "smoke", tmp_path).weights_bytes is None
    assert found.new == {"north × chest": 6, "north × head": 2}
    assert found.hours is None
    assert [sentence.split(":")[0] for sentence in found.blockers] == ["no training worker runs"]
    runs.start(north, "smoke", Options(), "user:boss")
    assert "1 runs wait or run before it" in schedule.preview(north, "smoke", tiny_base).blockers


def days(means: list[float], reports: int = 20) -> list[Day]:
    return [Day(date(2026, 1, 1) + timedelta(days=number), mean, reports) for number, mean in enumerate(means)]


def test_drift_is_seven_days_in_a_row_below_the_band_and_not_six() -> None:
    usual = [0.60 + 0.02 * (number % 3) for number in range(40)]
    assert drift.drifted(days([*usual, *[0.5] * 7]))
    assert not drift.drifted(days([*usual, *[0.5] * 6]))
    assert not drift.drifted(days([*usual, *[0.5] * 3, 0.61, *[0.5] * 3]))
    assert not drift.drifted(days([*usual, *[0.75] * 7]))
    assert not drift.drifted(days([0.6, 0.62, *[0.5] * 7]))  # too few days to know what is usual
    assert not drift.drifted(days([*usual, *[0.5] * 7], reports=2))
    assert drift.drifted(days([*usual, *[0.5] * 7]), after=date(2026, 1, 1) + timedelta(days=39))
    assert not drift.drifted(days([*usual, *[0.5] * 7]), after=date(2026, 1, 1) + timedelta(days=40))


def test_drift_of_an_institutions_scores_starts_one_run_and_not_another_for_the_same_days(
    north: Session, keyring: Keyring
) -> None:
    row = put(north, on_drift=True)
    backdate(north, hours=1)
    signed(north, 1)
    assert schedule.due(north, row) is None
    request = builders.accept(north, keyring).id
    today = database_now(north)
    for number in range(drift.BASELINE_DAYS + 7):
        for _ in range(drift.LEAST_REPORTS):
            usual = 0.6 + 0.02 * (number % 3)
            day = today - timedelta(days=drift.BASELINE_DAYS + 7 - number)
            _scored(north, request, day, usual if number < drift.BASELINE_DAYS else 0.4)
    assert schedule.due(north, row) == "drift at north"
    [run] = schedule.start_due(north)
    assert run.profile == "smoke"
    north.execute(sa.update(TrainingRun).values(state=RunState.FAILED))
    signed(north, 1, start=50, ingested_at=today + timedelta(hours=1))
    assert schedule.due(north, row) is None
    for day in range(1, 8):  # a week later it drifts still, or again
        for _ in range(drift.LEAST_REPORTS):
            _scored(north, request, today + timedelta(days=day), 0.4)
    assert schedule.due(north, row) == "drift at north"


def _scored(session: Session, request: UUID, when: datetime, rl: float) -> None:
    """A text that nobody's draft shaped, signed then, and how near our hidden draft was to it."""
    last = session.execute(sa.select(sa.func.max(SignOff.version)).where(SignOff.request_id == request)).scalar_one()  # type: ignore[arg-type]
    row = SignOff(
        request_id=request,
        version=(last or 0) + 1,
        place="ris",
        text_role="author",
        impression="x",
        signer="dr-li",
        exposure="hold_back",
        signed_at=when,
    )
    session.add(row)
    session.flush()
    nearness = {"r1": rl, "r2": rl, "rl": rl, "char_rl": rl}
    session.add(ScoreRow(sign_off_id=row.id, scorer=SCORER_VERSION, edit_distance=0, **nearness))
    session.flush()


def test_a_schedule_that_cannot_start_holds_up_no_other(north: Session) -> None:
    broken = schedule.put(north, "a-broken", "smoke", Options(), "user:boss", after_reports=1)
    put(north, after_reports=1)
    broken.profile = "of-an-earlier-release"
    north.add(broken)
    backdate(north, hours=1)
    signed(north, 1)
    assert [run.profile for run in schedule.start_due(north)] == ["smoke"]


def worker(database: sa.Engine) -> processes.Presence:
    return processes.Presence(database, "worker", in_flight=8).start()


def test_training_stands_back_while_a_request_waits_beside_a_running_worker(
    database: sa.Engine, keyring: Keyring
) -> None:
    with transaction(database) as session:
        builders.institution(session)
        waiting = builders.accept(session, keyring).id
        runs.start(session, "smoke", Options(), "user:boss")
    trainer = Trainer(database, TrainingSettings(yield_s=20))
    with transaction(database) as session:
        session.execute(sa.update(DraftRequest).values(accepted_at=database_now(session) - timedelta(seconds=30)))
        assert not standing.drafts_wait(session, 20)  # nobody to stand back for
    presence = worker(database)
    try:
        with transaction(database) as session:
            assert standing.drafts_wait(session, 20)
            assert not standing.drafts_wait(session, 60)
        assert not trainer.take_one()
        with transaction(database) as session:
            [run] = session.exec(select(TrainingRun))
            assert run.state is RunState.QUEUED
            session.execute(sa.text("UPDATE draft_requests SET state = 'cancelled' WHERE id = :id"), {"id": waiting})
            assert not standing.drafts_wait(session, 20, 60)
    finally:
        presence.stop()


def test_a_notice_reaches_a_command_and_a_broken_one_stops_nothing(tmp_path: Path) -> None:
    target = tmp_path / "told.json"
    script = tmp_path / "tell.py"
    script.write_text(f"import sys, pathlib; pathlib.Path({str(target)!r}).write_text(sys.stdin.read())")
    told = notice.Notice("run-1", "smoke", "held", "model-1", ("facts",))
    notice.send(TrainingSettings(notice_command=f"{sys.executable} {script}"), told)
    assert json.loads(target.read_text()) == {
        "run": "run-1",
        "profile": "smoke",
        "outcome": "held",
        "model": "model-1",
        "rules": ["facts"],
        "error": None,
    }
    notice.send(TrainingSettings(notice_command="/no/such/command", notice_url="http://127.0.0.1:9/x"), told)


def test_a_notice_reaches_a_webhook_and_one_that_answers_badly_stops_nothing() -> None:
    with listening() as (url, heard):
        told = notice.Notice("run-1", "smoke", "failed", None, (), "nothing_to_train_on")
        notice.send(TrainingSettings(notice_url=url), told)
        notice.send(TrainingSettings(notice_url=f"{url}/bad"), told)
    assert [each["outcome"] for each in heard] == ["failed", "failed"]
    assert heard[0]["error"] == "nothing_to_train_on"
