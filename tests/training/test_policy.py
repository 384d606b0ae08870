"""Which candidates of a stratum train, rule by rule."""

import random
from datetime import date

import pytest

from core.errors import Refused
from training.policy import Candidate, Policy, chosen, policy

CHEST = ("north", ("chest",), "CT")
ALL = Policy(exposures=("unassisted", "hold_back", "not_opened", "light_edit", "heavy_edit", "verbatim"))


def some(count: int, exposure: str, stratum: tuple[str, tuple[str, ...], str] = CHEST) -> list[Candidate]:
    return [Candidate(f"{stratum[0]}-{exposure}-{number}", stratum, exposure) for number in range(count)]


def test_untouched_texts_all_train() -> None:
    kept, dropped = chosen(some(5, "unassisted") + some(3, "hold_back") + some(2, "not_opened"), ALL)
    assert (len(kept), dropped) == (10, {})


@pytest.mark.parametrize(("exposure", "fit"), [("heavy_edit", 10), ("light_edit", 20)])
def test_texts_that_a_draft_shaped_weigh_no_more_than_the_untouched_ones_of_their_stratum(
    exposure: str, fit: int
) -> None:
    elsewhere = some(100, "unassisted", ("south", ("chest",), "CT"))
    kept, dropped = chosen(some(10, "unassisted") + some(50, exposure) + elsewhere, ALL)
    assert len([one for one in kept if exposure in one]) == fit
    assert dropped == {"shaped_by_drafts_more_than_half": 50 - fit}


def test_copied_drafts_have_a_tenth_of_the_weight_at_most() -> None:
    kept, dropped = chosen(some(90, "unassisted") + some(60, "verbatim"), ALL)
    assert len([one for one in kept if "verbatim" in one]) == 40  # of 0.25 each: 10 of 100
    assert dropped == {"equal_to_drafts_more_than_a_tenth": 20}


def test_a_stratum_of_nothing_but_shaped_texts_does_not_train() -> None:
    kept, dropped = chosen(some(4, "heavy_edit") + some(4, "verbatim"), ALL)
    assert kept == set()
    assert dropped == {"shaped_by_drafts_more_than_half": 4, "equal_to_drafts_more_than_a_tenth": 4}


def test_a_cap_takes_untouched_texts_first() -> None:
    kept, dropped = chosen(some(6, "heavy_edit") + some(3, "unassisted"), Policy(cap=5))
    assert len([one for one in kept if "unassisted" in one]) == 3
    assert len(kept) == 5
    assert dropped == {"over_the_cap": 4}


def test_the_order_of_the_candidates_changes_nothing() -> None:
    candidates = some(20, "unassisted") + some(40, "heavy_edit") + some(40, "verbatim")
    expected = chosen(candidates, Policy(cap=50, exposures=ALL.exposures))
    random.Random(1).shuffle(candidates)
    assert chosen(candidates, Policy(cap=50, exposures=ALL.exposures)) == expected


def test_a_policy_that_cannot_be_meant_is_refused() -> None:
    with pytest.raises(Refused, match="31 May is no date; write it as 2024-01-31"):
        Policy(since="31 May")
    with pytest.raises(Refused, match="at least 1"):
        Policy(cap=0)
    with pytest.raises(Refused, match="no exposure class copied"):
        Policy(exposures=("copied",))


def test_a_stored_policy_comes_back_and_an_older_one_means_what_it_meant() -> None:
    assert policy({"institutions": ["north"], "cap": 3, "since": "2024-01-01"}) == Policy(
        institutions=("north",), cap=3, since="2024-01-01"
    )
    assert policy({"systems": ["chest"]}) == Policy(systems=("chest",))


def test_a_text_whose_draft_was_never_displayed_is_no_human_text_of_the_floor() -> None:
    kept, dropped = chosen(some(4, "unassisted") + some(9, "not_opened"), ALL)
    assert len([one for one in kept if "not_opened" in one]) == 4
    assert dropped == {"shaped_by_drafts_more_than_half": 5}
    first, _ = chosen(some(4, "unassisted") + some(4, "not_opened") + some(9, "heavy_edit"), ALL)
    assert not any(
        "heavy_edit" in one for one in first
    )  # the less a draft can have shaped it, the sooner it finds room


def before(count: int) -> list[Candidate]:
    return [
        Candidate(f"old-{number}", CHEST, "unassisted", date(2023, 1, 1 + number), older=True)
        for number in range(count)
    ]


def test_a_stratum_that_is_short_of_human_texts_keeps_its_older_ones_the_newest_first() -> None:
    kept, dropped = chosen(some(2, "unassisted") + some(6, "heavy_edit") + before(9), Policy(since="2024-01-01"))
    assert {one for one in kept if "old" in one} == {"old-8", "old-7", "old-6", "old-5"}
    assert len([one for one in kept if "heavy_edit" in one]) == 6
    assert dropped == {"not_signed_within": 5}
    enough, _ = chosen(some(6, "unassisted") + some(6, "heavy_edit") + before(9), Policy(since="2024-01-01"))
    assert not any("old" in one for one in enough)


def test_where_older_human_texts_do_not_suffice_what_drafts_shaped_goes() -> None:
    kept, dropped = chosen(some(6, "heavy_edit") + before(2), Policy(since="2024-01-01"))
    assert len(kept) == 4
    assert dropped == {"shaped_by_drafts_more_than_half": 4}
