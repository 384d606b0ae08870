"""Vertebrae, discs, ribs, segments, lobes and teeth of the impression against those of the findings."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from clinical.compare import same_place
from clinical.context import Context
from clinical.facts import Fact, Place
from clinical.issues import Issue, Kind, Severity
from clinical.levels import Level
from clinical.lexicon import inside, kinship, rivals, same_finding, sign_of, structures
from clinical.signs import GENERAL, VAGUE, stated_in, telling_kin


def level(context: Context) -> Iterator[Issue]:
    """A vertebra, disc, rib, segment or lobe that the findings do not have for this finding."""
    theirs = [fact for fact in stated_in(context.findings) if fact.polarity]
    mentioned = context.findings.levels
    everywhere = frozenset().union(*(m.names | m.loose for m in mentioned)) if mentioned else frozenset()
    by_clause: dict[tuple[int, int], list[Fact]] = {}
    for fact in context.impression.facts:
        by_clause.setdefault(fact.clause, []).append(fact)
    clauses = sorted(by_clause)
    for mention in context.impression.levels:
        at = context.impression.span(mention.start, mention.end)[0]
        clause = clauses[max(0, bisect_right(clauses, (at, len(context.impression.raw))) - 1)] if clauses else (0, -1)
        here = by_clause[clause] if clause[0] <= at <= clause[1] else []
        own = [f for f in here if mention.names & f.levels]
        if any(f.advice for f in own):
            continue
        kind = _kind_of_level(mention)
        stated = [mine for mine in own if mine.polarity]
        same = [
            f for mine in stated for f in theirs if same_finding(f.lesion, mine.lesion) and _comparable(f, mine, kind)
        ]
        understood = stated and not any(d.lesion in GENERAL or d.clause in context.matching.excused for d in stated)
        if understood and not same:
            continue  # not at another level, but nowhere: unsupported
        same = _nearest(same, stated, kind)
        names = frozenset(name for f in same for name in f.levels | f.loose_levels if _kind(name) == kind)
        other_words = frozenset(n for f in same for n in f.levels if all(f.lesion != mine.lesion for mine in stated))
        allowed = names | _beside(other_words) or everywhere
        if not (mention.names <= allowed or (mention.loose and mention.loose <= allowed)):
            yield _level_issue(context, mention, sorted(mention.names - allowed), mentioned)
        elif understood:
            yield from _narrowed(context, mention, stated, same, kind)
    yield from _lobes(context, theirs)


_PARTS = ("spine/process", "spine/endplate", "spine/ligament", "spine/facet")


def _nearest(same: list[Fact], stated: list[Fact], kind: str) -> list[Fact]:
    """Of the findings that may be what is stated: those with a level at the same part of a vertebra, then those that tell more than a shadow."""
    levelled = [f for f in same if any(_kind(name) == kind for name in f.levels)]
    parts = {part for part in _PARTS for d in stated for p in d.places if inside(p.path, part)}
    there = [f for f in levelled if any(inside(p.path, part) for p in f.places for part in parts)]
    named = {d.lesion for d in stated}
    vague = frozenset(f.lesion for f in levelled if f.lesion in VAGUE and f.lesion not in named)
    if there or kind != "spine" or vague == {f.lesion for f in levelled}:
        return there or same
    return [f for f in same if f.lesion not in vague]


def _narrowed(context: Context, mention: Level, stated: list[Fact], same: list[Fact], kind: str) -> Iterator[Issue]:
    """One run of levels in the findings (腰2/3-腰5/骶1椎间盘突出) of which the impression, in all that it says, leaves some out."""
    for mine in stated:
        near = max((kinship(f.lesion, mine.lesion) for f in same), default=0)
        runs = [f for f in same if kinship(f.lesion, mine.lesion) == near > 1 and mention.names < f.levels]
        runs = [f for f in runs if f.lesion not in VAGUE]
        if not runs or any(mention.names == f.levels for f in same):
            continue
        others = [d for d in stated_in(context.impression) if d.polarity and kinship(d.lesion, mine.lesion) > 1]
        if any(not d.levels and same_place(d, mine) for d in others):
            return
        said = frozenset().union(*(d.levels | d.loose_levels for d in others))
        lost = {name for name in runs[0].levels if _kind(name) == kind} - said
        if lost:
            yield _range_issue(context, mention, runs[0], sorted(lost))
            return


def _comparable(finding: Fact, stated: Fact, kind: str) -> bool:
    """At a level of this kind, or at the same structure as what is stated."""
    return any(_kind(name) == kind for name in finding.levels | finding.loose_levels) or same_place(finding, stated)


def _beside(names: frozenset[str]) -> frozenset[str]:
    """The vertebrae on both sides of the discs: a spondylodiscitis at L2/3 is one of L2 and L3."""
    discs = [name.partition("/") for name in names if "/" in name]
    return frozenset(
        bone for upper, _, lower in discs for bone in (upper, lower if lower[:1].isalpha() else upper[0] + lower)
    )


def _kind(name: str) -> str:
    for prefix in ("rib", "seg", "zone", "tooth"):
        if name.startswith(prefix):
            return prefix
    return "spine" if name[:1] in "CTLS" else "artery"


def _kind_of_level(mention: Level) -> str:
    return _kind(next(iter(sorted(mention.names))))


def _level_issue(context: Context, mention: Level, wrong: list[str], mentioned: list[Level]) -> Issue:
    span = context.impression.span(mention.start, mention.end)
    kind = _kind_of_level(mention)
    near = next((m for m in mentioned if _kind_of_level(m) == kind), None)
    span_findings = None if near is None else context.findings.span(near.start, near.end)
    quoted, listed = context.impression.quote(span), "、".join(wrong)
    there = "" if span_findings is None else context.findings.quote(span_findings)
    message = context.say(
        f"意见写“{quoted}”，所见" + (f"为“{there}”，没有{listed}" if there else f"没有{listed}"),
        f"The impression says “{quoted}”; {listed} is not in the findings" + (f" (“{there}”)" if there else ""),
    )
    return Issue(Kind.LEVEL, Severity.RED, span_findings, span, message, "level.absent")


def _range_issue(context: Context, mention: Level, there: Fact, lost: list[str]) -> Issue:
    span = context.impression.span(mention.start, mention.end)
    here, quoted, listed = context.impression.quote(span), context.findings.quote(there.clause), "、".join(lost)
    message = context.say(
        f"意见写“{here}”，所见“{quoted}”还有{listed}", f"The impression says “{here}”; “{quoted}” has {listed} as well"
    )
    return Issue(Kind.LEVEL, Severity.AMBER, there.clause, span, message, "level.narrowed")


def _lobes(context: Context, theirs: list[Fact]) -> Iterator[Issue]:
    """The same finding in a sibling lobe or segment, and nothing in the one that the draft names."""
    mentioned = {place.path for place, _ in context.findings.places}
    for fact in stated_in(context.impression):
        if not fact.polarity or (fact.lesion in GENERAL and fact.lesion != "postoperative"):
            continue
        for place in fact.places:
            others = [f for f in theirs if not context.named_elsewhere(f, fact)]
            other = _in_a_sibling(fact, place, others, mentioned)
            if other is None:
                continue
            span, span_findings = (
                context.impression.span(place.start, place.end),
                context.findings.span(other.start, other.end),
            )
            quoted, there = context.impression.quote(span), context.findings.quote(span_findings)
            sided = _halves(place, other)
            message = context.say(
                f"意见写“{quoted}”，所见为“{there}”", f"The impression says “{quoted}”, the findings say “{there}”"
            )
            yield Issue(
                Kind.SIDE if sided else Kind.LEVEL,
                Severity.RED,
                span_findings,
                span,
                message,
                "side.lobe" if sided else "level.sibling",
            )
            break


def _in_a_sibling(fact: Fact, place: Place, theirs: list[Fact], mentioned: set[str]) -> Place | None:
    """Where the findings have what is stated, when that is a sibling of the place stated and never this place.

    The nearest of kin decide: a lesion in the lower lobe is not found in the upper one because the whole lung has emphysema. What
    the organ has as a whole speaks for a lobe only as long as no sibling has it, or the findings mention (`mentioned`) this lobe as well.
    """
    kin = telling_kin([f for f in theirs if kinship(f.lesion, fact.lesion) or sign_of(f.lesion, fact.lesion)])
    if any(inside(other.path, place.path) and _lies(place, other) for f in kin for other in f.places):
        return None
    known = any(inside(path, place.path) for path in mentioned)
    for near in (3, 2, 1):
        there = [other for f in kin if kinship(f.lesion, fact.lesion) == near for other in f.places]
        sibling = next(
            (
                other
                for other in there
                if rivals(other.path, place.path) and (_halves(place, other) or _one_side(place, other))
            ),
            None,
        )
        whole = any(_lies(place, other) for other in there)
        if whole and (sibling is None or known or near == 1):
            return None
        if sibling is not None:
            return sibling if near > 1 else None
    return None


def _halves(place: Place, other: Place) -> bool:
    """Left and right lobe of one organ, whose sides are in their names."""
    return all(path.rpartition("/")[2] in ("left", "right") for path in (place.path, other.path))


def _one_side(place: Place, other: Place) -> bool:
    return not place.sides or not other.sides or bool(place.sides & other.sides)


def _lies(place: Place, other: Place) -> bool:
    """The same structure or a part of it, or the organ as a whole, on a side that fits."""
    whole = inside(place.path, other.path) and place.path != other.path and not structures()[other.path].exclusive
    return _one_side(place, other) and (inside(other.path, place.path) or (whole and "/" in other.path))
