"""Renders drawn facts as one house's findings and impression, and says where in each text every fact stands.

Draws no facts. The impression follows from the facts and the house alone: order by severity, the house's numbering, hedges
and advice; only titles vary by chance. Traditional script and noise come later (`sandbox.script`, `sandbox.noise`).
"""

from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from sandbox.catalogue import Template, finding_types
from sandbox.draw import Lesion, Rnd, Section, pick
from sandbox.facts import Fact, Wording
from sandbox.houses import House, LevelStyle, Numbering

Span = tuple[int, int]

_REGION_WORDS = {"L": "腰", "C": "颈", "T": "胸", "S": "骶"}
_HALF_WIDTH = str.maketrans("，。；：（）", ",.;:()")
_MIN_FINDINGS = 75
_MAX_EXTRA = 170
_INHERITS = 0.2
"""Share of second clauses that leave their side to the clause before."""


@dataclass(slots=True)
class Text:
    """A text being built, with the span of each lesion's clause (by identity) and of each denied type."""

    parts: list[str] = field(default_factory=list)
    length: int = 0
    spans: dict[int, Span] = field(default_factory=dict)
    denied: list[tuple[str, Span]] = field(default_factory=list)

    def add(self, text: str) -> Span:
        start = self.length
        self.parts.append(text)
        self.length += len(text)
        return start, self.length

    def __str__(self) -> str:
        return "".join(self.parts)


class _Row(NamedTuple):
    """A clause of the findings: sorted by organ, lesions before what is said of the rest of the organ."""

    order: int
    rank: int
    organ: str
    words: str
    about: Lesion | str | None


@dataclass(frozen=True, slots=True)
class Style:
    """A house's words for one text: sides in full and short, hedges, and whether levels may be shortened to a range."""

    house: House
    full: dict[str | None, str]
    short: dict[str | None, str]
    hedges: dict[str, tuple[int, str]]


@cache
def style(house: House, variant: int, unseen: bool) -> Style:
    """The words of a house; `variant` is the index of its side words (0 is canonical)."""
    full, short = house.sides[variant], house.short_sides[variant]
    hedges = house.hedges_unseen if unseen else house.hedges
    keys: tuple[str | None, ...] = ("L", "R", "B", None)
    return Style(
        house, dict(zip(keys, (*full, ""), strict=True)), dict(zip(keys, (*short, ""), strict=True)), dict(hedges)
    )


@cache
def level(level: str, how: LevelStyle) -> str:
    """A spine level (`L4/5`, `L5/S1`, `T12`) as a house writes it."""

    def word(letter: str) -> str:
        return letter if how.latin else _REGION_WORDS[letter]

    if "/" not in level:
        return how.vertebra.format(word(level[0]), level[1:])
    upper, lower = level.split("/")
    if lower[0].isalpha():
        return how.junction.format(word(upper[0]), upper[1:], lower[1:], word(lower[0]))
    return how.disc.format(word(upper[0]), upper[1:], lower)


def size(house: House, sizes: tuple[int, ...]) -> str:
    """Sizes in millimetres as a house writes them."""
    how = house.size
    shown = [f"{value * how.factor:.{how.digits}f}" for value in sizes]
    if how.unit_on_each:
        return how.times.join(text + how.unit for text in shown)
    return how.times.join(shown) + how.unit


def _number(value: float) -> str:
    return f"{value:g}"


def _value(slot: str, lesion: Lesion, how: Style) -> str:
    match slot:
        case "S":
            return how.full[lesion.side]
        case "s":
            return how.short[lesion.side]
        case "at":
            return lesion.place.at if lesion.place else ""
        case "in":
            return lesion.place.coarse if lesion.place else ""
        case "d" | "d2":
            return size(how.house, lesion.sizes)
        case "L":
            names = [level(one, how.house.levels) for one in lesion.levels]
            if lesion.as_range:
                return f"{names[0]}-{names[-1]}"
            return how.house.levels.join.join(names)
        case "n":
            return str(lesion.count)
        case "p":
            return f"{_number(lesion.measure or 0)}%"
        case "m":
            return _number(lesion.measure or 0)
        case "g":
            return lesion.grade
        case "cue":
            return lesion.cue
        case "w":
            return lesion.word
    if slot.startswith("H:"):
        return how.hedges[lesion.kind.hedge][1].format(slot[2:])
    return lesion.extra[slot]


