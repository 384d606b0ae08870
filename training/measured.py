"""What is kept of one drafted case: its stratum, its scores and what the checks said. Tables, the gate and reports are made of these.

A value that knows neither engine nor database. A case without a draft scores 0 and is never dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clinical.case import AGE_BANDS, Modality, Sex, System
from clinical.issues import Kind, Severity

METRICS = ("r1", "r2", "rl", "core_r1", "core_r2", "core_rl", "fact_f1")
"""Scores that are kept, F1 in 0-1. `core_*` leaves out advice and list numbers; `fact_f1` is None where the signed text states no known fact."""

DEGENERATE = (Kind.NULL, Kind.REPETITION, Kind.TRUNCATION, Kind.PROMPT_LEAK)
"""Kinds of a generation that is no impression at all, whatever the findings."""

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Measured:
    """One case of one evaluation. `issues` maps a severity to the kinds found on the draft; `degenerate` is of the first generation, before
    any retry; `seconds` is from the first submission to the last answer."""

    case_id: str
    institution: str
    modality: str
    systems: tuple[str, ...]
    sex: str
    age_band: str | None
    draft: str
    outcome: str
    scores: dict[str, float | None]
    issues: dict[str, tuple[str, ...]]
    degenerate: tuple[str, ...] = ()
    finish: str | None = None
    new_tokens: int = 0
    seconds: float = 0.0

    @property
    def red(self) -> bool:
        """The draft has an issue that a radiologist must confirm."""
        return bool(self.issues.get(Severity.RED))

    @property
    def withheld(self) -> bool:
        """No draft could be shown."""
        return self.outcome != "drafted"

    @property
    def missed_critical(self) -> bool:
        """A critical finding that the draft does not cover."""
        return Kind.CRITICAL in self.issues.get(Severity.RED, ())


def column(group: Sequence[Measured], metric: str) -> NDArray[np.float64]:
    """The values of one of `METRICS`, shape (reports that have one,)."""
    return np.array([value for one in group if (value := one.scores[metric]) is not None], dtype=np.float64)


GROUPS: dict[str, tuple[str, ...]] = {
    "system": tuple(System),
    "modality": tuple(Modality),
    "sex": tuple(Sex),
    "age_band": (*(f"{low}-{high}" for low, high in AGE_BANDS), UNKNOWN),
}
"""Every value that a group may have, so that a cell without reports is printed as n = 0 and not left out."""


def groups_of(one: Measured, by: str) -> tuple[str, ...]:
    """The groups that a report counts in: an examination of two systems counts in both."""
    match by:
        case "system":
            return one.systems or (UNKNOWN,)
        case "age_band":
            return (one.age_band or UNKNOWN,)
        case _:
            return (getattr(one, by),)
