"""Promotion through the real gate and registry, on planted evaluations."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlmodel import Session, select

from core import registry
from core.db import transaction
from core.errors import Broken, Conflict, Refused
from core.states import RunState
from core.tables import AuditEvent, ModelVersion, Promotion, RegressionCase, TrainingRun
from tests import builders
from tests.training import planted
from tests.training.planted import SERVING
from training import collection, promotion

BOSS = "user:boss"


@pytest.fixture
def serving(session: Session, tmp_path: Path) -> str:
    """`old` serves everybody and is evaluated; returns the dataset."""
    for house in planted.HOSPITALS:
        builders.institution(session, house)
    data = planted.dataset(session)
    old = planted.version(session, tmp_path, "old")
    planted.evaluated(session, old, data, planted.evaluation(lambda _: 0.0))
    registry.promote(session, "old", BOSS, gate={"exempt": "first of the test"})
    return data


def candidate(session: Session, folder: Path, data: str, shift: planted.Shift) -> ModelVersion:
    row = planted.version(session, folder, "new")
    planted.evaluated(session, row, data, planted.evaluation(shift, seed=2))
    return row


def rules(verdict: promotion.Verdict) -> set[str]:
    return {finding.rule for finding in verdict.held_by}


def test_a_worse_version_is_held_and_the_pointer_stays(session: Session, tmp_path: Path, serving: str) -> None:
    candidate(session, tmp_path, serving, lambda _: -0.05)
    verdict, _ = promotion.promote(session, "new", "*", SERVING, BOSS)
    assert {"facts", "overall", "stratum"} <= rules(verdict)
    active = registry.active(session, "north")
    assert active is not None
    assert active.id == "old"
    [held] = session.exec(select(Promotion).where(Promotion.kind == "held"))
    assert (held.model_version, held.previous, held.gate["verdict"]) == ("new", "old", "hold")


def test_a_better_version_is_promoted_with_the_verdict_on_record(
    session: Session, tmp_path: Path, serving: str
) -> None:
    candidate(session, tmp_path, serving, lambda _: 0.03)
    verdict, previous = promotion.promote(session, "new", "*", SERVING, BOSS)
    assert verdict.held_by == ()
    assert previous == "old"
    active = registry.active(session, "south")
    assert active is not None
    assert active.id == "new"
    row = session.exec(select(Promotion).where(Promotion.model_version == "new")).one()
    assert row.gate["verdict"] == "promote"
    assert registry.rollback(session, BOSS) == ("new", "old")


def test_better_on_average_but_worse_at_one_hospital_is_held_by_that_hospital(
    session: Session, tmp_path: Path, serving: str
) -> None:
    candidate(session, tmp_path, serving, lambda house: -0.06 if house == "west" else 0.06)
    verdict, _ = promotion.promote(session, "new", "*", SERVING, BOSS)
    assert rules(verdict) == {"stratum"}
    assert {finding.figures["where"] for finding in verdict.held_by} == {"west"}
    assert promotion.ask(session, "new", "north", SERVING).passed  # it may serve the hospital where it is better
    assert not promotion.ask(session, "new", "west", SERVING).passed


def test_a_version_that_is_no_better_needs_a_reason(session: Session, tmp_path: Path, serving: str) -> None:
    row = planted.version(session, tmp_path, "new")
    planted.evaluated(session, row, serving, planted.evaluation(lambda _: 0.0))
    assert rules(promotion.ask(session, "new", "*", SERVING)) == {"facts"}
    assert promotion.ask(session, "new", "*", SERVING, reason="a base under a freer licence").passed


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("red", {"issues": {"red": ("side",)}}),
        ("withheld", {"outcome": "checks_failed"}),
        ("critical", {"issues": {"red": ("critical",)}}),
    ],
)
def test_more_errors_hold_a_version_that_scores_better(
    session: Session, tmp_path: Path, serving: str, rule: str, change: dict[str, object]
) -> None:
    row = planted.version(session, tmp_path, "new")
    cases = planted.evaluation(lambda _: 0.03, seed=2)
    cases[::20] = [replace(one, **change) for one in cases[::20]]  # type: ignore[arg-type]
    planted.evaluated(session, row, serving, cases)
    assert rule in rules(promotion.ask(session, "new", "*", SERVING))


def test_a_version_that_says_the_same_to_everybody_is_held(session: Session, tmp_path: Path, serving: str) -> None:
    row = planted.version(session, tmp_path, "new")
    cases = [replace(one, draft="未见异常") for one in planted.evaluation(lambda _: 0.03, seed=2)]
    planted.evaluated(session, row, serving, cases)
    assert rules(promotion.ask(session, "new", "*", SERVING)) == {"variety"}


def test_only_the_evaluation_of_what_would_serve_counts(session: Session, tmp_path: Path, serving: str) -> None:
    row = candidate(session, tmp_path, serving, lambda _: 0.03)
    merged = replace(SERVING, weights="bf16-merged")
    assert rules(promotion.ask(session, "new", "*", merged)) == {"evaluated"}
    (Path(row.path) / "adapter_model.safetensors").write_bytes(b"changed")
    with pytest.raises(Broken, match="not what its manifest says"):
        promotion.ask(session, "new", "*", SERVING)


def test_the_active_version_must_have_drafted_the_same_reports(session: Session, tmp_path: Path, serving: str) -> None:
    row = planted.version(session, tmp_path, "new")
    planted.evaluated(session, row, serving, planted.evaluation(lambda _: 0.05, per_house=400))
    [held] = promotion.ask(session, "new", "*", SERVING).held_by
    assert held.says.startswith("old was evaluated on 900 of the 1200 reports only")


def test_a_forced_promotion_needs_a_reason_and_is_audited(session: Session, tmp_path: Path, serving: str) -> None:
    candidate(session, tmp_path, serving, lambda _: -0.05)
    with pytest.raises(Refused, match="needs a --reason"):
        promotion.promote(session, "new", "*", SERVING, BOSS, force=True, reason=" ")
    verdict, previous = promotion.promote(session, "new", "*", SERVING, BOSS, force=True, reason="old is withdrawn")
    assert (verdict.passed, previous) == (False, "old")
    event = session.exec(
        select(AuditEvent).where(AuditEvent.subject == "model:new", AuditEvent.action == "model.promoted")
    ).one()
    assert (event.detail["forced"], event.detail["reason"]) == (True, "old is withdrawn")
    row = session.exec(select(Promotion).where(Promotion.model_version == "new")).one()
    assert (row.gate["verdict"], row.gate["forced"]) == ("hold", True)


def test_a_pinned_mistake_that_comes_back_holds_a_better_version(
    session: Session, tmp_path: Path, serving: str
) -> None:
    pinned = RegressionCase(
        institution="north", case={}, forbids=["side"], fact_floor=0.5, why="left for right", approved_by=BOSS
    )
    session.add(pinned)
    session.flush()
    row = candidate(session, tmp_path, serving, lambda _: 0.03)
    assert rules(promotion.ask(session, "new", "*", SERVING)) == {"regression"}  # not drafted at all
    wrong = planted.measured(0, "north", 0.9, case_id=f"regression:{pinned.id}", issues={"amber": ("side",)})
    planted.evaluated(session, row, serving, [*planted.evaluation(lambda _: 0.03, seed=2), wrong])
    assert rules(promotion.ask(session, "new", "*", SERVING)) == {"regression"}
    right = replace(wrong, issues={})
    planted.evaluated(session, row, serving, [*planted.evaluation(lambda _: 0.03, seed=2), right])
    assert promotion.ask(session, "new", "*", SERVING).passed


def first(session: Session, folder: Path, shift: float) -> None:
    data = planted.dataset(session)
    row = planted.version(session, folder, "new")
    planted.evaluated(session, row, data, planted.evaluation(lambda _: shift))
    planted.baseline(session, "copy", data, planted.evaluation(lambda _: -0.3))
    planted.baseline(session, "nearest", data, planted.evaluation(lambda _: 0.0, seed=3))


def test_a_first_version_must_beat_copying_and_the_nearest_report_in_every_cell(
    session: Session, tmp_path: Path
) -> None:
    first(session, tmp_path, 0.0)
    verdict = promotion.ask(session, "new", "*", SERVING)
    held = {finding.figures["against"] for finding in verdict.held_by}
    assert held == {"nearest"}
    cells = {finding.figures["where"] for finding in verdict.findings if finding.rule == "first"}
    assert cells == {f"{house} × chest × CT" for house in planted.HOSPITALS}


def test_a_first_version_that_beats_the_baselines_still_owes_the_departments_floor(
    session: Session, tmp_path: Path
) -> None:
    first(session, tmp_path, 0.1)
    assert promotion.ask(session, "new", "*", SERVING).passed
    builders.institution(session, "south", gate={"floor_rl": 0.75, "p95_s": 1.5})
    verdict = promotion.ask(session, "new", "*", SERVING)
    assert rules(verdict) == {"floor", "speed"}
    assert promotion.ask(session, "new", "north", SERVING).passed


def test_a_first_version_owes_the_floor_in_every_cell_and_not_on_average(session: Session, tmp_path: Path) -> None:
    data = planted.dataset(session)
    builders.institution(session, "north", gate={"floor_rl": 0.5})
    row = planted.version(session, tmp_path, "new", systems=("chest", "head"))
    good = planted.evaluation(lambda _: 0.25, houses=("north",))
    weak = [
        replace(one, case_id=f"{one.case_id}-head", systems=("head",))
        for one in planted.evaluation(lambda _: -0.2, houses=("north",))
    ]
    planted.evaluated(session, row, data, [*good, *weak])
    for name in promotion.BASELINES:
        planted.baseline(
            session, name, data, [replace(one, scores=dict.fromkeys(one.scores, 0.1)) for one in (*good, *weak)]
        )
    verdict = promotion.ask(session, "new", "*", SERVING)
    assert [finding.says.split(":")[0] for finding in verdict.held_by] == ["north × head × CT"]
    assert rules(verdict) == {"floor"}


def test_a_baseline_that_was_measured_on_some_of_the_reports_only_decides_nothing(
    session: Session, tmp_path: Path
) -> None:
    data = planted.dataset(session)
    row = planted.version(session, tmp_path, "new")
    cases = planted.evaluation(lambda _: 0.1)
    planted.evaluated(session, row, data, cases)
    for name in promotion.BASELINES:
        planted.baseline(
            session, name, data, [replace(one, scores=dict.fromkeys(one.scores, 0.1)) for one in cases[:600]]
        )
    held = promotion.ask(session, "new", "*", SERVING).held_by
    assert [finding.says[:60] for finding in held] == [
        f"The baseline {name} was measured on 600 of the 900 reports only"[:60] for name in promotion.BASELINES
    ]


def test_without_baselines_or_enough_reports_nothing_is_promoted_first(session: Session, tmp_path: Path) -> None:
    data = planted.dataset(session)
    row = planted.version(session, tmp_path, "new")
    planted.evaluated(session, row, data, planted.evaluation(lambda _: 0.1))
    assert all("was not measured" in finding.says for finding in promotion.ask(session, "new", "*", SERVING).held_by)
    few = planted.evaluation(lambda _: 0.1, per_house=20)
    planted.evaluated(session, row, data, few)
    for name in promotion.BASELINES:
        planted.baseline(session, name, data, few)
    assert rules(promotion.ask(session, "new", "*", SERVING)) == {"reports"}


def test_an_examination_that_the_active_version_never_saw_is_a_first_of_its_own(
    session: Session, tmp_path: Path, serving: str
) -> None:
    row = planted.version(session, tmp_path, "new", systems=("chest", "head"))
    heads = [
        replace(one, case_id=f"{one.case_id}-head", systems=("head",)) for one in planted.evaluation(lambda _: 0.1)
    ]
    planted.evaluated(session, row, serving, [*planted.evaluation(lambda _: 0.03, seed=2), *heads])
    assert rules(promotion.ask(session, "new", "*", SERVING)) == {"first"}
    for name in promotion.BASELINES:
        planted.baseline(session, name, serving, [replace(one, scores=dict.fromkeys(one.scores, 0.2)) for one in heads])
    assert promotion.ask(session, "new", "*", SERVING).passed


def test_what_serves_already_is_not_promoted_again(session: Session, serving: str) -> None:
    with pytest.raises(Conflict, match="serves there already"):
        promotion.ask(session, "old", "north", SERVING)


def test_collection_takes_what_nothing_refers_to_and_nothing_else(database: sa.Engine, tmp_path: Path) -> None:
    names = [f"v{number}" for number in range(10)]
    for name in names:
        with transaction(database) as session:  # created_at is the transaction's
            planted.version(session, tmp_path, name)
    for name in names[:5]:
        with transaction(database) as session:
            registry.promote(session, name, BOSS, gate={})
    with transaction(database) as session:
        shipped = Path(planted.version(session, tmp_path / "elsewhere", "shipped").path)
        found = collection.rubbish(session, tmp_path)
        assert found.size() > 0
    assert sorted(found.versions) == ["v0", "v5", "v6", "v7"]
    with transaction(database) as session:
        registry.promote(session, "v6", BOSS, "north", gate={})  # somebody promotes between looking and removing
    with transaction(database) as session:
        found = collection.collect(session, found, BOSS)
    found.remove()
    left = sorted(path.name for path in (tmp_path / "models").iterdir())
    assert left == ["v1", "v2", "v3", "v4", "v6", "v8", "v9"]
    assert shipped.exists()
    with transaction(database) as session:
        with pytest.raises(Conflict, match="removed"):
            promotion.ask(session, "v5", "*", SERVING)
        assert registry.rollback(session, BOSS) == ("v4", "v3")


def test_a_collection_that_was_killed_and_a_version_that_was_never_registered_leave_no_files(
    database: sa.Engine, tmp_path: Path
) -> None:
    for number in range(5):
        with transaction(database) as session:
            planted.version(session, tmp_path, f"v{number}")
    merged = tmp_path / "merged" / "v0"
    merged.mkdir(parents=True)
    (merged / "model.safetensors").write_bytes(b"large")
    states = {"ended": RunState.FAILED, "waiting": RunState.QUEUED}
    with transaction(database) as session:
        for name, state in states.items():
            run = TrainingRun(profile="smoke", state=state, requested_by=BOSS)
            session.add(run)
            folder = tmp_path / "models" / name
            folder.mkdir()
            (folder / "manifest.json").write_text(json.dumps({"id": name, "training": {"run": str(run.id)}}), "utf-8")
        (tmp_path / "models" / "base-of-somebody").mkdir()
    with transaction(database) as session:
        collection.collect(session, collection.rubbish(session, tmp_path), BOSS)
    # killed here, before anything was removed
    with transaction(database) as session:
        found = collection.rubbish(session, tmp_path)
    assert found.versions == {}
    found.remove()
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == [
        "base-of-somebody",
        "v2",
        "v3",
        "v4",
        "waiting",
    ]
    assert not merged.exists()
    with transaction(database) as session:
        assert len(session.exec(select(AuditEvent).where(AuditEvent.action == "model.collected")).all()) == 2


def test_of_two_who_promote_at_once_the_second_is_judged_by_what_the_first_made_serve(
    database: sa.Engine, tmp_path: Path
) -> None:
    with transaction(database) as session:
        for house in planted.HOSPITALS:
            builders.institution(session, house)
        data = planted.dataset(session)
        for name, shift, seed in (("old", 0.0, 1), ("good", 0.06, 2), ("fair", 0.03, 3)):
            row = planted.version(session, tmp_path, name)
            cases = planted.evaluation(lambda _, shift=shift: shift, seed=seed, per_house=80)  # type: ignore[misc]
            planted.evaluated(session, row, data, cases)
        registry.promote(session, "old", BOSS, gate={})

    def promote(name: str) -> bool:
        with transaction(database) as session:
            return promotion.promote(session, name, "*", SERVING, BOSS)[0].passed

    with ThreadPoolExecutor(1) as aside, transaction(database) as session:
        assert promotion.promote(session, "good", "*", SERVING, BOSS)[0].passed
        second = aside.submit(promote, "fair")  # better than the old one, and worse than the good one
        with pytest.raises(TimeoutError):
            second.result(timeout=1.0)
        session.commit()
        assert not second.result(timeout=60)
    with transaction(database) as session:
        active = registry.active(session, "north")
        assert active is not None
        assert active.id == "good"
        assert registry.rollback(session, BOSS) == ("good", "old")
