"""The checks: a tuple of small pure functions, each yielding issues about one pair of findings and impression.

`check` runs them all, never raises on any Unicode text, and never looks at a clock, a file outside the vocabulary, or a
model. What to do with an issue (show, retry, withhold) is the caller's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files

from clinical import degenerate, faithful, support
from clinical.context import Context
from clinical.degenerate import looping
from clinical.issues import Issue, Kind, Pair, Severity
from clinical.lexicon import CHECK_FILES, digest

__all__ = [
    "CHECKS",
    "CHECKS_VERSION",
    "Context",
    "Issue",
    "Kind",
    "Pair",
    "Severity",
    "check",
    "has_critical",
    "looping",
]

Check = Callable[[Context], Iterator[Issue]]

CHECKS: tuple[tuple[str, Check], ...] = (
    ("null", degenerate.null),
    ("repetition", degenerate.repetition),
    ("truncation", degenerate.truncation),
    ("prompt_leak", degenerate.prompt_leak),
    ("phi", degenerate.phi),
    ("language", degenerate.language),
    ("critical", support.critical),
    ("side", faithful.side),
    ("number", faithful.number),
    ("negation", faithful.negation),
    ("certainty", faithful.certainty),
    ("level", faithful.level),
    ("count", faithful.count),
    ("prior", support.prior),
    ("sex_organ", support.sex_organ),
    ("body_part", support.body_part),
    ("unsupported", support.unsupported),
    ("omitted", support.omitted),
)
"""In the order in which their issues are shown."""

_CODE = (
    "checks.py", "compare.py", "context.py", "degenerate.py", "deidentify.py", "facts.py", "faithful.py", "frames.py", "issues.py",
    "lexicon.py", "mapped.py", "measures.py", "scanner.py", "support.py", "text.py",
)  # fmt: skip


def check(pair: Pair) -> tuple[Issue, ...]:
    """Every issue of one pair, each kind and span once, in the order of `CHECKS`. Never raises on any text."""
    context = Context(pair)
    found: list[Issue] = []
    seen: set[tuple[Kind, tuple[int, int] | None, tuple[int, int] | None]] = set()
    for _, rule in CHECKS:
        for issue in rule(context):
            key = (issue.kind, issue.span_impression, issue.span_findings if issue.span_impression is None else None)
            if key not in seen:
                seen.add(key)
                found.append(issue)
    return tuple(found)


def has_critical(findings: str, *, language: str = "zh-Hans") -> bool:
    """Whether the findings hold a critical finding (危急值); moves a request up and shows a banner, and notifies nobody."""
    return any(True for _ in support.critical(Context(Pair(findings, "", language=language))))


@cache
def _version() -> str:
    hashed = hashlib.sha256(digest(*CHECK_FILES).encode())
    for name in _CODE:
        hashed.update(files("clinical").joinpath(name).read_bytes())
    return f"c{hashed.hexdigest()[:12]}"


CHECKS_VERSION: str = _version()
"""Changes with every rule, constant and vocabulary file; stored with each draft so that its verdict can be replayed."""
