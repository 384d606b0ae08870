"""A department in which each model learns from what was signed beside the last one: pretend reports, a model that forgets what is rare, readers who
mostly agree. Knows no policy; `test_variety` runs it with ours and without one."""

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from clinical.score import tokens
from sandbox.generator import generate
from training.policy import WEIGHTS, Candidate, Stratum
from training.variety import Text

READERS = {"hold_back": 5, "unassisted": 5, "not_opened": 5, "heavy_edit": 5, "light_edit": 20, "verbatim": 60}
"""Of a hundred reports, what becomes of the draft."""
FORGOTTEN = 0.003
"""A word that a smaller share of the training weight has is not learned."""
MONTH = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Signed:
    """One signed report: what the person would have written alone, and what was signed."""

    id: str
    stratum: Stratum
    day: date
    alone: str
    signed: str
    exposure: str

    def candidate(self, since: date) -> Candidate:
        """As the policy sees it, for a set of what was signed from `since` on."""
        return Candidate(self.id, self.stratum, self.exposure, self.day, self.day < since)

    def text(self, weight: float | None = None) -> Text:
        """As the guards see it."""
        human = self.exposure in ("unassisted", "hold_back")
        own = WEIGHTS[self.exposure] if weight is None else weight
        return Text(self.id, self.stratum, self.signed, "zh-Hans", own, human)


class Forgetful:
    """Writes what a person would, but only in words that it has read often enough; else the commonest sentence it knows."""

    def __init__(self, taught: Sequence[tuple[str, float]]) -> None:
        total = sum(weight for _, weight in taught)
        words: Counter[str] = Counter()
        sentences: Counter[str] = Counter()
        for text, weight in taught:
            for word in set(tokens(text)):
                words[word] += weight  # type: ignore[assignment]  # a Counter adds floats as well
            for sentence in _sentences(text):
                sentences[sentence] += weight  # type: ignore[assignment]
        self._known = {word for word, weight in words.items() if weight >= FORGOTTEN * total}
        self._commonest = max(sentences, key=lambda each: (sentences[each], each))

    def draft(self, alone: str) -> str:
        """What it makes of the findings that led a person to `alone`."""
        said = [sentence for sentence in _sentences(alone) if self._known.issuperset(tokens(sentence))]
        return "。".join(said or [self._commonest])


def signed_alone(count: int) -> list[Signed]:
    """Signed before there was any model."""
    return [
        Signed(f"0/{number}", kind, date(2024, 1, 1), text, text, "unassisted")
        for number, (kind, text) in enumerate(_written(count, 0))
    ]


def signed_beside(model: Forgetful, generation: int, count: int) -> list[Signed]:
    """One month of reports signed beside a model's drafts."""
    chance = random.Random(generation)
    day = date(2024, 1, 1) + generation * MONTH
    made = []
    for number, (kind, alone) in enumerate(_written(count, generation)):
        [exposure] = chance.choices(list(READERS), list(READERS.values()))
        draft = model.draft(alone)
        signed = {"verbatim": draft, "light_edit": f"{draft}。请结合临床"}.get(exposure, alone)
        made.append(Signed(f"{generation}/{number}", kind, day, alone, signed, exposure))
    return made


def _written(count: int, seed: int) -> list[tuple[Stratum, str]]:
    found = []
    for report in generate("balanced", scale=count / 332_673 * 3, seed=seed, houses=(1,)):
        if report.impression:
            systems = tuple(sorted(map(str, report.systems)))
            found.append((("north", systems, str(report.modality)), report.impression.strip()))
        if len(found) == count:
            break
    return found


def _sentences(text: str) -> list[str]:
    return [bare for part in re.split(r"[。；;\n]", text) if (bare := re.sub(r"^\s*\d{1,2}[、.．]", "", part).strip())]
