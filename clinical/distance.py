"""How many characters a person changed: Levenshtein's distance, bit-parallel, and what it is made of. Knows nothing of words or findings."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Edits", "edit_distance", "edits"]

_TRACED = 1 << 22
"""Cells of a table whose way back is kept as it is (a megabyte of bits); larger ones are halved first."""


@dataclass(frozen=True, slots=True)
class Edits:
    """Characters put in, taken out and replaced, on a shortest way from one text to the other; there may be others."""

    inserted: int = 0
    deleted: int = 0
    replaced: int = 0

    def __add__(self, other: Edits) -> Edits:
        return Edits(self.inserted + other.inserted, self.deleted + other.deleted, self.replaced + other.replaced)

    @property
    def distance(self) -> int:
        return self.inserted + self.deleted + self.replaced


def edit_distance(one: str, other: str) -> int:
    """Characters inserted, deleted or replaced to make one text the other."""
    if one == other:
        return 0
    if not one or not other:
        return len(one) or len(other)
    plus, minus = _columns(one, other)[-1]
    return len(other) + plus.bit_count() - minus.bit_count()


def edits(one: str, other: str) -> Edits:
    """What was done to make `one` the `other`; the three together are `edit_distance`. Memory grows with the length, not with its square."""
    start = 0
    end = min(len(one), len(other))
    while start < end and one[start] == other[start]:
        start += 1
    one, other = one[start:], other[start:]
    tail = 0
    while tail < min(len(one), len(other)) and one[-1 - tail] == other[-1 - tail]:
        tail += 1
    one, other = one[: len(one) - tail], other[: len(other) - tail]
    if not one or not other:
        return Edits(inserted=len(other), deleted=len(one))
    if len(one) * len(other) <= _TRACED or len(other) == 1:
        return _traced(one, other)
    half = len(other) // 2
    there = _row(one, other[:half])
    back = _row(one[::-1], other[half:][::-1])[::-1]
    cut = min(range(len(one) + 1), key=lambda at: there[at] + back[at])
    return edits(one[:cut], other[:half]) + edits(one[cut:], other[half:])


def _columns(one: str, other: str, *, keep: bool = False) -> list[tuple[int, int]]:
    """Where the distance from `one` rises and falls by one from character to character, as bits: for all of `other`, or (`keep`) after each of
    its characters (Myers 1999, Hyyrö 2003)."""
    where: dict[str, int] = {}
    for index, character in enumerate(one):
        where[character] = where.get(character, 0) | 1 << index
    full = (1 << len(one)) - 1
    plus, minus = full, 0
    kept = [(plus, minus)]
    for character in other:
        match = where.get(character, 0)
        zero = (((match & plus) + plus) ^ plus) | match | minus
        grows = minus | ~(zero | plus) & full
        shrinks = plus & zero
        grows = (grows << 1 | 1) & full
        shrinks = shrinks << 1 & full
        plus = shrinks | ~(zero | grows) & full
        minus = grows & zero & full
        if keep:
            kept.append((plus, minus))
    return kept if keep else [(plus, minus)]


def _row(one: str, other: str) -> list[int]:
    """The distance of every beginning of `one` from `other`."""
    plus, minus = _columns(one, other)[-1]
    row = [len(other)]
    for up, down in zip(f"{plus:0{len(one)}b}"[::-1], f"{minus:0{len(one)}b}"[::-1], strict=True):
        row.append(row[-1] + (up == "1") - (down == "1"))
    return row


def _traced(one: str, other: str) -> Edits:
    """The way back through the whole table, from its last cell to its first."""
    columns = _columns(one, other, keep=True)
    i, j = len(one), len(other)
    inserted = deleted = replaced = 0
    while i and j:
        bit = 1 << i - 1
        if columns[j][0] & bit:  # one less without this character of `one`
            i, deleted = i - 1, deleted + 1
        elif columns[j - 1][1] & bit:  # one less without this character of `other`
            j, inserted = j - 1, inserted + 1
        else:
            i, j = i - 1, j - 1
            replaced += one[i] != other[j]
    return Edits(inserted + j, deleted + i, replaced)
