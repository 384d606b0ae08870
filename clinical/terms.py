"""Finding the words of a vocabulary in a text: the longest first, from left to right, whole or in pieces with a gap.

Knows nothing of what a word means; the vocabularies are `clinical.lexicon`'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Generic, TypeVar

Value = TypeVar("Value")


def _whole_word(text: str, start: int, end: int) -> bool:
    """An alphabetic term is no piece of a longer word: `ca` is not found in `rca`."""
    if (
        text[start] < "\u0250"
        and start > 0
        and text[start].isalpha()
        and text[start - 1] < "\u0250"
        and text[start - 1].isalpha()
    ):
        return False
    last = text[end - 1]
    return not (last < "\u0250" and last.isalnum() and end < len(text) and text[end] < "\u0250" and text[end].isalnum())


class Terms(Generic[Value]):
    """Terms of a vocabulary, found in a text from left to right, the longest one first, never overlapping."""

    def __init__(self, terms: Mapping[str, Value]) -> None:
        self._terms = dict(terms)
        lengths: dict[str, set[int]] = {}
        for term in self._terms:
            lengths.setdefault(term[0], set()).add(len(term))
        self._lengths = {first: tuple(sorted(each, reverse=True)) for first, each in lengths.items()}

    def __len__(self) -> int:
        return len(self._terms)

    def __contains__(self, term: str) -> bool:
        return term in self._terms

    def get(self, term: str) -> Value | None:
        return self._terms.get(term)

    def find(self, text: str) -> list[tuple[int, int, Value]]:
        """(start, end, value) of each term in `text`, in order."""
        found: list[tuple[int, int, Value]] = []
        terms, lengths = self._terms, self._lengths
        at, end = 0, len(text)
        while at < end:
            for length in lengths.get(text[at], ()):
                value = terms.get(text[at : at + length])
                if value is not None and at + length <= end and _whole_word(text, at, at + length):
                    found.append((at, at + length, value))
                    at += length
                    break
            else:
                at += 1
        return found


class Gaps:
    """Terms with a gap (`密度*减低`): their pieces in one clause, at most 6 characters of no negation between two of them."""

    _WIDTH = 6
    _BARRED = re.compile(r"[,、。;未无不伴并及和见\s\x00]")

    def __init__(self, terms: Mapping[str, str]) -> None:
        self._heads: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        for term, value in terms.items():
            head, *rest = term.split("*")
            self._heads.setdefault(head, []).append((tuple(rest), value))
        lengths: dict[str, set[int]] = {}
        for head in self._heads:
            lengths.setdefault(head[0], set()).add(len(head))
        self._lengths = {first: tuple(sorted(each, reverse=True)) for first, each in lengths.items()}

    def find(self, text: str) -> list[tuple[int, int, str]]:
        """(start, end, value) from left to right, never overlapping; of two that begin alike the one with the longer first piece."""
        found: list[tuple[int, int, str]] = []
        lengths, heads = self._lengths, self._heads
        at, end = 0, len(text)
        while at < end:
            hit = None
            for length in lengths.get(text[at], ()):
                for rest, value in heads.get(text[at : at + length], ()):
                    stop = self._after(text, at + length, rest)
                    if stop is not None and (hit is None or stop > hit[1]):
                        hit = (at, stop, value)
                if hit is not None:
                    break
            if hit is None:
                at += 1
            else:
                found.append(hit)
                at = hit[1]
        return found

    def _after(self, text: str, at: int, pieces: tuple[str, ...]) -> int | None:
        """Where the last piece ends, or None when one of them does not come."""
        for piece in pieces:
            start = text.find(piece, at, at + self._WIDTH + len(piece))
            if start < 0 or self._BARRED.search(text, at, start):
                return None
            at = start + len(piece)
        return at
