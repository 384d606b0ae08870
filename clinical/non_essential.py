"""Statements that say nothing of the patient (the paper's text insignificance, Algorithm 1): which there are, and a text without them.

They are data: `vocabulary/non_essential.toml`, and a department's file of the same form. A statement is taken out only where it stands by itself, so
no sentence loses a part; and no statement may hold a word for a structure or a finding, so no finding is lost.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files

from clinical.deidentify import fold
from clinical.lexicon import lesion_terms, structure_terms
from clinical.together import Together

__all__ = ["NonEssential", "read", "shipped"]

_BEFORE = frozenset("。；;，,、.：:（(【[ \n")
_AFTER = frozenset("。；;，,、.）)】] \n")
_ENDS, _COMMAS = "。；;.", "，,、"
_NO_NAME = re.compile(r"[,{}\"\\\s]")


@dataclass(frozen=True)
class NonEssential:
    """Statements to take out, each with its reason: the names under which removals are counted are the statements themselves."""

    reasons: Mapping[str, str]

    def __hash__(self) -> int:
        return hash(self.digest)

    @cached_property
    def digest(self) -> str:
        """Changes with any statement."""
        return hashlib.sha256("\n".join(sorted(self.reasons)).encode()).hexdigest()[:12]

    def with_more(self, more: NonEssential) -> NonEssential:
        """These and those of `more`."""
        return NonEssential({**self.reasons, **more.reasons})

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, sorted(self.reasons, key=len, reverse=True))))

    def within(self, folded: Together) -> set[int]:
        """Which of many folded texts hold one of them, whether it stands by itself or not: `removed` changes no others."""
        return folded.holding(self._pattern) if self.reasons else set()

    def removed(self, text: str) -> tuple[str, tuple[str, ...]]:
        """`text` without them, and each one that was taken out, once per place; blanks and doubled punctuation around it go too."""
        if not self.reasons:
            return text, ()
        folded = fold(text)
        kept: list[str] = []
        gone: list[str] = []
        at = 0
        for match in self._pattern.finditer(folded):
            start, end = match.span()
            if (
                start < at
                or not (start == 0 or folded[start - 1] in _BEFORE)
                or not (end == len(folded) or folded[end] in _AFTER)
            ):
                continue
            start, end = _with_punctuation(folded, start, end)
            kept.append(text[at : max(at, start)])
            gone.append(match[0])
            at = end
        if not gone:
            return text, ()
        return ("".join(kept) + text[at:]).strip(" \n"), tuple(gone)


def _with_punctuation(text: str, start: int, end: int) -> tuple[int, int]:
    """The span with what would be left over around it: its brackets, its own end mark, or the comma that led up to it."""
    if start > 0 and end < len(text) and text[start - 1] + text[end] in ("（）", "()", "【】", "[]"):
        start, end = start - 1, end + 1
        if start > 0 and text[start - 1] not in _ENDS + _COMMAS + "\n":
            return start, end
    if start > 0 and text[start - 1] in _COMMAS:
        return start - 1, end
    if end < len(text) and text[end] in _ENDS + _COMMAS:
        end += 1
    while end < len(text) and text[end] in " \n" and (start == 0 or text[start - 1] in " \n"):
        end += 1
    return start, end


def read(source: str, name: str) -> NonEssential:
    """The statements of one file's text.

    Raises:
        ValueError: it is no such file, or a statement could be part of a finding; the sentence names file and statement.
    """
    try:
        data = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{name}: {error}") from None
    reasons: dict[str, str] = {}
    for table in data.get("reason", ()):
        if (
            not isinstance(table, dict)
            or not isinstance(table.get("name"), str)
            or not isinstance(table.get("texts"), list)
        ):
            raise ValueError(f"{name}: each [[reason]] has a name and a list of texts.")
        for text in table["texts"]:
            if not isinstance(text, str) or len(text) < 2 or _NO_NAME.search(text):
                raise ValueError(
                    f"{name}: {text!r} must be a text of two characters or more without blanks, commas, quotes or braces."
                )
            folded = fold(text)
            if lesion_terms().find(folded) or structure_terms().find(folded):
                raise ValueError(f"{name}: {text!r} names a structure or a finding, and those are never taken out.")
            reasons[folded] = table["name"]
    return NonEssential(reasons)


@cache
def shipped() -> NonEssential:
    """Those of every department."""
    return read(files("clinical").joinpath("vocabulary", "non_essential.toml").read_text("utf-8"), "non_essential.toml")
