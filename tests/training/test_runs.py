"""Training runs as rows, and one whole run through the worker and its child process, on a tiny 4-bit base."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import torch
from safetensors.torch import load_file
from sqlmodel import Session, select

from core import processes, queue, registry
from core.db import transaction
from core.errors import Conflict, NotFound, Refused
from core.identity import Keyring
from core.settings import TrainingSettings
from core.states import ReportStatus, RunState
from core.tables import Dataset, DraftRequest, Evaluation, ModelVersion, Report, TrainingRun, TrainingSchedule
from tests import builders
from tests.training.listening import listening
from tests.training.test_continuation import learned
from training import eligible, runs, schedule
from training.policy import Policy
from training.runs import Options
from training.service import LOOK_S, Trainer


def waiting(session: Session, **changes: Any) -> TrainingRun:
    return runs.start(session, "smoke", Options(**changes), "user:boss")


def age(session: Session, run: TrainingRun, seconds: float) -> None:
    session.execute(
        sa.update(TrainingRun)
        .where(TrainingRun.id == run.id)
        .values(heartbeat_at=sa.func.now() - sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds))  # type: ignore[arg-type]
    )


def test_a_run_is_taken_once_oldest_first(session: Session) -> None:
    first, second = waiting(session), waiting(session)
    taken = runs.claim(session, "one")
    assert taken is not None
    assert (taken.id, taken.state, taken.worker) == (first.id, RunState.RUNNING, "one")
    other = runs.claim(session, "two")
    assert other is not None
    assert other.id == second.id
    assert runs.claim(session, "three") is None


def test_an_unknown_profile_option_or_training_set_is_refused_before_it_is_queued(session: Session) -> None:
    with pytest.raises(Refused, match="no training profile called huge; there are paper, recommended, smoke"):
        runs.start(session, "huge", Options(), "user:boss")
    with pytest.raises(Refused, match="no such option: colour"):
        runs.start(session, "smoke", Options(changes={"colour": "red"}), "user:boss")
    with pytest.raises(Refused, match="'many' is no value for the option accumulation"):
        runs.start(session, "smoke", Options(changes={"accumulation": "many"}), "user:boss")
    with pytest.raises(NotFound, match="no training set"):
        runs.start(session, "smoke", Options(dataset="0123"), "user:boss")


def test_options_come_back_from_the_row_as_they_went_in(session: Session) -> None:
    chosen = Options(policy=Policy(systems=("chest",)), changes={"steps": 3}, evaluate=5)
    row = runs.get(session, runs.start(session, "smoke", chosen, "user:boss").id)
    assert runs.options(row) == chosen
    assert (runs.recipe(row).steps, runs.recipe(row).rank) == (3, 8)


def test_a_silent_workers_run_is_taken_up_again_and_fails_the_third_time(session: Session) -> None:
    run = waiting(session)
    for number in range(runs.CRASHES):
        taken = runs.claim(session, f"worker-{number}")
        assert taken is not None
        assert taken.id == run.id
        age(session, run, runs.SILENT_S + 1)
    assert runs.claim(session, "last") is None
    ended = runs.get(session, run.id)
    assert ended.state is RunState.FAILED
    assert "died three times without getting any further" in (ended.error or "")


def test_a_run_that_gets_further_between_its_crashes_goes_on_and_one_that_always_dies_at_a_step_does_not(
    session: Session,
) -> None:
    run = waiting(session)
    for number, step in enumerate((10, 20, 30, 30)):
        assert runs.claim(session, f"worker-{number}") is not None
        assert runs.report(session, run.id, f"worker-{number}", {"phase": "load"})
        assert runs.report(session, run.id, f"worker-{number}", {"phase": "train", "step": step})
        assert runs.give_back(session, run.id, f"worker-{number}", crashed=True)
    assert runs.claim(session, "evaluates") is not None
    assert runs.report(session, run.id, "evaluates", {"phase": "evaluate", "step": 99})
    runs.give_back(session, run.id, "evaluates", crashed=True)
    assert runs.get(session, run.id).state is RunState.FAILED


def test_a_worker_that_lost_its_run_changes_nothing(session: Session) -> None:
    run = waiting(session)
    runs.claim(session, "old")
    age(session, run, runs.SILENT_S + 1)
    runs.claim(session, "new")
    assert not runs.beat(session, run.id, "old")
    assert not runs.report(session, run.id, "old", {"step": 1})
    assert not runs.end(session, run.id, "old", RunState.DONE)
    assert runs.beat(session, run.id, "new")


def test_a_cancelled_run_is_nobodys_and_cannot_be_cancelled_twice(session: Session) -> None:
    run = waiting(session)
    runs.claim(session, "one")
    assert runs.cancel(session, run.id, "user:boss").state is RunState.CANCELLED
    assert not runs.beat(session, run.id, "one")
    with pytest.raises(Conflict):
        runs.cancel(session, run.id, "user:boss")


def test_following_a_run_ends_when_it_ends(database: sa.Engine) -> None:
    with transaction(database) as session:
        run = waiting(session)
        runs.claim(session, "one")
    seen = []
    for row in runs.follow(database, run.id, every_s=0.0):
        seen.append(row.state)
        with transaction(database) as session:
            runs.end(session, run.id, "one", RunState.DONE)
    assert seen == [RunState.RUNNING, RunState.DONE]


@pytest.fixture
def signed(database: sa.Engine) -> sa.Engine:
    """Signed reports of two pretend hospitals, one of which trains."""
    with transaction(database) as session:
        builders.institution(session, "sandbox-1", role="train", sandbox=True)
        builders.institution(session, "sandbox-2", role="test", sandbox=True)
        for number in range(14):
            session.add(_report("sandbox-1" if number < 12 else "sandbox-2", number))
    return database


def _report(institution: str, number: int) -> Report:
    findings, impression = f"肝S{number}段见囊性灶，长径约{number}mm。", f"肝S{number}段囊肿。"
    return Report(
        institution=institution,
        source_id=f"s{number}",
        status=ReportStatus.FINAL,
        content_hash=str(number),
        findings_hash=str(number),
        modality="CT",
        systems=["abdomen"],
        findings_raw=findings,
        impression_raw=impression,
        findings=findings,
        impression=impression,
        cleaning_version="1",
        split="test" if number == 11 else "train",
    )


@pytest.fixture
def environment(database_url: str, tiny_base: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the child process of a run reads: this test's database and home, and the tiny base."""
    for name, value in {
        "DATABASE_URL": database_url,
        "BROKER_URL": "redis://127.0.0.1:1",
        "HOME": str(home),
        "MODEL": str(tiny_base),
        "ENGINE": "generate",
        "TRAINING_DEVICE": "cpu",
        "DEVICE": "cpu",
        "MAX_NEW_TOKENS": "8",
        "TRAINING_THREADS": "1",
        "TORCH_THREADS": "1",
    }.items():
        monkeypatch.setenv(f"VALUER_{name}", value)


