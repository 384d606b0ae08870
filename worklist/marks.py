"""Where a text is to be highlighted: the spans of issues and of evidence, cut into pieces that do not overlap. Pure."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import itemgetter

UNTOLD = "!"
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


@dataclass(frozen=True, slots=True)
class Link:
    """A half-open span that belongs to what stands under `key` elsewhere: a letter, "?" for a counterpart that is lacking, `UNTOLD` and a number."""

    start: int
    end: int
    key: str


@dataclass(frozen=True, slots=True)
class Stretch:
    """Pieces under the same links: their keys, and those of them that end here."""

    pieces: tuple[Piece, ...]
    keys: tuple[str, ...]
    ends: tuple[str, ...]

    @property
    def letters(self) -> str:
        """What a reader sees at its end; findings left out have no letter, for nothing answers to them."""
        return ",".join(key for key in self.ends if not key.startswith(UNTOLD))

    @property
    def is_untold(self) -> bool:
        return any(key.startswith(UNTOLD) for key in self.keys)


def spans(issues: Sequence[dict[str, object]], side: str) -> list[Span]:
    """The spans of numbered issues in the text that `side` names (`span_findings` or `span_impression`)."""
    found = []
    for number, issue in enumerate(issues, 1):
        place = issue[side]
        if isinstance(place, (list, tuple)) and len(place) == 2:
            found.append(Span(int(place[0]), int(place[1]), str(issue["severity"]), number))
    return found


def pieces(text: str, marked: Iterable[Span], borders: Iterable[int] = ()) -> list[Piece]:
    """The whole text in order, cut at `borders` too. A span that lies outside of it is left out: a wrong highlight is worse than none."""
    valid = [span for span in marked if 0 <= span.start < span.end <= len(text)]
    cuts = sorted({0, len(text), *borders, *(span.start for span in valid), *(span.end for span in valid)})
    cut = []
    for start, end in pairwise(cuts):
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


def stretches(text: str, marked: Iterable[Span], links: Iterable[Link]) -> list[Stretch]:
    """The whole text in order, its pieces grouped by the links that they are under; links outside of the text are left out."""
    valid = [link for link in links if 0 <= link.start < link.end <= len(text) and link.key]
    borders = sorted({*(link.start for link in valid), *(link.end for link in valid)})
    placed: list[tuple[int, Piece]] = []
    at = 0
    for piece in pieces(text, marked, borders):
        placed.append((bisect_right(borders, at), piece))
        at += len(piece.text)
    found = []
    for region, group in groupby(placed, key=itemgetter(0)):
        start, end = ([0, *borders][region], [*borders, len(text)][region])
        over = [link for link in valid if link.start <= start and end <= link.end]
        keys = dict.fromkeys(link.key for link in over)
        ends = dict.fromkeys(link.key for link in over if link.end == end)
        found.append(Stretch(tuple(piece for _, piece in group), tuple(keys), tuple(ends)))
    return found
