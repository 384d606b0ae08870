"""Where a text is to be highlighted: the spans of the issues, cut into pieces that do not overlap. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

_STRONGER = {"withhold": 0, "red": 1, "amber": 2}


@dataclass(frozen=True, slots=True)
class Span:
    """What one issue says of a text: half-open, in code points; `number` is the issue's place in the list beside it."""

    start: int
    end: int
    severity: str
    number: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text under the same issues: the strongest severity (None: no issue), all their numbers, and those that end here."""

    text: str
    severity: str | None
    numbers: tuple[int, ...]
    ends: tuple[int, ...]


def spans(issues: Sequence[dict[str, object]], side: str) -> list[Span]:
    """The spans of numbered issues in the text that `side` names (`span_findings` or `span_impression`)."""
    found = []
    for number, issue in enumerate(issues, 1):
        place = issue[side]
        if isinstance(place, (list, tuple)) and len(place) == 2:
            found.append(Span(int(place[0]), int(place[1]), str(issue["severity"]), number))
    return found


def pieces(text: str, marked: Iterable[Span]) -> list[Piece]:
    """The whole text in order. A span that lies outside of it is left out: a wrong highlight is worse than none."""
    valid = [span for span in marked if 0 <= span.start < span.end <= len(text)]
    borders = sorted({0, len(text), *(span.start for span in valid), *(span.end for span in valid)})
    cut = []
    for start, end in pairwise(borders):
        over = [span for span in valid if span.start <= start and end <= span.end]
        severity = min((span.severity for span in over), key=lambda s: _STRONGER.get(s, 9), default=None)
        cut.append(
            Piece(
                text[start:end],
                severity,
                tuple(span.number for span in over),
                tuple(span.number for span in over if span.end == end),
            )
        )
    return cut
