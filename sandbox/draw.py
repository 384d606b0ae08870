"""Draws what is true of one examination: exam, lesions with their places and numbers, and what else is normal.

Writes no text. Every draw is medically bounded by the phrase data: sex, age, modality, contrast, region, exclusions, one
lesion per place of a clash group, ranges of sizes.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from types import MappingProxyType
from typing import TypeVar

from sandbox.catalogue import (
    Catalogue,
    Exam,
    FindingType,
    Normal,
    Place,
    Template,
    Wordings,
    catalogue,
    finding_types,
    spine,
)
from sandbox.facts import MODALITIES, Modality, Sex, Side, Wording
from sandbox.houses import SCALE_WORDS, House

Rnd = Callable[[], float]
T = TypeVar("T")

MODALITY: Mapping[str, Modality] = MappingProxyType({name: name for name in MODALITIES})
_COUNT_WEIGHTS = tuple(accumulate((24, 28, 22, 14, 8, 4)))
_SMALL_REGIONS = 3
"""Exams of a single joint or organ rarely have more than this many lesions."""
_MAX_TRIES = 12
_TEETH = {"L": ("36", "37", "38"), "R": ("46", "47", "48")}


@dataclass(slots=True)
class Lesion:
    """One drawn finding with the wording chosen for each text; rendered and turned into facts by `sandbox.write`."""

    kind: FindingType
    findings: Template
    impression: Template
    side: Side | None = None
    levels: tuple[str, ...] = ()
    place: Place | None = None
    sizes: tuple[int, ...] = ()
    count: int | None = None
    measure: float | None = None
    grade: str = ""
    cue: str = ""
    word: str = ""
    extra: dict[str, str] = field(default_factory=dict)
    as_range: bool = False
    severity: int = 1
    critical: bool = False
    incidental: bool = False


@dataclass(slots=True)
class Section:
    """One body system of an exam: its lesions in findings order and its normal clauses."""

    system: str
    exam: Exam
    lesions: list[Lesion]
    normals: list[tuple[Normal, str]]


def pick(rnd: Rnd, pool: Sequence[T]) -> T:
    """One member of `pool`, all equally likely."""
    return pool[int(rnd() * len(pool))]


def weighted(rnd: Rnd, cumulative: Sequence[float]) -> int:
    """An index, by cumulative weights."""
    return bisect_right(cumulative, rnd() * cumulative[-1])


@cache
def exams(system: str, modality: Modality) -> tuple[tuple[Exam, ...], tuple[float, ...]]:
    """The exams of a system that use a modality, with cumulative weights."""
    found = tuple(exam for exam in catalogue(system).exams if exam.modality == modality)
    if not found:
        raise ValueError(f"no {modality} exam of {system}")
    return found, tuple(accumulate(exam.weight for exam in found))


@cache
def candidates(system: str, exam: Exam, sex: Sex) -> tuple[FindingType, ...]:
    """Finding types that an exam can show in a sex, whatever the age."""
    regions = set(exam.regions)
    return tuple(
        kind
        for kind in catalogue(system).types
        if exam.modality in kind.seen
        and regions.intersection(kind.regions)
        and (not kind.contrast or exam.contrast)
        and kind.sex in (None, sex)
    )


@cache
def pairable(system: str, exam: Exam) -> tuple[tuple[str, Exam], ...]:
    """Exams of other systems that are done together with this one, with their system."""
    if not exam.pair:
        return ()
    return tuple(
        (partner, other)
        for partner in catalogue(system).partners
        for other in catalogue(partner).exams
        if other.pair and other.modality == exam.modality
    )


def _template(rnd: Rnd, wordings: Wordings) -> Template:
    return pick(rnd, pick(rnd, wordings))


def _impression(rnd: Rnd, kind: FindingType, house: House, wording: Wording) -> Template:
    """The house's own canonical wording when `seen`; the reserved ones otherwise."""
    seen, unseen = kind.impression_seen, kind.impression_unseen
    if wording == "seen" or (wording == "both" and rnd() < 0.5):
        return seen[0 if house.number == 1 else (house.number + int(kind.id[-2:])) % len(seen)][0]
    return pick(rnd, unseen)[0]


