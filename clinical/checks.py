"""The checks: a tuple of small pure functions, each yielding issues about one pair of findings and impression.

`check` runs them all, never raises on any Unicode text, and never looks at a clock, a file outside the vocabulary, or a
model. What to do with an issue (show, retry, withhold) is the caller's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files

from clinical import degenerate
from clinical.context import Context
from clinical.degenerate import looping
from clinical.department import SHIPPED, Words, using
from clinical.issues import Issue, Kind, Pair, Severity
from clinical.lexicon import CHECK_FILES, digest
from clinical.rules import certainty, count, critical, examination, level, negation, number, side, support

__all__ = [
    "CHECKS",
    "Context",
    "Issue",
    "Kind",
    "Pair",
    "Severity",
    "check",
    "has_critical",
    "looping",
    "version",
]

Check = Callable[[Context], Iterator[Issue]]

CHECKS: tuple[tuple[str, Check], ...] = (
    ("null", degenerate.null),
    ("repetition", degenerate.repetition),
    ("truncation", degenerate.truncation),
    ("prompt_leak", degenerate.prompt_leak),
    ("phi", degenerate.phi),
    ("language", degenerate.language),
    ("critical", critical.critical),
    ("side", side.side),
    ("number", number.number),
    ("negation", negation.negation),
    ("certainty", certainty.certainty),
    ("level", level.level),
    ("count", count.count),
    ("prior", examination.prior),
    ("sex_organ", examination.sex_organ),
    ("body_part", examination.body_part),
    ("unsupported", support.unsupported),
    ("omitted", support.omitted),
)
"""In the order in which their issues are shown."""

_CODE = (
    "checks.py", "compare.py", "context.py", "cues.py", "degenerate.py", "deidentify.py", "department.py", "facts.py", "frames.py", "issues.py",
    "levels.py", "lexicon.py", "mapped.py", "matching.py", "measures.py", "names.py", "placing.py", "scanner.py", "script.py", "signs.py", "terms.py",
    "text.py", "together.py", "tokens.py", "rules/certainty.py", "rules/count.py", "rules/critical.py", "rules/examination.py", "rules/level.py",
    "rules/negation.py", "rules/number.py", "rules/side.py", "rules/support.py",
)  # fmt: skip


def check(pair: Pair) -> tuple[Issue, ...]:
    """Every issue of one pair, each kind and span once, in the order of `CHECKS`. Never raises on any text."""
    with using(pair.words):
        return _checked(Context(pair))


def _checked(context: Context) -> tuple[Issue, ...]:
    found: list[Issue] = []
    seen: set[tuple[Kind, tuple[int, int] | None, tuple[int, int] | None]] = set()
    for _, rule in CHECKS:
        for issue in rule(context):
            key = (issue.kind, issue.span_impression, issue.span_findings if issue.span_impression is None else None)
            if key not in seen:
                seen.add(key)
                found.append(issue)
    named = [issue for issue in found if issue.kind in _CONTRADICTIONS]
    return tuple(issue for issue in found if not _follows(issue, named))


_CONTRADICTIONS = frozenset({Kind.SIDE, Kind.LEVEL, Kind.NEGATION})


def _follows(issue: Issue, named: list[Issue]) -> bool:
    """Whether an issue only says again what a contradiction says: the wrong side is not unsupported and left out as well."""
    if issue.kind is Kind.UNSUPPORTED:
        return any(_holds(issue.span_impression, other.span_impression) for other in named)
    if issue.kind is Kind.OMITTED:
        return any(_holds(issue.span_findings, other.span_findings) for other in named)
    return False


def _holds(outer: tuple[int, int] | None, inner: tuple[int, int] | None) -> bool:
    return outer is not None and inner is not None and outer[0] <= inner[0] and inner[1] <= outer[1]


def has_critical(findings: str, *, language: str = "zh-Hans", words: Words = SHIPPED) -> bool:
    """Whether the findings hold a critical finding (危急值); moves a request up and shows a banner, and notifies nobody."""
    with using(words):
        return any(True for _ in critical.critical(Context(Pair(findings, "", language=language, words=words))))


def version(words: Words = SHIPPED) -> str:
    """Changes with every rule, constant and vocabulary file, a department's own included; stored with each draft to replay its verdict."""
    return _version(words.digest)


@cache
def _version(own: str) -> str:
    hashed = hashlib.sha256((digest(*CHECK_FILES) + own).encode())
    for name in _CODE:
        hashed.update(files("clinical").joinpath(name).read_bytes())
    return f"c{hashed.hexdigest()[:12]}"
