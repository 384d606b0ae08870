"""What must not change a verdict: notation, punctuation, blanks, script; and what must not make it slow: length."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from bench.planted import loud, pair_of, reports
from clinical.checks import Pair, check
from sandbox.errors import inject
from sandbox.facts import PretendReport

_HALF = str.maketrans("，；：（）", ",;:()")
_FULL = str.maketrans("0123456789", "０１２３４５６７８９")

CHANGES: dict[str, Callable[[str], str]] = {
    "half-width punctuation": lambda text: text.translate(_HALF),
    "full-width digits": lambda text: text.translate(_FULL),
    "a semicolon for a full stop": lambda text: text.replace("。", "；"),
    "both sides in other words": lambda text: (
        text.replace("双侧", "两侧").replace("两肺", "双肺").replace("双肾", "两肾")
    ),
    "levels in letters": lambda text: text.replace("腰4/5", "L4/5").replace("颈5/6", "C5/6").replace("胸12", "T12"),
    "capital units": lambda text: text.replace("mm", "MM"),
    "a blank before every unit": lambda text: text.replace("mm", " mm"),
    "another sign for times": lambda text: text.replace("×", "*"),
    "mixed glyphs": lambda text: text.replace("灶", "竈").replace("结", "結").replace("征", "癥"),
    "invisible characters": lambda text: text.replace("，", "，\u200b"),
}


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    """Right and wrong pairs of five houses that write simplified characters."""
    found: list[Pair] = []
    for report in reports("seen", seed=41):
        if report.language == "zh-Hans":
            found.append(pair_of(report, report.impression))
            found.extend(_wrong(report))
        if len(found) >= 160:
            break
    return found


def _wrong(report: PretendReport) -> list[Pair]:
    errors = (inject(report, kind, seed=41) for kind in ("side", "number", "level", "negation", "omitted", "critical"))
    return [pair_of(report, error.impression) for error in errors if error is not None]


@pytest.mark.parametrize("name", CHANGES)
def test_notation_never_changes_a_verdict(pairs: list[Pair], name: str) -> None:
    change = CHANGES[name]
    glyphs = name == "mixed glyphs"  # an issue of its own in the impression
    for pair in pairs:
        before = {(issue.kind, issue.severity) for issue in loud(pair)}
        findings = replace(pair, findings=change(pair.findings))
        assert {(issue.kind, issue.severity) for issue in loud(findings)} == before, (
            findings.findings,
            pair.impression,
        )
        if not glyphs:
            impression = replace(pair, impression=change(pair.impression))
            assert {(issue.kind, issue.severity) for issue in loud(impression)} == before, (
                pair.findings,
                impression.impression,
            )


def test_the_time_grows_with_the_length_and_no_faster(pairs: list[Pair]) -> None:
    """Up to 20,000 characters of findings, by processor time."""
    text = "".join(pair.findings for pair in pairs)
    impression = "；".join(pair.impression for pair in pairs[:3])

    def seconds(length: int) -> float:
        began = time.process_time()
        check(Pair((text * 3)[:length], impression))
        return time.process_time() - began

    seconds(2_000)
    short, long = min(seconds(5_000) for _ in range(3)), min(seconds(20_000) for _ in range(2))
    assert long < 10 * short
    assert long < 3