def render(template: Template, lesion: Lesion, how: Style) -> str:
    """One clause."""
    return template.form % tuple([_value(slot, lesion, how) for slot in template.slots])


def findings(rnd: Rnd, house: House, sections: list[Section], extra: Lesion | None) -> Text:
    """The findings: lesions and normal clauses in the order of the organs, as many normal clauses as a usual length takes."""
    how = style(house, int(rnd() * len(house.sides)), False)
    text = Text()
    for number, section in enumerate(sections):
        if number:
            text.add("\n")
        if section.exam.head:
            text.add(pick(rnd, section.exam.head) + "\n")
        _section(rnd, text, section, how)
    if extra:
        text.add("\n附见：")
        text.spans[id(extra)] = text.add(render(extra.findings, extra, how))
        text.add("。")
    return text


def _section(rnd: Rnd, text: Text, section: Section, how: Style) -> None:
    rows: list[_Row] = []
    written = 0
    for lesion in section.lesions:
        words = render(lesion.findings, lesion, how)
        written += len(words) + 1
        rows.append(_Row(lesion.kind.order, 0, lesion.kind.organ, words, lesion))
    wanted = max(_MIN_FINDINGS, written + int(rnd() * _MAX_EXTRA))
    for normal, words in section.normals:
        if written >= wanted:
            break
        written += len(words) + 1
        rows.append(_Row(normal.order, 1 if normal.negates or normal.rest else 0, normal.organ, words, normal.negates))
    rows.sort(key=lambda row: row[:2])
    within = "；" if rnd() < 0.3 else "。"
    last: _Row | None = None
    for row in rows:
        words = row.words
        if last:
            inherited = _inherited(last, row, how) if rnd() < _INHERITS else ""
            words = words[len(inherited) :]
            text.add("，" if inherited else within if last.organ == row.organ else "。")
        if how.house.organ_labels and (last is None or last.organ != row.organ):
            text.add(f"{chr(10) if last else ''}【{row.organ}】")
        last = row
        span = text.add(words)
        if isinstance(row.about, Lesion):
            text.spans[id(row.about)] = span
        elif row.about:
            text.denied.append((row.about, span))
    if rows:
        text.add("。")


def _inherited(before: _Row, row: _Row, how: Style) -> str:
    """The side that a clause need not repeat after one of the same organ and side (右侧膈面模糊，肋膈角变钝)."""
    first, second = before.about, row.about
    if not isinstance(first, Lesion) or not isinstance(second, Lesion) or before.organ != row.organ:
        return ""
    if first.side is None or first.side != second.side:
        return ""
    for side in (how.full[first.side], how.short[first.side]):
        if before.words.startswith(side) and row.words.startswith(side):
            return side
    return ""


def impression(house: House, sections: list[Section], extra: Lesion | None, title: str, wording: Wording) -> Text:
    """The impression that the facts and the house's habits give."""
    how = style(house, 0, wording == "unseen")
    text = Text()
    told = [lesion for section in sections for lesion in section.lesions if not lesion.kind.silent]
    told.sort(key=lambda lesion: (not lesion.critical, -lesion.severity))
    worst = max((lesion.severity for lesion in told), default=0)
    if told:
        _items(
            text,
            told,
            how,
            _numbering(house, sections),
            house.advice_texts[worst > 3] if house.advice == "inline" else "",
        )
    else:
        mark = house.numbering.marks[0] if house.numbering.single else ""
        text.add(mark + house.normal_impression.format(title))
    if extra:
        text.add("\n附见：")
        text.spans[id(extra)] = text.add(conclusion(extra, how))
        text.add("。")
    if house.advice == "always" or (house.advice in ("line", "field") and worst > 2):
        advice = house.advice_texts[worst > 3]
        text.add(advice if advice.startswith("\n") else f"\n{advice}")
    return text


