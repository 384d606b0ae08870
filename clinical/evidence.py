"""What each sentence of an impression rests on, and what became of each positive finding: links for a reader's eyes.

Judges nothing: what is wrong with a pair is `clinical.checks`' to say. Both rest on the same facts and the same notion of support,
so a finding shown here as left out is the one that the `omitted` check names.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from clinical.compare import same_place
from clinical.context import Context
from clinical.department import using
from clinical.facts import Fact, Statement
from clinical.issues import Pair
from clinical.lexicon import same_finding
from clinical.matching import supports
from clinical.rules.support import matters, outcomes
from clinical.signs import stated_in

__all__ = ["Evidence", "Sentence", "Standing", "Told", "evidence"]

Span = tuple[int, int]


class Standing(StrEnum):
    """What is known about one sentence of the impression."""

    SUPPORTED = "supported"  # at least one clause of the findings stands behind it
    UNSUPPORTED = "unsupported"  # it states something, and nothing in the findings stands behind it
    UNREAD = "unread"  # the vocabulary has no word for what it states
    ADVICE = "advice"  # it only recommends


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of the impression and the clauses of the findings behind it; spans are half-open code points of the raw texts."""

    span: Span
    standing: Standing
    findings: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Told:
    """One positive finding: where it stands, its severity (0 a sign only, 4 must not be missed), and the impression's words for it.

    `impression` is empty for one that the impression leaves out.
    """

    span: Span
    name: str
    severity: int
    impression: tuple[Span, ...]

    @property
    def omitted(self) -> bool:
        return not self.impression


@dataclass(frozen=True, slots=True)
class Evidence:
    """Sentences in the order of the impression; findings with those left out first, then the most severe, then in order of the text."""

    sentences: tuple[Sentence, ...]
    findings: tuple[Told, ...]

    def as_json(self) -> dict[str, object]:
        return {
            "sentences": [
                {
                    "span": list(one.span),
                    "standing": one.standing.value,
                    "findings": [list(each) for each in one.findings],
                }
                for one in self.sentences
            ],
            "findings": [
                {
                    "span": list(one.span),
                    "name": one.name,
                    "severity": one.severity,
                    "omitted": one.omitted,
                    "impression": [list(each) for each in one.impression],
                }
                for one in self.findings
            ],
        }


def evidence(pair: Pair) -> Evidence:
    """Links between the sentences of an impression and the findings. Never raises on any text."""
    with using(pair.words):
        return _linked(Context(pair))


def _linked(context: Context) -> Evidence:
    sentences = tuple(_sentence(context, statement) for statement in context.impression.statements)
    findings = [
        Told(fact.clause, _name(context, fact), fact.severity, tuple(sorted({d.clause for d in told})))
        for fact, told in outcomes(context)
        if told or matters(fact)
    ]
    once = {(one.span, one.name): one for one in findings}
    ranked = sorted(once.values(), key=lambda one: (not one.omitted, -one.severity, one.span))
    return Evidence(sentences, tuple(ranked))


def _name(context: Context, fact: Fact) -> str:
    """The vocabulary's first name, which is Chinese; in another language the report's own word."""
    return fact.name if context.chinese else context.findings.quote(fact.span)


def _sentence(context: Context, statement: Statement) -> Sentence:
    span = context.impression.span(statement.start, statement.end)
    if statement.advice:
        return Sentence(span, Standing.ADVICE, ())
    mine = [fact for fact in stated_in(context.impression) if span[0] <= fact.span[0] < span[1]]
    behind = sorted({f.clause for fact in mine for f in stated_in(context.findings) if _behind(f, fact)})
    normal = [] if any(fact.polarity for fact in mine) else _normal(context, statement)
    found = tuple(behind or normal)
    standing = Standing.SUPPORTED if found else Standing.UNSUPPORTED if mine else Standing.UNREAD
    return Sentence(span, standing, found)


def _behind(finding: Fact, stated: Fact) -> bool:
    """Whether a clause of the findings is a reason for a statement: the same thing there, or the same thing absent."""
    if stated.polarity:
        return supports(finding, stated)
    same = (
        finding.lesion == stated.lesion or same_finding(finding.lesion, stated.lesion) or stated.lesion == "abnormality"
    )
    return not finding.polarity and same and same_place(finding, stated)


def _normal(context: Context, statement: Statement) -> list[Span]:
    """The structures of a sentence without a finding, as the findings name them."""
    paths = {place.path for place, _ in context.impression.places if statement.start <= place.start < statement.end}
    return sorted(
        {context.findings.span(p.start, p.end) for p, normal in context.findings.places if normal and p.path in paths}
    )
