"""The copy of a report's text that models read and learn from: tidy, de-identified, without titles, repetition and what says nothing.

The same for every text, whether it comes from an institution's database, a request or a signature. Findings and wording stay; how houses' forms are
brought to one is `clinical.unify`. The text as received is kept elsewhere; people see that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import NamedTuple

from clinical.deidentify import all_folded, deidentify, suspects
from clinical.non_essential import NonEssential, shipped
from clinical.text import clean, untidy
from clinical.together import Together

__all__ = ["Readable", "all_findings", "all_impressions", "all_readable", "findings", "impression", "readable"]

REPEATED_SENTENCE, REPEATED_TEXT, REPEATED_TITLE, TITLE = (
    "repeated_sentence",
    "repeated_text",
    "repeated_title",
    "title",
)

_IMPRESSION_TITLE = re.compile(
    r"\s*(?:[【\[(（]?\s*(?:影像(?:学|學)?|放射(?:学|學)?|检查|檢查|CT|MRI?|X线)?(?:诊断|診斷|印象|结论|結論|意见|意見|提示)(?:意见|意見|提示|印象|结论|結論)?"
    r"\s*(?:[】\])）]\s*[:：]?|[:：]|(?=\n))|[^\n。；;，,：:]{2,30}?示\s*[:：])\s*"
)
_FINDINGS_TITLE = re.compile(
    r"\s*[【\[(（]?\s*(?:影像(?:学|學)?(?:所见|所見|表现|表現|描述)|(?:检查|檢查|CT|MRI?|X线|放射(?:学|學)?)?(?:所见|所見|表现|表現|描述))\s*(?:[】\])）]\s*[:：]?|[:：]|(?=\n))\s*"
)
_STATEMENT = re.compile(r"[^。；;！!\n]+[。；;！!\n]*")
_MARKS = re.compile(r"^\s*(?:[(（]?\d{1,2}[)）.、．]|[①-⑳]|[一二三四五六七八九十]、)?\s*|[\s。；;！!，,]+$")
_SHORTEST = 4


class Readable(NamedTuple):
    """A cleaned text and what was taken out of it, by the name of the rule or the statement itself, once per place."""

    text: str
    removed: tuple[str, ...]


def readable(raw: str, known: Sequence[str] = (), terms: NonEssential | None = None) -> Readable:
    """Any text: tidy, de-identified, nothing said twice in a row, without non-essential statements (`terms`; None: the shipped ones)."""
    terms = shipped() if terms is None else terms
    text = deidentify(clean(raw).text, known=known).text
    text, repeated = _said_once(text)
    text, gone = terms.removed(text)
    return Readable(text, repeated + gone)


def findings(raw: str, known: Sequence[str] = (), terms: NonEssential | None = None) -> Readable:
    """The findings, without the title above them."""
    return _untitled(readable(raw, known, terms), _FINDINGS_TITLE)


def impression(raw: str, known: Sequence[str] = (), terms: NonEssential | None = None) -> Readable:
    """The impression, without the title above it: that is the house's paper, not what a model should learn to write."""
    return _untitled(readable(raw, known, terms), _IMPRESSION_TITLE)


# --- many texts, of which nearly all stay as they are: each becomes what the function above makes of it ----------------------------------------

Known = Mapping[int, Sequence[str]]
"""The identifiers that a text may hold, by its number; most texts hold none."""


def all_readable(raws: Sequence[str], known: Known, terms: NonEssential) -> dict[int, Readable]:
    """What `readable` makes of those of many texts that it may not leave as they are, by number."""
    return _each(readable, raws, known, terms, _touched(raws, terms))


def all_findings(raws: Sequence[str], known: Known, terms: NonEssential) -> dict[int, Readable]:
    """What `findings` makes of those that it may not leave as they are."""
    return _each(findings, raws, known, terms, _touched(raws, terms) | _titled(raws, _FINDINGS_TITLE))


def all_impressions(raws: Sequence[str], known: Known, terms: NonEssential) -> dict[int, Readable]:
    """What `impression` makes of those that it may not leave as they are."""
    return _each(impression, raws, known, terms, _touched(raws, terms) | _titled(raws, _IMPRESSION_TITLE))


def _each(
    read: Callable[[str, Sequence[str], NonEssential], Readable],
    raws: Sequence[str],
    known: Known,
    terms: NonEssential,
    touched: set[int],
) -> dict[int, Readable]:
    return {number: read(raws[number], known.get(number, ()), terms) for number in sorted(touched | known.keys())}


def _touched(raws: Sequence[str], terms: NonEssential) -> set[int]:
    """Which texts `readable` may change when they hold nothing that their record knows of its patient: every step's own question, put to all at once."""
    together = Together(raws)
    folded = all_folded(together)
    return {n for n in untidy(together) if raws[n]} | suspects(folded) | terms.within(folded) | _repeating(raws)


def _repeating(raws: Sequence[str]) -> set[int]:
    """Which texts hold two statements that are the same."""
    joined = "\0".join(raws)
    if joined.count("\0") >= len(raws):  # a text holds NUL itself
        return set(range(len(raws)))
    cut = joined.replace("；", "。").replace(";", "。").replace("\n", "。").split("\0")
    return {n for n, pieces in enumerate(map(str.split, cut, repeat("。"))) if _same_twice(pieces)}


def _titled(raws: Sequence[str], title: re.Pattern[str]) -> set[int]:
    return {n for n, found in enumerate(map(title.match, raws)) if found is not None}


def _untitled(read: Readable, title: re.Pattern[str]) -> Readable:
    text, titles = read.text, 0
    while titles < 8 and (found := title.match(text)) is not None:
        text, titles = text[found.end() :], titles + 1
    if not titles:
        return read
    return Readable(text, (*(TITLE if number == 0 else REPEATED_TITLE for number in range(titles)), *read.removed))


def _same_twice(pieces: list[str]) -> bool:
    """Whether any two are the same, leaving out empty ones."""
    return len({"", *pieces}) <= len(pieces) - pieces.count("")


def _said_once(text: str) -> tuple[str, tuple[str, ...]]:
    """A text that stands twice as a whole stands once, and so does a sentence that follows itself. What is said again further on stays: it may be
    said of the other side."""
    if not _same_twice(text.replace("；", "。").replace(";", "。").replace("\n", "。").split("。")):
        return text, ()
    statements = [match[0] for match in _STATEMENT.finditer(text)]
    plain = [_MARKS.sub("", statement) for statement in statements]
    half, rest = divmod(len(plain), 2)
    removed: tuple[str, ...] = ()
    if half and not rest and plain[:half] == plain[half:] and sum(map(len, plain[:half])) >= 2 * _SHORTEST:
        statements, plain, removed = statements[:half], plain[:half], (REPEATED_TEXT,)
    kept: list[str] = []
    for number, statement in enumerate(statements):
        if number and plain[number] == plain[number - 1] and len(plain[number]) >= _SHORTEST:
            kept[-1] = kept[-1].rstrip("。；;！!\n") + statement[len(statement.rstrip("。；;！!\n")) :]
            removed = (*removed, REPEATED_SENTENCE)
        else:
            kept.append(statement)
    return ("".join(kept).rstrip("\n"), removed) if removed else (text, ())
