"""What the checks look at: one pair of texts, each read once, plus the instruction and the prior as matching copies."""

from __future__ import annotations

from functools import cached_property

from clinical.facts import Reading, Statement
from clinical.issues import Pair
from clinical.text import normalise

__all__ = ["Context", "Statement"]


class Context:
    """A pair and its readings, computed when first asked for and shared by all checks."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair

    @cached_property
    def findings(self) -> Reading:
        return Reading(self.pair.findings, self.pair.language)

    @cached_property
    def impression(self) -> Reading:
        return Reading(self.pair.impression, self.pair.language)

    @cached_property
    def prior(self) -> Reading:
        return Reading(self.pair.prior or "", self.pair.language)

    @property
    def prior_text(self) -> str:
        return self.prior.text

    @cached_property
    def instruction(self) -> str:
        return normalise(self.pair.prompt or "").text

    def say(self, chinese: str, english: str) -> str:
        """A message in the language that the report's reader writes."""
        return chinese if self.pair.language.startswith("zh") else english
