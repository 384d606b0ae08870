"""Whether an impression stays within its findings and leaves nothing that matters out."""

from __future__ import annotations

import re
from collections.abc import Iterator

from clinical.compare import same_place
from clinical.context import Context
from clinical.facts import Fact
from clinical.issues import Issue, Kind, Severity
from clinical.signs import GENERAL, telling


def unsupported(context: Context) -> Iterator[Issue]:
    """A positive statement for which the findings have neither the place nor a finding of its class."""
    matching = context.matching
    # a clause is one statement: 海绵状血管瘤可能 with one of its words supported is supported
    settled = {fact.clause for fact, behind in matching.behind if behind} | matching.excused
    for fact, _ in matching.behind:
        if fact.lesion in GENERAL or fact.clause in settled:
            continue
        if not fact.places and fact.severity <= 1:
            continue
        settled.add(fact.clause)
        here = context.impression.quote(fact.clause)
        message = context.say(f"所见中没有支持“{here}”的内容", f"Nothing in the findings supports “{here}”")
        yield Issue(Kind.UNSUPPORTED, Severity.AMBER, None, fact.clause, message, "unsupported.fact")


def matters(fact: Fact) -> bool:
    """Whether an impression is expected to speak of a finding: not of doubtful ones, nor of signs that only describe another."""
    return fact.polarity and fact.certainty >= 2 and (fact.severity > 0 or telling(fact))


def outcomes(context: Context) -> list[tuple[Fact, tuple[Fact, ...]]]:
    """Each positive finding, and the statements of the impression that cover it (none: it is left out), in order of the findings."""
    told = context.matching.told
    covered: dict[object, tuple[Fact, ...]] = {}
    for fact, by in told:
        if by:
            covered.setdefault((_where(fact), context.findings.statement_at(fact.span[0])), by)
    # one lesion is described by several signs in a sentence; one of them covered, all are
    return [
        (
            fact,
            by
            or (
                covered.get((_where(fact), context.findings.statement_at(fact.span[0])), ())
                if fact.severity == 0
                else ()
            ),
        )
        for fact, by in told
    ]


def omitted(context: Context) -> Iterator[Issue]:
    """A positive finding that no statement of the impression covers, amber when it is one that matters."""
    told: list[Fact] = []
    before: list[Fact] = []  # covered findings so far
    for fact, by in outcomes(context):
        if by:
            before.append(fact)
        if by or not matters(fact) or fact.clause in context.matching.tacit:
            continue
        if any(other.lesion == fact.lesion and same_place(other, fact) for other in told):
            continue
        told.append(fact)
        grave = fact.severity >= 3 or fact.severity == 0 or telling(fact) if context.chinese else fact.severity == 4
        loud = grave and not _describes(context, fact, before)
        severity = Severity.AMBER if loud else Severity.INFO
        there = context.findings.quote(fact.clause)
        message = context.say(f"所见“{there}”没有写入意见", f"“{there}” of the findings is not in the impression")
        yield Issue(Kind.OMITTED, severity, fact.clause, None, message, "omitted.finding")


_BESIDE = re.compile(
    r"^(?:邻近|周围|相邻|近端|近侧|远端|远侧|远段|骨块|碎骨|骨片|碎片|上方|其上|以上|其内|内见|内部|内含|内可见|局部|边缘|边界|管腔|腔内|压脂|增强|强化|弥散|dwi|adc|t[12]|flair|断端|大者|较大)"
)


_NEAR = 8  # findings before it among which a clause may look for the one that it describes


def _describes(context: Context, fact: Fact, covered: list[Fact]) -> bool:
    """`…肿块，邻近胸膜增厚`: a clause about what lies around or inside a finding that the impression has."""
    clause = context.findings.raw[fact.clause[0] : fact.clause[1]].strip().lower()
    if _BESIDE.match(clause) is None:
        return False
    near = [f for f in covered[-_NEAR:] if f.clause[1] <= fact.clause[0]]
    gap = (context.findings.raw[f.clause[1] : fact.clause[0]] for f in near)
    return any(not set(between) & set("。;；\n") for between in gap)


def _where(fact: Fact) -> tuple[frozenset[tuple[str, frozenset[str]]], frozenset[str]]:
    return frozenset((place.path, place.sides) for place in fact.places), fact.levels
