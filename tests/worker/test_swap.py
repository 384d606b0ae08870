"""Which version serves whom when one of them may not: what is refused is said, and what served before it drafts on."""

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa

from core import db
from core.errors import EngineRestarting
from core.identity import Keyring
from core.serving import Serving
from core.states import Reason, RequestState
from core.tables import AuditEvent, Draft, Evaluation, Generation, ModelVersion, Process
from tests.builders import institution
from tests.worker.stand_in import StandIn
from tests.worker.test_desk import SETTINGS, Ward, promote, register
from worker.swap import Swap

MERGED = Serving("bf16-merged", "clinical", 128)


@pytest.fixture
def ward(database: sa.Engine, keyring: Keyring, tmp_path: Path) -> Iterator[Ward]:
    """v1 serves everybody; v2 is registered."""
    with db.transaction(database) as session:
        institution(session)
    for name in ("v1", "v2"):
        register(database, tmp_path, name)
    promote(database, "v1")
    made = Ward(database, keyring, StandIn())
    made.swap.look()
    made.desk.start()
    yield made
    made.desk.stop()


def served_by(ward: Ward, identity: UUID) -> str | None:
    """The version of the request's draft, after everything that waits was served."""
    while ward.desk.work():
        pass
    found = [draft.model_version for draft in ward.all(Draft) if draft.request_id == identity]
    return found[0] if found else None


def refusals(ward: Ward) -> list[tuple[str, str]]:
    """What the audit trail says was refused, and why."""
    return [
        (event.subject, event.detail["reason"]) for event in ward.all(AuditEvent) if event.action == "model.refused"
    ]


def look_twice(ward: Ward) -> None:
    """The first look refuses what may not serve; the next one, a second later, falls back."""
    ward.swap.look()
    ward.swap.look()


def test_what_served_before_a_refused_version_drafts_on_and_the_audit_trail_says_why(ward: Ward) -> None:
    ward.engine.refuse = {"v2"}
    promote(ward.database, "v2")
    look_twice(ward)
    look_twice(ward)
    assert served_by(ward, ward.accept()) == "v1"
    assert refusals(ward) == [("model:v2", "v2 is corrupt.")]


def test_a_worker_that_starts_after_the_refused_version_was_promoted_serves_the_one_before(ward: Ward) -> None:
    promote(ward.database, "v2")
    ward.engine.refuse = {"v2"}
    fresh = Ward(ward.database, ward.keyring, ward.engine)
    look_twice(fresh)
    assert served_by(fresh, fresh.accept()) == "v1"


def test_a_refused_version_serves_as_soon_as_its_files_are_mended(ward: Ward, tmp_path: Path) -> None:
    weights = tmp_path / "v2" / "manifest.json"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    promote(ward.database, "v2")
    look_twice(ward)
    assert ward.swap.version is not None
    assert ward.swap.version.id == "v1"
    assert refusals(ward) == [("model:v2", "The manifest.json of v2 is not the one that was registered.")]
    weights.write_bytes(whole)
    ward.swap.look()
    assert served_by(ward, ward.accept()) == "v2"


