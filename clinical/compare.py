"""How two lists of facts relate: which fact of one text speaks of the same thing as which of the other.

Used by the checks (draft against findings) and by the score (draft against signed text). Judges nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from clinical.facts import Fact, Reading
from clinical.lexicon import related, rivals, same_finding, sign_of


def same_place(one: Fact, other: Fact) -> bool:
    """Whether the two may be at one place; a fact that names no place agrees with every one."""
    if not one.places or not other.places:
        return True
    return any(related(a.path, b.path) for a in one.places for b in other.places)


@dataclass(frozen=True, slots=True)
class FactScore:
    """Precision, recall and F1 over facts; None where a side has none. `changes` names the kinds of difference.

    `weighted_f1` counts each fact 1 + its severity times, so that a sign weighs 1 and what must not be missed 5.
    """

    precision: float | None
    recall: float | None
    f1: float | None
    weighted_f1: float | None
    changes: tuple[str, ...]


def _agreement(mine: Fact, theirs: Fact) -> float:
    """0 for two different facts; 0.5 for the same finding, place and polarity, and up to 1 with every detail equal."""
    if mine.polarity != theirs.polarity or not same_place(mine, theirs):
        return 0.0
    if mine.lesion != theirs.lesion and not same_finding(mine.lesion, theirs.lesion):
        return 0.0
    details = [
        mine.sides == theirs.sides,
        mine.levels == theirs.levels,
        {round(m.value, 3) for m in mine.sizes} == {round(m.value, 3) for m in theirs.sizes},
        mine.count == theirs.count,
        abs(mine.certainty - theirs.certainty) < 2,
    ]
    return 0.5 + 0.5 * sum(details) / len(details)


def _key(fact: Fact) -> tuple[object, ...]:
    """Everything that `_agreement` looks at: facts with equal keys are interchangeable."""
    places = tuple((place.path, place.sides) for place in fact.places)
    sizes = frozenset(round(m.value, 3) for m in fact.sizes)
    return fact.lesion, places, fact.levels, sizes, fact.count, fact.polarity, fact.certainty


def _counted(reading: Reading) -> dict[tuple[object, ...], list[Fact]]:
    groups: dict[tuple[object, ...], list[Fact]] = {}
    for fact in reading.facts:
        if not fact.advice:
            groups.setdefault(_key(fact), []).append(fact)
    return groups


def fact_score(draft: Reading, signed: Reading) -> FactScore:
    """Facts of the draft matched one to one, best agreement first, with those of the signed text; advice left out.

    Interchangeable facts are matched as groups, so that a text of thousands of statements takes no longer than its
    different ones do.
    """
    mine, theirs = _counted(draft), _counted(signed)
    pairs = [
        (_agreement(a[0], b[0]), i, j, left, right)
        for i, (left, a) in enumerate(mine.items())
        for j, (right, b) in enumerate(theirs.items())
        if a[0].polarity == b[0].polarity
    ]
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    rest_mine, rest_theirs = (
        {key: len(group) for key, group in mine.items()},
        {key: len(group) for key, group in theirs.items()},
    )
    changes: set[str] = set()
    agreed = agreed_mine = agreed_theirs = 0.0
    for value, _, _, left, right in pairs:
        times = min(rest_mine[left], rest_theirs[right])
        if value > 0 and times:
            rest_mine[left] -= times
            rest_theirs[right] -= times
            one, other = mine[left][0], theirs[right][0]
            agreed += value * times
            agreed_mine += value * times * _weight(one)
            agreed_theirs += value * times * _weight(other)
            changes |= _differences(one, other)
    extra = [mine[key][0] for key, left in rest_mine.items() if left]
    missing = [theirs[key][0] for key, left in rest_theirs.items() if left]
    changes |= _unmatched(extra, missing)
    facts_mine = [fact for group in mine.values() for fact in group]
    facts_theirs = [fact for group in theirs.values() for fact in group]
    precision, recall, f1 = _rates(agreed, len(facts_mine), agreed, len(facts_theirs))
    weighted = _rates(agreed_mine, sum(map(_weight, facts_mine)), agreed_theirs, sum(map(_weight, facts_theirs)))
    return FactScore(precision, recall, f1, weighted[2], tuple(sorted(changes)))


def _weight(fact: Fact) -> int:
    return 1 + fact.severity


def _rates(
    agreed_mine: float, stated: int, agreed_theirs: float, wanted: int
) -> tuple[float | None, float | None, float | None]:
    precision = agreed_mine / stated if stated else None
    recall = agreed_theirs / wanted if wanted else None
    if recall is None:
        return precision, None, None
    return precision, recall, 2 * precision * recall / (precision + recall) if precision and recall else 0.0


def _unmatched(extra: list[Fact], missing: list[Fact]) -> set[str]:
    """What the facts are about that found no partner: one that turned into its opposite, one that moved, or one that came or went."""
    changes: set[str] = set()
    for kind, is_partner in (("polarity", _is_opposite), ("side", _is_mirrored), ("level", _has_moved)):
        for fact in list(extra):
            partner = next((other for other in missing if is_partner(fact, other)), None)
            if partner is not None:
                changes.add(kind)
                extra.remove(fact)
                missing.remove(partner)
    if missing:
        changes.add("added_finding")
    if extra:
        changes.add("removed_finding")
    return changes


def _is_opposite(mine: Fact, theirs: Fact) -> bool:
    same = sign_of(mine.lesion, theirs.lesion) or sign_of(theirs.lesion, mine.lesion)
    return same and mine.polarity != theirs.polarity and same_place(mine, theirs)


def _is_mirrored(mine: Fact, theirs: Fact) -> bool:
    """The same finding in the lobe of the other side: 甲状腺左叶 for 甲状腺右叶."""
    return (
        mine.levels == theirs.levels
        and _has_moved(mine, theirs)
        and any(
            _unsided(a.path) == _unsided(b.path) and rivals(a.path, b.path) for a in mine.places for b in theirs.places
        )
    )


def _unsided(path: str) -> str:
    return path.replace("left", "right")


def _has_moved(mine: Fact, theirs: Fact) -> bool:
    """The same finding in another lobe, segment or vertebra."""
    if mine.polarity != theirs.polarity or not same_finding(mine.lesion, theirs.lesion):
        return False
    return any(rivals(a.path, b.path) for a in mine.places for b in theirs.places)


def _differences(mine: Fact, theirs: Fact) -> set[str]:
    found: set[str] = set()
    if mine.sides != theirs.sides:
        found.add("side")
    if mine.levels != theirs.levels or (mine.structures and theirs.structures and mine.structures != theirs.structures):
        found.add("level")
    if {(round(m.value, 3), m.unit) for m in mine.sizes} != {(round(m.value, 3), m.unit) for m in theirs.sizes}:
        found.add("size")
    if mine.count != theirs.count:
        found.add("count")
    if abs(mine.certainty - theirs.certainty) >= 1:
        found.add("certainty")
    return found
