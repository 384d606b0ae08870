"""The values that reading a report yields: places, facts, statements. How they are read is `clinical.scanner`."""

from __future__ import annotations

from dataclasses import dataclass

from clinical.lexicon import lesions
from clinical.measures import Measure

BOTH = frozenset("LR")


@dataclass(frozen=True, slots=True)
class Place:
    """One structure as mentioned: its path in the vocabulary, the sides ("L", "R", both, none said), its span."""

    path: str
    sides: frozenset[str]
    start: int
    end: int
    said_side: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Fact:
    """One finding of one statement. Spans are half-open, in code points of the text as given."""

    lesion: str
    places: tuple[Place, ...]
    levels: frozenset[str]
    loose_levels: frozenset[str]
    sizes: tuple[Measure, ...]
    count: str | None  # "one", "many" or a number
    polarity: bool
    certainty: int  # 0 absent · 1 not excluded · 2 possible · 3 probable · 4 plain
    advice: bool
    span: tuple[int, int]
    clause: tuple[int, int]
    rest: bool = False  # 余椎间盘未见突出: of what has not been named
    emphasis: bool = False  # 以右肺为著, 其中最大者位于右肺中叶: where a finding named before is worst

    @property
    def structures(self) -> tuple[str, ...]:
        return tuple(place.path for place in self.places)

    @property
    def sides(self) -> frozenset[str]:
        return frozenset().union(*(place.sides for place in self.places))

    @property
    def severity(self) -> int:
        return lesions()[self.lesion].severity

    @property
    def name(self) -> str:
        """The finding's first name in the vocabulary."""
        return lesions()[self.lesion].name


@dataclass(frozen=True, slots=True)
class Statement:
    """One sentence of the matching copy; `advice` when it only recommends."""

    start: int
    end: int
    text: str
    advice: bool
