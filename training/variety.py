"""Whether what would train still says as much as people do: the guards against learning one's own drafts, generation after generation.

Published: self-training on radiology reports cut the words of impressions from 12,078 to about 200 (arXiv 2601.12946). Six figures of the texts
that would train stand against as many human texts of the same strata; each has to reach 90 %. Texts in, figures out; no database.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import pairwise
from statistics import fmean

from clinical.facts import facts
from clinical.score import tokens
from training.policy import Stratum

LEAST = 0.9
"""The share of the human figure that each guard asks for."""
RARE = 0.01
"""A finding that fewer reports state than this share of both sides together is rare."""
ENOUGH, ENOUGH_SAYING, ENOUGH_RARE = 200, 400, 200
"""Reports that the words are judged on; human reports that a rate rests on; rare findings. Fewer are shown, not judged: chance alone would
move them by more than a tenth."""
MOST = 20_000
"""Reports of each side that are read; of more, an even draw."""


@dataclass(frozen=True, slots=True)
class Text:
    """A signed impression that may train. `human`: written without a draft."""

    id: str
    stratum: Stratum
    signed: str
    language: str
    weight: float
    human: bool


@dataclass(frozen=True, slots=True)
class Guard:
    """One figure: of what would train, of people, and its share of theirs; `judged` where there is enough to tell."""

    name: str
    human: float
    trains: float
    judged: bool

    @property
    def share(self) -> float:
        """1 where people show none either."""
        return self.trains / self.human if self.human else 1.0

    @property
    def passed(self) -> bool:
        """Nothing against the set."""
        return not self.judged or self.share >= LEAST

    def __str__(self) -> str:
        told = f"{self.name}: {self.trains:.4g}, people {self.human:.4g} ({100 * self.share:.0f} %)"
        return told if self.judged else f"{told}, too few to judge"


def guards(trains: Iterable[Text], people: Iterable[Text]) -> tuple[Guard, ...]:
    """`trains` against the human texts `people`, as many of each and in the same mixture of strata; drawn by weight, by the hash of ids.

    A set of human texts alone is what people write: its guards are shown and not judged.
    """
    wanted = list(trains)
    mine, theirs = _alike(wanted, [one for one in people if one.human])
    shaped = any(not one.human for one in wanted)
    common = Counter(name for side in (mine, theirs) for said in side for name in said.findings)
    rare = {name for name, count in common.items() if count < RARE * 2 * len(mine)}

    def guard(name: str, figures: tuple[float, float], enough: bool) -> Guard:
        return Guard(name, figures[1], figures[0], shaped and enough)

    def rate(name: str, saying: str) -> Guard:
        counts = tuple(sum(getattr(said, saying) for said in side) for side in (mine, theirs))
        of = max(1, len(mine))
        return guard(name, (counts[0] / of, counts[1] / of), counts[1] >= ENOUGH_SAYING)

    found = [len(rare & {name for said in side for name in said.findings}) for side in (mine, theirs)]
    enough = len(mine) >= ENOUGH
    return (
        guard("different words", (_words(mine), _words(theirs)), enough),
        guard("different word pairs", (_couples(mine), _couples(theirs)), enough),
        guard("rare findings", (found[0], found[1]), found[1] >= ENOUGH_RARE),
        rate("reports with a hedge", "hedged"),
        rate("reports with 未见", "denies"),
        guard("characters", (_length(mine), _length(theirs)), enough),
    )


def refusal(found: Sequence[Guard]) -> str | None:
    """Why the set may not train, in a sentence; None when it may."""
    failed = [guard for guard in found if not guard.passed]
    if not failed:
        return None
    return (
        f"What would train says less than people do ({'; '.join(map(str, failed))}); at least {100 * LEAST:.0f} % of each is asked. "
        "Leave out what drafts have shaped (--exposure unassisted --exposure hold_back), or take more human texts (an earlier --since)."
    )


@dataclass(frozen=True)
class _Said:
    """What one text says; each is read once."""

    text: Text

    @cached_property
    def words(self) -> list[str]:
        return tokens(self.text.signed, language=self.text.language)

    @cached_property
    def _facts(self) -> list[tuple[bool, int, tuple[str, ...]]]:
        read = facts(self.text.signed, language=self.text.language)
        return [(fact.polarity, fact.certainty, (fact.lesion, *fact.structures)) for fact in read if not fact.advice]

    @cached_property
    def hedged(self) -> bool:
        return any(polarity and certainty < 4 for polarity, certainty, _ in self._facts)

    @cached_property
    def denies(self) -> bool:
        return any(not polarity for polarity, _, _ in self._facts)

    @cached_property
    def findings(self) -> frozenset[tuple[str, ...]]:
        return frozenset(name for polarity, _, name in self._facts if polarity)


def _alike(trains: Sequence[Text], people: Sequence[Text]) -> tuple[list[_Said], list[_Said]]:
    """As many of each side in every stratum. A text that is on both sides is read once."""
    share = min(1.0, MOST / max(1, len(trains)))
    sides: list[dict[Stratum, list[Text]]] = [{}, {}]
    for side, texts in zip(sides, (trains, people), strict=True):
        for text in sorted(texts, key=_place):
            side.setdefault(text.stratum, []).append(text)
    read: dict[str, _Said] = {}
    drawn: tuple[list[_Said], list[_Said]] = [], []
    for name in sorted(sides[0].keys() & sides[1].keys()):
        count = math.ceil(share * min(len(side[name]) for side in sides))
        for side, said in zip(sides, drawn, strict=True):
            said += [read.setdefault(text.id, _Said(text)) for text in side[name][:count]]
    return drawn


def _place(text: Text) -> tuple[float, str]:
    """Where the text stands in a draw without replacement by weight (Efraimidis and Spirakis 2006), chance being the hash of its id."""
    chance = (int.from_bytes(sha256(text.id.encode()).digest()[:8]) + 1) / 2**64
    return -math.log(chance) / text.weight, text.id


def _words(side: Sequence[_Said]) -> float:
    return float(len({word for said in side for word in said.words}))


def _couples(side: Sequence[_Said]) -> float:
    """Distinct-2 counted over as many reports: as a share of all pairs it would rise where texts get shorter."""
    return float(len({couple for said in side for couple in pairwise(said.words)}))


def _length(side: Sequence[_Said]) -> float:
    return fmean(len(said.text.signed) for said in side) if side else 0.0
