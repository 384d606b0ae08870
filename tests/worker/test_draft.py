"""The ladder: what passes is shown, what does not is kept and never repaired."""

import threading
import time

import pytest

from clinical.case import ClinicalInput, Modality, Sex, System
from core.errors import DeadlinePassed, EngineRestarting
from core.states import Reason
from tests.worker.stand_in import StandIn
from worker.draft import Interrupted, Outcome, draft
from worker.engine.protocol import Job

FINDINGS = "右肺上叶见实性小结节影，长径约6mm。左侧胸腔见弧形水样影。纵隔淋巴结不大。"
CASE = ClinicalInput("north", FINDINGS, Modality.CT, (System.CHEST,), sex=Sex.F, age=61)
GOOD = "1、右肺上叶小结节；\n2、左侧胸腔积液。"
LOOP = "右肺上叶小结节，" * 30


def run(engine: StandIn, case: ClinicalInput = CASE, **options: object) -> Outcome:
    """The case drafted by the clinical ladder."""
    defaults: dict[str, object] = {"template": "brief", "max_new_tokens": 128, "deadline_s": 10.0, "job_id": "j"}
    return draft(engine, case, **{**defaults, **options})  # type: ignore[arg-type]


def by_rung(*texts: str) -> StandIn:
    """An engine whose n-th rung says the n-th text."""
    return StandIn(lambda job: texts[min(int(job.id.rsplit("/", 1)[1]), len(texts) - 1)])


def test_a_good_text_passes_on_the_first_rung() -> None:
    outcome = run(StandIn(GOOD))
    assert outcome.chosen is not None
    assert (outcome.chosen.text, len(outcome.rungs), outcome.reason) == (GOOD, 1, None)


def test_a_loop_is_tried_again_warmer_and_every_rung_is_kept() -> None:
    engine = by_rung(LOOP, GOOD)
    outcome = run(engine)
    assert outcome.chosen is not None
    assert outcome.chosen.number == 1
    assert [rung.passed for rung in outcome.rungs] == [False, True]
    assert [job.options.temperature for job in engine.jobs] == [0.0, 0.3]
    assert outcome.rungs[0].text == LOOP.strip()


@pytest.mark.parametrize("text", ["", "，。；", LOOP, "null"])
def test_nothing_that_passes_means_no_draft_after_three_rungs(text: str) -> None:
    outcome = run(StandIn(text))
    assert (outcome.chosen, outcome.reason, len(outcome.rungs)) == (None, Reason.CHECKS_FAILED, 3)


def test_a_red_issue_gets_one_more_try_and_the_better_one_is_taken() -> None:
    wrong_side = "1、左肺上叶小结节；\n2、左侧胸腔积液。"
    outcome = run(by_rung(wrong_side, GOOD))
    assert outcome.chosen is not None
    assert (outcome.chosen.text, len(outcome.rungs)) == (GOOD, 2)
    stubborn = run(by_rung(wrong_side))
    assert stubborn.chosen is not None
    assert stubborn.chosen.reds >= 1
    assert len(stubborn.rungs) == 2


def test_the_papers_profile_samples_every_rung_with_its_own_seed() -> None:
    engine = StandIn("")
    run(engine, decoding="paper", seed=7)
    assert [(job.options.temperature, job.options.top_k, job.options.top_p) for job in engine.jobs] == [
        (1.0, 50, 1.0)
    ] * 3
    assert [job.options.seed for job in engine.jobs] == [7, 8, 9]


def test_what_does_not_fit_is_too_long_and_was_never_cut() -> None:
    outcome = run(StandIn(GOOD), ClinicalInput("north", "肺" * 7_000))
    assert (outcome.chosen, outcome.reason, outcome.rungs) == (None, Reason.TOO_LONG, ())


def test_a_generation_that_takes_too_long_is_cancelled() -> None:
    engine = StandIn(GOOD, seconds=5)
    began = time.monotonic()
    with pytest.raises(DeadlinePassed):
        run(engine, deadline_s=0.1)
    assert time.monotonic() - began < 1
    assert engine.health().in_flight == 0


def test_a_cancel_from_outside_interrupts() -> None:
    engine = StandIn(GOOD, seconds=5)
    threading.Timer(0.1, engine.cancel, ("j/0",)).start()
    with pytest.raises(Interrupted):
        run(engine)


def test_a_dead_engine_is_a_passing_failure() -> None:
    engine = StandIn(GOOD)
    engine.fatal = "illegal memory access"
    with pytest.raises(EngineRestarting):
        run(engine)


def test_the_model_sees_the_findings_and_nothing_that_names_the_patient() -> None:
    seen: list[Job] = []
    engine = StandIn(lambda job: seen.append(job) or GOOD)  # type: ignore[func-returns-value]
    run(engine)
    assert FINDINGS in seen[0].prompt
    assert "north" not in seen[0].prompt
