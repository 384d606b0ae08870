"""ROUGE and edit distance: the figures of rouge-chinese and of the textbook, faster."""

import random
import time

from hypothesis import given
from hypothesis import strategies as st
from rouge_chinese import Rouge

from clinical.distance import edit_distance
from clinical.rouge import lcs, rouge
from clinical.score import tokens

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


def test_the_figures_equal_those_of_the_library_on_ten_thousand_pairs() -> None:
    drawn = random.Random(7)
    library = Rouge()
    worst = 0.0
    for _ in range(10_000):
        mine, theirs = (tokens("".join(drawn.choices(WORDS, k=drawn.randint(1, 24)))) for _ in range(2))
        (found,) = library.get_scores(" ".join(mine), " ".join(theirs))
        wanted = (found[name]["f"] for name in ("rouge-1", "rouge-2", "rouge-l"))
        worst = max(worst, *(abs(a - b) for a, b in zip(rouge(mine, theirs), wanted, strict=True)))
    assert worst <= 1e-9


def test_seven_thousand_words_take_no_minute_as_the_library_does() -> None:
    drawn = random.Random(3)
    long, other = (drawn.choices(WORDS, k=7_000) for _ in range(2))
    began = time.process_time()
    assert 0 < rouge(long, other)[2] < 1
    assert time.process_time() - began < 2


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
