"""Which of many texts are likely to be nearly equal: MinHash sketches of their 5-grams and an index of them by bands. Numbers only, no database.

Two texts whose sets of 5-grams overlap by J (Jaccard) agree in each of the 126 numbers of their sketches with probability J. The index cuts a sketch
in 21 bands of 6 and proposes who agrees in a whole band: with J = 0.8 that happens with probability 1 - (1 - 0.8^6)^21 = 0.998, with J = 0.5 in 0.28.
What is proposed is then measured exactly (Broder 1997; Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

NEAR = 0.8
"""Jaccard overlap of 5-grams from which on two findings count as nearly equal."""
GRAM, ROWS, BANDS = 5, 6, 21
WIDTH = ROWS * BANDS
LIKELY = 0.68
"""Share of equal numbers in two sketches below which an overlap of `NEAR` is out of the question (3.4 standard deviations)."""
_CROWD = 256
_FRESH = 32_768

Sketch = NDArray[np.uint16]
Keys = NDArray[np.uint64]
_random = np.random.default_rng(20251122)
_FACTORS = _random.integers(1, 2**32, WIDTH, dtype=np.uint32) | np.uint32(1)
_OFFSETS = _random.integers(0, 2**32, WIDTH, dtype=np.uint32)


def grams(text: str) -> frozenset[str]:
    """The 5-grams of a text; a shorter text is its only one."""
    return frozenset(text[at : at + GRAM] for at in range(max(1, len(text) - GRAM + 1)))


def overlap(one: frozenset[str], other: frozenset[str]) -> float:
    """Jaccard overlap of two sets, 0 to 1."""
    both = len(one & other)
    return both / (len(one) + len(other) - both)


def sketch(texts: Sequence[str]) -> Sketch:
    """One row of `WIDTH` numbers for each text."""
    padded = [text if len(text) >= GRAM else text.ljust(GRAM, "\0") for text in texts]
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    lengths = np.array([len(text) for text in padded])
    starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
    hashed = np.zeros(len(codes) - GRAM + 1, np.uint64)
    for place in range(GRAM):
        hashed = hashed * np.uint64(0x9E3779B97F4A7C15) + codes[place : len(codes) - GRAM + 1 + place]
    hashed ^= hashed >> np.uint64(29)
    hashed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed = (hashed >> np.uint64(32)).astype(np.uint32)
    inside = np.ones(len(mixed), bool)  # a 5-gram that begins in one text and ends in the next is none
    for place in range(1, GRAM):
        inside[(starts[1:] - place)] = False
    counts = lengths - GRAM + 1
    firsts = np.concatenate(([0], np.cumsum(counts)[:-1]))
    mixed = mixed[inside]
    rows = np.empty((len(padded), WIDTH), np.uint16)
    for number in range(WIDTH):
        rows[:, number] = np.minimum.reduceat(mixed * _FACTORS[number] + _OFFSETS[number], firsts).astype(np.uint16)
    return rows


def _keys(rows: Sketch) -> Keys:
    """Shape (bands, texts): one number for each band of each sketch."""
    parts = rows.reshape(len(rows), BANDS, ROWS).astype(np.uint64)
    keys = np.zeros((len(rows), BANDS), np.uint64)
    for place in range(ROWS):
        keys = (keys ^ parts[:, :, place]) * np.uint64(0x100000001B3)
        keys ^= keys >> np.uint64(31)
    return np.ascontiguousarray(keys.T)


@dataclass
class _Level:
    """Band keys in order, and whose they are."""

    keys: list[Keys]
    whose: list[NDArray[np.int32]]


def _level(keys: Keys, whose: NDArray[np.int32]) -> _Level:
    orders = [np.argsort(band, kind="stable") for band in keys]
    return _Level([band[order] for band, order in zip(keys, orders, strict=True)], [whose[order] for order in orders])


@dataclass
class Index:
    """Sketches that can be asked who is likely to be near. Places are given in the order of adding, from 0."""

    _rows: Sketch = field(default_factory=lambda: np.empty((1024, WIDTH), np.uint16))
    _count: int = 0
    _sorted: int = 0
    _levels: list[_Level] = field(default_factory=list)

    def __len__(self) -> int:
        return self._count

    def add(self, rows: Sketch) -> None:
        """More sketches, behind those that are there."""
        if not len(rows):
            return
        needed = self._count + len(rows)
        if needed > len(self._rows):
            grown = np.empty((max(needed, 2 * len(self._rows)), WIDTH), np.uint16)
            grown[: self._count] = self._rows[: self._count]
            self._rows = grown
        self._rows[self._count : needed] = rows
        self._levels.append(_level(_keys(rows), np.arange(self._count, needed, dtype=np.int32)))
        self._count = needed
        if needed - self._sorted > _FRESH:
            self._levels = [_level(_keys(self._rows[:needed]), np.arange(needed, dtype=np.int32))]
            self._sorted = needed

    def near(self, rows: Sketch) -> list[list[int]]:
        """For each sketch the places of those that are likely near it, the likeliest first."""
        found: list[list[int]] = [[] for _ in range(len(rows))]
        if not self._count or not len(rows):
            return found
        keys = _keys(rows)
        pairs = [
            pair
            for level in self._levels
            for band in range(BANDS)
            if len(pair := _pairs(keys[band], level.keys[band], level.whose[band]))
        ]
        if not pairs:
            return found
        unique = np.unique(np.concatenate(pairs))
        asking, places = (unique >> 32).astype(np.int64), (unique & 0xFFFFFFFF).astype(np.int64)
        for start in range(0, len(unique), 65_536):
            some = slice(start, start + 65_536)
            equal = (rows[asking[some]] == self._rows[places[some]]).sum(axis=1, dtype=np.int32)
            likely = np.flatnonzero(equal >= LIKELY * WIDTH)
            for at in likely[np.argsort(-equal[likely], kind="stable")]:
                found[asking[start + at]].append(int(places[start + at]))
        return found


def _pairs(asking: Keys, band: Keys, whose: NDArray[np.int32]) -> NDArray[np.int64]:
    """(who asks, who has the same key) as one number each; of a crowd with one key the first ones."""
    left = np.searchsorted(band, asking, "left")
    counts = np.minimum(np.searchsorted(band, asking, "right") - left, _CROWD)
    askers = np.repeat(np.arange(len(asking), dtype=np.int64), counts)
    if not len(askers):
        return np.empty(0, np.int64)
    steps = np.arange(len(askers)) - np.repeat(np.cumsum(counts) - counts, counts)
    pairs: NDArray[np.int64] = (askers << 32) | whose[np.repeat(left, counts) + steps].astype(np.int64)
    return pairs
