"""Many texts joined by line ends, so that one pass of a pattern over all of them tells which of them hold something.

A call of `re` costs more than the reading of a short text, and of thousands of texts a few hold what is looked for. Says where to look and decides
nothing: what holds nothing here needs no look of its own, and what holds something gets one.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate

__all__ = ["Together"]


class Together:
    """`texts` as one text: each stands between two line ends, whatever line ends it holds itself."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.text = "\n".join(["", *texts, ""])

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(map((1).__add__, map(len, self.texts))))

    def at(self, place: int) -> int:
        """The number of the text at a place of `text`, its closing line end included."""
        return bisect_left(self._ends, place)

    def holding(self, pattern: re.Pattern[str]) -> set[int]:
        """The numbers of the texts that hold a match of `pattern`, which may begin with the line end before a text or a line and takes in no other."""
        return {bisect_left(self._ends, match.end() - 1) for match in pattern.finditer(self.text)}