def test_a_version_that_stays_broken_is_tried_again_more_and_more_seldom(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, tried = [1000.0], list[float]()
    monkeypatch.setattr("worker.swap.time.monotonic", lambda: now[0])
    swap = ward.engine.swap

    def counted(adapter: Path | None) -> None:
        tried.extend([now[0]] if adapter is not None and adapter.name == "v2" else [])
        swap(adapter)

    monkeypatch.setattr(ward.engine, "swap", counted)
    ward.engine.refuse = {"v2"}
    promote(ward.database, "v2")
    for _ in range(60):
        ward.swap.look()
        now[0] += 10
        assert ward.swap.served() == ["north"]  # by v1, also while v2 is tried again
    assert [at - 1000.0 for at in tried] == [0, 60, 180, 420]


def test_an_institution_whose_own_version_is_refused_gets_what_it_had_before_it_was_pinned(
    ward: Ward, tmp_path: Path
) -> None:
    with db.transaction(ward.database) as session:
        institution(session, "south")
    register(ward.database, tmp_path, "v3")
    promote(ward.database, "v2", "south")
    promote(ward.database, "v3", "south")
    ward.engine.refuse = {"v3"}
    first = ward.accept(institution="south")
    look_twice(ward)
    assert served_by(ward, first) == "v2"
    ward.engine.refuse = {"v3", "v2"}
    fresh = Ward(ward.database, ward.keyring, ward.engine)
    second = fresh.accept(institution="south", accession="B")
    look_twice(fresh)
    fresh.swap.look()
    assert served_by(fresh, second) == "v1"


def test_where_nothing_served_before_there_is_no_model(ward: Ward, tmp_path: Path) -> None:
    with db.transaction(ward.database) as session:
        institution(session, "sandbox-1", sandbox=True)
    register(ward.database, tmp_path, "demo", sandbox_only=True)
    promote(ward.database, "demo", "sandbox-1")
    with ward.database.begin() as connection:
        connection.execute(sa.text("DELETE FROM active_models WHERE institution = '*'"))
    ward.engine.refuse = {"demo"}
    look_twice(ward)
    identity = ward.accept(institution="sandbox-1")
    assert served_by(ward, identity) is None
    assert (ward.row(identity).state, ward.row(identity).reason) == (RequestState.WITHHELD, Reason.NO_MODEL)


def test_what_is_broken_on_this_machine_only_is_left_to_the_worker_that_serves_it(ward: Ward) -> None:
    ward.engine.refuse = {"v2"}
    promote(ward.database, "v2")
    look_twice(ward)
    with db.transaction(ward.database) as session:
        row = Process(
            name="worker@elsewhere:1",
            kind="worker",
            pid=1,
            host="elsewhere",
            state="ready",
            detail={"version": "v2"},
        )
        session.add(row)
    ward.swap.look()
    identity = ward.accept()
    assert served_by(ward, identity) is None
    assert ward.row(identity).state is RequestState.QUEUED


def test_a_version_of_another_base_is_left_to_a_worker_with_that_base_and_it_is_said_once(
    ward: Ward, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    register(ward.database, tmp_path, "other", base="another")
    promote(ward.database, "other")
    with caplog.at_level(logging.WARNING, logger="valuer"):
        look_twice(ward)
    assert [record.message for record in caplog.records].count("version_of_another_base") == 1
    identity = ward.accept()
    assert served_by(ward, identity) is None
    assert ward.row(identity).state is RequestState.QUEUED


def evaluated(ward: Ward, name: str, serving: Serving, *, finished: bool = True) -> None:
    """A finished evaluation of a version in this form."""
    with db.transaction(ward.database) as session:
        version = session.get_one(ModelVersion, name)
        session.add(
            Evaluation(
                subject=f"model:{name}",
                model_version=name,
                artefact=serving.artefact(version.manifest),
                scorer="1",
                result={},
                finished_at=version.created_at if finished else None,
            )
        )


def merged(ward: Ward) -> Ward:
    """The same department with a worker that serves merged weights."""
    made = Ward(ward.database, ward.keyring, ward.engine)
    made.swap = Swap(ward.engine, ward.database, "base", MERGED)
    made.desk = type(made.desk)(ward.engine, made.swap, ward.database, SETTINGS)
    return made


def test_merged_weights_serve_only_a_version_that_was_evaluated_in_that_form(ward: Ward) -> None:
    other = merged(ward)
    evaluated(ward, "v1", Serving("nf4+adapter", "clinical", 128))
    evaluated(ward, "v1", Serving("bf16-merged", "paper", 128))
    evaluated(ward, "v1", MERGED, finished=False)
    look_twice(other)
    identity = other.accept()
    assert served_by(other, identity) is None
    assert other.row(identity).reason == Reason.NO_MODEL
    assert refusals(ward) == [
        ("model:v1", "v1 was not evaluated as this worker would serve it (bf16-merged, clinical, 128 tokens).")
    ]


def test_merged_weights_that_were_evaluated_serve_and_the_next_version_waits_for_its_evaluation(ward: Ward) -> None:
    other = merged(ward)
    evaluated(ward, "v1", MERGED)
    look_twice(other)
    assert served_by(other, other.accept()) == "v1"
    promote(ward.database, "v2")
    look_twice(other)
    assert served_by(other, other.accept(accession="B")) == "v1"
    evaluated(ward, "v2", MERGED)
    fresh = merged(ward)
    fresh.swap.look()
    assert served_by(fresh, fresh.accept(accession="C")) == "v2"


def test_the_worker_may_ask_all_this_under_its_own_role(ward: Ward, database_url: str) -> None:
    evaluated(ward, "v1", MERGED)
    restricted = db.connect(database_url, role="valuer_worker")
    try:
        swap = Swap(ward.engine, restricted, "base", MERGED)
        promote(ward.database, "v2")
        swap.look()
        swap.look()
        assert swap.version is not None
        assert swap.version.id == "v1"
        assert [subject for subject, _ in refusals(ward)] == ["model:v2"]
    finally:
        restricted.dispose()


def test_a_task_between_two_tries_is_cancelled_until_it_leaves_and_no_draft_is_of_two_versions(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.swap.GRACE_S", 0.2)
    begun = threading.Event()

    def slow(_: object) -> str:
        begun.set()
        time.sleep(0.05)
        return ""  # no draft, so that the next try begins at once

    ward.engine._answer = slow
    identity = ward.accept()
    thread = threading.Thread(target=ward.desk.work)
    thread.start()
    assert begun.wait(30)
    promote(ward.database, "v2")
    ward.swap.look()
    thread.join(timeout=30)
    assert (ward.row(identity).state, ward.row(identity).attempts) == (RequestState.WITHHELD, 1)
    assert {generation.model_version for generation in ward.all(Generation)} <= {"v1", "v2"}
    assert len({generation.model_version for generation in ward.all(Generation)}) == 1


def test_nobody_is_swapped_under(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that does not leave keeps its version; the change is tried again."""
    monkeypatch.setattr("worker.swap.GRACE_S", 0.1)
    monkeypatch.setattr("worker.swap.STUCK_S", 0.2)
    promote(ward.database, "v2")
    with ward.swap.admitted("job") as version:
        with pytest.raises(EngineRestarting):
            ward.swap.look()
        assert version is not None
        assert version.id == ward.engine.adapter == "v1"
    ward.swap.look()
    assert ward.engine.adapter == "v2"
