"""One text as a row of tokens: findings, structures, levels, sides, measurements and the words that change what a finding means.

A word inside a longer one of another kind is left out. What the row says is `clinical.scanner`'s to find out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clinical.cues import COMMA, CUES, SIDE
from clinical.lexicon import NOT_A_STRUCTURE, inside, lesion_gaps, lesion_terms, lesions, structure_terms

if TYPE_CHECKING:
    from clinical.facts import Reading

_GENERIC = frozenset({"limb", "head", "neck", "node"})


@dataclass(frozen=True, slots=True)
class Token:
    start: int
    end: int
    kind: str
    value: object


class _Cover:
    """Which characters a set of spans that do not overlap covers, and by which of them."""

    def __init__(self, length: int) -> None:
        self._by = [0] * length
        self._count = 0

    def add(self, start: int, end: int) -> None:
        self._count += 1
        self._by[start:end] = [self._count] * (end - start)

    def holds(self, start: int, end: int) -> bool:
        """Whether one span covers all of this one."""
        return self._by[start] != 0 and self._by[start] == self._by[end - 1]

    def exceeds(self, start: int, end: int) -> bool:
        """Whether one span covers all of this one and more."""
        by = self.by(start, end)
        return by != 0 and (self._at(start - 1) == by or self._at(end) == by)

    def _at(self, position: int) -> int:
        return self._by[position] if 0 <= position < len(self._by) else 0

    def by(self, start: int, end: int) -> int:
        """The number of the span (from 1) that covers all of this one; 0 for none."""
        return self._by[start] if self.holds(start, end) else 0

    def cut(self, start: int, end: int) -> int | None:
        """Where a span ends that covers the first characters of this one, begins before it and ends inside; None for none."""
        by = self._by[start]
        if by == 0 or self._at(start - 1) != by or self._by[end - 1] == by:
            return None
        return next(at for at in range(start, end) if self._by[at] != by)

    def begins_before(self, start: int) -> bool:
        """Whether one span covers this character and the one before it."""
        return self._by[start] != 0 and self._at(start - 1) == self._by[start]

    def touches(self, start: int, end: int) -> bool:
        return any(self._by[start:end])


def _named(plain: str, in_name: _Cover) -> list[tuple[int, int, str]]:
    """Findings by name; a term with a gap (`密度*减低`) takes the place of the terms that it overlaps, but of none that holds all of it.

    In 胆囊|肿大 the structure goes before the 囊肿 that reaches out of it, for a longer finding follows it.
    """
    terms = lesion_terms().find(plain)
    holding = _Cover(len(plain))
    for start, end, _ in terms:
        holding.add(start, end)
    gaps = [each for each in lesion_gaps().find(plain) if not holding.exceeds(each[0], each[1])]
    taken = _Cover(len(plain))
    for start, end, _ in gaps:
        taken.add(start, end)
    whole: list[tuple[int, int, str]] = []
    for start, end, lesion in terms:
        if taken.touches(start, end):
            continue
        border = in_name.cut(start, end)
        behind = [] if border is None else lesion_terms().find(plain[border : border + _LONGEST])[:1]
        if border is not None and behind and behind[0][0] == 0 and border + behind[0][1] > end:
            start, end, lesion = border, border + behind[0][1], behind[0][2]
        whole.append((start, end, lesion))
    return sorted(whole + gaps)


_LONGEST = 16  # characters of a term
_OTHER_HALF = re.compile(r"[、,及和与](?P<side>[左右])侧?(?=[支叶])")
_HALVES = ("abdomen/liver", "abdomen/portal_vein", "neck/thyroid")


def _elsewhere(lesion: str, path: str) -> bool:
    """Whether a structure inside the name of a finding is not where that finding is."""
    place = (lesions()[lesion].place or "").lstrip("!")
    return bool(place) and not inside(path, place) and not inside(place, path)


def _other_half(text: str, end: int, path: str) -> Token | None:
    """`门静脉主干及左支`, `甲状腺左叶、右叶`: half of the organ named right before it."""
    organ = next((each for each in _HALVES if inside(path, each)), None)
    match = _OTHER_HALF.match(text, end)
    if organ is None or match is None:
        return None
    half = "left" if match["side"] == "左" else "right"
    return Token(match.start("side"), match.end() + 1, "place", f"{organ}/{half}")


def tokens(reading: Reading) -> list[Token]:
    """Everything that means something, in order."""
    text = reading.masked
    found = [Token(level.start, level.end, "level", level) for level in reading.levels]
    blank = list(text)
    for level in reading.levels:
        blank[level.start : level.end] = "\x00" * (level.end - level.start)
    plain = "".join(blank)
    in_finding, in_name = _Cover(len(plain)), _Cover(len(plain))
    structures = structure_terms().find(plain)
    in_other = _Cover(len(plain))
    for start, end, path in structures:
        in_name.add(start, end)
        if path == NOT_A_STRUCTURE:
            in_other.add(start, end)
    named = [
        (start, end, lesion)
        for start, end, lesion in _named(plain, in_name)
        if not in_name.exceeds(start, end) and not in_other.begins_before(start)  # 跟骨结节, 越过|中线移位
    ]
    for start, end, lesion in named:
        in_finding.add(start, end)
        found.append(Token(start, end, "lesion", lesion))
    before = ""
    for start, end, path in structures:
        if path == "neck" and before.startswith(("abdomen", "limb")):
            continue  # 胆囊增大，颈部见结石: the neck of what was named before
        before = path
        vertebral = plain[start:end] == "附件" and "椎" in plain[max(0, start - 12) : start]
        holder = in_finding.by(start, end)
        # 软组织影, 脑出血, 甲状腺相关眼病 name no place of their own
        generic = holder > 0 and (path in _GENERIC or _elsewhere(named[holder - 1][2], path))
        if path != NOT_A_STRUCTURE and not vertebral and not generic:
            found.append(Token(start, end, "place", path))
            half = _other_half(plain, end, path)
            if half is not None:
                in_name.add(half.start, half.end)
                found.append(half)
    for match in CUES.finditer(plain):
        kind = str(match.lastgroup)
        if kind != "skip" and not (kind in ("neg", "post") and in_finding.holds(*match.span())):  # 未见显影: a finding
            found.append(Token(match.start(), match.end(), kind, match[0]))
    for match in SIDE.finditer(text):
        if not in_name.holds(*match.span()):  # 左心房: the side is part of the name
            found.append(Token(match.start(), match.end(), "side", match.lastgroup))
    found.extend(Token(measure.start, measure.end, "measure", measure) for measure in reading.measures)
    if reading.chinese:
        found.extend(Token(m.start(), m.end(), "comma", m[0]) for m in COMMA.finditer(plain))
    found.sort(key=lambda token: (token.start, token.end))
    return found
