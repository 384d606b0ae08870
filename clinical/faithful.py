"""Whether an impression is faithful to its findings: side, number, polarity, certainty, level, count, prior, sex, region, support.

Each rule compares facts of the two texts (`clinical.facts`) and yields issues with spans in both. A rule stays silent when
it does not understand a statement; whether a diagnosis follows from a sign outside the vocabulary is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterator

from clinical.compare import same_place
from clinical.context import Context
from clinical.facts import BOTH, Fact, Place, Reading
from clinical.issues import Issue, Kind, Severity
from clinical.lexicon import inside, related, rivals, same_finding, sign_of, structures
from clinical.measures import Grade, Level, Measure

GENERAL = frozenset({"abnormality", "postoperative", "drain", "variant", "active", "metal", "gas", "swelling"})
_SIDE_WORDS = {frozenset("L"): "左侧", frozenset("R"): "右侧", BOTH: "双侧"}
_SIDE_ENGLISH = {frozenset("L"): "left", frozenset("R"): "right", BOTH: "both sides"}


TELLING_SIGNS = frozenset(
    (
        *("low_density", "high_density", "mixed_density", "abnormal_density", "abnormal_signal", "high_signal"),
        *("restricted_diffusion", "fluid_shadow", "cystic", "round_shadow", "soft_shadow", "patchy", "nodular_high"),
        *(
            "filling_defect",
            "lucent_line",
            "air_band",
            "air_sac",
            "strip_shadow",
            "slip",
            "interruption",
            "costophrenic_blunt",
        ),
    )
)
"""Signs that stand for a lesion nobody has named; the others only describe one."""


def stated_in(reading: Reading) -> list[Fact]:
    """What a text states about the patient, its advice left out."""
    return [fact for fact in reading.facts if not fact.advice]


def _hits(place: Place, fact: Fact) -> list[Place]:
    return [other for other in fact.places if related(place.path, other.path)]


def overlap(one: Fact, other: Fact) -> bool:
    """Same place, and sides that do not exclude each other."""
    if not one.places or not other.places:
        return True
    return any(
        related(a.path, b.path) and (not a.sides or not b.sides or bool(a.sides & b.sides))
        for a in one.places
        for b in other.places
    )


# --- side --------------------------------------------------------------------------------------------------------------


def side(context: Context) -> Iterator[Issue]:
    """The side of a structure contradicts the findings; both for one is red, one for both amber."""
    positive = [fact for fact in stated_in(context.findings) if fact.polarity]
    for fact in stated_in(context.impression):
        for place in fact.places:
            if not fact.polarity or not place.sides:
                continue
            if structures()[place.path].never_sided and place.said_side is not None:
                yield from _side_on_midline(context, place)
                continue
            yield from _side_of(context, place, fact, positive)


def _side_of(context: Context, place: Place, fact: Fact, positive: list[Fact]) -> Iterator[Issue]:
    free = [f for f in positive if not _explained(f, fact, positive)]
    same = [f for f in free if same_finding(f.lesion, fact.lesion)]
    named = [f for f in same if f.lesion == fact.lesion]
    same = named if _sided(place, named) else same
    worst = [f for f in same if f.emphasis]
    same = [f for f in same if f.emphasis == (fact.emphasis and bool(worst))] or same
    found = _sided(place, same)
    exact = bool(found)
    if not found:
        found = _sided(place, [f for f in free if sign_of(f.lesion, fact.lesion)])
    if _unsided(place, fact, positive):
        return
    if not found:
        # the finding is not understood, the structure is: every mention of it on the other side, and none on this one
        mentions = [
            (p, normal)
            for p, normal in context.findings.places
            if p.sides and (inside(p.path, place.path) or inside(place.path, p.path))
        ]
        unhealthy: list[tuple[Place, Fact | None]] = [(p, None) for p, normal in mentions if not normal]
        found = unhealthy or [(p, None) for p, _ in mentions if place.sides != BOTH]
    if not found:
        return
    sides = frozenset().union(*(p.sides for p, _ in found))
    signs = [f for f in free if f.severity == 0 and sign_of(f.lesion, fact.lesion)]
    if any(inside(q.path, place.path) and (place.sides - sides) & q.sides for f in signs for q in f.places):
        return
    if not sides & place.sides:
        yield _side_issue(context, Severity.RED, "side.contradiction", place, found[0][0], sides)
    elif place.sides == BOTH and sides != BOTH:
        yield _side_issue(context, Severity.RED, "side.widened", place, found[0][0], sides)
    elif exact and len(place.sides) == 1 and all(p.sides == BOTH for p, _ in found):
        fair = fact.emphasis or any(
            f.sides == place.sides for f in worst
        )  # 两肺结节，大者位于右肺: the right one is fair
        if not fair:
            yield _side_issue(context, Severity.AMBER, "side.narrowed", place, found[0][0], sides)


def _explained(sign: Fact, fact: Fact, positive: list[Fact]) -> bool:
    """Whether a sign describes another finding that the same sentence names: the round shadow of a mass is no cyst."""
    if sign.severity > 0:
        return False
    return any(
        other.severity > 0
        and other.places == sign.places
        and abs(other.clause[0] - sign.clause[0]) < 60
        and not same_finding(other.lesion, fact.lesion)
        for other in positive
    )


def _sided(place: Place, facts: list[Fact]) -> list[tuple[Place, Fact | None]]:
    """Places of these facts that have a side: those at the very structure before its neighbours in the vocabulary."""
    found: list[tuple[Place, Fact | None]] = [
        (other, fact) for fact in facts for other in _hits(place, fact) if other.sides
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
    wide = [(other, fact) for other, fact in found if inside(place.path, other.path)]
    return (
        near + wide
        if near and wide and len(place.sides) == 1 and not near[0][0].sides & place.sides
        else near or wide or found
    )


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


# --- numbers -----------------------------------------------------------------------------------------------------------


def number(context: Context) -> Iterator[Issue]:
    """A measurement or grade of the draft that the findings do not contain, after conversion of units."""
    known = context.findings.measures + context.prior.measures
    advice = [s for s in context.impression.statements if s.advice]
    for measure in context.impression.measures:
        if any(s.start <= measure.start < s.end for s in advice):
            continue
        if not any(measure.agrees(other) for other in known):
            yield _number_issue(context, measure, _nearest(measure, context.findings.measures), "number.absent")
    positive = [fact for fact in stated_in(context.findings) if fact.polarity]
    for fact in stated_in(context.impression):
        same = [m for f in positive if same_finding(f.lesion, fact.lesion) and overlap(f, fact) for m in f.sizes]
        for measure in fact.sizes:
            if (
                same
                and any(measure.agrees(other) for other in known)
                and not any(measure.agrees(other) for other in same)
            ):
                yield _number_issue(context, measure, same[0], "number.other_finding")
                break
    yield from _grades(context)


def _nearest(measure: Measure, others: list[Measure]) -> Measure | None:
    same = [other for other in others if other.unit == measure.unit]
    return min(same, key=lambda other: abs(other.value - measure.value)) if same else None


def _number_issue(context: Context, measure: Measure, other: Measure | None, rule: str) -> Issue:
    span = context.impression.span(measure.start, measure.end)
    quoted = context.impression.quote(span)
    if other is None:
        message = context.say(f"意见中的“{quoted}”在所见中没有", f"“{quoted}” of the impression is not in the findings")
        return Issue(Kind.NUMBER, Severity.RED, None, span, message, rule)
    span_findings = context.findings.span(other.start, other.end)
    there = context.findings.quote(span_findings)
    message = context.say(
        f"意见写“{quoted}”，所见为“{there}”", f"The impression says “{quoted}”, the findings say “{there}”"
    )
    return Issue(Kind.NUMBER, Severity.RED, span_findings, span, message, rule)


_CAD_RADS = (
    (0, "0"),
    (24, "1"),
    (49, "2"),
    (69, "3"),
    (99, "4"),
    (100, "5"),
)  # CAD-RADS 2.0: worst stenosis in percent


def _grades(context: Context) -> Iterator[Issue]:
    theirs: dict[str, list[Grade]] = {}
    for grade in context.findings.grades:
        theirs.setdefault(grade.system, []).append(grade)
    for grade in context.impression.grades:
        same = theirs.get(grade.system, [])
        expected = {g.grade for g in same}
        where = same[0] if same else None
        if grade.system == "cadrads" and not same:
            worst = max((m.value for m in context.findings.measures if m.unit == "%"), default=None)
            if worst is not None:
                expected = {next((name for limit, name in _CAD_RADS if worst <= limit), "5")}
        if expected and grade.grade not in expected and grade.grade.rstrip("abc") not in expected:
            span = context.impression.span(grade.start, grade.end)
            span_findings = None if where is None else context.findings.span(where.start, where.end)
            quoted, listed = context.impression.quote(span), "、".join(sorted(expected))
            message = context.say(
                f"意见写“{quoted}”，按所见应为{listed}", f"The impression says “{quoted}”, the findings give {listed}"
            )
            yield Issue(Kind.NUMBER, Severity.RED, span_findings, span, message, "number.grade")


# --- polarity and certainty --------------------------------------------------------------------------------------------


def negation(context: Context) -> Iterator[Issue]:
    """Present in one text and absent in the other."""
    theirs = stated_in(context.findings)
    positive = [fact for fact in theirs if fact.polarity]
    negative = [fact for fact in theirs if not fact.polarity]
    for fact in stated_in(context.impression):
        contrary = _normal_after_all(context, fact, positive)
        if contrary is not None:
            yield _polarity_issue(context, fact, contrary, "negation.normal")
        if fact.lesion in GENERAL or (fact.severity == 0 and fact.polarity):
            continue
        if fact.polarity and fact.certainty > 1:
            denied = [f for f in negative if _denies(f, fact)]
            if denied and not any(same_place(f, fact) and sign_of(f.lesion, fact.lesion) for f in positive):
                yield _polarity_issue(context, fact, denied[0], "negation.asserted")
        elif not fact.polarity:
            asserted = [f for f in positive if _asserts(f, fact)]
            if asserted and not any(f.lesion == fact.lesion and overlap(f, fact) for f in negative):
                yield _polarity_issue(context, fact, asserted[0], "negation.denied")


def _denies(negative: Fact, fact: Fact) -> bool:
    """Whether an absent finding of the findings is the very thing that the impression states."""
    same = negative.lesion == fact.lesion or (negative.severity > 0 and same_finding(negative.lesion, fact.lesion))
    return same and bool(negative.places) and bool(fact.places) and overlap(negative, fact)


def _asserts(positive: Fact, fact: Fact) -> bool:
    """Whether a finding is the very thing that the impression denies."""
    if positive.certainty < 2 or not overlap(positive, fact):
        return False
    if positive.lesion == fact.lesion:
        return positive.severity > 0
    return bool(fact.places) and same_finding(positive.lesion, fact.lesion)


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


def certainty(context: Context) -> Iterator[Issue]:
    """The same finding named in both texts, two steps surer or less sure."""
    theirs = [fact for fact in stated_in(context.findings) if fact.polarity]
    for fact in stated_in(context.impression):
        same = [
            f
            for f in theirs
            if f.lesion == fact.lesion and f.severity > 0 and f.places and fact.places and overlap(f, fact)
        ]
        if fact.polarity and same and all(abs(f.certainty - fact.certainty) >= 2 for f in same):
            here, there = context.impression.quote(fact.clause), context.findings.quote(same[0].clause)
            message = context.say(
                f"意见“{here}”与所见“{there}”的把握程度不同", f"“{here}” and “{there}” differ in certainty"
            )
            yield Issue(Kind.CERTAINTY, Severity.AMBER, same[0].span, fact.span, message, "certainty.steps")


# --- levels and counts -------------------------------------------------------------------------------------------------


def level(context: Context) -> Iterator[Issue]:
    """A vertebra, disc, rib, segment or lobe that the findings do not have for this finding."""
    theirs = [fact for fact in stated_in(context.findings) if fact.polarity]
    mentioned = context.findings.levels
    everywhere = frozenset().union(*(m.names | m.loose for m in mentioned)) if mentioned else frozenset()
    for mention in context.impression.levels:
        at = context.impression.span(mention.start, mention.end)[0]
        own = [f for f in context.impression.facts if mention.names & f.levels and f.clause[0] <= at <= f.clause[1]]
        if any(f.advice for f in own):
            continue
        kind = _kind_of_level(mention)
        same = [f for mine in own if mine.polarity for f in theirs if same_finding(f.lesion, mine.lesion)]
        names = frozenset(name for f in same for name in f.levels | f.loose_levels if _kind(name) == kind)
        allowed = names or everywhere
        if not (mention.names <= allowed or (mention.loose and mention.loose <= allowed)):
            yield _level_issue(context, mention, sorted(mention.names - allowed), mentioned)
    yield from _lobes(context, theirs)


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


def _lobes(context: Context, theirs: list[Fact]) -> Iterator[Issue]:
    """The same finding in a sibling lobe or segment, and nothing in the one that the draft names."""
    for fact in stated_in(context.impression):
        if not fact.polarity or fact.lesion in GENERAL:
            continue
        for place in fact.places:
            if any(
                _hits(place, f)
                for f in theirs
                if same_finding(f.lesion, fact.lesion) or (f.severity == 0 and sign_of(f.lesion, fact.lesion))
            ):
                continue
            kin = [f for f in theirs if sign_of(f.lesion, fact.lesion) or same_finding(f.lesion, fact.lesion)]
            other = next(((f, p) for f in kin for p in f.places if rivals(p.path, place.path)), None)
            if other is None:
                continue
            span, span_findings = (
                context.impression.span(place.start, place.end),
                context.findings.span(other[1].start, other[1].end),
            )
            quoted, there = context.impression.quote(span), context.findings.quote(span_findings)
            sided = place.path.rpartition("/")[2] in ("left", "right") and other[1].path.rpartition("/")[2] in (
                "left",
                "right",
            )
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


def count(context: Context) -> Iterator[Issue]:
    """One for many, many for one, or another number."""
    theirs = [fact for fact in stated_in(context.findings) if fact.polarity]
    for fact in stated_in(context.impression):
        if fact.count is None or not fact.polarity:
            continue
        same = [f for f in theirs if same_finding(f.lesion, fact.lesion) and overlap(f, fact)]
        counts = {f.count for f in same} - {None}
        many_there = bool(counts - {"one", "1"})
        if fact.count in ("one", "1"):
            wrong = many_there and not counts & {"one", "1"}
        elif fact.count == "many":
            wrong = bool(counts) and not many_there and len(same) == 1
        else:
            wrong = bool(counts) and fact.count not in counts and "many" not in counts and len(same) == 1
        if wrong:
            other = next(f for f in same if f.count is not None)
            here, there = context.impression.quote(fact.clause), context.findings.quote(other.clause)
            message = context.say(f"意见“{here}”与所见“{there}”的数目不同", f"“{here}” and “{there}” differ in number")
            yield Issue(Kind.COUNT, Severity.AMBER, other.span, fact.span, message, "count.differs")