@pytest.mark.usefixtures("environment")
def test_a_run_freezes_trains_evaluates_and_registers_a_version_that_serves(signed: sa.Engine, home: Path) -> None:
    with transaction(signed) as session:
        run = waiting(session, changes={"steps": 3}, evaluate=3)

    assert Trainer(signed).take_one()

    with transaction(signed) as session:
        ended = runs.get(session, run.id)
        assert (ended.state, ended.error) == (RunState.DONE, None)
        assert (ended.progress["phase"], ended.progress["steps"]) == ("done", 3)
        version = registry.get(session, ended.model_version or "")
        data = session.get(Dataset, ended.dataset)
        [evaluation] = session.exec(select(Evaluation))
    assert data is not None
    manifest = version.manifest
    assert manifest["dataset"] == {
        "id": data.id,
        "digest": data.digest,
        "reports": 11,
        "institutions": {"sandbox-1": 11},
    }
    assert manifest["training"]["steps"] == 3
    assert manifest["scope"] == [
        {"modality": "CT", "system": "abdomen", "age_band": "unknown", "language": "zh-Hans", "count": 11}
    ]
    assert manifest["sandbox_only"] is True
    assert 1 <= len(manifest["golden"]["first_tokens"]) <= 8
    assert evaluation.result["metrics"]["reports"] == 3
    assert evaluation.result["metrics"]["by_institution"].keys() == {"sandbox-1", "sandbox-2"}
    assert Path(version.path) == home / "models" / version.id
    assert json.loads((Path(version.path) / "adapter_config.json").read_text())["r"] == 8
    assert not list((home / "training").iterdir())