def _sides(sides: str, rnd: Rnd) -> Side | None:
    if not sides:
        return None
    if len(sides) == 3:
        spot = rnd()
        return "B" if spot < 0.24 else ("L" if spot < 0.62 else "R")
    one = pick(rnd, sides)
    return "L" if one == "L" else "R" if one == "R" else "B"


def _levels(rnd: Rnd, kind: FindingType, region: str, taken: set[str]) -> tuple[str, ...] | None:
    """One level or a run of neighbouring ones, none of them taken; None where nothing is free."""
    rows = spine().levels[kind.level].get(region)
    if rows is None:
        return None
    free = [row for row in rows if row[0] not in taken]
    if not free:
        return None
    first = free[weighted(rnd, tuple(accumulate(weight for _, weight in free)))][0]
    if kind.many == 1 or rnd() < 0.5:
        return (first,)
    names = [name for name, _ in rows]
    start = names.index(first)
    run = [first]
    for name in names[start + 1 : start + (2 if rnd() < 0.65 else kind.many)]:
        if name in taken:
            break
        run.append(name)
    return tuple(run)


def _sizes(rnd: Rnd, kind: FindingType, house: House) -> tuple[int, ...]:
    if kind.d2:
        low, high = kind.d2
        # Small lesions are commoner than large ones, so the square pulls towards the lower end of the range.
        long = low + int((high - low + 1) * rnd() ** 2)
        return (long, max(2, round(long * (0.55 + 0.4 * rnd()))))[: house.size.axes]
    if kind.d:
        low, high = kind.d
        return (low + int((high - low + 1) * rnd() ** 2),)
    return ()


class Drawing:
    """The growing truth of one exam: what has been drawn and what it rules out."""

    def __init__(self, rnd: Rnd, house: House, sex: Sex, age: int, wording: Wording) -> None:
        self.rnd, self.house, self.sex, self.age, self.wording = rnd, house, sex, age, wording
        self.kinds: set[str] = set()
        self.excluded: set[str] = set()
        self.taken: dict[str, set[str]] = {}
        self.local: set[str] = set()
        self.blocked: set[str] = set()

    def lesion(self, kind: FindingType, exam: Exam, side: Side | None) -> Lesion | None:
        """Draw one lesion of `kind`, or None where it does not go with what is already there."""
        rnd = self.rnd
        if kind.id in self.kinds or kind.id in self.excluded or self.kinds.intersection(kind.excludes):
            return None
        if not kind.age[0] <= self.age <= kind.age[1]:
            return None
        found = Lesion(
            kind,
            _template(rnd, kind.wordings(exam.modality, self.wording)),
            _impression(rnd, kind, self.house, self.wording),
            severity=kind.severity,
            critical=kind.critical,
        )
        taken = self.taken.setdefault(kind.clash or kind.id, set())
        found.side = side if kind.side and side else _sides(kind.side, rnd)
        if kind.places:
            place = pick(rnd, kind.places)
            found.place = place
            if place.sides:
                found.side = _sides(place.sides, rnd)
        keys: tuple[str, ...] = ()
        if kind.level:
            levels = _levels(rnd, kind, exam.regions[0], taken)
            if levels is None:
                return None
            found.levels = keys = levels
            found.as_range = len(levels) > 2 and rnd() < 0.5 and "-" not in self.house.levels.disc
        elif found.place is not None or kind.clash:
            level = found.place.level if found.place else ""
            keys = tuple(f"{one}{level}" for one in ("LR" if found.side == "B" else found.side or "-"))
            if taken.intersection(keys):
                return None
        self._numbers(found)
        self._words(found, exam)
        taken.update(keys)
        self.kinds.add(kind.id)
        self.excluded.update(kind.excludes)
        self.blocked.update(kind.harms)
        (self.blocked if kind.diffuse else self.local).add(kind.organ)
        return found

    def _numbers(self, found: Lesion) -> None:
        kind, rnd = found.kind, self.rnd
        found.sizes = _sizes(rnd, kind, self.house)
        if kind.n:
            found.count = kind.n[0] + int(rnd() * (kind.n[1] - kind.n[0] + 1))
        if kind.volume and found.sizes:
            # An ellipsoid whose third axis equals its second; house C shows one axis, so the second is taken from the first.
            long, short = found.sizes[0], found.sizes[-1]
            found.measure = float(max(1, round(0.52 * long * short * short / 1000)))
        elif kind.m:
            found.measure = round(kind.m.lo + kind.m.step * int(rnd() * (kind.m.steps + 1)), 2)
        if kind.grades:
            found.grade, found.cue = pick(rnd, kind.grades)
            if found.grade in kind.critical_grades:
                found.critical, found.severity = True, 4

    def _words(self, found: Lesion, exam: Exam) -> None:
        kind, rnd = found.kind, self.rnd
        if kind.scale:
            value = found.measure if found.measure is not None else found.sizes[0]
            low, high = self.house.cuts[kind.scale]
            found.word = _scale_word(kind.scale, value, low, high)
        for name, values in kind.picks:
            found.extra[name] = pick(rnd, values)
        for slot in found.findings.slots:
            if slot == "R":
                found.extra["R"] = spine().words[exam.regions[0]]
            elif slot == "B":
                found.extra["B"] = pick(rnd, spine().bones[exam.regions[0]])
            elif slot == "T":
                found.extra["T"] = pick(rnd, _TEETH[found.side or "L"])

    def normals(self, book: Catalogue, exam: Exam) -> list[tuple[Normal, str]]:
        """Every normal clause that contradicts nothing drawn, one wording each, in random order."""
        rnd = self.rnd
        fitting = []
        for clause in book.normals:
            if clause.region not in exam.regions or exam.modality not in clause.wordings:
                continue
            if clause.sex not in (None, self.sex) or not clause.age[0] <= self.age <= clause.age[1]:
                continue
            if clause.organ in self.blocked or (clause.organ in self.local) != clause.rest:
                continue
            fitting.append((rnd(), clause, pick(rnd, clause.wordings[exam.modality])))
        fitting.sort(key=lambda row: row[0])
        said: set[str] = set()
        kept = []
        for _, clause, text in fitting:
            # One statement an organ, and one for each type that is denied: 心影不大 beside 心包未见积液 is no repetition.
            about = clause.negates or clause.organ
            if about not in said:
                said.add(about)
                kept.append((clause, text))
        return kept


