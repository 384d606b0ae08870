"""What may be trained on, as data and small pure functions: which cases, how much each counts, and how many of a kind.

A text that a draft of ours may have shaped teaches the model its own words; so it counts less, and never more than the human texts of
its stratum together (design note on the learning loop, D1 to D3). Knows cases, no database.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from typing import Any

from clinical.case import ClinicalInput
from core.errors import Refused

HUMAN = frozenset({"unassisted", "hold_back"})
"""Exposure classes of texts that were written without a draft: the only ones that models are measured by, and at least half of every stratum."""
UNTOUCHED = HUMAN | {"not_opened"}
"""The same, and texts whose draft was on offer and never displayed; enough to watch by."""

WEIGHTS = {
    "unassisted": 1.0,
    "hold_back": 1.0,
    "not_opened": 1.0,
    "heavy_edit": 1.0,
    "light_edit": 0.5,
    "verbatim": 0.25,
}
"""What a text of each exposure class counts in the loss."""
VERBATIM_SHARE = 0.1
"""The most of a stratum's weight that texts equal to their draft may have."""
_LAST_TO_GO = ("not_opened", "heavy_edit", "light_edit", "verbatim")
"""The classes beside the human ones, in the order in which they find room."""

Stratum = tuple[str, tuple[str, ...], str]


@dataclass(frozen=True, slots=True)
class Policy:
    """What goes into a training set. Empty means all; `exposures` are the classes of signed text that train (checks-and-learning, D1).

    `institutions`, `systems` and `modalities` narrow both parts; the rest narrows the training part only, so that the tested one stays
    comparable: `since` (included) and `until` (not), ISO dates of signing; `cap`, the most reports of one institution × systems ×
    modality. A stratum in which less than half of the weight would be human keeps its human texts from before `since`, the newest first, as
    far as it takes. `exclude` takes cases by id out of both; `apart_from` names earlier sets whose tested findings must not train. Texts that
    were signed with a grave issue (training.eligible) train only with `red_issues`.
    """

    institutions: tuple[str, ...] = ()
    systems: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    exposures: tuple[str, ...] = ("unassisted", "hold_back", "not_opened", "light_edit", "heavy_edit")
    since: str = ""
    until: str = ""
    exclude: tuple[str, ...] = ()
    cap: int | None = None
    apart_from: tuple[str, ...] = ()
    red_issues: bool = False

    def __post_init__(self) -> None:
        for day in (self.since, self.until):
            try:
                date.fromisoformat(day or "2000-01-01")
            except ValueError:
                raise Refused(f"{day} is no date; write it as 2024-01-31.") from None
        if self.cap is not None and self.cap < 1:
            raise Refused("A cap must be at least 1.")
        unknown = sorted(set(self.exposures) - WEIGHTS.keys())
        if unknown:
            raise Refused(f"There is no exposure class {unknown[0]}; there are {', '.join(WEIGHTS)}.")

    def covers(self, case: ClinicalInput) -> bool:
        """Whether the case is of the institutions, systems and modalities asked for."""
        return (
            (not self.institutions or case.institution in self.institutions)
            and (not self.modalities or case.modality in self.modalities)
            and (not self.systems or any(system in self.systems for system in case.systems))
        )

    def signed_within(self, day: date | None) -> bool:
        """Whether a report signed on `day` may train; one without a date may where no dates are asked for."""
        if not self.since and not self.until:
            return True
        if day is None:
            return False
        return (not self.since or day >= date.fromisoformat(self.since)) and (
            not self.until or day < date.fromisoformat(self.until)
        )

    def signed_before(self, day: date | None) -> bool:
        """Whether a report signed on `day` is from before the days that are asked for."""
        return bool(self.since) and day is not None and day < date.fromisoformat(self.since)


def policy(stored: Mapping[str, Any]) -> Policy:
    """The policy that `dataclasses.asdict` and JSON made `stored` of."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list | tuple) else v for k, v in stored.items()}
    return Policy(**values)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A case for training as far as the policy asks: its id, its kind, how much a draft of ours may have shaped it, and when it was signed.
    `older` is one from before the days that the policy asks for, which trains only where its stratum is short of human texts."""

    id: str
    stratum: Stratum
    exposure: str
    day: date | None = None
    older: bool = False

    @property
    def weight(self) -> float:
        """What it counts in the loss."""
        return WEIGHTS[self.exposure]


def stratum(case: ClinicalInput) -> Stratum:
    """Institution, systems and modality."""
    return case.institution, tuple(sorted(map(str, case.systems))), str(case.modality or "OT")


def chosen(candidates: Iterable[Candidate], wanted: Policy) -> tuple[set[str], Counter[str]]:
    """The ids that train, and how many were left out for which reason; the same candidates give the same answer in any order."""
    by_stratum: dict[Stratum, list[Candidate]] = {}
    for candidate in sorted(candidates, key=lambda one: sha256(one.id.encode()).digest()):
        by_stratum.setdefault(candidate.stratum, []).append(candidate)
    kept: set[str] = set()
    dropped: Counter[str] = Counter()
    for members in by_stratum.values():
        some = _of_stratum(members, wanted.cap, dropped)
        kept |= {one.id for one in some}
    return kept, +dropped


def _of_stratum(members: Sequence[Candidate], cap: int | None, dropped: Counter[str]) -> list[Candidate]:
    """Those of one stratum that train; the others are counted in `dropped`."""
    older = sorted((one for one in members if one.older), key=lambda one: one.day or date.min, reverse=True)
    asked = [one for one in members if not one.older]
    # human texts first, so that a cap leaves them rather than others
    asked.sort(key=lambda one: -1 if one.exposure in HUMAN else _LAST_TO_GO.index(one.exposure))
    if cap is not None:
        dropped["over_the_cap"] += len(asked[cap:])
        asked = asked[:cap]
    human = [one for one in asked if one.exposure in HUMAN]
    others = [one for one in asked if one.exposure not in HUMAN and one.exposure != "verbatim"]
    copied = [one for one in asked if one.exposure == "verbatim"]
    human += _within(older, sum(one.weight for one in others) - sum(one.weight for one in human))
    room = sum(one.weight for one in human)
    fits = _within(others, room)
    shaped = sum(one.weight for one in fits)
    equal = _within(copied, min(room - shaped, (room + shaped) * VERBATIM_SHARE / (1 - VERBATIM_SHARE)))
    dropped["not_signed_within"] += sum(one.older for one in members) - sum(one.older for one in human)
    dropped["shaped_by_drafts_more_than_half"] += len(others) - len(fits)
    dropped["equal_to_drafts_more_than_a_tenth"] += len(copied) - len(equal)
    return [*human, *fits, *equal]


def _within(candidates: Sequence[Candidate], weight: float) -> list[Candidate]:
    """The first of them that weigh no more together."""
    fitting: list[Candidate] = []
    for one in candidates:
        if one.weight > weight + 1e-9:
            break
        fitting.append(one)
        weight -= one.weight
    return fitting
