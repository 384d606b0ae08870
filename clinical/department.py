"""A department's own words as a value: rows beside the shipped vocabulary, and for which stretch of a program they hold.

Nothing is shared between two departments: whoever reads a text says whose words hold (`using`), in this thread alone, and what the
vocabulary makes of them is remembered with them. What a row may say is `clinical.overlay`'s; what it means is `clinical.lexicon`'s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

__all__ = ["SHIPPED", "Rows", "Words", "own_rows", "per_department", "using"]

Rows = Mapping[str, tuple[tuple[str, ...], ...]]
"""Rows by the name of their file, as `clinical.overlay` makes them."""

P = ParamSpec("P")
T = TypeVar("T")


class Words:
    """The rows of one department. Immutable; equal rows are equal words. `digest` is empty when there are none."""

    __slots__ = ("_remembered", "digest", "rows")

    def __init__(self, rows: Rows | None = None) -> None:
        self.rows = {name: each for name, each in sorted((rows or {}).items()) if each}
        self.digest = hashlib.sha256(repr(list(self.rows.items())).encode()).hexdigest() if self.rows else ""
        self._remembered: dict[Callable[..., Any], Callable[..., Any]] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Words) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __len__(self) -> int:
        return sum(map(len, self.rows.values()))

    def remembering(self, read: Callable[..., T]) -> Callable[..., T]:
        """`read`, whose answers under these words are kept as long as the words are."""
        found = self._remembered.get(read)
        if found is None:
            found = self._remembered[read] = cache(read)
        return found


SHIPPED = Words()
"""No words but the shipped ones."""

_in_use: ContextVar[Words] = ContextVar("words", default=SHIPPED)


@contextmanager
def using(words: Words) -> Iterator[None]:
    """Within it, in this thread, texts are read with a department's words."""
    before = _in_use.set(words)
    try:
        yield
    finally:
        _in_use.reset(before)


def own_rows(name: str) -> tuple[tuple[str, ...], ...]:
    """The rows that the words in use add to a file of the vocabulary."""
    return _in_use.get().rows.get(name, ())


def per_department(read: Callable[P, T]) -> Callable[P, T]:
    """`functools.cache` for what is read of the vocabulary: apart for the words of each department."""

    @wraps(read)
    def remembered(*args: P.args, **kwargs: P.kwargs) -> T:
        return _in_use.get().remembering(read)(*args, **kwargs)

    return remembered
