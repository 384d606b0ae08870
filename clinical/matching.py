"""Which findings stand behind which statements of an impression, and what is left over on both sides.

A finding and a statement of the same thing at the same place belong together. What is left over is paired by place alone where one of
the two is no more than a sign or was not understood: a vocabulary never holds every word for a shadow, and silence is better than a
false alarm. What the leftovers mean is `clinical.rules.support`'s to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clinical.compare import same_place
from clinical.facts import Fact, Place, Reading
from clinical.lexicon import inside, kinship, lesions, same_finding
from clinical.signs import CONSEQUENCES, VAGUE, apart, overlap, stated_in

Span = tuple[int, int]
Links = tuple[tuple[Fact, tuple[Fact, ...]], ...]


@dataclass(frozen=True, slots=True)
class Matching:
    """`behind`: each positive statement and its findings; `told`: each positive finding and the statements that cover it.

    `rivals`: how near the statements come to each finding, `sources`: how near the findings come to each statement.
    `excused` are clauses of the impression, `tacit` clauses of the findings, that stand at one place and were not understood as one thing.
    """

    behind: Links
    told: Links
    rivals: Mapping[Fact, Rivals]
    sources: Mapping[Fact, Rivals]
    excused: frozenset[Span]
    tacit: frozenset[Span]


def supports(finding: Fact, stated: Fact) -> bool:
    """Whether a finding can be what a statement of the impression rests on."""
    if not finding.polarity or apart(finding, stated):
        return False
    if not overlap(finding, stated) and not goes_without_place(finding, stated):
        return False
    if not finding.places and stated.places and finding.severity <= 1 and finding.lesion != stated.lesion:
        return False
    near = kinship(finding.lesion, stated.lesion)
    if near in (1, 2) and finding.lesion in VAGUE and finding.places and stated.places:
        return _closeness(finding, stated) > (1 if finding.lesion in CONSEQUENCES else 0)
    return near > 0


def match(findings: Reading, impression: Reading) -> Matching:
    theirs = [fact for fact in stated_in(findings) if fact.polarity]
    mine = [fact for fact in stated_in(impression) if fact.polarity]
    links = {(f, d): Link(f, d) for f in theirs for d in mine if supports(f, d)}
    by_finding: dict[Fact, Rivals] = {}
    by_statement: dict[Fact, Rivals] = {}
    own: dict[Fact, list[Link]] = {}
    for link in links.values():
        by_finding.setdefault(link.finding, Rivals()).add(link, impression.statement_at(link.stated.span[0]))
        by_statement.setdefault(link.stated, Rivals()).add(link, findings.statement_at(link.finding.span[0]))
        own.setdefault(link.stated, []).append(link)
    behind = tuple(
        (d, tuple(k.finding for k in own.get(d, ()) if not _borrowed(k, by_finding[k.finding], impression)))
        for d in mine
    )
    told = tuple(
        (
            f,
            tuple(
                d
                for d in mine
                if _covers(d, f) and not ((k := links.get((f, d))) and _stretched(k, by_statement[d], findings))
            ),
        )
        for f in theirs
    )
    settled = {d.clause for d, by in behind if by}
    covered = {f.clause for f, by in told if by}
    idle = [d for d in mine if d.clause not in settled]
    open_signs = [f for f in theirs if f.clause not in covered]
    unread = _unread(findings)
    excused: set[Span] = set()
    tacit: set[Span] = set()
    for stated in idle:
        here = [f for f in open_signs if f.severity <= 1 and not apart(f, stated) and _at(f.places, stated.places)]
        if here:
            excused.add(stated.clause)
            tacit.update(f.clause for f in here)
        elif any(_at((place,), stated.places) for place in unread):
            excused.add(stated.clause)
    return Matching(behind, told, by_finding, by_statement, frozenset(excused), frozenset(tacit))


_SPACES = frozenset({"chest/pleura", "chest/mediastinum", "head/ventricle", "head/midline", "abdomen/subphrenic"})
"""Spaces that reports seldom name when they describe what fills or moves them."""


def goes_without_place(finding: Fact, stated: Fact) -> bool:
    """A name that says where it is (pneumothorax, hydrocephalus) has its own signs anywhere in that region, on a side that fits."""
    place = lesions()[stated.lesion].place
    if place not in _SPACES or kinship(finding.lesion, stated.lesion) < 2:
        return False
    sides_fit = not finding.sides or not stated.sides or bool(finding.sides & stated.sides)
    region = str(place).partition("/")[0]
    return sides_fit and any(inside(each.path, region) for each in finding.places)


class Link:
    """A finding and a statement that may be about one thing.

    How near in name (3 to 1) and in place (3 the very same, 2 nested, 1 on other sides, 0 related).
    """

    __slots__ = ("finding", "name", "place", "stated")

    def __init__(self, finding: Fact, stated: Fact) -> None:
        self.finding, self.stated = finding, stated
        self.name = kinship(finding.lesion, stated.lesion)
        self.place = _closeness(finding, stated)

    def beaten_by(self, name: int, place: int) -> bool:
        """Whether a link of that nearness is nearer in name and not further in place."""
        return name > self.name and name > 1 and place >= self.place


class Rivals:
    """How near the links of one finding, or of one statement, come in name and place, and in which sentences: a dozen kinds, however many
    links there are."""

    __slots__ = ("_sentences",)

    def __init__(self) -> None:
        self._sentences: dict[tuple[int, int], set[int]] = {}

    def add(self, link: Link, sentence: int) -> None:
        self._sentences.setdefault((link.name, link.place), set()).add(sentence)

    def within(self, sentence: int) -> list[tuple[int, int]]:
        """(name, place) of the links in a sentence."""
        return [near for near, there in self._sentences.items() if sentence in there]

    def beyond(self, sentence: int) -> list[tuple[int, int]]:
        """(name, place) of the links in other sentences."""
        return [near for near, there in self._sentences.items() if len(there) > (sentence in there)]


def _closeness(finding: Fact, stated: Fact) -> int:
    near = 0
    for a in finding.places:
        for b in stated.places:
            if inside(a.path, b.path) or inside(b.path, a.path):
                near = max(near, 1 + (a.sides == b.sides) + (a.path == b.path and a.sides == b.sides))
    return near


def _borrowed(link: Link, rivals: Rivals, impression: Reading) -> bool:
    """Two steps away from a statement, while another one names the finding: a swollen scalp is no subdural haematoma."""
    if link.name != 1:
        return False
    return any(link.beaten_by(*near) for near in rivals.beyond(impression.statement_at(link.stated.span[0])))


def _stretched(link: Link, rivals: Rivals, findings: Reading) -> bool:
    """The statement has a nearer finding in another sentence; one that counts many covers all that it names."""
    if link.name > 1 and link.stated.count is not None:
        return False
    here = findings.statement_at(link.finding.span[0])
    if any(near[0] > link.name and not link.beaten_by(*near) for near in rivals.within(here)):
        return False
    return any(link.beaten_by(*near) for near in rivals.beyond(here))


def _covers(stated: Fact, finding: Fact) -> bool:
    """A finding whose very name says where it is (moyamoya, pneumothorax) is covered wherever the impression puts it."""
    if supports(finding, stated):
        return True
    here = not finding.sides or not stated.sides or bool(finding.sides & stated.sides)
    if not here or apart(finding, stated):
        return False
    if finding.lesion == stated.lesion and lesions()[finding.lesion].place is not None:
        return True
    return finding.severity == 0 and same_place(finding, stated) and same_finding(finding.lesion, stated.lesion)


def _at(places: tuple[Place, ...], others: tuple[Place, ...]) -> bool:
    """The same structure or one inside the other, both more than a region of the body, sides that do not exclude each other."""
    return any(
        "/" in a.path
        and "/" in b.path
        and (inside(a.path, b.path) or inside(b.path, a.path))
        and (not a.sides or not b.sides or bool(a.sides & b.sides))
        for a in places
        for b in others
    )


def _unread(reading: Reading) -> list[Place]:
    """Structures of clauses that neither call them normal nor say anything that the vocabulary knows."""
    said = bytearray(len(reading.raw) + 1)
    for start, end in {fact.clause for fact in reading.facts}:
        said[start:end] = b"\x01" * (end - start)
    return [
        place for place, normal in reading.places if not normal and not said[reading.span(place.start, place.end)[0]]
    ]
