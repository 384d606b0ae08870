"""A text that remembers where each of its characters came from.

Every cleaned or normalised copy keeps a way back to the text as received, so that a span found in the copy can be shown
in the original. Does not decide what to change: that is `clinical.text` and `clinical.deidentify`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mapped:
    """`offsets[i]` is the index in the raw text of `text[i]`; the last entry is the raw length, so `len(text) + 1` in all.

    A text that nothing was done to has a `range` for its offsets, which costs nothing to make.
    """

    text: str
    offsets: Sequence[int]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The half-open span of the raw text that `text[start:end]` came from, in code points; clamped to the text."""
        start = min(max(start, 0), len(self.text))
        end = min(max(end, start), len(self.text))
        if start == end:
            return self.offsets[start], self.offsets[start]
        return self.offsets[start], self.offsets[end - 1] + 1

    def then(self, later: Mapped) -> Mapped:
        """`later` was made from our text: the same text, with offsets into our raw text."""
        if isinstance(self.offsets, range):
            return later
        if isinstance(later.offsets, range):
            return self
        return Mapped(later.text, tuple(self.offsets[i] for i in later.offsets))


def identity(raw: str) -> Mapped:
    return Mapped(raw, range(len(raw) + 1))


def replaced(raw: str, edits: Iterable[tuple[int, int, str]]) -> Mapped:
    """`raw` with each (start, end, new) done; edits are in order and do not overlap.

    The first character of `new` maps to the start of what it replaces and the last one to its end, so that a span over
    the whole replacement covers the whole original.
    """
    parts: list[str] = []
    offsets: list[int] = []
    at = 0
    for start, end, new in edits:
        parts.append(raw[at:start])
        offsets.extend(range(at, start))
        if new:
            parts.append(new)
            offsets.extend([start] * (len(new) - 1))
            offsets.append(max(start, end - 1))
        at = end
    parts.append(raw[at:])
    offsets.extend(range(at, len(raw) + 1))
    return Mapped("".join(parts), tuple(offsets))
