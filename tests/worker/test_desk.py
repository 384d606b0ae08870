"""The desk on a real database with an engine that says what it is told."""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import select

from core import db, registry, requests, sign_offs, vocabulary
from core.errors import OutOfMemory
from core.identity import Keyring
from core.serving import Serving
from core.settings import WorkerSettings
from core.states import AttemptState, Reason, RequestState
from core.tables import Attempt, Callback, Draft, DraftIssue, DraftRequest, Generation, ScoreRow
from tests.builders import ADMIN, DOCTOR, accept, institution
from tests.worker.stand_in import StandIn
from worker.desk import Desk
from worker.engine.protocol import Job
from worker.scoring import score_sign_off
from worker.swap import Swap

SETTINGS = WorkerSettings(heartbeat_s=0.1, deadline_s=5.0, in_flight=2, stat_threads=1)


def register(
    database: sa.Engine,
    folder: Path,
    name: str,
    *,
    base: str = "base",
    sandbox_only: bool = False,
    scope: list[dict[str, Any]] | None = None,
) -> None:
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
        "scope": scope or [],
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

    def __init__(
        self, database: sa.Engine, keyring: Keyring, engine: StandIn, settings: WorkerSettings = SETTINGS
    ) -> None:
        self.database, self.keyring, self.engine = database, keyring, engine
        self.swap = Swap(engine, database, "base", Serving.of(SETTINGS))
        self.desk = Desk(engine, self.swap, database, settings)

    def accept(self, **changes: Any) -> Any:
        with db.transaction(self.database) as session:
            return accept(session, self.keyring, ADMIN, **changes).id

    def row(self, identity: Any) -> DraftRequest:
        with db.transaction(self.database) as session:
            return requests.get(session, identity, ADMIN)

    def all(self, table: Any) -> list[Any]:
        with db.transaction(self.database) as session:
            return list(session.exec(select(table)))


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits until something is true; fails when it is not in time."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(0.02)


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


def test_a_draft_and_the_notice_to_its_sender_are_stored_by_one_statement(ward: Ward) -> None:
    with db.transaction(ward.database) as session:
        institution(session, callback_hosts=("ris.test",))
    identity = ward.accept(callback_url="https://ris.test/done")
    told: list[str] = []
    sa.event.listen(ward.database, "before_cursor_execute", lambda *a: told.append(a[2]))
    assert ward.desk.work()
    (storing,) = [statement for statement in told if "INSERT INTO drafts" in statement]
    assert "INSERT INTO callbacks" in storing
    (notice,) = ward.all(Callback)
    assert (notice.request_id, notice.url, notice.request_state) == (identity, "https://ris.test/done", "drafted")
    assert (notice.state, notice.tries) == ("waiting", 0)


def test_words_and_phrases_of_an_institution_hold_for_its_own_requests_alone(ward: Ward, tmp_path: Path) -> None:
    own = tmp_path / vocabulary.FOLDER / "north"
    own.mkdir(parents=True)
    (own / "equivalents.tsv").write_text("胶质瘤\t脱髓鞘灶\n", "utf-8")
    (own / vocabulary.PHRASES).write_text('[[reason]]\nname = "archive"\ntexts = ["本科室存档"]\n', "utf-8")
    with db.transaction(ward.database) as session:
        institution(session, "south")
    desk = Ward(ward.database, ward.keyring, ward.engine, SETTINGS.model_copy(update={"home": tmp_path}))
    desk.swap.look()
    findings = "右侧额叶胶质瘤。本科室存档"
    made = {code: desk.accept(institution=code, findings=findings) for code in ("north", "south")}
    desk.engine._answer = lambda _: "右侧额叶脱髓鞘灶。"
    assert [desk.desk.work() for _ in made] == [True, True]
    prompts = {job.prompt: "本科室存档" in job.prompt for job in desk.engine.jobs}
    assert sorted(prompts.values()) == [False, True]
    drafts = {draft.request_id: draft for draft in desk.all(Draft)}
    kinds = {
        code: {issue.kind for issue in desk.all(DraftIssue) if issue.draft_id == drafts[identity].id}
        for code, identity in made.items()
    }
    assert (kinds["north"], "unsupported" in kinds["south"]) == (set(), True)
    assert drafts[made["north"]].checks_version != drafts[made["south"]].checks_version