@pytest.mark.usefixtures("environment")
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks transformers
def test_a_run_that_goes_on_from_a_version_begins_with_its_weights_and_records_it(
    signed: sa.Engine, tiny_base: Path, home: Path
) -> None:
    with transaction(signed) as session:
        data = eligible.build(session, home, Policy())
        before = learned(session, tiny_base, home, data)
        # next to no rate: what comes out is what it began with
        chosen = {"steps": 1, "learning_rate": 1e-12}
        run = waiting(session, dataset=data.id, changes=chosen, evaluate=1, continued_from=before.id)
    assert Trainer(signed).take_one()
    with transaction(signed) as session:
        ended = runs.get(session, run.id)
        assert (ended.state, ended.error) == (RunState.DONE, None)
        after = registry.get(session, ended.model_version or "")
    assert after.manifest["training"]["continued_from"] == before.id
    old, new = (load_file(Path(row.path) / "adapter_model.safetensors") for row in (before, after))
    assert all(torch.equal(old[name], new[name]) for name in old)


@pytest.mark.timeout(900)  # a run that is stopped and goes on: two child processes, on a machine that may be busy
@pytest.mark.usefixtures("environment")
def test_a_schedules_run_stands_back_for_a_waiting_request_goes_on_and_its_end_is_told(
    signed: sa.Engine, tmp_path: Path, keyring: Keyring
) -> None:
    with transaction(signed) as session:
        schedule.put(
            session, "nightly", "smoke", Options(changes={"steps": 6}, evaluate=1), "user:boss", after_reports=5
        )
        session.execute(sa.update(TrainingSchedule).values(created_at=sa.func.now() - sa.text("interval '1 hour'")))
    script = tmp_path / "tell.py"
    script.write_text(f"import sys, pathlib; pathlib.Path({str(tmp_path / 'told')!r}).write_text(sys.stdin.read())")
    with listening() as (url, heard):
        trainer = Trainer(
            signed, TrainingSettings(notice_url=url, notice_command=f"{sys.executable} {script}", yield_s=1.0)
        )
        trainer.start()
        presence = processes.Presence(signed, "worker", in_flight=8).start()
        try:
            run = _until(lambda: _newest(signed))
            assert run.requested_by == "process:schedule"
            _until(lambda: _newest(signed).state is RunState.RUNNING)
            with transaction(signed) as session:
                builders.institution(session)
                waits = builders.accept(session, keyring).id
            _until(lambda: _newest(signed).state is RunState.QUEUED)  # stood back, before it had done much
            with transaction(signed) as session:
                assert runs.get(session, run.id).progress.get("crashes", 0) == 0
                session.execute(sa.update(DraftRequest).values(state="cancelled").where(DraftRequest.id == waits))  # type: ignore[arg-type]
            *_, ended = runs.follow(signed, run.id, every_s=0.2)
            _until(lambda: heard)
        finally:
            presence.stop()
            trainer.stop()
    assert (ended.state, ended.error, ended.progress["step"]) == (RunState.DONE, None, 6)
    [told] = heard
    assert told == json.loads((tmp_path / "told").read_text())
    assert (told["outcome"], told["model"]) == ("held", ended.model_version)
    assert "first" in told["rules"]  # no baseline was measured: the gate would say no
    with transaction(signed) as session:
        assert len(runs.newest(session)) == 1  # nothing was signed since


def _cut_off(database: sa.Engine, statement: str) -> bool:
    """Ends the database session of the child that waits with this statement."""
    waits = sa.text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name LIKE 'training-run%' AND wait_event_type = 'Lock' AND query LIKE :statement"
    )
    with transaction(database) as session:
        return bool(session.execute(waits, {"statement": f"{statement}%"}).all())


def _newest(database: sa.Engine) -> TrainingRun | None:
    with transaction(database) as session:
        return next(iter(runs.newest(session)), None)


def _until(so: Any, patience_s: float = 400.0) -> Any:
    end = time.monotonic() + patience_s
    while not (found := so()):
        assert time.monotonic() < end
        time.sleep(0.2)
    return found


