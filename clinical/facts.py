"""What one text states: which finding, where, on which side and level, how large, how many, how sure, present or absent.

Dictionaries and scope rules, no model. A statement nobody wrote a term for yields no fact; `coverage` says how often that
happens. Comparing two texts is `clinical.checks`.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property

from clinical.cues import SENTENCE, only_advice
from clinical.frames import BOTH, Fact, Place, Statement
from clinical.levels import Level, levels
from clinical.mapped import Mapped
from clinical.measures import Grade, Measure, grades, lowered, masked, measures
from clinical.scanner import Scanner
from clinical.text import normalise
from clinical.tokens import Token, tokens

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
        self.chinese = language.startswith("zh")

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
    def tokens(self) -> list[Token]:
        return tokens(self)

    @cached_property
    def statements(self) -> tuple[Statement, ...]:
        found: list[Statement] = []
        at = 0
        for match in [*SENTENCE.finditer(self.text), None]:
            end = len(self.text) if match is None else match.start()
            body = self.text[at:end]
            start = at + len(body) - len(body.lstrip())
            body = body.strip()
            if any(map(str.isalpha, body)):  # `1.` before an English item ends no sentence
                found.append(
                    Statement(start, start + len(body), body, only_advice(self.masked[start : start + len(body)]))
                )
            at = end if match is None else match.end()
        return tuple(found)

    @cached_property
    def _statement_starts(self) -> list[int]:
        return [self.span(one.start, one.end)[0] for one in self.statements]

    def statement_at(self, position: int) -> int:
        """The number (from 1) of the statement in which a position of the text as given lies; 0 before the first."""
        return bisect_right(self._statement_starts, position)

    def sentence_around(self, span: tuple[int, int]) -> tuple[int, int]:
        """The sentence, as a span of the text as given, in which a span of it lies; a semicolon ends one too."""
        for statement in self.statements:
            start, end = self.span(statement.start, statement.end)
            if start <= span[0] < end:
                return start, end
        return span

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
    def understood(self) -> list[tuple[Statement, bool]]:
        """Each statement that is no advice, and whether it yields at least one fact or normal structure."""
        read = {self.statement_at(fact.span[0]) for fact in self.facts}
        read |= {self.statement_at(self.span(p.start, p.end)[0]) for p, normal in self.places if normal}
        return [(one, number in read) for number, one in enumerate(self.statements, 1) if not one.advice]

    @property
    def coverage(self) -> float:
        """Share of the statements that were understood; 1 for none."""
        return sum(read for _, read in self.understood) / len(self.understood) if self.understood else 1.0


def facts(text: str, *, language: str = "zh-Hans") -> tuple[Fact, ...]:
    """The findings that a text states, present and absent, in order. Never raises on any text."""
    return tuple(Reading(text, language).facts)
