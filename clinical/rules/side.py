"""The side of a structure in the impression against the side in the findings.

Silent where the findings have the same thing without a side, and where a structure is only mentioned in passing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from clinical.context import Context
from clinical.facts import BOTH, Fact, Place
from clinical.issues import Issue, Kind, Severity
from clinical.lexicon import inside, kinship, organ_of, related, same_finding, sign_of, structures
from clinical.signs import apart, overlap, stated_in

_SIDE_WORDS = {frozenset("L"): "左侧", frozenset("R"): "右侧", BOTH: "双侧"}
_SIDE_ENGLISH = {frozenset("L"): "left", frozenset("R"): "right", BOTH: "both sides"}


def _hits(place: Place, fact: Fact) -> list[Place]:
    return [other for other in fact.places if related(place.path, other.path)]


class _Seen:
    """The positive findings, the positive statements, and how they stand to each other: computed once for all statements."""

    def __init__(self, context: Context) -> None:
        self.spoken_for = context.named_elsewhere
        self.positive = [fact for fact in stated_in(context.findings) if fact.polarity]
        self.stated = [fact for fact in stated_in(context.impression) if fact.polarity]
        self._company = _company(self.positive)
        self._told: dict[Fact, bool] = {}

    def free_for(self, fact: Fact) -> list[Fact]:
        """Findings that a statement can mean: no mere sign of something else that the same sentence names."""
        return [f for f in self.positive if not _explained(self._company.get(f, []), fact)]

    def told(self, finding: Fact) -> bool:
        """Whether any statement can be about a finding: in that organ, on its side."""
        if finding not in self._told:
            self._told[finding] = any(
                overlap(finding, d) or _in_one_organ(finding, d)
                for d in self.stated
                if kinship(finding.lesion, d.lesion)
            )
        return self._told[finding]


def side(context: Context) -> Iterator[Issue]:
    """The side of a structure contradicts the findings; both for one is red, one for both amber."""
    seen = _Seen(context)
    for fact in stated_in(context.impression):
        for place in fact.places:
            if not fact.polarity or not place.sides:
                continue
            if structures()[place.path].never_sided and place.said_side is not None:
                yield from _side_on_midline(context, place)
                continue
            yield from _side_of(context, place, fact, seen)
    yield from _other_side(context)


def _side_of(context: Context, place: Place, fact: Fact, seen: _Seen) -> Iterator[Issue]:
    free = [f for f in seen.free_for(fact) if not apart(f, fact)]
    same = [f for f in free if same_finding(f.lesion, fact.lesion)]
    named = [f for f in same if f.lesion == fact.lesion]
    same = named if _sided(place, named) else same
    worst = [f for f in same if f.emphasis and _near(f, place)]
    same = [f for f in same if f.emphasis == (fact.emphasis and bool(worst))] or same
    found = _sided(place, same)
    exact = bool(found)
    if not found:
        signs = [f for f in free if sign_of(f.lesion, fact.lesion) and not context.named_elsewhere(f, fact)]
        found = _sided(place, signs)
    if _unsided(place, fact, seen.positive):
        return
    if not found:
        # the finding is not understood, the structure is: every mention of it on the other side, and none on this one
        mentions = [
            (p, normal)
            for p, normal in context.findings.places
            if p.sides and (inside(p.path, place.path) or inside(place.path, p.path))
        ]
        spoken_for = {p for f in seen.positive for p in f.places if context.named_elsewhere(f, fact)}
        mentions = [(p, normal) for p, normal in mentions if p not in spoken_for]
        unhealthy: list[tuple[Place, Fact | None]] = [(p, None) for p, normal in mentions if not normal]
        found = unhealthy or [(p, None) for p, _ in mentions if place.sides != BOTH]
    if not found:
        return
    sides = frozenset().union(*(p.sides for p, _ in found))
    signs = [
        f for f in free if f.severity == 0 and sign_of(f.lesion, fact.lesion) and not context.named_elsewhere(f, fact)
    ]
    if fact.emphasis and worst:
        signs = [f for f in signs if f.emphasis]
    if any(inside(q.path, place.path) and (place.sides - sides) & q.sides for f in signs for q in f.places):
        return
    if not sides & place.sides:
        yield _side_issue(context, Severity.RED, "side.contradiction", place, found[0][0], sides)
    elif place.sides == BOTH and sides != BOTH:
        yield _side_issue(context, Severity.RED, "side.widened", place, found[0][0], sides)
    elif exact and len(place.sides) == 1:
        compared = set(same)
        other = _narrowed(seen, place, fact, same, worst, [f for f in signs if f not in compared and not f.emphasis])
        if other is not None:
            yield _side_issue(context, Severity.AMBER, "side.narrowed", place, other, BOTH)


def _narrowed(
    seen: _Seen, place: Place, fact: Fact, same: list[Fact], worst: list[Fact], signs: list[Fact]
) -> Place | None:
    """Where the findings have on both sides what the impression has on one, in all that it says; None where one side is fair."""
    here = [(f, [p for p in f.places if p.sides and _nested(p, place)]) for f in same]
    here = [(f, near) for f, near in here if near]
    beside = _nested
    wide = [(f, near) for f, near in here if _all_sides(near) == BOTH]
    if not wide:  # 左侧额部及右侧额部颅板下: at its neighbours as well
        beside = _beside
        around = [(f, [p for p in f.places if p.sides and _beside(p, place)]) for f, _ in here]
        wide = [(f, near) for f, near in around if _all_sides(near) == BOTH]
    both = {f for f, _ in wide}
    alone = [(f, near) for f, near in here if _all_sides(near) == place.sides and f not in both]
    alone = [(f, near) for f, near in alone if not seen.spoken_for(f, fact)]
    opposite = {(g.lesion, q.path): g for g, far in here for q in far if not q.sides & place.sides}
    mirrors = (opposite.get((f.lesion, p.path)) for f, near in alone for p in near)
    mirrored = not wide and any(g is not None and not seen.told(g) for g in mirrors)
    if not wide and not mirrored:
        return None
    if alone and not mirrored:  # one of them is described apart
        return None
    if fact.emphasis and not any(p.path == place.path for _, near in wide for p in near):
        return None
    # 两肺结节，大者位于右肺上叶: the one in the right upper lobe is fair
    deeper = all(p.path != place.path for _, near in wide for p in near)
    if deeper and any(f.sides == place.sides and _near(f, place) for f in worst):
        return None
    if any(_nested(q, place) and q.sides == place.sides for f in signs for q in f.places):
        return None
    alike = [d for d in seen.stated if d.emphasis == fact.emphasis and _alike(d.lesion, fact.lesion)]
    if _all_sides([p for d in alike for p in d.places if beside(p, place)]) == BOTH:
        return None
    first = wide or here
    return next((p for p in first[0][1] if p.sides != place.sides), first[0][1][0])


def _beside(one: Place, other: Place) -> bool:
    return related(one.path, other.path)


def _all_sides(places: list[Place]) -> frozenset[str]:
    return frozenset().union(*(place.sides for place in places))


def _in_one_organ(one: Fact, other: Fact) -> bool:
    organs = {(organ_of(p.path), side) for p in one.places for side in p.sides}
    return any((organ_of(p.path), side) in organs for p in other.places for side in p.sides)


_FOCAL = frozenset({"nodule", "ggo_nodule", "calcified_nodule", "mass"})


def _alike(lesion: str, other: str) -> bool:
    """Whether one of several findings of one kind may be told by this name and another by that one."""
    return kinship(lesion, other) == 3 or {lesion, other} <= _FOCAL


def _near(fact: Fact, place: Place) -> bool:
    return any(_nested(p, place) for p in fact.places)


def _other_side(context: Context) -> Iterator[Issue]:
    """The findings speak of one side only, the impression of the other one at a structure that they do not mention without a side."""
    theirs = [token for token in context.findings.tokens if token.kind == "side"]
    only = {str(token.value) for token in theirs}
    if len(only) != 1 or only == {"B"}:
        return
    there = theirs[0]
    unsided = [p for p, _ in context.findings.places if not p.sides and "/" in p.path]
    for token in context.impression.tokens:
        if token.kind != "side" or token.value in ("B", *only) or _in_advice(context, token.start):
            continue
        said = [p for p, _ in context.impression.places if p.said_side and p.said_side[0] == token.start]
        if any(related(p.path, other.path) for p in said for other in unsided):
            continue
        place = said[0] if said else Place("", frozenset(), token.start, token.end, (token.start, token.end))
        found = Place("", frozenset(), there.start, there.end)
        yield _side_issue(context, Severity.RED, "side.other", place, found, frozenset(only))


def _in_advice(context: Context, position: int) -> bool:
    return any(s.advice and s.start <= position < s.end for s in context.impression.statements)


def _nested(one: Place, other: Place) -> bool:
    return inside(one.path, other.path) or inside(other.path, one.path)


def _company(positive: list[Fact]) -> dict[Fact, list[Fact]]:
    """Each mere sign, and the named findings at its very places within a sentence or so."""
    found: dict[Fact, list[Fact]] = {}
    named = [fact for fact in positive if fact.severity > 1]
    starts = [fact.clause[0] for fact in named]
    for sign in positive:
        if sign.severity == 0:
            first, last = (
                bisect_left(starts, sign.clause[0] - _COMPANY + 1),
                bisect_left(starts, sign.clause[0] + _COMPANY),
            )
            near = (other for other in named[first:last] if other.places == sign.places)
            found[sign] = [other for other in near if kinship(sign.lesion, other.lesion)]
    return found


_COMPANY = 60  # characters


def _explained(company: list[Fact], fact: Fact) -> bool:
    """Whether a sign describes another finding that the same sentence names: the round shadow of a mass is no cyst."""
    return any(not same_finding(other.lesion, fact.lesion) for other in company)


def _sided(place: Place, facts: list[Fact]) -> list[tuple[Place, Fact | None]]:
    """Places of these facts that have a side: those at the very structure before its neighbours in the vocabulary."""
    found: list[tuple[Place, Fact | None]] = [
        (other, fact) for fact in facts for other in _hits(place, fact) if other.sides and _specific(place, other)
    ]
    near = [(other, fact) for other, fact in found if inside(other.path, place.path)]
    if place.sides == BOTH and near:
        # 左侧额颞部及右侧额部颅板下: one finding at several structures is on both sides as a whole
        near += [
            (other, fact)
            for _, fact in near
            if fact is not None
            for other in fact.places
            if other.sides and related(other.path, place.path)
        ]
    lesions = {fact.lesion for _, fact in near if fact is not None}
    wide = [
        (other, fact)
        for other, fact in found
        if inside(place.path, other.path) and (not lesions or (fact is not None and fact.lesion in lesions))
    ]
    return (
        near + wide
        if near and wide and len(place.sides) == 1 and not near[0][0].sides & place.sides
        else near or wide or found
    )


def _specific(place: Place, other: Place) -> bool:
    """Whether two names are close enough for a side to count: 颈部 and 颌下腺 are not, nor is any neighbour of a whole region."""
    return place.path == other.path or ("/" in place.path and "/" in other.path)


def _unsided(place: Place, fact: Fact, positive: list[Fact]) -> bool:
    """Whether the findings have the same finding at the same structure without a side: then nothing can be contradicted."""
    for other in positive:
        if not same_finding(other.lesion, fact.lesion):
            continue
        hits = [hit for hit in other.places if inside(hit.path, place.path) or inside(place.path, hit.path)]
        if any(structures()[hit.path].paired for hit in hits) and not any(hit.sides for hit in hits):
            return True
    return False


def _side_on_midline(context: Context, place: Place) -> Iterator[Issue]:
    """A side on an organ that has none, unless the findings write it too."""
    known = structures()[place.path]
    if (
        known.path not in ("abdomen/gallbladder", "abdomen/spleen", "abdomen/stomach", "abdomen/bowel/appendix")
        or place.said_side is None
    ):
        return
    if place.start - place.said_side[1] > 0 or place.said_side[0] > place.start:
        return
    if any(p.path == place.path and p.sides for p, _ in context.findings.places):
        return
    span = context.impression.span(place.said_side[0], place.end)
    quoted = context.impression.quote(span)
    yield Issue(
        Kind.SIDE,
        Severity.RED,
        None,
        span,
        context.say(f"“{quoted}”：该器官不分左右", f"“{quoted}”: this organ has no side"),
        "side.midline",
    )


def _side_issue(
    context: Context, severity: Severity, rule: str, place: Place, found: Place, sides: frozenset[str]
) -> Issue:
    start, end = place.said_side if place.said_side is not None else (place.start, place.end)
    span = context.impression.span(min(start, place.start), max(end, place.end))
    there = found.said_side if found.said_side is not None else (found.start, found.end)
    if abs(found.start - there[0]) > 40:
        there = (found.start, found.end)  # the side was inherited from far ahead
    span_findings = context.findings.span(min(there[0], found.start), max(there[1], found.end))
    quoted = context.impression.quote(span)
    message = context.say(
        f"意见写“{quoted}”，所见对应的是{_SIDE_WORDS.get(sides, '双侧')}（“{context.findings.quote(span_findings)}”）",
        f"The impression says “{quoted}”, the findings say {_SIDE_ENGLISH.get(sides, 'both sides')} (“{context.findings.quote(span_findings)}”)",
    )
    return Issue(Kind.SIDE, severity, span_findings, span, message, rule)
