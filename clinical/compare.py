"""How two lists of facts relate: which fact of one text speaks of the same thing as which of the other.

Used by the checks (draft against findings) and by the score (draft against signed text). Judges nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from clinical.facts import Fact, Reading
from clinical.lexicon import related, same_finding, sign_of


def same_place(one: Fact, other: Fact) -> bool:
    """Whether the two may be at one place; a fact that names no place agrees with every one."""
    if not one.places or not other.places:
        return True
    return any(related(a.path, b.path) for a in one.places for b in other.places)


@dataclass(frozen=True, slots=True)
class FactScore:
    """Precision, recall and F1 over facts; None where a side has none. `changes` names the kinds of difference."""

    precision: float | None
    recall: float | None
    f1: float | None
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
    matched: list[tuple[Fact, Fact]] = []
    total = 0.0
    for value, _, _, left, right in pairs:
        times = min(rest_mine[left], rest_theirs[right])
        if value > 0 and times:
            rest_mine[left] -= times
            rest_theirs[right] -= times
            total += value * times
            matched.append((mine[left][0], theirs[right][0]))
    changes: set[str] = set()
    for one, other in matched:
        changes.update(_differences(one, other))
    missing = [theirs[key][0] for key, left in rest_theirs.items() if left]
    extra = [mine[key][0] for key, left in rest_mine.items() if left]
    for fact in list(extra):
        opposite = [f for f in missing if f.polarity != fact.polarity and same_place(f, fact)]
        flipped = next((f for f in opposite if sign_of(f.lesion, fact.lesion) or sign_of(fact.lesion, f.lesion)), None)
        if flipped is not None:
            changes.add("polarity")
            extra.remove(fact)
            missing.remove(flipped)
    if missing:
        changes.add("added_finding")
    if extra:
        changes.add("removed_finding")
    stated, wanted = sum(map(len, mine.values())), sum(map(len, theirs.values()))
    precision = total / stated if stated else None
    recall = total / wanted if wanted else None
    if recall is None:
        f1 = None
    elif not precision or not recall:
        f1 = 0.0
    else:
        f1 = 2 * precision * recall / (precision + recall)
    return FactScore(precision, recall, f1, tuple(sorted(changes)))


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
