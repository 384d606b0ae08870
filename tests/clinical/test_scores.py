"""Scores: the figures of rouge-chinese, faster, and defined for every text."""

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_chinese import Rouge

from clinical.score import Score, edit_distance, lcs, score, tokens

WORDS = [
    *(
        "右肺",
        "左肺",
        "上叶",
        "结节",
        "，",
        "；",
        "。",
        "1",
        "、",
        "考虑",
        "可能",
        "5×4mm",
        "腰4/5",
        "？",
        "…",
        "T1WI",
        "Ca",
        "0.6",
    ),
    *("两肺", "！"),
]
SIGNED = "1、右肺上叶实性结节，大小约5×4mm；\n2、左侧胸腔少量积液。\n请结合临床，随诊。"


def _library(draft: list[str], signed: list[str]) -> tuple[float, float, float]:
    found = Rouge().get_scores(" ".join(draft), " ".join(signed))[0]
    return found["rouge-1"]["f"], found["rouge-2"]["f"], found["rouge-l"]["f"]


def test_the_figures_equal_those_of_the_library_on_thousands_of_pairs() -> None:
    drawn = random.Random(7)
    worst = 0.0
    for _ in range(1200):
        texts = ["".join(drawn.choices(WORDS, k=drawn.randint(1, 24))) for _ in range(2)]
        mine, theirs = tokens(texts[0]), tokens(texts[1])
        ours = score(texts[0], texts[1])
        worst = max(
            worst, *(abs(a - b) for a, b in zip((ours.r1, ours.r2, ours.rl), _library(mine, theirs), strict=True))
        )
    assert worst <= 1e-9


def test_the_tokens_keep_levels_sizes_and_sequence_names_whole() -> None:
    assert tokens("腰4/5、 L5/S1 椎间盘") == ["腰4/5", "、", "L5/S1", "椎间盘"]
    for whole in ("5.4×4.7cm", "0.6cm", "T2WI", "腰4/5", "S8", "T11", "CAD-RADS 3", "50%", "未见", "双侧", "6 mm"):
        assert "".join(whole.split()) in tokens(f"所示{whole}，余正常"), whole


def test_full_and_half_width_score_alike() -> None:
    half = "1、右肺上叶实性结节,大小约5x4mm;\n2、左侧胸腔少量积液。\n请结合临床,随诊。"
    assert score(half, SIGNED).rl == score(SIGNED, SIGNED).rl


def test_an_empty_draft_scores_nothing_and_is_not_dropped() -> None:
    for empty in ("", " \n", "\u200b"):
        found = score(empty, SIGNED)
        assert (found.r1, found.r2, found.rl, found.char_rl, found.core_rl, found.fact_f1) == (0, 0, 0, 0, 0, 0)
    assert score(SIGNED, "").r1 == 0
    assert score("", "").r1 == 0


def test_identity_is_almost_one_and_verbatim() -> None:
    found = score(SIGNED, SIGNED)
    assert found.r1 == found.rl == pytest.approx(1, abs=1e-8)
    assert (found.edit_distance, found.verbatim, found.edit_kinds, found.fact_f1) == (0, True, (), 1.0)


def test_swapping_draft_and_signed_swaps_precision_and_recall() -> None:
    there, back = score("右肺上叶结节。", SIGNED), score(SIGNED, "右肺上叶结节。")
    assert (there.r1_precision, there.r1_recall) == (back.r1_recall, back.r1_precision)
    assert there.r1 == back.r1


def test_the_bag_figure_sees_a_loop_that_rouge_1_does_not() -> None:
    looped = score("右肺上叶结节。" * 6, "右肺上叶结节。")
    assert looped.r1 == pytest.approx(1, abs=1e-8)
    assert looped.bag_r1 < 0.5


def test_advice_and_list_numbers_are_not_in_the_core() -> None:
    found = score("右肺上叶实性结节，大小约5×4mm；\n左侧胸腔少量积液。", SIGNED)
    assert found.core_r1 == found.core_rl == pytest.approx(1, abs=1e-8)
    assert found.r1 < 1 - 1e-6


KINDS = [
    (("右肺", "左肺"), "side"),
    (("5×4mm", "9×4mm"), "size"),
    (("左侧胸腔少量积液", "左侧胸腔少量积液可能"), "certainty"),
    (("左侧胸腔少量积液", "左侧胸腔未见积液"), "polarity"),
    (("2、左侧胸腔少量积液。", ""), "added_finding"),
    (("随诊。", "随诊。\n3、肝囊肿。"), "removed_finding"),
    (("上叶", "下叶"), "removed_finding"),
    (("少量", "少许"), "style"),
]


@pytest.mark.parametrize(("change", "kind"), KINDS)
def test_what_the_radiologist_changed_has_a_name(change: tuple[str, str], kind: str) -> None:
    assert kind in score(SIGNED.replace(*change), SIGNED).edit_kinds


def test_items_in_another_order_are_an_order_change_only() -> None:
    found = score("左侧胸腔积液；右肺结节", "右肺结节；左侧胸腔积液")
    assert found.edit_kinds == ("order",)
    assert found.reordered


def _slow_lcs(one: str, other: str) -> int:
    row = [0] * (len(other) + 1)
    for a in one:
        before = row[:]
        for j, b in enumerate(other, 1):
            row[j] = before[j - 1] + 1 if a == b else max(before[j], row[j - 1])
    return row[-1]


def _slow_distance(one: str, other: str) -> int:
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before = row[:]
        row[0] = i
        for j, b in enumerate(other, 1):
            row[j] = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
    return row[-1]


@given(st.text(alphabet="左右肺肾，1", max_size=40), st.text(alphabet="左右肺肾，1", max_size=40))
def test_the_fast_subsequence_and_distance_are_the_textbook_ones(one: str, other: str) -> None:
    assert lcs(one, other) == _slow_lcs(one, other)
    assert edit_distance(one, other) == _slow_distance(one, other)


@settings(max_examples=60)
@given(st.text(max_size=60), st.text(max_size=60))
def test_any_two_texts_have_a_score(draft: str, signed: str) -> None:
    found = score(draft, signed)
    assert isinstance(found, Score)
    assert all(0 <= value <= 1 for value in (found.r1, found.r2, found.rl, found.char_rl, found.edit_ratio))


def test_twenty_thousand_characters_are_scored_in_seconds() -> None:
    drawn = random.Random(3)
    long = ["".join(drawn.choices("左右肺肾肝上下叶结节囊肿，；。", k=20_000)) for _ in range(2)]
    started = time.process_time()
    assert score(long[0], long[1]).rl > 0
    assert time.process_time() - started < 12
