"""Whether drafts have begun to fit worse to what is signed: daily means of an institution outside of the band of its own first weeks.

The rule is that of a published deployment (JACR 2025): seven days in a row below a fixed 95 % band. Only texts that no draft can have shaped count.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from statistics import fmean, stdev

import sqlalchemy as sa
from sqlmodel import Session, col

from clinical.score import SCORER_VERSION
from core.tables import DraftRequest, ScoreRow, SignOff
from training.policy import UNTOUCHED

BASELINE_DAYS, LEAST_BASELINE = 60, 14
ROW_DAYS = 7
LEAST_REPORTS = 5
"""Fewer reports make no day."""
_Z = 1.96


@dataclass(frozen=True, slots=True)
class Day:
    """One day of an institution: the mean ROUGE-L (0-1) of `reports` drafts."""

    day: date
    mean: float
    reports: int


def drifted(days: Sequence[Day], after: date | None = None) -> bool:
    """Whether the last seven days that count all lie below the band of the first weeks, and `after` a day if one is given; `days` ascend."""
    counted = [day for day in days if day.reports >= LEAST_REPORTS]
    baseline, last = counted[:BASELINE_DAYS], counted[-ROW_DAYS:]
    if len(counted) < LEAST_BASELINE + ROW_DAYS or (after is not None and last[0].day <= after):
        return False
    baseline = baseline[: len(counted) - ROW_DAYS]
    means = [day.mean for day in baseline]
    low = fmean(means) - _Z * stdev(means)
    return all(day.mean < low for day in last)


def drifting(session: Session, after: date | None = None) -> list[str]:
    """Institutions whose drafts drift, by today's scorer; with `after`, those that have done so for seven days since."""
    day = sa.cast(col(SignOff.signed_at), sa.Date)
    query = (
        sa.select(
            col(DraftRequest.institution),
            day,
            sa.func.avg(col(ScoreRow.rl)),
            sa.func.count(sa.distinct(col(SignOff.id))),
        )
        .join(SignOff, col(SignOff.id) == col(ScoreRow.sign_off_id))
        .join(DraftRequest, col(DraftRequest.id) == col(SignOff.request_id))
        # a department's words move no ROUGE: a sign-off that was scored again since they changed says the same
        .where(col(ScoreRow.scorer).startswith(SCORER_VERSION), col(SignOff.exposure).in_(sorted(UNTOUCHED)))
        .group_by(col(DraftRequest.institution), day)
        .order_by(day)
    )
    by_house: dict[str, list[Day]] = {}
    for institution, when, mean, reports in session.execute(query):
        by_house.setdefault(institution, []).append(Day(when, float(mean), reports))
    return sorted(institution for institution, days in by_house.items() if drifted(days, after))
