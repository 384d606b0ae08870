"""The report generator: facts first, both texts from them, then the blemishes and the bookkeeping of a hospital.

`generate` yields a preset's reports, `report` writes a single one. Every report has its own seed made of its house, kind and
index, so the same arguments give the same bytes on any machine, and any slice of a preset is stable. Nothing here knows what
the product's checks look for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import NamedTuple

from sandbox import draw, noise, people, write
from sandbox.catalogue import Exam, catalogue
from sandbox.facts import SYSTEMS, Doctor, Fact, Modality, Noise, Person, PretendReport, Sex, Side, Status, Wording
from sandbox.houses import HOUSES, House
from sandbox.presets import plan
from sandbox.script import traditional

_FIRST_DAY = datetime(2021, 1, 1, tzinfo=UTC)
_TRAIN_DAYS, _TEST_DAYS = 500, 180
_NORMAL = 0.15
_PAIRED = 0.22
"""Share of two-region exams among those that are done in pairs; about 5 % of all."""
_REPEAT = 0.25
_FAMILY = 8
"""Repeat visits share one person among this many neighbouring indices of a kind."""
_HEADER = "姓名：{name} 性别：{sex} 年龄：{age}岁 检查号：{accession}\n"
_SEX_WORDS = {"F": "女", "M": "男"}


class _Kind(NamedTuple):
    """What a report is asked to be; with an index and a seed it says everything."""

    house: int
    system: str
    modality: Modality
    sex: Sex
    held_out: bool
    wording: Wording
    seed: int

    def accession(self, index: int) -> str:
        system = SYSTEMS.index(self.system) + 1
        letters = {"CT": 1, "MR": 2, "XR": 3}[self.modality]
        kind = f"{system}{letters}{1 if self.sex == 'F' else 2}{int(self.held_out)}"
        return f"{self.modality}{kind}{index:06d}"

    def rng(self, purpose: str, index: int) -> Random:
        key = f"{self.seed}|{self.house}|{self.system}|{self.modality}|{self.sex}|{self.held_out}|{purpose}|{index}"
        return Random(key)


class _Fate(NamedTuple):
    """What happens to a report apart from its content."""

    duplicate: bool
    addendum: bool
    empty: bool
    status: Status


def generate(
    preset: str = "demo",
    *,
    scale: float = 0.001,
    seed: int = 0,
    houses: Sequence[int] = (1, 2, 3, 4, 5, 6),
    wording: Wording = "seen",
) -> Iterator[PretendReport]:
    """Yield the reports of a preset, house by house, the kinds of a house mixed.

    `scale` 1 is the paper's 332,673 reports. Raises ValueError for an unknown preset or a scale of 0 and below.
    """
    cells = plan(preset, scale, houses)
    for house in houses:
        rows = [
            (_Kind(house, cell.system, cell.modality, cell.sex, cell.split == "test", wording, seed), index)
            for cell in cells
            if cell.house == house
            for index in range(cell.count)
        ]
        Random(f"{seed}|{house}|order").shuffle(rows)
        for kind, index in rows:
            yield _report(kind, index)


def report(
    house: int,
    system: str,
    modality: Modality,
    sex: Sex,
    *,
    seed: int,
    index: int,
    wording: Wording = "seen",
    held_out: bool = False,
) -> PretendReport:
    """One report; the same as the one that `generate` yields for this kind, index and seed."""
    return _report(_Kind(house, system, modality, sex, held_out, wording, seed), index)


def _fate(kind: _Kind, index: int) -> _Fate:
    house = HOUSES[kind.house]
    rnd = kind.rng("fate", index).random
    spot, empty, state = rnd(), rnd() < house.empty_impressions, rnd()
    duplicate = index > 0 and spot < house.duplicates
    addendum = index > 0 and not duplicate and spot < house.duplicates + house.addenda
    status: Status = "preliminary" if state < 0.02 else "retracted" if state < 0.025 else "final"
    return _Fate(duplicate, addendum, empty, "addendum" if addendum else status)


def _original(kind: _Kind, index: int) -> int:
    """The nearest earlier report that is neither a duplicate nor an addendum."""
    index -= 1
    while index > 0:
        fate = _fate(kind, index)
        if not fate.duplicate and not fate.addendum:
            break
        index -= 1
    return index


def _report(kind: _Kind, index: int) -> PretendReport:
    fate = _fate(kind, index)
    if fate.duplicate:
        return _duplicate(kind, index)
    if fate.addendum:
        return _addendum(kind, index)
    house = HOUSES[kind.house]
    rng = kind.rng("report", index)
    rnd = rng.random
    exams, cumulative = draw.exams(kind.system, kind.modality)
    exam = exams[draw.weighted(rnd, cumulative)]
    person = _person(kind, index, exam, rng)
    drawing = draw.Drawing(rnd, house, kind.sex, person.age, kind.wording)
    side: Side | None = draw.pick(rnd, ("L", "R")) if exam.side else None
    abnormal = rnd() >= _NORMAL
    sections = [draw.section(drawing, kind.system, exam, side, abnormal)]
    title = exam.title.replace("{s}", {"L": "左", "R": "右", None: ""}[side if side != "B" else None])
    partners = draw.pairable(kind.system, exam)
    if partners and rnd() < _PAIRED:
        system, other = draw.pick(rnd, partners)
        sections.append(draw.section(drawing, system, other, None, rnd() < 0.6))
        title = f"{exam.pair}+{other.pair}{exam.modality}平扫"
    extra = None
    if abnormal and house.incidental and sections[0].lesions and len(sections) == 1 and rnd() < house.incidental:
        extra = draw.incidental(drawing, kind.system, exam)
    told = write.findings(rnd, house, sections, extra)
    concluded = None if fate.empty else write.impression(house, sections, extra, title, kind.wording)
    return _finish(kind, index, rng, house, person, exam, title, sections, extra, told, concluded, fate.status)


def _finish(
    kind: _Kind,
    index: int,
    rng: Random,
    house: House,
    person: Person,
    exam: Exam,
    title: str,
    sections: list[draw.Section],
    extra: draw.Lesion | None,
    told: write.Text,
    concluded: write.Text | None,
    status: Status,
) -> PretendReport:
    """Titles, script and blemishes; then the bookkeeping."""
    rnd = rng.random
    findings = noise.marked(told)
    impression = noise.marked(concluded) if concluded else None
    accession = kind.accession(index)
    _frame(rnd, house, findings, impression, title)
    if house.header_lines and rnd() < house.header_lines:
        header = _HEADER.format(name=person.name, sex=_SEX_WORDS[kind.sex], age=person.age, accession=accession)
        findings.apply("header", (0, 0, header))
    if house.language == "zh-Hant":
        findings.text = traditional(findings.text)
        title = traditional(title)
        if impression:
            impression.text = traditional(impression.text)
    blemishes = noise.plant(rnd, house, findings, impression)
    told.spans, told.denied = findings.spans, findings.denied
    if concluded and impression:
        concluded.spans = impression.spans
    facts = write.facts(sections, extra, told, concluded, house, kind.wording)
    examined, reported, signed, patient_class = _times(kind, house, rnd)
    author, reviewer = _doctors(house, rnd)
    if status == "preliminary":
        reviewer = None
    history = _history(rnd, kind.system)
    return PretendReport(
        house=house.number,
        accession=accession,
        person=person,
        sex=kind.sex,
        age=person.age,
        modality=kind.modality,
        systems=tuple(section.system for section in sections),
        exam_title=title,
        patient_class=patient_class,
        history=traditional(history) if history and house.language == "zh-Hant" else history,
        findings=findings.text,
        impression=impression.text if impression else "",
        status=status,
        author=author,
        reviewer=reviewer,
        examined_at=examined,
        reported_at=reported,
        signed_at=signed,
        language=house.language,
        facts=facts,
        duplicate_of=None,
        addendum_to=None,
        held_out=kind.held_out,
        noise=blemishes,
    )


def _frame(rnd: draw.Rnd, house: House, findings: noise.Marked, impression: noise.Marked | None, title: str) -> None:
    """Section titles inside the texts, as plain lines or as HTML."""
    if house.html and rnd() < house.html:
        for text, name in ((findings, house.findings_title), (impression, house.impression_title)):
            if text:
                text.apply(None, (len(text.text), len(text.text), "</p>"))
                text.apply(None, (0, 0, f"<p><b>{name}</b>"))
    elif rnd() < house.titles:
        findings.apply(None, (0, 0, house.findings_title.format(title)))
        if impression:
            impression.apply(None, (0, 0, house.impression_title.format(title)))


def _person(kind: _Kind, index: int, exam: Exam, rng: Random) -> Person:
    if exam.age is None and rng.random() < _REPEAT:
        number = 500_000 + index // _FAMILY
        rng = kind.rng("person", number)
    else:
        number = index
    years = people.age(rng) if exam.age is None else exam.age[0] + int(rng.random() * (exam.age[1] - exam.age[0] + 1))
    return people.person(
        rng, f"P{kind.house}{kind.accession(number)[2:]}", kind.sex, years, HOUSES[kind.house].language
    )


def _times(kind: _Kind, house: House, rnd: draw.Rnd) -> tuple[datetime, datetime, datetime, str]:
    spot = rnd()
    patient_class = "outpatient" if spot < 0.5 else "inpatient" if spot < 0.82 else "emergency"
    days = _TRAIN_DAYS + rnd() * _TEST_DAYS if kind.held_out else rnd() * _TRAIN_DAYS
    examined = _FIRST_DAY + timedelta(days=house.first_day, seconds=int(days * 86_400))
    hurry = 0.2 if patient_class == "emergency" else 1.0
    reported = examined + timedelta(seconds=int((600 + rnd() * 14_400) * hurry))
    return examined, reported, reported + timedelta(seconds=int((240 + rnd() * 28_800) * hurry)), patient_class


def _doctors(house: House, rnd: draw.Rnd) -> tuple[Doctor, Doctor | None]:
    staff = people.doctors(house.number, house.language)
    spot = rnd()
    author = draw.pick(rnd, staff["junior" if spot < 0.6 else "intermediate" if spot < 0.9 else "senior"])
    reviewer = draw.pick(rnd, staff["senior" if rnd() < 0.6 or author.grade != "junior" else "intermediate"])
    return author, None if rnd() < house.no_reviewer or reviewer is author else reviewer


def _history(rnd: draw.Rnd, system: str) -> str | None:
    if rnd() < 0.3:
        return None
    return draw.pick(rnd, catalogue(system).history).replace("{n}", str(1 + int(rnd() * 14)))


def _duplicate(kind: _Kind, index: int) -> PretendReport:
    """The same report sent again under another accession, a little later."""
    first = _report(kind, _original(kind, index))
    later = timedelta(minutes=5 + index % 600)
    return replace(
        first, accession=kind.accession(index), duplicate_of=first.accession, signed_at=first.signed_at + later
    )


def _addendum(kind: _Kind, index: int) -> PretendReport:
    """A supplement or correction to an earlier report: its first lesion once more, under 补充报告 or 更正."""
    first = _report(kind, _original(kind, index))
    word = "补充报告：" if index % 2 else "更正："
    if kind.house == 5:
        word = traditional(word)
    findings, impression = first.findings, first.impression
    facts: tuple[Fact, ...] = ()
    blemishes: tuple[Noise, ...] = ()
    kept = next((fact for fact in first.facts if fact.findings_span and fact.impression_span), None)
    if kept and kept.findings_span and kept.impression_span:
        findings, impression = findings[slice(*kept.findings_span)], impression[slice(*kept.impression_span)]
        start = len(word)
        facts = tuple(
            replace(
                fact, findings_span=(start, start + len(findings)), impression_span=(start, start + len(impression))
            )
            for fact in first.facts
            if fact.findings_span == kept.findings_span
        )
        starts = {"findings": kept.findings_span[0], "impression": kept.impression_span[0]}
        ends = {"findings": kept.findings_span[1], "impression": kept.impression_span[1]}
        blemishes = tuple(
            replace(one, span=(one.span[0] - starts[one.field] + start, one.span[1] - starts[one.field] + start))
            for one in first.noise
            if starts[one.field] <= one.span[0] and one.span[1] <= ends[one.field]
        )
        findings, impression = f"{findings}。", f"{impression}。"
    return replace(
        first,
        accession=kind.accession(index),
        findings=word + findings,
        impression=word + impression if impression else "",
        status="addendum",
        facts=tuple(facts),
        noise=blemishes,
        addendum_to=first.accession,
        reported_at=first.signed_at + timedelta(hours=2),
        signed_at=first.signed_at + timedelta(hours=5),
    )