def _scale_word(scale: str, value: float, low: float, high: float) -> str:
    below, between, above = SCALE_WORDS[scale]
    return below if value < low else between if value < high else above


def section(drawing: Drawing, system: str, exam: Exam, side: Side | None, abnormal: bool) -> Section:
    """Draw one body system of an exam."""
    rnd = drawing.rnd
    book = catalogue(system)
    lesions: list[Lesion] = []
    pool = [k for k in candidates(system, exam, drawing.sex) if k.age[0] <= drawing.age <= k.age[1]] if abnormal else []
    if pool:
        wanted = 1 + weighted(rnd, _COUNT_WEIGHTS)
        if len(pool) < 8:
            wanted = min(wanted, _SMALL_REGIONS)
        cumulative = tuple(accumulate(kind.weight for kind in pool))
        if exam.only:
            first = [kind for kind in pool if exam.only[0] in kind.regions]
            if first and rnd() < 0.8:
                lesions += filter(None, [drawing.lesion(pick(rnd, first), exam, side)])
        for _ in range(_MAX_TRIES):
            if len(lesions) >= wanted:
                break
            kind = pool[weighted(rnd, cumulative)]
            if kind.silent and not lesions:
                continue
            found = drawing.lesion(kind, exam, side)
            if found:
                lesions.append(found)
        lesions.sort(key=lambda lesion: lesion.kind.order)
    return Section(system, exam, lesions, drawing.normals(book, exam))


def incidental(drawing: Drawing, system: str, exam: Exam) -> Lesion | None:
    """A lesion of another system at the edge of the exam (附见), or None."""
    ids = catalogue(system).incidental
    if not ids:
        return None
    kind = finding_types()[pick(drawing.rnd, ids)]
    if exam.modality not in kind.seen or kind.contrast or kind.sex not in (None, drawing.sex):
        return None
    found = drawing.lesion(kind, exam, None)
    if found:
        found.incidental = True
        found.severity = 1
    return found
