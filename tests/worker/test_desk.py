"""The desk on a real database with an engine that says what it is told."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import select

from core import db, registry, requests
from core.identity import Keyring
from core.settings import WorkerSettings
from core.states import AttemptState, Reason, RequestState
from core.tables import Attempt, Draft, DraftRequest, Generation, ScoreRow
from tests.builders import ADMIN, DOCTOR, accept, institution
from tests.worker.stand_in import StandIn
from worker.desk import Desk
from worker.scoring import score_sign_off
from worker.swap import Swap

SETTINGS = WorkerSettings(heartbeat_s=0.1, deadline_s=5.0, in_flight=2, stat_threads=1)


def register(database: sa.Engine, folder: Path, name: str, *, base: str = "base", sandbox_only: bool = False) -> None:
    """A finished version, registered."""
    directory = folder / name
    directory.mkdir(parents=True)
    (directory / "adapter_model.safetensors").write_bytes(name.encode())
    manifest = {
        "id": name,
        "base": {"model": "demo", "digest": base},
        "adapter": {"r": 8},
        "weights": "nf4+adapter",
        "prompt": {"template": "brief", "version": "brief-0"},
        "training": {},
        "scope": [],
        "sandbox_only": sandbox_only,
        "files": {"adapter_model.safetensors": hashlib.sha256(name.encode()).hexdigest()},
        "created_at": "2026-01-01T00:00:00Z",
    }
    (directory / "manifest.json").write_text(json.dumps(manifest))
    with db.transaction(database) as session:
        registry.register(session, directory)


def promote(database: sa.Engine, name: str, institution: str = "*") -> None:
    with db.transaction(database) as session:
        registry.promote(session, name, "test", institution)


class Ward:
    """A desk, its engine and its database."""

    def __init__(self, database: sa.Engine, keyring: Keyring, engine: StandIn) -> None:
        self.database, self.keyring, self.engine = database, keyring, engine
        self.swap = Swap(engine, database, "base")
        self.desk = Desk(engine, self.swap, database, SETTINGS)

    def accept(self, **changes: Any) -> Any:
        with db.transaction(self.database) as session:
            return accept(session, self.keyring, ADMIN, **changes).id

    def row(self, identity: Any) -> DraftRequest:
        with db.transaction(self.database) as session:
            return requests.get(session, identity, ADMIN)

    def all(self, table: Any) -> list[Any]:
        with db.transaction(self.database) as session:
            return list(session.exec(select(table)))


@pytest.fixture
def ward(database: sa.Engine, keyring: Keyring, tmp_path: Path) -> Iterator[Ward]:
    with db.transaction(database) as session:
        institution(session)
    register(database, tmp_path, "v1")
    promote(database, "v1")
    made = Ward(database, keyring, StandIn())
    made.swap.look()
    made.desk.start()
    yield made
    made.desk.stop()


def test_a_request_becomes_a_visible_draft_with_its_versions_and_generations(ward: Ward) -> None:
    identity = ward.accept()
    assert ward.desk.work()
    row, (draft,), (generation,) = ward.row(identity), ward.all(Draft), ward.all(Generation)
    assert (row.state, row.draft_version, row.lease) == (RequestState.DRAFTED, 1, None)
    assert (draft.model_version, draft.visible, draft.label) == ("v1", True, "AI 草稿，须医师审核")
    assert draft.prompt_version.startswith("brief-")
    assert (generation.text, generation.passed, generation.id) == (draft.impression, True, draft.generation_id)


def test_there_is_nothing_to_do_when_nothing_waits(ward: Ward) -> None:
    assert not ward.desk.work()


def test_a_request_delivered_twice_is_drafted_once(ward: Ward) -> None:
    ward.accept()
    threads = [threading.Thread(target=ward.desk.work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ward.all(Draft)) == len(ward.all(Attempt)) == 1


def test_what_fails_the_checks_is_withheld_with_every_generation_kept(ward: Ward) -> None:
    ward.engine._answer = lambda _: ""
    identity = ward.accept()
    ward.desk.work()
    row = ward.row(identity)
    assert (row.state, row.reason) == (RequestState.WITHHELD, Reason.CHECKS_FAILED)
    assert (len(ward.all(Generation)), ward.all(Draft)) == (3, [])


def test_without_a_model_a_request_settles_and_says_so(database: sa.Engine, keyring: Keyring) -> None:
    with db.transaction(database) as session:
        institution(session)
    bare = Ward(database, keyring, StandIn())
    bare.swap.look()
    identity = bare.accept()
    bare.desk.work()
    assert (bare.row(identity).state, bare.row(identity).reason) == (RequestState.WITHHELD, Reason.NO_MODEL)


def test_a_sandbox_model_never_drafts_for_a_real_institution(ward: Ward, tmp_path: Path) -> None:
    with db.transaction(ward.database) as session:
        institution(session, "sandbox-1", sandbox=True)
    register(ward.database, tmp_path, "demo", sandbox_only=True)
    promote(ward.database, "demo")
    ward.swap.look()
    real, pretend = ward.accept(), ward.accept(institution="sandbox-1", accession="B")
    while ward.desk.work():
        pass
    assert (ward.row(real).reason, ward.row(pretend).state) == (Reason.NO_MODEL, RequestState.DRAFTED)


def test_stat_threads_leave_routine_work_alone(ward: Ward) -> None:
    ward.engine.seconds = 1.0
    for number in range(3):
        ward.accept(accession=f"R-{number}")
    threads = [threading.Thread(target=ward.desk.work) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    assert ward.desk.in_flight == 2
    stat = ward.accept(accession="S", priority="stat")
    ward.engine.seconds = 0.0
    assert ward.desk.work()
    assert ward.row(stat).state is RequestState.DRAFTED
    for thread in threads:
        thread.join()


def test_signing_during_a_draft_cancels_it_and_nothing_is_written(ward: Ward) -> None:
    ward.engine.seconds = 30.0
    identity = ward.accept()
    thread = threading.Thread(target=ward.desk.work)
    thread.start()
    time.sleep(0.3)
    with db.transaction(ward.database) as session:
        requests.sign(session, identity, "右肺结节。", None, DOCTOR)
    thread.join(timeout=5)
    assert not thread.is_alive()
    assert (ward.row(identity).state, ward.all(Draft)) == (RequestState.SIGNED, [])


def test_a_failing_engine_gives_the_request_back(ward: Ward) -> None:
    ward.engine.fatal = "dead"
    identity = ward.accept()
    assert ward.desk.work()
    assert ward.row(identity).state is RequestState.QUEUED
    assert [attempt.state for attempt in ward.all(Attempt)] == [AttemptState.RETRIED]


def test_a_third_deadline_is_an_answer(ward: Ward, keyring: Keyring) -> None:
    settings = WorkerSettings(deadline_s=0.05, in_flight=1)
    ward.engine.seconds = 10.0
    desk = Desk(ward.engine, ward.swap, ward.database, settings)
    identity = ward.accept()
    for _ in range(3):
        with ward.database.begin() as connection:
            connection.execute(sa.text("UPDATE draft_requests SET not_before = NULL"))
        desk.work()
    assert (ward.row(identity).state, ward.row(identity).reason) == (RequestState.WITHHELD, Reason.DEADLINE)


def test_a_promoted_version_serves_the_next_claim_and_no_draft_is_mixed(ward: Ward, tmp_path: Path) -> None:
    ward.engine._answer = lambda _: "1、右肺上叶小结节；\n2、左侧胸腔积液。"
    ward.engine.seconds = 30.0
    identity = ward.accept()
    thread = threading.Thread(target=ward.desk.work)
    thread.start()
    time.sleep(0.3)
    register(ward.database, tmp_path, "v2")
    promote(ward.database, "v2")
    ward.engine.seconds = 0.0
    began = time.monotonic()
    ward.swap.look()  # waits 3 s for the long generation, then cancels it; the task begins again under v2
    thread.join(timeout=10)
    assert time.monotonic() - began < 5
    row, (draft,) = ward.row(identity), ward.all(Draft)
    assert (row.attempts, draft.model_version, ward.engine.adapter) == (1, "v2", "v2")


def test_a_version_that_cannot_be_loaded_is_refused_and_the_old_one_goes_on(ward: Ward, tmp_path: Path) -> None:
    register(ward.database, tmp_path, "v2")
    ward.engine.refuse = {"v2"}
    promote(ward.database, "v2")
    ward.swap.look()
    assert ward.swap.version is not None
    assert ward.swap.version.id == "v1"


def test_institutions_that_pin_different_versions_are_served_in_turn(ward: Ward, tmp_path: Path) -> None:
    with db.transaction(ward.database) as session:
        institution(session, "south")
    register(ward.database, tmp_path, "v2")
    promote(ward.database, "v2", "south")
    ids = [ward.accept(institution=code, accession=f"{code}-{n}") for code in ("north", "south") for n in range(2)]
    for _ in range(8):
        ward.swap.look()
        ward.desk.work()
    versions = {draft.request_id: draft.model_version for draft in ward.all(Draft)}
    assert [versions[identity] for identity in ids] == ["v1", "v1", "v2", "v2"]


def test_a_stopping_desk_gives_its_work_back(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.desk.STOP_GRACE_S", 0.2)
    ward.engine.seconds = 30.0
    identity = ward.accept()
    thread = threading.Thread(target=ward.desk.work)
    thread.start()
    time.sleep(0.3)
    ward.desk.stop()
    thread.join(timeout=5)
    assert ward.row(identity).state is RequestState.QUEUED
    assert not ward.desk.work()


def test_a_sign_off_is_scored_once(ward: Ward) -> None:
    identity = ward.accept()
    ward.desk.work()
    with db.transaction(ward.database) as session:
        sign_off = requests.sign(session, identity, "1、右肺上叶小结节；\n2、左侧胸腔积液。", 1, DOCTOR).id
    assert [score_sign_off(ward.database, sign_off) for _ in range(2)] == [True, False]
    (score,) = ward.all(ScoreRow)
    assert score.r1 > 0.99


def test_a_draft_that_was_owed_and_not_made_scores_zero(ward: Ward) -> None:
    ward.engine._answer = lambda _: ""
    identity = ward.accept()
    ward.desk.work()
    with db.transaction(ward.database) as session:
        sign_off = requests.sign(session, identity, "右肺上叶小结节。", None, DOCTOR).id
    assert score_sign_off(ward.database, sign_off)
    assert [score.r1 for score in ward.all(ScoreRow)] == [0.0]