LANGUAGES = [
    (
        "zh-Hant",
        "右肺上葉見實性結節，長徑約6mm。左側胸腔見積液。",
        "1、左肺上叶结节；\n2、左侧胸腔积液。",  # the model writes one script, the house another
        "AI 草稿，須醫師審核",
        "所見對應的是右側",
    ),
    (
        "en",
        "There is a 6 mm solid nodule in the right upper lobe. Left pleural effusion.",
        "1. Left upper lobe nodule.\n2. Left pleural effusion.",
        "AI draft, for review by a physician",
        "the findings say right",
    ),
    (
        "fr",
        "Nodule solide de 6 mm du lobe supérieur droit. Épanchement pleural gauche.",
        "1. Nodule du lobe supérieur droit de 9 mm.\n2. Épanchement pleural gauche.",
        "Brouillon IA, à relire par un médecin",
        "9 mm",
    ),
]


@pytest.mark.parametrize(("language", "findings", "answer", "label", "sentence"), LANGUAGES)
def test_a_report_is_drafted_labelled_and_spoken_of_in_its_own_language(
    ward: Ward, language: str, findings: str, answer: str, label: str, sentence: str
) -> None:
    ward.engine._answer = lambda _: answer
    identity = ward.accept(language=language, findings=findings)
    assert ward.desk.work()
    (draft,) = ward.all(Draft)
    assert (ward.row(identity).state, draft.label) == (RequestState.DRAFTED, label)
    loud = [issue for issue in ward.all(DraftIssue) if issue.severity != "info"]
    assert [issue.severity for issue in loud] == ["red"]
    assert sentence in loud[0].message
    assert ("葉" in draft.impression) == (language == "zh-Hant")


def test_a_draft_in_another_language_than_the_institution_s_is_not_shown(ward: Ward) -> None:
    ward.engine._answer = lambda _: "There is a nodule in the right upper lobe and an effusion on the left."
    for number, language in enumerate(("zh-Hans", "zh-Hant", "fr")):
        ward.accept(language=language, accession=f"L-{number}")
        assert ward.desk.work()
    assert [row.reason for row in ward.all(DraftRequest)] == [Reason.CHECKS_FAILED] * 3
    assert not ward.all(Draft)


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


def test_places_for_stat_leave_routine_work_alone(ward: Ward) -> None:
    ward.engine.seconds = 1.0
    routine = [ward.accept(accession=f"R-{number}") for number in range(3)]
    ward.desk.permit("routine", 3)
    wait_until(lambda: ward.desk.in_flight == 2)
    stat = ward.accept(accession="S", priority="stat")
    ward.engine.seconds = 0.0
    ward.desk.permit("stat")
    wait_until(lambda: ward.row(stat).state is RequestState.DRAFTED, 0.9)
    assert ward.row(routine[2]).state is RequestState.QUEUED
    wait_until(lambda: ward.row(routine[2]).state is RequestState.DRAFTED)


def test_one_permit_serves_everything_that_waits(ward: Ward) -> None:
    ids = [ward.accept(accession=f"R-{number}") for number in range(6)]
    ward.desk.permit("routine")
    wait_until(lambda: all(ward.row(identity).state is RequestState.DRAFTED for identity in ids))
    assert len(ward.all(Attempt)) == 6


def test_a_permit_that_meets_every_place_taken_is_not_lost(ward: Ward) -> None:
    ward.engine.seconds = 0.3
    for number in range(2):
        ward.accept(accession=f"R-{number}")
    ward.desk.permit("routine", 2)
    wait_until(lambda: ward.desk.in_flight == 2)
    late = ward.accept(accession="late")
    ward.desk.permit("routine")
    wait_until(lambda: ward.row(late).state is RequestState.DRAFTED)


