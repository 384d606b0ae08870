"""What is present in one text and absent in the other.

A sign whose absence says nothing about the finding (no enhancement, no spicules) is never a contradiction.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from clinical.context import Context
from clinical.facts import Fact
from clinical.issues import Issue, Kind, Severity
from clinical.lexicon import inside, same_finding, sign_of
from clinical.signs import GENERAL, TELLING_SIGNS, apart, overlap, stated_in, telling, within


def negation(context: Context) -> Iterator[Issue]:
    """Present in one text and absent in the other."""
    theirs = stated_in(context.findings)
    positive = [fact for fact in theirs if fact.polarity]
    negative = [fact for fact in theirs if not fact.polarity]
    nothing = not positive and bool(negative) and all(read for _, read in context.findings.understood)
    for fact in stated_in(context.impression):
        if nothing and fact.lesion == "abnormality" and fact.certainty > 1 and _ABNORMAL.search(_word(context, fact)):
            yield _polarity_issue(context, fact, negative[0], "negation.abnormal")
        contrary = _normal_after_all(context, fact, positive)
        if contrary is not None:
            yield _polarity_issue(context, fact, contrary, "negation.normal")
        if (fact.lesion in GENERAL and (fact.polarity or fact.severity == 0)) or (fact.severity == 0 and fact.polarity):
            continue
        if not context.chinese and fact.lesion == "mass":
            continue  # lesion, lésion: too general a word to deny
        if fact.polarity and fact.certainty > 1:
            denied = [f for f in negative if _denies(f, fact)]
            if denied and not any(overlap(f, fact) and _speaks_for(f, fact, denied) for f in positive):
                yield _polarity_issue(context, fact, denied[0], "negation.asserted")
        elif not fact.polarity:
            asserted = [f for f in positive if _asserts(f, fact) and (context.chinese or f.lesion == fact.lesion)]
            if asserted and not any(_denied_there(f, fact, asserted) for f in negative):
                yield _polarity_issue(context, fact, asserted[0], "negation.denied")


_ABNORMAL = re.compile(r"异常|病变|病灶|abnormal|anomalie")


def _word(context: Context, fact: Fact) -> str:
    return context.impression.raw[fact.span[0] : fact.span[1]].lower()


def _denied_there(negative: Fact, fact: Fact, asserted: list[Fact]) -> bool:
    """Whether the findings deny it as well, at its level where they assert it at that level."""
    if negative.lesion != fact.lesion or negative.rest or not overlap(negative, fact):
        return False
    return bool(negative.levels & fact.levels) or not any(f.levels & fact.levels for f in asserted)


def _denies(negative: Fact, fact: Fact) -> bool:
    """Whether an absent finding of the findings is the very thing that the impression states."""
    if negative.rest or negative.lesion in GENERAL or not overlap(negative, fact) or apart(negative, fact):
        return False
    if negative.lesion == fact.lesion:
        nested = (inside(a.path, b.path) or inside(b.path, a.path) for a in negative.places for b in fact.places)
        nodes = negative.lesion == "lymph_enlarged"  # 腹膜后未见肿大淋巴结, 腹膜后淋巴结肿大
        return nodes or any(nested)  # a neighbour's absence is no denial: 小关节间隙未见狭窄, 椎管狭窄
    named = negative.severity > 0 or negative.lesion in _NAMING_SIGNS or _names_a_stone(negative)
    return named and same_finding(negative.lesion, fact.lesion) and within(negative, fact)


_NAMING_SIGNS = frozenset(
    (
        "fluid_shadow",
        "fluid_level",
        "cast",
        "filling_defect",
        "restricted_diffusion",
        "crescent",
        "lens_shape",
        "air_band",
        "protrusion",
    )
)
"""Signs whose absence is the absence of the finding that they are signs of."""


def _names_a_stone(sign: Fact) -> bool:
    """胆囊腔内未见致密影: nothing dense in a lumen is no stone."""
    return sign.lesion in ("high_density", "nodular_high") and any(
        inside(place.path, lumen) for place in sign.places for lumen in _LUMINA
    )


_LUMINA = ("abdomen/gallbladder", "abdomen/bile_duct", "abdomen/kidney", "abdomen/ureter", "abdomen/pelvis/bladder")


def _speaks_for(finding: Fact, stated: Fact, denied: list[Fact]) -> bool:
    """Whether a finding of the same place can be what a statement means, so that an absence elsewhere does not deny it."""
    if any(f.lesion == stated.lesion and _same_place(f, stated) for f in denied):
        return finding.lesion == stated.lesion or (
            finding.severity > 0 and same_finding(finding.lesion, stated.lesion) and _same_place(finding, stated)
        )
    if finding.lesion == stated.lesion or same_finding(finding.lesion, stated.lesion):
        return within(finding, stated) or not finding.places
    return within(finding, stated) and sign_of(finding.lesion, stated.lesion)


def _same_place(one: Fact, other: Fact) -> bool:
    return any(a.path == b.path and a.sides == b.sides for a in one.places for b in other.places)


def _asserts(positive: Fact, fact: Fact) -> bool:
    """Whether a finding is the very thing that the impression denies."""
    if positive.certainty < 2 or not overlap(positive, fact) or apart(positive, fact) or fact.rest:
        return False
    if positive.lesion == fact.lesion:
        sign = positive.severity == 0 and telling(positive) and _same_place(positive, fact)
        general = fact.lesion in GENERAL and bool(fact.places) and not _same_place(positive, fact)
        return sign or (positive.severity > 0 and not general)
    if {positive.lesion, fact.lesion} == _THICK:
        return _same_place(positive, fact)
    near = within(positive, fact) and fact.severity > 0
    return bool(fact.places) and (
        same_finding(positive.lesion, fact.lesion) or (near and sign_of(positive.lesion, fact.lesion))
    )


_THICK = frozenset({"wall_thick", "pleural_sign"})  # 壁增厚, 增厚


def _normal_after_all(context: Context, fact: Fact, positive: list[Fact]) -> Fact | None:
    """`头颅CT平扫未见明显异常` while the findings describe something there."""
    if (
        fact.polarity
        or fact.lesion != "abnormality"
        or not fact.places
        or "余" in context.impression.raw[fact.clause[0] : fact.span[0]]
    ):
        return None
    for other in positive:
        telling = other.severity >= 2 or other.lesion in TELLING_SIGNS
        if telling and any(
            inside(b.path, a.path) and (not a.sides or not b.sides or a.sides & b.sides)
            for a in fact.places
            for b in other.places
        ):
            return other
    return None


def _polarity_issue(context: Context, fact: Fact, other: Fact, rule: str) -> Issue:
    here, there = context.impression.quote(fact.clause), context.findings.quote(other.clause)
    message = context.say(
        f"意见写“{here}”，所见写“{there}”", f"The impression says “{here}”, the findings say “{there}”"
    )
    return Issue(Kind.NEGATION, Severity.RED, other.span, fact.span, message, rule)
