"""Planted errors and true rewritings: each is what it says, and only that."""

import re
from collections import Counter

import pytest

from sandbox.errors import KINDS, Planted, inject
from sandbox.facts import PretendReport
from sandbox.generator import generate
from sandbox.paraphrase import KINDS as REWRITINGS
from sandbox.paraphrase import paraphrase

Case = tuple[PretendReport, Planted]


@pytest.fixture(scope="module")
def reports() -> list[PretendReport]:
    return list(generate("balanced", scale=0.01, seed=6, houses=(1, 2, 3, 4, 5, 6, 7)))


@pytest.fixture(scope="module")
def planted(reports: list[PretendReport]) -> dict[str, list[Case]]:
    return {kind: [(one, error) for one in reports if (error := inject(one, kind))] for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_planted_in_every_house(planted: dict[str, list[Case]], kind: str) -> None:
    assert len(planted[kind]) >= 200
    assert set(Counter(one.house for one, _ in planted[kind])) == {1, 2, 3, 4, 5, 6, 7}
    assert len({error.detail for _, error in planted[kind]}) >= (1 if kind == "certainty" else 2)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_changes_the_impression_and_stands_where_it_says(planted: dict[str, list[Case]], kind: str) -> None:
    for one, error in planted[kind]:
        assert error.impression != one.impression
        if error.span_impression:
            start, end = error.span_impression
            assert error.impression[start:end] == error.now
        if error.span_findings:
            assert any(fact.findings_span == error.span_findings for fact in one.facts)


@pytest.mark.parametrize(
    "kind", ["side", "number", "unit", "certainty", "level", "count", "prior", "prompt_leak", "phi", "language"]
)
def test_taking_an_edit_back_gives_the_correct_impression(planted: dict[str, list[Case]], kind: str) -> None:
    for one, error in planted[kind]:
        assert error.span_impression
        start, end = error.span_impression
        assert error.impression[:start] + error.was + error.impression[end:] == one.impression


def test_the_same_seed_plants_the_same_error(reports: list[PretendReport]) -> None:
    for kind in KINDS:
        again = [[inject(one, kind, seed=seed) for one in reports[:60]] for seed in (1, 1, 2)]
        assert again[0] == again[1]
    assert [inject(one, "side", seed=1) for one in reports] != [inject(one, "side", seed=2) for one in reports]


def test_a_wrong_size_is_nowhere_in_the_findings(planted: dict[str, list[Case]]) -> None:
    for one, error in planted["number"]:
        if error.detail != "measure":
            sizes = {value for fact in one.facts for value in fact.sizes_mm}
            factor = 10 if one.house in (2, 6) else 1
            first = re.search(r"\d+(\.\d+)?", error.now)
            assert first
            assert round(float(first.group()) * factor) not in sizes


def test_a_wrong_level_is_nowhere_in_the_findings(planted: dict[str, list[Case]]) -> None:
    assert all(error.now not in one.findings for one, error in planted["level"])


def test_a_dropped_statement_is_gone_and_the_rest_is_numbered_anew(planted: dict[str, list[Case]]) -> None:
    for kind in ("omitted", "critical"):
        for one, error in planted[kind]:
            assert error.was in one.impression
            assert len(error.impression) < len(one.impression)
            marks = [int(number) for number in re.findall(r"^(\d+)、", error.impression, re.MULTILINE)]
            assert marks == list(range(1, len(marks) + 1))


def test_the_dropped_critical_finding_was_critical(planted: dict[str, list[Case]]) -> None:
    for one, error in planted["critical"]:
        assert any(fact.critical for fact in one.facts if fact.findings_span == error.span_findings)


def test_an_unsupported_statement_speaks_of_nothing_in_the_findings(planted: dict[str, list[Case]]) -> None:
    for one, error in planted["unsupported"]:
        assert error.detail not in {fact.kind for fact in one.facts}
        assert error.detail.startswith(one.systems[0])
    for one, error in planted["body_part"]:
        assert not error.detail.startswith(one.systems)


def test_the_sex_error_names_an_organ_of_the_other_sex(planted: dict[str, list[Case]]) -> None:
    words = {"M": ("子宫", "卵巢", "宫颈", "子宮", "宮頸"), "F": ("前列腺", "精囊")}
    for one, error in planted["sex_organ"]:
        assert error.now.startswith(words[one.sex]) or error.now[2:].startswith(words[one.sex])


def test_an_unknown_kind_is_refused(reports: list[PretendReport]) -> None:
    with pytest.raises(ValueError, match="unknown kind"):
        inject(reports[0], "typo")
    with pytest.raises(ValueError, match="unknown kind"):
        next(filter(None, (paraphrase(one, "typo") for one in reports)))


@pytest.mark.parametrize("kind", REWRITINGS)
def test_a_rewriting_keeps_every_size(reports: list[PretendReport], kind: str) -> None:
    rewritten = [(one, text) for one in reports if (text := paraphrase(one, kind))]
    assert len(rewritten) >= 60
    for one, text in rewritten:
        sizes = {value for fact in one.facts for value in fact.sizes_mm}
        for number, unit in re.findall(r"(\d+(?:\.\d+)?) ?(mm|cm|CM|毫米)", text):
            assert round(float(number) * (10 if unit in ("cm", "CM") else 1), 1) in sizes


def test_a_rewriting_keeps_left_and_right(reports: list[PretendReport]) -> None:
    for one in reports:
        for kind in REWRITINGS:
            text = paraphrase(one, kind)
            if text and one.exam_title not in one.impression:
                for side in "左右":
                    assert text.count(side) == one.impression.count(side)
