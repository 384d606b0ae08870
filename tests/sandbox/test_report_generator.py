"""The pretend reports: the same bytes everywhere, and texts that say what their facts say."""

import hashlib
import re
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import islice

import pytest

from sandbox import people
from sandbox.catalogue import Template, catalogue, finding_types
from sandbox.facts import MODALITIES, SYSTEMS, Fact, PretendReport
from sandbox.generator import generate, report
from sandbox.houses import HOUSES
from sandbox.script import traditional

_DIGEST = """
import hashlib
from sandbox.generator import generate
print(hashlib.sha256(repr(list(generate("balanced", scale=0.001, seed=3))).encode()).hexdigest())
"""
_HALF_WIDTH = str.maketrans("，。；：（）", ",.;:()")
FEMALE, MALE = ("子宫", "附件区", "卵巢", "乳腺", "乳外", "乳内"), ("前列腺", "精囊")


@pytest.fixture(scope="module")
def reports() -> list[PretendReport]:
    return list(generate("balanced", scale=0.02, seed=1, houses=(1, 2, 3, 4, 5, 6, 7)))


@pytest.fixture(scope="module")
def unseen() -> list[PretendReport]:
    return list(generate("balanced", scale=0.005, seed=2, wording="unseen"))


def pattern(templates: tuple[tuple[Template, ...], ...]) -> re.Pattern[str]:
    forms = {template.form for wording in templates for template in wording}
    return re.compile(
        "|".join(re.escape(form).replace("%s", ".*?").replace("%%", "%") for form in sorted(forms)), re.DOTALL
    )


def stands(templates: re.Pattern[str], clause: str) -> bool:
    """A clause may leave its side to the clause before it (右侧…，肋膈角变钝)."""
    return any(templates.fullmatch(side + clause) for side in ("", "左"))


def positive(one: PretendReport) -> list[Fact]:
    return [fact for fact in one.facts if fact.polarity]


def clean(found: list[PretendReport]) -> list[PretendReport]:
    """Reports without blemishes in simplified script."""
    return [one for one in found if not one.noise and one.language == "zh-Hans"]