def test_signing_during_a_draft_cancels_it_and_nothing_is_written(ward: Ward) -> None:
    ward.engine.seconds = 30.0
    identity = ward.accept()
    thread = threading.Thread(target=ward.desk.work)
    thread.start()
    time.sleep(0.3)
    with db.transaction(ward.database) as session:
        sign_offs.sign(session, identity, "右肺结节。", None, DOCTOR)
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


def test_a_request_for_which_the_memory_does_not_suffice_needs_a_human_after_the_third_time(ward: Ward) -> None:
    def too_large(job: Job) -> str:
        raise OutOfMemory("too large")

    ward.engine._answer = too_large
    identity = ward.accept()
    for number in range(3):
        assert ward.row(identity).attempts == number
        with ward.database.begin() as connection:
            connection.execute(sa.text("UPDATE draft_requests SET not_before = NULL"))
        ward.desk.work()
    assert (ward.row(identity).state, ward.row(identity).reason) == (RequestState.NEEDS_HUMAN, Reason.CRASHED)
    assert [attempt.error for attempt in ward.all(Attempt)].count("out_of_memory") == 2


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
        sign_off = sign_offs.sign(session, identity, "1、右肺上叶小结节；\n2、左侧胸腔积液。", 1, DOCTOR).id
    assert [score_sign_off(ward.database, sign_off, SETTINGS.home) for _ in range(2)] == [True, False]
    (score,) = ward.all(ScoreRow)
    assert score.r1 > 0.99
    assert not [issue for issue in score.detail["signed_issues"] if issue["severity"] != "info"]


def test_what_the_checks_notice_in_a_signed_text_is_stored_without_its_words(ward: Ward) -> None:
    identity = ward.accept()
    ward.desk.work()
    with db.transaction(ward.database) as session:
        sign_off = sign_offs.sign(session, identity, "1、左肺上叶小结节；\n2、左侧胸腔积液。", 1, DOCTOR).id
    assert score_sign_off(ward.database, sign_off, SETTINGS.home)
    (score,) = ward.all(ScoreRow)
    assert ("side", "red") in {(issue["kind"], issue["severity"]) for issue in score.detail["signed_issues"]}
    assert {key for issue in score.detail["signed_issues"] for key in issue} == {"kind", "severity", "rule"}


def test_a_draft_that_was_owed_and_not_made_scores_zero(ward: Ward) -> None:
    ward.engine._answer = lambda _: ""
    identity = ward.accept()
    ward.desk.work()
    with db.transaction(ward.database) as session:
        sign_off = sign_offs.sign(session, identity, "右肺上叶小结节。", None, DOCTOR).id
    assert score_sign_off(ward.database, sign_off, SETTINGS.home)
    assert [score.r1 for score in ward.all(ScoreRow)] == [0.0]


def staged(ward: Ward, **profile: Any) -> None:
    """The institution's file as it says now."""
    with db.transaction(ward.database) as session:
        institution(session, **profile)
    ward.swap.look()


def test_in_the_collect_stage_no_draft_is_made(ward: Ward) -> None:
    staged(ward, stages={"CT/chest": "collect"})
    collected, live = ward.accept(), ward.accept(accession="B", body_part="head")
    while ward.desk.work():
        pass
    assert (ward.row(collected).state, ward.row(collected).reason) == (RequestState.WITHHELD, Reason.NO_MODEL)
    assert ward.row(live).state is RequestState.DRAFTED
    assert len(ward.all(Generation)) == 1


def test_in_the_shadow_stage_the_draft_is_made_and_scored_and_never_visible(ward: Ward) -> None:
    staged(ward, stages={"*": "shadow"})
    identity = ward.accept()
    ward.desk.work()
    row, (draft,) = ward.row(identity), ward.all(Draft)
    assert (row.state, row.reason, row.draft_version) == (RequestState.WITHHELD, Reason.HELD_BACK, None)
    assert (draft.role, draft.visible, draft.version) == ("shadow", False, 1)
    with db.transaction(ward.database) as session:
        sign_off = sign_offs.sign(session, identity, draft.impression, None, DOCTOR)
    assert sign_off.exposure == "hold_back"
    assert score_sign_off(ward.database, sign_off.id, SETTINGS.home)
    (score,) = ward.all(ScoreRow)
    assert (score.draft_id, round(score.r1, 6)) == (draft.id, 1.0)


