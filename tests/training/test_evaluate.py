"""Evaluation through `worker.draft`, with a stand-in engine that says what it is told."""

from clinical import overlay
from clinical.case import ClinicalInput, Modality, System
from clinical.score import SCORER_VERSION
from clinical.style import Style
from tests.worker.stand_in import StandIn
from training.dataset import Case
from training.evaluate import House, evaluate, sample


def case(number: int, signed: str, institution: str = "north") -> Case:
    seen = ClinicalInput(institution, f"左侧胸腔见弧形水样影，深约{number}mm。", Modality.CT, (System.CHEST,))
    return Case(f"case-{number}", seen, signed)


def test_every_case_is_drafted_scored_and_counted_by_institution() -> None:
    cases = [case(1, "左侧胸腔积液。"), case(2, "左侧胸腔积液。", "south"), case(3, "左侧胸腔积液。", "south")]
    result = evaluate(StandIn("左侧胸腔积液。"), cases, template="brief", max_new_tokens=32)
    told = result.as_json()
    assert (told["reports"], round(told["r1"], 6), round(told["rl"], 6)) == (3, 1.0, 1.0)
    assert {name: view["reports"] for name, view in told["by_institution"].items()} == {"north": 1, "south": 2}
    assert [one.case.id for one in result.judged] == ["case-1", "case-2", "case-3"]
    assert told["outcomes"] == {"drafted": 3}


def test_a_case_without_a_draft_scores_nothing_and_is_not_dropped() -> None:
    engine = StandIn(lambda job: "积液，" * 60 if "深约1mm" in job.prompt else "左侧胸腔积液。")
    told = evaluate(
        engine, [case(1, "左侧胸腔积液。"), case(2, "左侧胸腔积液。")], template="brief", max_new_tokens=32
    ).as_json()
    assert told["reports"] == 2
    assert round(told["r1"], 6) == 0.5
    assert told["outcomes"] == {"checks_failed": 1, "drafted": 1}


def test_the_draft_is_measured_in_the_house_style_that_serving_puts_on() -> None:
    signed = "1.左侧胸腔积液。"
    plain = evaluate(StandIn("左侧胸腔积液。"), [case(1, signed)], template="brief", max_new_tokens=32)
    house = {"north": House(Style(numbering="{n}.", number_single=True))}
    styled = evaluate(StandIn("左侧胸腔积液。"), [case(1, signed)], template="brief", max_new_tokens=32, house=house)
    assert (plain.judged[0].draft, styled.judged[0].draft) == ("左侧胸腔积液。", signed)


def test_each_case_is_checked_and_scored_with_the_words_of_its_own_institution() -> None:
    house = {"north": House(words=overlay.read({"equivalents.tsv": "白点症\t积液\n"}))}
    cases = [case(number, "左侧胸腔白点症。", code) for number, code in enumerate(("north", "south", "north"), 1)]
    found = evaluate(StandIn("左侧胸腔积液。"), cases, template="brief", max_new_tokens=32, house=house).judged
    assert [one.score.fact_f1 for one in found] == [1.0, None, 1.0]
    assert found[0].score.scorer != found[1].score.scorer == SCORER_VERSION


def test_a_sample_is_even_over_institutions_and_always_the_same() -> None:
    cases = [case(number, "x", "north" if number < 90 else "south") for number in range(100)]
    chosen = sample(cases, 12)
    assert sum(one.input.institution == "south" for one in chosen) == 6
    assert sample(reversed(cases), 12) == chosen
    assert len(sample(cases, 1000)) == 100