@pytest.mark.parametrize("hash_seed", ["0", "4711"])
def test_the_same_arguments_give_the_same_bytes_in_every_process(hash_seed: str) -> None:
    here = hashlib.sha256(repr(list(generate("balanced", scale=0.001, seed=3))).encode()).hexdigest()
    there = subprocess.run(
        [sys.executable, "-c", _DIGEST], env={"PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == here


def test_another_seed_gives_other_reports() -> None:
    first, second = ([one.findings for one in generate(scale=0.0005, seed=seed)] for seed in (0, 1))
    assert len(first) == len(second)
    assert len(set(first) & set(second)) < len(first) / 10


def test_a_slice_is_what_the_whole_begins_with() -> None:
    assert list(islice(generate(scale=0.002, seed=5), 40)) == list(generate(scale=0.002, seed=5))[:40]


def test_one_report_asked_for_alone_is_the_one_of_the_series(reports: list[PretendReport]) -> None:
    for one in reports[::97]:
        index = int(one.accession[-6:])
        alone = report(one.house, one.systems[0], one.modality, one.sex, seed=1, index=index, held_out=one.held_out)
        assert alone == one


def test_a_report_has_its_own_accession_in_its_house(reports: list[PretendReport]) -> None:
    assert len({(one.house, one.accession) for one in reports}) == len(reports)


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_has_at_least_25_finding_types_and_each_can_occur(system: str) -> None:
    wanted = {kind.id for kind in catalogue(system).types}
    assert len(wanted) >= 25
    seen: set[str] = set()
    for index in range(900):
        for modality in MODALITIES:
            for sex in ("F", "M"):
                seen.update(
                    fact.kind for fact in report(1, system, modality, sex, seed=0, index=index).facts if fact.polarity
                )
    assert wanted <= seen


def test_a_fifth_of_the_wordings_is_held_back_and_none_of_them_is_in_the_training_files() -> None:
    for kind in finding_types().values():
        pairs = [(kind.seen[modality], kind.unseen[modality]) for modality in kind.seen]
        pairs.append((kind.impression_seen, kind.impression_unseen))
        for seen, unseen in pairs:
            assert len(unseen) >= 0.2 * (len(seen) + len(unseen)), kind.id
            assert not {t.form for w in seen for t in w} & {t.form for w in unseen for t in w}, kind.id
            slots = {frozenset(t.slots) & {"d", "d2", "n", "p", "m", "cue", "L"} for w in (*seen, *unseen) for t in w}
            assert len(slots) == 1 or (kind.impression_seen, kind.impression_unseen) == (seen, unseen), kind.id


def test_each_fact_stands_where_its_span_says_in_the_findings(
    reports: list[PretendReport], unseen: list[PretendReport]
) -> None:
    patterns = {
        (kind.id, modality): (pattern(kind.seen[modality]), pattern(kind.unseen[modality]))
        for kind in finding_types().values()
        for modality in kind.seen
    }
    told = 0
    for found, which in ((clean(reports), 0), (clean(unseen), 1)):
        for one in found:
            for fact in positive(one):
                assert fact.findings_span
                clause = one.findings[slice(*fact.findings_span)]
                assert stands(patterns[fact.kind, one.modality][which], clause), (fact.kind, clause)
                told += 1
    assert told > 5_000


def test_each_fact_stands_where_its_span_says_in_the_impression(reports: list[PretendReport]) -> None:
    patterns = {kind.id: pattern(kind.impression_seen) for kind in finding_types().values()}
    told = 0
    for one in clean(reports):
        if one.house not in (1, 3, 6):  # the others add sizes, abbreviate or use half-width signs
            continue
        for fact in positive(one):
            if fact.impression_span:
                clause = one.impression[slice(*fact.impression_span)]
                assert patterns[fact.kind].fullmatch(clause), (fact.kind, clause)
                told += 1
    assert told > 2_000


def test_a_blemish_moves_the_spans_along(reports: list[PretendReport]) -> None:
    marked = [one for one in reports if one.noise]
    assert {blemish.kind for one in marked for blemish in one.noise} >= {"header", "image", "width", "script", "nbsp"}
    for one in marked:
        for fact in one.facts:
            for text, span in ((one.findings, fact.findings_span), (one.impression, fact.impression_span)):
                assert span is None or 0 <= span[0] < span[1] <= len(text)
        if [blemish.kind for blemish in one.noise] == ["image"] and one.noise[0].field == "findings":
            (start, end), text = one.noise[0].span, one.findings
            assert re.fullmatch(r"[（(]Se\d，Im\d+(-\d+)?[）)]", text[start:end])
            assert any(span[0] < start < span[1] for fact in one.facts if (span := fact.findings_span))


def test_sides_sizes_and_counts_of_a_fact_are_in_its_clause(reports: list[PretendReport]) -> None:
    words = {"L": ("左", "(L)"), "R": ("右", "(R)"), "B": ("双", "两", "左右")}
    for one in clean(reports):
        house = HOUSES[one.house]
        for fact in positive(one):
            assert fact.findings_span
            clause = one.findings[slice(*fact.findings_span)]
            sentence = re.split(r"[。；\n]", one.findings[: fact.findings_span[1]])[-1]
            if fact.side:
                assert any(word in sentence for word in words[fact.side]), (fact, clause)
            if fact.count is not None:
                assert str(fact.count) in clause
            for value in fact.sizes_mm:
                shown = f"{value * house.size.factor:.{house.size.digits}f}"
                assert shown in clause, (fact, clause)
            for unit, number in fact.measures:
                assert f"{number:g}" in clause, (unit, clause)


def test_a_spine_level_is_written_in_the_house_notation() -> None:
    expected = {1: "腰5/骶1", 2: "L5/S1", 3: "腰5、骶1", 4: "L5-S1", 5: "第5腰椎/第1骶椎", 6: "L5/S1", 7: "L5～S1"}
    for house, notation in expected.items():
        for index in range(400):
            one = report(house, "musculoskeletal", "CT", "F", seed=0, index=index)
            hits = [fact for fact in positive(one) if fact.level == "L5/S1" and not one.noise]
            if (
                hits
                and hits[0].findings_span
                and "-" not in one.findings[slice(*hits[0].findings_span)].replace("L5-S1", "")
            ):
                assert notation in one.findings
                break
        else:
            pytest.fail(f"house {house} never wrote L5/S1")


def test_nothing_is_normal_and_diseased_at_once(reports: list[PretendReport]) -> None:
    normals = {system: [clause for clause in catalogue(system).normals if not clause.rest] for system in SYSTEMS}
    for one in clean(reports):
        kinds = {fact.kind for fact in positive(one)}
        assert not kinds & {fact.kind for fact in one.facts if not fact.polarity}
        diseased = {(finding_types()[kind].system, finding_types()[kind].organ) for kind in kinds}
        sentences = set(re.split(r"[。；\n】]", one.findings))
        for system in one.systems:
            for clause in normals[system]:
                if (system, clause.organ) in diseased:
                    assert not sentences & set(clause.wordings.get(one.modality, ())), (one.accession, clause)


def test_no_man_has_a_uterus_and_no_woman_a_prostate(reports: list[PretendReport]) -> None:
    assert any("前列腺" in one.findings for one in reports)
    assert any("子宫" in one.findings for one in reports)
    for one in reports:
        for word in FEMALE if one.sex == "M" else MALE:
            assert word not in one.findings + one.impression


def test_ages_stay_within_what_a_finding_allows(reports: list[PretendReport]) -> None:
    for one in reports:
        for fact in positive(one):
            low, high = finding_types()[fact.kind].age
            assert low <= one.age <= high
    assert min(one.age for one in reports) < 14
    assert max(one.age for one in reports) > 85


def test_a_lesion_needs_its_modality_and_contrast(reports: list[PretendReport]) -> None:
    for one in reports:
        for fact in positive(one):
            assert one.modality in finding_types()[fact.kind].seen
            if finding_types()[fact.kind].contrast and one.house != 5:
                assert any(word in one.exam_title for word in ("增强", "CTA"))


def test_an_exam_without_contrast_shows_no_enhancement(reports: list[PretendReport]) -> None:
    for one in reports:
        if one.house != 5 and "增强" not in one.exam_title and "CTA" not in one.exam_title:
            assert "强化" not in one.findings


def test_the_same_facts_give_the_same_impression_in_a_house() -> None:
    texts: defaultdict[tuple[object, ...], set[str]] = defaultdict(set)
    for one in generate("balanced", scale=0.02, seed=4, houses=(1,)):
        found = positive(one)
        if len(found) == 1 and len(one.systems) == 1 and one.impression and one.status != "addendum" and not one.noise:
            fact = found[0]
            key = (fact.kind, fact.side, fact.level, fact.grade, fact.sizes_mm, fact.measures, fact.count)
            texts[key].add(re.sub(r"^.*示：\n", "", one.impression))
    repeated = Counter(len(variants) for variants in texts.values())
    # What is left to chance is a level of a tooth or a bone that only the findings tell.
    assert repeated[1] > 0.97 * sum(repeated.values())


def test_the_impression_puts_a_critical_finding_first(reports: list[PretendReport]) -> None:
    critical = 0
    for one in reports:
        spans = [(fact.impression_span, fact.critical) for fact in positive(one) if fact.impression_span]
        if any(is_critical for _, is_critical in spans):
            critical += 1
            assert min(spans)[1]
    assert critical > 100


def test_about_a_seventh_is_normal_and_the_rest_has_one_to_six_findings(reports: list[PretendReport]) -> None:
    counts = Counter(len({(fact.kind, fact.findings_span) for fact in positive(one)}) for one in reports)
    total = len(reports)
    assert 0.12 < counts[0] / total < 0.22
    assert sum(counts[n] for n in range(7)) > 0.98 * total


def test_texts_have_the_length_of_real_ones(reports: list[PretendReport]) -> None:
    findings = sorted(len(one.findings) for one in reports)
    impressions = sorted(len(one.impression) for one in reports if one.impression)
    assert 90 < findings[len(findings) // 2] < 180
    assert findings[int(len(findings) * 0.1)] > 40
    assert 20 < impressions[len(impressions) // 2] < 50


def test_a_gbk_house_writes_only_what_gbk_holds(reports: list[PretendReport]) -> None:
    for one in reports:
        if one.house in (2, 3):
            for text in (one.findings, one.impression, one.exam_title, one.person.name, one.history or ""):
                assert text.encode("gbk").decode("gbk") == text


def test_house_five_writes_traditional_script(reports: list[PretendReport]) -> None:
    own = [one for one in reports if one.house == 5]
    assert all(one.language == "zh-Hant" for one in own)
    for one in own:
        if not one.noise:
            assert traditional(one.findings) == one.findings
            assert traditional(one.exam_title + one.impression) == one.exam_title + one.impression
    assert "雙側" in "".join(one.findings for one in own)
    assert any(blemish.kind == "script" for one in own for blemish in one.noise)


@pytest.mark.parametrize(("house", "mark"), [(1, "1、"), (2, "1."), (4, "(1)"), (5, "一、"), (6, "1、"), (7, "1）")])
def test_a_house_numbers_its_items_its_own_way(reports: list[PretendReport], house: int, mark: str) -> None:
    several = [
        one
        for one in reports
        if one.house == house
        and one.modality == "CT"
        and len({fact.impression_span for fact in positive(one) if fact.severity > 1 and fact.impression_span}) > 1
    ]
    assert several
    assert all(mark in one.impression for one in several)


def test_house_two_repeats_sizes_and_house_one_does_not(reports: list[PretendReport]) -> None:
    size = re.compile(r"\d(mm|cm)")
    assert any(size.search(one.impression) for one in reports if one.house == 2)
    assert not any(size.search(one.impression) for one in reports if one.house == 1)


def test_duplicates_addenda_and_empty_impressions_come_at_the_rates_of_the_house(reports: list[PretendReport]) -> None:
    more = [report(3, "abdomen", "CT", "M", seed=0, index=index) for index in range(1_500)]
    assert 0.16 < sum(one.duplicate_of is not None for one in more) / len(more) < 0.24
    assert 0.015 < sum(not one.impression for one in more) / len(more) < 0.05
    known = {(one.house, one.accession): one for one in reports}
    for one in reports:
        if one.duplicate_of:
            first = known[one.house, one.duplicate_of]
            assert (one.findings, one.impression, one.person) == (first.findings, first.impression, first.person)
            assert one.accession != first.accession
        if one.addendum_to:
            first = known[one.house, one.addendum_to]
            assert one.status == "addendum"
            assert one.findings.startswith(("补充报告：", "更正：", "補充報告："))
            assert one.signed_at > first.signed_at


def test_a_patient_returns_but_never_from_training_into_the_held_out_part(reports: list[PretendReport]) -> None:
    visits: defaultdict[tuple[int, str], list[PretendReport]] = defaultdict(list)
    for one in reports:
        visits[one.house, one.person.id].append(one)
    assert any(len({visit.findings for visit in one}) > 1 for one in visits.values())
    for one in visits.values():
        assert len({visit.held_out for visit in one}) == 1
        assert len({visit.person for visit in one}) == 1


def test_only_house_one_trains_and_its_held_out_reports_are_later(reports: list[PretendReport]) -> None:
    assert all(one.held_out for one in reports if one.house != 1)
    first = [one for one in reports if one.house == 1]
    assert max(one.examined_at for one in first if not one.held_out) < min(
        one.examined_at for one in first if one.held_out
    )


def test_times_run_forward_in_utc(reports: list[PretendReport]) -> None:
    for one in reports:
        assert one.examined_at < one.reported_at < one.signed_at
        assert one.signed_at.utcoffset() is not None


def test_identity_cards_are_well_formed_and_belong_to_no_region(reports: list[PretendReport]) -> None:
    weights = [2 ** (17 - i) % 11 for i in range(17)]
    assert people.id_card("19491231", 2)[:-1] == "99000019491231002"
    cards = [(one.person.id_card, one.sex) for one in reports if one.person.id_card]
    assert cards
    for card, sex in cards:
        assert card
        total = sum(int(digit) * weight for digit, weight in zip(card, weights, strict=False))
        assert card[17] == "10X98765432"[total % 11]
        assert card.startswith("990000")
        assert int(card[16]) % 2 == (sex == "M")


def test_reports_have_authors_and_mostly_a_senior_reviewer(reports: list[PretendReport]) -> None:
    reviewed = [one for one in reports if one.reviewer]
    assert 0.75 < len(reviewed) / len(reports) < 1
    assert {one.author.grade for one in reports} == {"junior", "intermediate", "senior"}
    assert all(one.reviewer != one.author for one in reviewed)


def test_a_header_line_names_the_patient_in_house_six(reports: list[PretendReport]) -> None:
    headed = [one for one in reports if any(blemish.kind == "header" for blemish in one.noise)]
    assert headed
    for one in headed:
        assert one.house == 6
        assert f"姓名：{one.person.name}" in one.findings
