"""Texts that no radiologist writes: whatever their length and shape, checks, evidence and scores take a time that grows with the length."""

import time
from collections.abc import Callable

import pytest

from clinical.checks import Kind, check, has_critical
from clinical.coverage import read
from clinical.evidence import evidence
from clinical.issues import Pair
from clinical.score import score
from clinical.signs import MOST

SHORT, LONG = 8_000, 20_000
SHAPES: dict[str, Callable[[int], str]] = {
    "one sentence": lambda size: ("右肺上叶见结节大小约5×4mm左肺下叶磨玻璃影肝囊肿" * size)[:size],
    "thousands of items": lambda size: "".join(f"{number}、结节。\n" for number in range(1, size))[:size],
    "items that all differ": lambda size: "".join(
        f"{number}、右肺上叶结节，约{number}mm，肝S{number % 8 + 1}囊肿；" for number in range(1, size // 20)
    )[:size],
    "sides": lambda size: ("左右" * size)[:size],
    "negations": lambda size: ("未见不除外可能" * size)[:size],
    "sizes": lambda size: ("5×4mm、" * size)[:size],
    "levels": lambda size: ("腰4/5、" * size)[:size],
}
WORK: dict[str, Callable[[str], object]] = {
    "check": lambda text: check(Pair(text, text)),
    "evidence": lambda text: evidence(Pair(text, text)),
    "score": lambda text: score(text, f"{text[::-1]}。肝囊肿"),
    "coverage": read,
}


def _seconds(work: Callable[[str], object], text: str) -> float:
    began = time.process_time()
    work(text)
    return time.process_time() - began


CASES = [(work, shape) for work in WORK for shape in SHAPES if work in ("check", "score") or " " in shape]


@pytest.mark.parametrize(("work", "shape"), CASES)
def test_time_grows_with_the_length_and_not_with_its_square(work: str, shape: str) -> None:
    run, make = WORK[work], SHAPES[shape]
    run(make(200))  # dictionaries
    short = _seconds(run, make(SHORT))
    long = _seconds(run, make(LONG))
    # two and a half times the text; its square would take six times as long
    assert long <= 4 * short + 0.5, f"{short:.2f} s for {SHORT:,} characters, {long:.2f} s for {LONG:,}"


def test_a_number_of_any_length_is_cut_in_one_go() -> None:
    assert _seconds(lambda text: score(text, "肝囊肿"), "1234567890" * 1000) < 5


def test_what_is_compared_of_a_text_is_bounded_and_a_critical_finding_is_looked_for_in_all_of_it() -> None:
    text = "肝S4囊肿。" * (MOST + 50) + "右侧大量气胸，纵隔左移，张力性气胸。"
    assert has_critical(text)
    assert Kind.CRITICAL in {issue.kind for issue in check(Pair(text, "肝囊肿。"))}
    assert len(evidence(Pair(text, "肝囊肿。")).findings) <= MOST
