"""The core of an impression: what it says of the patient today. Without title, list numbers, advice and comparison with earlier examinations.

A draft is made from today's findings, so what a radiologist adds from elsewhere (a former film, what to do next) says little about it. Used by the
score only; nothing is shown in this form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from clinical.cues import only_advice
from clinical.facts import Reading, Statement
from clinical.lexicon import lesion_terms

__all__ = ["core", "core_statements"]

_ORDINAL = re.compile(r"^[ ]*(?:[(]?\d{1,2}(?:[、)．]|\.(?!\d))|[①-⑳]|[(]?[一二三四五六七八九十]{1,3}(?:、|[)]))[ ]*")
_NUMBER = re.compile(r"[(]?\d{1,2}[)]?")  # `1. Nodule`: in a language of words the full stop ends a sentence
_TITLE = re.compile(
    r"^\s*(?:[【\[(]?\s*(?:影像|放射|检查|CT|MRI?|X线)?学?(?:诊断|印象|结论|意见|提示){1,2}\s*(?:[】\])]\s*:?|:)|[^\n。;,:]{2,30}?示\s*:"
    r"|(?:impressions?|conclusions?|opinion)\s*:)",
    re.IGNORECASE,
)
_PRIOR = re.compile(
    r"较(?:前|既往|上次|旧片|老片|原片|原|\d)|(?:与|和|同|对比|对照|参照|结合)[^,]{0,14}(?:旧片|老片|前片|原片|上次|既往|前次|\d{4}[-.年/])"
    r"|相仿|同前|如前|前片|旧片|老片|compared (?:with|to)|unchanged|previous(?:ly)?|par rapport|comparativement",
    re.IGNORECASE,
)
_CHANGE = re.compile(
    r"(?:大致|基本)?(?:相仿|同前|如前|未见(?:明显|显著)?(?:变化|改变)|无(?:明显|显著)?(?:变化|改变)|(?:明显|稍|略)?(?:增大|增多|缩小|减少|吸收|好转|进展|加重|减轻))"
)


def core(reading: Reading) -> str:
    """The core on the matching copy, one statement a line; empty when nothing is left."""
    return "\n".join(core_statements(reading))


def core_statements(reading: Reading) -> Iterator[str]:
    """Each statement without its number; those that are only title, advice or comparison are left out."""
    title = _TITLE.match(reading.text)
    body = 0 if title is None else title.end()
    for statement in reading.statements:
        if statement.end <= body or statement.advice:
            continue
        kept = _ORDINAL.sub("", ",".join(_clauses(reading, statement, max(body, statement.start))))
        if kept.strip() and _NUMBER.fullmatch(kept.strip()) is None:
            yield kept.strip()


def _clauses(reading: Reading, statement: Statement, start: int) -> Iterator[str]:
    at = start
    for clause in reading.text[start : statement.end].split(","):
        masked = reading.masked[at : at + len(clause)]
        if not only_advice(masked) and not _only_compares(clause):
            yield clause
        at += len(clause) + 1


def _only_compares(clause: str) -> bool:
    """Whether a clause speaks of a former examination and names no finding beside it: 较前增大, but not 结节较前增大."""
    if _PRIOR.search(clause) is None:
        return False
    rest = _CHANGE.sub("", _PRIOR.sub("", clause))
    return not lesion_terms().find(rest.lower())
