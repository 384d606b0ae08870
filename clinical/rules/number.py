"""Measurements and grades of the impression against those of the findings, after conversion of units.

Whether a size is plausible is not its concern; only whether it stands in the findings, and at the finding it is given for.
"""

from __future__ import annotations

from collections.abc import Iterator

from clinical.context import Context
from clinical.issues import Issue, Kind, Severity
from clinical.lexicon import same_finding
from clinical.measures import Grade, Measure
from clinical.signs import stated_in, within


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
        same = [m for f in positive if same_finding(f.lesion, fact.lesion) and within(f, fact) for m in f.sizes]
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