def _numbering(house: House, sections: list[Section]) -> Numbering:
    return house.numbering_mr if house.numbering_mr and sections[0].exam.modality == "MR" else house.numbering


def _items(text: Text, told: list[Lesion], how: Style, numbering: Numbering, advice: str) -> None:
    """Lesions of severity 2 and more are an item each; minor ones share the last item."""
    major = [lesion for lesion in told if lesion.severity > 1]
    minor = [lesion for lesion in told if lesion.severity == 1]
    items = [[lesion] for lesion in major] + ([minor] if minor else [])
    inner = ";" if how.house.half_width else "；"
    for number, item in enumerate(items):
        if numbering.marks and (len(items) > 1 or numbering.single):
            text.add(numbering.marks[min(number, len(numbering.marks) - 1)])
        for position, lesion in enumerate(item):
            if position:
                text.add(inner)
            text.spans[id(lesion)] = text.add(conclusion(lesion, how))
        text.add(numbering.between if number + 1 < len(items) else advice + numbering.last)


def conclusion(lesion: Lesion, how: Style) -> str:
    """The statement of one lesion in the impression, without its number."""
    house = how.house
    words = render(lesion.impression, lesion, how)
    if house.size_in_impression and lesion.kind.echo and lesion.sizes:
        head, comma, tail = words.partition("，")
        words = f"{head}，约{size(house, lesion.sizes)}{comma}{tail}"
    for long, short in house.abbreviations:
        words = words.replace(long, short)
    return words.translate(_HALF_WIDTH) if house.half_width else words


def facts(
    sections: list[Section], extra: Lesion | None, told: Text, concluded: Text | None, house: House, wording: Wording
) -> tuple[Fact, ...]:
    """The truth values of what was written, in findings order, denied types last."""
    how = style(house, 0, wording == "unseen")
    lesions = [lesion for section in sections for lesion in section.lesions]
    if extra:
        lesions.append(extra)
    found = [fact for lesion in lesions for fact in _facts(lesion, told, concluded, how)]
    found += [_denied(kind, span) for kind, span in told.denied]
    return tuple(found)


def _facts(lesion: Lesion, told: Text, concluded: Text | None, how: Style) -> list[Fact]:
    kind = lesion.kind
    hedged = any(slot.startswith("H:") for slot in lesion.impression.slots)
    place = lesion.place.level if lesion.place else lesion.extra.get("B") or lesion.extra.get("T")
    levels: tuple[str | None, ...] = lesion.levels or (place,)
    measures = ((kind.m.unit, lesion.measure),) if kind.m and lesion.measure is not None else ()
    return [
        Fact(
            kind=kind.id,
            system=kind.system,
            structure=kind.structure,
            side=lesion.side,
            level=one,
            lesion=kind.lesion,
            polarity=True,
            certainty=how.hedges[kind.hedge][0] if hedged else 4,
            count=lesion.count,
            sizes_mm=tuple(float(value) for value in lesion.sizes),
            grade=lesion.grade or lesion.word or None,
            critical=lesion.critical,
            severity=lesion.severity,
            findings_span=told.spans.get(id(lesion)),
            impression_span=concluded.spans.get(id(lesion)) if concluded else None,
            measures=measures,
        )
        for one in levels
    ]


def _denied(id_: str, span: Span) -> Fact:
    kind = finding_types()[id_]
    return Fact(
        kind=kind.id,
        system=kind.system,
        structure=kind.structure,
        side=None,
        level=None,
        lesion=kind.lesion,
        polarity=False,
        certainty=0,
        count=None,
        sizes_mm=(),
        grade=None,
        critical=False,
        severity=1,
        findings_span=span,
        impression_span=None,
    )