def test_a_hidden_draft_takes_a_former_visible_one_away(ward: Ward) -> None:
    identity = ward.accept()
    ward.desk.work()
    staged(ward, stages={"CT": "shadow"})
    with db.transaction(ward.database) as session:
        requests.regenerate(session, identity, ADMIN)
    ward.desk.work()
    assert ward.row(identity).draft_version is None
    assert [(draft.version, draft.visible) for draft in sorted(ward.all(Draft), key=lambda each: each.version)] == [
        (1, False),
        (2, False),
    ]


@pytest.mark.parametrize(("way", "state"), [("mark", RequestState.DRAFTED), ("withhold", RequestState.WITHHELD)])
def test_what_the_model_was_not_trained_for_is_marked_or_withheld(
    ward: Ward, tmp_path: Path, way: str, state: RequestState
) -> None:
    seen = {"modality": "CT", "system": "chest", "age_band": "40-64", "language": "zh-Hans", "count": 40}
    register(ward.database, tmp_path, "scoped", scope=[seen])
    promote(ward.database, "scoped")
    staged(ward, out_of_scope=way, scope_minimum=30)
    adult, child = ward.accept(), ward.accept(accession="B", patient={"id": "P-2", "sex": "F", "age": 6})
    while ward.desk.work():
        pass
    assert ward.row(adult).state is RequestState.DRAFTED
    assert ward.row(child).state is state
    marks = [issue.message for issue in ward.all(DraftIssue) if issue.rule == "scope"]
    assert len(marks) == (way == "mark")
    assert ward.row(child).reason == (None if way == "mark" else Reason.OUT_OF_SCOPE)


def test_the_hold_back_arm_is_drawn_by_accession_number_and_spares_the_urgent(ward: Ward) -> None:
    staged(ward, hold_back=1.0)  # the file allows 0.05; here the arm is everybody
    routine, stat = ward.accept(), ward.accept(accession="S", priority="stat")
    while ward.desk.work():
        pass
    assert (ward.row(routine).reason, ward.row(stat).state) == (Reason.HELD_BACK, RequestState.DRAFTED)


def test_a_worker_serves_one_suspect_at_a_time(ward: Ward) -> None:
    suspects = [ward.accept(accession=f"S-{number}") for number in range(2)]
    with ward.database.begin() as connection:
        connection.execute(sa.text("UPDATE draft_requests SET crashes = 1"))
    innocent = ward.accept(accession="I")
    ward.engine.seconds = 0.5
    ward.desk.permit("routine", 2)
    wait_until(lambda: ward.desk.in_flight == 2)
    drafting = {identity for identity in [*suspects, innocent] if ward.row(identity).state is RequestState.DRAFTING}
    assert innocent in drafting
    wait_until(lambda: all(ward.row(identity).state is RequestState.DRAFTED for identity in [*suspects, innocent]))


def test_two_degenerate_answers_in_a_row_bring_the_golden_check_and_a_failed_one_ends_the_process(ward: Ward) -> None:
    ward.engine._answer = lambda _: "，" * 60
    for number in range(2):
        ward.accept(accession=f"D-{number}")
        ward.desk.work()
    ward.swap.look()
    assert not ward.desk.is_broken  # it answers its golden prompt: the findings were odd, not the model
    ward.engine.refuse = {"v1"}
    for number in range(2):
        ward.accept(accession=f"E-{number}")
        ward.desk.work()
    ward.swap.look()
    assert ward.desk.is_broken


def test_a_good_answer_between_two_degenerate_ones_raises_no_doubt(ward: Ward) -> None:
    for number, text in enumerate(["，" * 60, "1、右肺上叶小结节；\n2、左侧胸腔积液。", "，" * 60]):
        ward.engine._answer = lambda _, text=text: text
        ward.accept(accession=f"D-{number}")
        ward.desk.work()
    ward.engine.refuse = {"v1"}
    ward.swap.look()
    assert not ward.desk.is_broken
