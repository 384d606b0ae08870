"""How many of a finding both texts count.

Speaks only where both count, or where the findings describe a single thing beyond doubt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from clinical.context import Context
from clinical.facts import BOTH, Fact
from clinical.issues import Issue, Kind, Severity
from clinical.lexicon import kinship, same_finding
from clinical.matching import supports
from clinical.measures import lowered, masked
from clinical.signs import apart, overlap, stated_in, within
from clinical.text import normalise

_PLURAL = re.compile(
    r"[多数各诸余两双]|均(?!匀)|散在|弥漫|[2-9二三四五六七八九十][枚个处颗]|大者|较大|最大|分别|及|(?<!\x00)、|和|病灶|some|several|multiple|largest"
)


def _one_thing(context: Context, stated: Fact, facts: list[Fact]) -> Fact | None:
    """The one finding behind a statement when it is told as a single thing: one size or vertebra, and no word of more than one."""
    facts = [f for f in facts if f.severity > 0] or facts
    sentences = {context.findings.statement_at(fact.span[0]) for fact in facts}
    places = {(fact.structures, fact.levels) for fact in facts}
    if len(sentences) != 1 or len(places) != 1 or any(fact.count for fact in facts):
        return None
    sides = frozenset().union(*(fact.sides for fact in facts))
    sizes = {context.findings.span(m.start, m.end) for fact in facts for m in fact.sizes if m.unit == "mm"}
    start, end = facts[0].clause[0], max([facts[0].clause[1], *(stop for _, stop in sizes)])
    if not sizes:
        start, end = context.findings.sentence_around(facts[0].clause)
    singular = len(sizes) == 1 or (not sizes and len(facts[0].levels) == 1)
    if (
        not singular
        or sides == BOTH
        or _PLURAL.search(masked(lowered(normalise(context.findings.raw[start:end]).text)))
    ):
        return None
    return facts[0]


def _on_both_sides(stated: Fact, facts: list[Fact]) -> Fact | None:
    """A finding that is in both lungs, kidneys or hemispheres, and so no single one."""
    if len(stated.sides) == 1:
        return None
    return next((f for f in facts if f.sides == BOTH and not f.emphasis), None)


def count(context: Context) -> Iterator[Issue]:
    """One for many, many for one, or another number."""
    theirs = [fact for fact in stated_in(context.findings) if fact.polarity]
    for fact in stated_in(context.impression):
        if fact.count is None or not fact.polarity:
            continue
        same = [f for f in theirs if same_finding(f.lesion, fact.lesion) and overlap(f, fact) and not apart(f, fact)]
        same = [f for f in same if f.levels & fact.levels] or same
        counts = {f.count for f in same} - {None}
        many_there = bool(counts - {"one", "1"})
        if fact.count in ("one", "1"):
            wrong = many_there and not counts & {"one", "1"}
        elif fact.count == "many":
            wrong = bool(counts) and not many_there and len(same) == 1
        else:
            wrong = bool(counts) and fact.count not in counts and "many" not in counts and len(same) == 1
        uncounted = None
        if not counts and fact.count in ("many", "one", "1"):
            near = within if fact.count == "many" else overlap
            behind = [f for f in theirs if supports(f, fact) and near(f, fact) and not context.named_elsewhere(f, fact)]
            behind = [f for f in behind if f.levels & fact.levels] or behind
            nearest = max((kinship(f.lesion, fact.lesion) for f in behind), default=0)
            behind = [f for f in behind if kinship(f.lesion, fact.lesion) == nearest]
            uncounted = _one_thing(context, fact, behind) if fact.count == "many" else _on_both_sides(fact, behind)
        if wrong or uncounted is not None:
            other = uncounted or next(f for f in same if f.count is not None)
            here, there = context.impression.quote(fact.clause), context.findings.quote(other.clause)
            message = context.say(f"意见“{here}”与所见“{there}”的数目不同", f"“{here}” and “{there}” differ in number")
            yield Issue(Kind.COUNT, Severity.AMBER, other.span, fact.span, message, "count.differs")
