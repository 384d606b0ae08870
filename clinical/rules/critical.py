"""Critical findings (危急值) of the findings, and whether the impression has them. It names them; it notifies nobody."""

from __future__ import annotations

from collections.abc import Iterator

from clinical.context import Context
from clinical.facts import Fact
from clinical.issues import Issue, Kind, Severity
from clinical.lexicon import Critical, criticals, inside
from clinical.matching import Link, goes_without_place
from clinical.signs import overlap, stated_in


def critical(context: Context) -> Iterator[Issue]:
    """Each critical finding of the findings: info when the impression has it, red when it does not."""
    stated = [fact for fact in stated_in(context.impression) if fact.polarity]
    positive = [
        f for f in context.findings.facts if f.polarity and f.certainty >= 2 and not f.advice
    ]  # all of them, however many
    lesions_there = {fact.lesion for fact in positive}
    for entry in criticals():
        if not any(lesion in lesions_there for lesion, _ in entry.evidence):
            continue
        told: list[Fact] = []
        for evidence in positive:
            if not _is_evidence(context, entry, evidence) or any(overlap(evidence, other) for other in told):
                continue
            told.append(evidence)
            covers = (d for d in stated if _one_of(entry.cover, d) and _is_there(entry, d) and _reaches(d, evidence))
            cover = next((d for d in covers if not _meant_elsewhere(context, d, evidence)), None)
            yield _critical_issue(context, entry, evidence, cover)


def _critical_issue(context: Context, entry: Critical, evidence: Fact, cover: Fact | None) -> Issue:
    there = context.findings.quote(evidence.clause)
    rule = f"critical.{entry.id}"
    if cover is None:
        message = context.say(
            f"危急征象“{there}”（{entry.name}）没有写入意见", f"Critical finding not in the impression: “{there}”"
        )
        return Issue(Kind.CRITICAL, Severity.RED, evidence.clause, None, message, rule)
    message = context.say(f"危急征象：{entry.name}（“{there}”）", f"Critical finding: “{there}”")
    return Issue(Kind.CRITICAL, Severity.INFO, evidence.clause, cover.span, message, rule)


def _reaches(stated: Fact, evidence: Fact) -> bool:
    """Whether a statement can be about a critical finding: at one place, or its name says where it is, or both are about the midline."""
    if overlap(evidence, stated) or goes_without_place(evidence, stated):
        return True
    return stated.lesion in _OF_THE_MIDLINE and all(inside(place.path, "head/midline") for place in evidence.places)


def _meant_elsewhere(context: Context, stated: Fact, evidence: Fact) -> bool:
    """The statement has a nearer finding in another sentence: a subdural haematoma over the crescent leaves the lens uncovered."""
    sources = context.matching.sources.get(stated)
    if sources is None:
        return False
    mine = Link(evidence, stated)
    others = sources.beyond(context.findings.statement_at(evidence.span[0]))
    return mine.name == 1 and any(mine.beaten_by(*near) for near in others)


_OF_THE_MIDLINE = frozenset({"mass_effect", "brain_hernia", "midline_shift"})


def _one_of(listed: tuple[tuple[str, str], ...], fact: Fact) -> bool:
    """Whether a fact is one of the listed findings at its structure ("" for anywhere)."""
    wanted = [path for lesion, path in listed if lesion == fact.lesion]
    return any(not path or any(inside(place.path, path) for place in fact.places) for path in wanted)


def _is_there(entry: Critical, fact: Fact) -> bool:
    return not any(inside(place.path, path) for place in fact.places for path in entry.elsewhere)


def _is_evidence(context: Context, entry: Critical, fact: Fact) -> bool:
    if not _one_of(entry.evidence, fact):
        return False
    clause = context.findings.raw[fact.clause[0] : fact.clause[1]].lower()
    return _is_there(entry, fact) and not any(word in clause for word in entry.excuses)