@pytest.mark.usefixtures("environment")
def test_a_run_in_two_processes_is_registered_once(signed: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VALUER_TRAINING_PROCESSES", "2")
    with transaction(signed) as session:
        run = waiting(session, changes={"steps": 2}, evaluate=1)
    assert Trainer(signed).take_one()
    with transaction(signed) as session:
        ended = runs.get(session, run.id)
        assert (ended.state, ended.error) == (RunState.DONE, None)
        assert registry.get(session, ended.model_version or "").manifest["training"]["steps"] == 2


@pytest.mark.usefixtures("environment")
def test_a_worker_that_stops_saves_the_run_and_lets_it_wait(signed: sa.Engine, home: Path) -> None:
    with transaction(signed) as session:
        run = waiting(session, changes={"epochs": 100_000, "steps": None})
    trainer = Trainer(signed)
    trainer.start()
    for row in runs.follow(signed, run.id, every_s=0.2):
        if row.progress.get("step", 0) > 0:
            break
    trainer.stop()
    with transaction(signed) as session:
        stopped = runs.get(session, run.id)
    assert (stopped.state, stopped.worker, stopped.progress["crashes"]) == (RunState.QUEUED, None, 0)
    assert (home / "training" / str(run.id) / "checkpoint.safetensors").exists()


@pytest.mark.usefixtures("environment")
def test_a_run_that_loses_the_database_between_artefact_and_registration_goes_on_and_registers_it_once(
    signed: sa.Engine, home: Path
) -> None:
    with transaction(signed) as session:
        run = waiting(session, changes={"steps": 2}, evaluate=1)
    trainer = Trainer(signed)
    with ThreadPoolExecutor(1) as aside, transaction(signed) as session:
        session.execute(sa.text("LOCK TABLE model_versions IN SHARE MODE"))  # its row cannot be written
        taken = aside.submit(trainer.take_one)
        # a session that holds the lock and says nothing for two minutes would be ended itself
        _until(lambda: session.execute(sa.text("SELECT 1")) and _cut_off(signed, "INSERT INTO model_versions"))
        taken.result(timeout=60)
    with transaction(signed) as session:
        assert (runs.get(session, run.id).state, runs.get(session, run.id).error) == (RunState.QUEUED, None)
        assert session.exec(select(ModelVersion)).all() == []
    [published] = (home / "models").iterdir()
    first = (published / "manifest.json").read_bytes()
    assert trainer.take_one()
    with transaction(signed) as session:
        ended = runs.get(session, run.id)
        assert (ended.state, ended.error, ended.model_version) == (RunState.DONE, None, published.name)
        registry.require_usable(registry.get(session, published.name))
    assert (
        json.loads(first)["files"] == registry.read_manifest(published)["files"]
    )  # the same weights, from the checkpoint


@pytest.mark.usefixtures("environment")
def test_whatever_goes_wrong_with_one_run_the_worker_looks_for_the_next(
    signed: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.service.LOOK_S", 0.2)
    with transaction(signed) as session:
        run = waiting(session, changes={"steps": 1}, evaluate=1)
    trainer = Trainer(signed)
    python, sys.executable = sys.executable, "/nowhere/python"  # as when no process can be started
    try:
        trainer.start()
        _until(lambda: _newest(signed).state is RunState.RUNNING)
        time.sleep(0.5)
    finally:
        sys.executable = python
    try:
        with transaction(signed) as session:
            age(session, run, runs.SILENT_S + 1)
        *_, ended = runs.follow(signed, run.id, every_s=0.2)
    finally:
        trainer.stop()
    assert ended.state is RunState.DONE


@pytest.mark.usefixtures("environment")
def test_a_run_without_anything_to_train_on_fails_with_a_sentence(database: sa.Engine) -> None:
    with transaction(database) as session:
        run = waiting(session)
    with listening() as (url, heard):
        assert Trainer(database, TrainingSettings(notice_url=url)).take_one()
    with transaction(database) as session:
        ended = runs.get(session, run.id)
    assert ended.state is RunState.FAILED
    assert "no signed report to train on" in (ended.error or "")
    [told] = heard
    assert (told["outcome"], told["run"], told["error"]) == ("failed", str(run.id), ended.error)


@pytest.mark.usefixtures("environment")
def test_the_bell_wakes_the_training_worker_and_sigterm_ends_it(
    signed: sa.Engine, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VALUER_BROKER_URL", broker_url)
    queue.configure(broker_url)
    service = subprocess.Popen([sys.executable, "-m", "training.service"], stdin=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with transaction(signed) as session:
                if [row for row in processes.alive(session, "training") if row.state == "ready"]:
                    break
            time.sleep(0.1)
        time.sleep(1.0)  # let its own first look pass, so that only the bell can wake it early
        with transaction(signed) as session:
            run = waiting(session, changes={"steps": 2}, evaluate=1)
        assert queue.ring_training(run.id)
        *_, ended = runs.follow(signed, run.id, every_s=0.2)
        assert (ended.state, ended.error) == (RunState.DONE, None)
        assert ended.started_at is not None
        assert (ended.started_at - ended.created_at).total_seconds() < LOOK_S / 2
    finally:
        service.terminate()
        assert service.wait(timeout=30) == 0
