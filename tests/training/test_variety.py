"""The guards against learning one's own drafts: what they count, what they leave unjudged, and five generations with and without the policy."""

from datetime import date

from tests.training.generations import Forgetful, signed_alone, signed_beside
from training.policy import WEIGHTS, Policy, chosen
from training.variety import Guard, Text, guards, refusal

CHEST = ("north", ("chest",), "CT")
REPORTS = 750
TYPES = ("结节", "积液", "气胸", "肺炎", "骨折", "钙化", "肺不张", "肺气肿")


def text(number: int, signed: str, *, human: bool = True, weight: float = 1.0) -> Text:
    return Text(f"r{number}", CHEST, signed, "zh-Hans", weight, human)


def people(count: int = 500) -> list[Text]:
    """Every other one hedges, every other one says what is not there."""
    return [
        text(
            number,
            f"右肺{TYPES[number % 8]}，大小约{number}mm，考虑炎症可能。"
            if number % 2
            else f"左肺{TYPES[number % 8]}{number}枚，未见胸腔积液。",
        )
        for number in range(count)
    ]


def by_name(found: tuple[Guard, ...]) -> dict[str, Guard]:
    return {guard.name: guard for guard in found}


def test_human_texts_alone_are_what_people_write_and_are_not_judged() -> None:
    found = guards(people(), people())
    assert [guard.share for guard in found] == [1.0] * 6
    assert not any(guard.judged for guard in found)


def test_texts_in_one_wording_fail_every_guard_that_can_be_judged_and_say_what_to_do() -> None:
    half = people()[:250]
    flat = [text(1000 + number, "双肺结节。", human=False) for number in range(250)]
    found = by_name(guards([*half, *flat], [*people(1000)]))
    assert {name for name, guard in found.items() if not guard.passed} == {
        "different words",
        "different word pairs",
        "characters",
    }
    sentence = refusal(tuple(found.values()))
    assert sentence is not None
    assert "says less than people do" in sentence
    assert "--exposure unassisted --exposure hold_back" in sentence


def test_a_hedge_that_drafts_lost_fails_where_enough_people_hedge() -> None:
    human = people(1000)
    sure = [
        text(2000 + number, one.signed.replace("，考虑炎症可能", "，炎症"), human=False)
        for number, one in enumerate(human)
    ]
    found = by_name(guards([*human[:500], *sure[500:]], human))
    assert found["reports with a hedge"].judged
    assert not found["reports with a hedge"].passed
    assert found["reports with 未见"].passed
    few = by_name(guards([*human[:250], *sure[250:500]], human[:500]))
    assert not few["reports with a hedge"].judged  # 250 people hedge: too few to tell from chance


def test_a_draw_takes_heavy_texts_rather_than_light_ones_and_the_same_ones_every_time() -> None:
    human = people(300)
    light = [text(5000 + number, "双肺结节。", human=False, weight=0.01) for number in range(300)]
    found = by_name(guards([*human, *light], human))
    assert found["different words"].share > 0.95
    assert guards([*human, *light], human) == guards([*reversed(light), *human], human)


def test_strata_are_compared_in_the_same_mixture() -> None:
    short = [
        Text(f"s{number}", ("north", ("head",), "CT"), f"颅骨{number}。", "zh-Hans", 1.0, True) for number in range(900)
    ]
    long = people(100)
    shaped = [text(3000 + number, one.signed, human=False) for number, one in enumerate(long)]
    found = by_name(guards([*short, *long, *shaped], [*short, *long]))
    assert found["characters"].share > 0.99


def test_five_generations_collapse_without_the_policy_and_keep_nine_tenths_with_it() -> None:
    before = signed_alone(REPORTS)
    taught = [(one.signed, 1.0) for one in before]
    for generation in range(1, 6):
        new = signed_beside(Forgetful(taught), generation, REPORTS)
        taught = [(one.signed, 1.0) for one in new]
    collapsed = by_name(guards([one.text(1.0) for one in new], [one.text() for one in before]))
    assert max(collapsed[name].share for name in ("different words", "different word pairs", "rare findings")) < 0.8

    everything = before
    taught = [(one.signed, 1.0) for one in before]
    for generation in range(1, 6):
        everything = everything + signed_beside(Forgetful(taught), generation, REPORTS)
        ids, _ = chosen([one.candidate(date.min) for one in everything], Policy())
        trains = [one for one in everything if one.id in ids]
        taught = [(one.signed, WEIGHTS[one.exposure]) for one in trains]
        found = guards([one.text() for one in trains], [one.text() for one in everything])
        assert refusal(found) is None
        judged = {guard.name for guard in found if guard.judged}
        assert judged >= {"different words", "different word pairs", "rare findings", "characters"}
