"""What the checks look at: one pair of texts, each read once, plus the instruction and the prior as matching copies."""

from __future__ import annotations

import re
from functools import cached_property

from clinical.facts import Fact, Reading, Statement
from clinical.issues import Pair
from clinical.matching import Matching, match
from clinical.script import in_script
from clinical.text import normalise

__all__ = ["Context", "Statement"]

_QUOTED = re.compile("(“[^”]*”)")


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

    @cached_property
    def matching(self) -> Matching:
        return match(self.findings, self.impression)

    def named_elsewhere(self, finding: Fact, stated: Fact) -> bool:
        """Whether another statement of the impression names a finding, and this one does not do so as well: it is spoken for."""
        here = self.impression.statement_at(stated.span[0])
        rivals = self.matching.rivals.get(finding)
        if rivals is None:
            return False
        mine = max(rivals.within(here), default=(0, 0))
        others = max(((name, place) for name, place in rivals.beyond(here) if name > 1 and place > 0), default=(0, 0))
        return others > (0, 0) and others[0] >= mine[0] and others[1] >= mine[1] and others != mine

    @property
    def prior_text(self) -> str:
        return self.prior.text

    @cached_property
    def instruction(self) -> str:
        return normalise(self.pair.prompt or "").text

    @property
    def chinese(self) -> bool:
        """Whether the report is Chinese; of other languages the vocabulary knows too little to call a statement made up or left out."""
        return self.pair.language.startswith("zh")

    def say(self, chinese: str, english: str) -> str:
        """A message in the language and script that the report's reader writes, what it quotes as it stands; English where that is no Chinese."""
        if not self.chinese:
            return english
        return "".join(
            part if part.startswith("“") else in_script(part, self.pair.language) for part in _QUOTED.split(chinese)
        )
