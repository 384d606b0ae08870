"""How sure both texts are of the same finding.

Only findings that both name are compared: doubt about a diagnosis that only the impression gives is the radiologist's to have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from clinical.context import Context
from clinical.facts import Fact
from clinical.issues import Issue, Kind, Severity
from clinical.signs import apart, overlap, stated_in, within


def certainty(context: Context) -> Iterator[Issue]:
    """The same finding named in both texts, two steps surer or less sure."""
    theirs = [fact for fact in stated_in(context.findings) if fact.polarity]
    compared: set[tuple[int, int]] = set()
    stated = stated_in(context.impression)
    naming = {fact.clause for fact in stated if fact.severity > 0}
    for fact in stated:
        same = [
            f
            for f in theirs
            if f.lesion == fact.lesion and overlap(f, fact) and not apart(f, fact)
            if (f.severity > 0 and _same_words(context, f, fact))
            or (fact.clause not in naming and within(f, fact) and _doubted_itself(context, fact))
        ]
        if same:
            compared.add(fact.clause)
        if (
            fact.polarity
            and same
            and fact.lesion != "variant"
            and all(abs(f.certainty - fact.certainty) >= 2 for f in same)
        ):
            here, there = context.impression.quote(fact.clause), context.findings.quote(same[0].clause)
            message = context.say(
                f"意见“{here}”与所见“{there}”的把握程度不同", f"“{here}” and “{there}” differ in certainty"
            )
            yield Issue(Kind.CERTAINTY, Severity.AMBER, same[0].span, fact.span, message, "certainty.steps")
    yield from _doubted_word(context, compared)


_NAMED_AND_DESCRIBED = frozenset({"goiter", "prostate_big", "thyroid_eye", "variant"})
"""Findings whose words both describe (an enlarged thyroid) and name (goitre): the name may be doubted, the sight not."""


def _same_words(context: Context, finding: Fact, stated: Fact) -> bool:
    if finding.lesion not in _NAMED_AND_DESCRIBED:
        return True
    there = context.findings.raw[finding.span[0] : finding.span[1]]
    here = context.impression.raw[stated.span[0] : stated.span[1]]
    return here[-_SHORTEST:] in there or there[-_SHORTEST:] in here


_AFTER = re.compile(
    r"[影灶区]?(?:可能(?:性大)?|可疑|待排|不(?:能|可)?(?:完全)?(?:除外|排除)|待(?:除外|查))(?![为是系])"
)


def _doubted_itself(context: Context, fact: Fact) -> bool:
    """Whether the doubt is about a mere sign, which is seen or not, and not about what it may be."""
    return _AFTER.match(context.impression.raw, fact.span[1]) is not None


_DOUBT = re.compile(r"待排|不(?:能|可)?(?:完全)?(?:除外|排除)|待(?:除外|查)|可能(?=[,。;)\n]|$)")
_HAN = re.compile(r"[\u4e00-\u9fff]+$")
_LONGEST, _SHORTEST = 6, 2
_SHORTEST_LIKELY = 4  # letters: a shorter word before 可能 may be a diagnosis that the findings only name in passing


def _doubted_word(context: Context, known: set[tuple[int, int]]) -> Iterator[Issue]:
    """A word plain in the findings and doubted in the impression, compared by its letters where the vocabulary (`known`) did not help."""
    reading, theirs = context.impression, context.findings
    for match in _DOUBT.finditer(reading.text):
        at = reading.span(match.start(), match.end())
        if any(start <= at[0] < end for start, end in known):
            continue
        before = _HAN.search(reading.text, max(0, match.start() - _LONGEST), match.start())
        words = "" if before is None else before[0]
        shortest = _SHORTEST_LIKELY if match[0] == "可能" else _SHORTEST
        for length in range(len(words), shortest - 1, -1):
            found = theirs.text.find(words[-length:])
            if found < 0:
                continue
            start, end = _clause_around(theirs.text, found)
            if not _PLAIN_NO.search(theirs.text, start, end):
                span, span_findings = (
                    reading.span(match.start() - length, match.end()),
                    theirs.span(found, found + length),
                )
                here, there = reading.quote(span), theirs.quote(theirs.span(start, end))
                message = context.say(
                    f"意见“{here}”与所见“{there}”的把握程度不同", f"“{here}” and “{there}” differ in certainty"
                )
                yield Issue(Kind.CERTAINTY, Severity.AMBER, span_findings, span, message, "certainty.word")
            break


_PLAIN_NO = re.compile(r"[未无没余?]|不(?![清均规])|可能|考虑|疑|待|除外|倾向")


def _clause_around(text: str, at: int) -> tuple[int, int]:
    """The clause of the matching copy in which a position lies."""
    start = max(text.rfind(mark, 0, at) for mark in ",。;\n") + 1
    ends = [end for mark in ",。;\n" if (end := text.find(mark, at)) >= 0]
    return start, min(ends, default=len(text))
