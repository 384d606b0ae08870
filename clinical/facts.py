"""What one text states: which finding, where, on which side and level, how large, how many, how sure, present or absent.

Dictionaries and scope rules, no model. A statement nobody wrote a term for yields no fact; `coverage` says how often that
happens. Comparing two texts is `clinical.faithful`.
"""

from __future__ import annotations

from functools import cached_property

from clinical.frames import BOTH, Fact, Place, Statement
from clinical.mapped import Mapped
from clinical.measures import Grade, Level, Measure, grades, levels, lowered, masked, measures
from clinical.scanner import SENTENCE, Scanner, only_advice
from clinical.text import normalise

__all__ = ["BOTH", "Fact", "Place", "Reading", "Statement", "facts"]


class Reading:
    """One text read once: its matching copy, statements, places, levels, measures and facts, each computed when asked for.

    All positions inside are of the matching copy; `span` leads back to the text as given.
    """

    def __init__(self, raw: str, language: str = "zh-Hans") -> None:
        self.raw = raw
        self.language = language
        self.mapped: Mapped = normalise(raw)
        self.text: str = self.mapped.text

    def span(self, start: int, end: int) -> tuple[int, int]:
        return self.mapped.span(start, end)

    def quote(self, span: tuple[int, int]) -> str:
        """What stands at a span of the text as given, for a message."""
        return self.raw[span[0] : span[1]].strip()

    @cached_property
    def lower(self) -> str:
        return lowered(self.text)

    @cached_property
    def masked(self) -> str:
        return masked(self.lower)

    @cached_property
    def levels(self) -> list[Level]:
        return levels(self.masked)

    @cached_property
    def measures(self) -> list[Measure]:
        return measures(self.masked)

    @cached_property
    def grades(self) -> list[Grade]:
        return list(grades(self.lower))

    @cached_property
    def statements(self) -> tuple[Statement, ...]:
        found: list[Statement] = []
        at = 0
        for match in [*SENTENCE.finditer(self.text), None]:
            end = len(self.text) if match is None else match.start()
            body = self.text[at:end]
            start = at + len(body) - len(body.lstrip())
            body = body.strip()
            if body:
                found.append(
                    Statement(start, start + len(body), body, only_advice(self.masked[start : start + len(body)]))
                )
            at = end if match is None else match.end()
        return tuple(found)

    @cached_property
    def _read(self) -> tuple[list[Fact], list[tuple[Place, bool]]]:
        return Scanner(self).run()

    @property
    def facts(self) -> list[Fact]:
        return self._read[0]

    @property
    def places(self) -> list[tuple[Place, bool]]:
        """Every structure mentioned, and whether its clause calls it normal or absent of findings."""
        return self._read[1]

    @cached_property
    def regions(self) -> frozenset[str]:
        return frozenset(place.path.split("/")[0] for place, _ in self.places)

    @cached_property
    def coverage(self) -> float:
        """Share of the statements that are no advice and yield at least one fact or normal structure; 1 for none."""
        core = [s for s in self.statements if not s.advice]
        if not core:
            return 1.0
        spots = [fact.span[0] for fact in self.facts] + [
            self.span(p.start, p.end)[0] for p, normal in self.places if normal
        ]
        read = sum(
            any(self.span(s.start, s.end)[0] <= spot < self.span(s.start, s.end)[1] for spot in spots) for s in core
        )
        return read / len(core)


def facts(text: str, *, language: str = "zh-Hans") -> tuple[Fact, ...]:
    """The findings that a text states, present and absent, in order. Never raises on any text."""
    return tuple(Reading(text, language).facts)
