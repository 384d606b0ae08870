"""The evaluation tables: means with intervals by institution, body system and patient group, of models and baselines side by side.

Views and their numbers are those of the paper (arXiv 2310.05242, Tables 2 to 7). Numbers only; `training.report` writes them down.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from training.measured import GROUPS, METRICS, Measured, column, groups_of
from training.statistics import Interval, interval

SHOWN = ("r1", "r2", "rl", "fact_f1")


@dataclass(frozen=True, slots=True)
class View:
    """One way to cut the reports. `in_house` takes the training institutions' only."""

    name: str
    title: str
    by: str
    in_house: bool = False
    paper: str = ""


VIEWS = (
    View("by_institution", "By institution", "institution", paper="Tables 2 and 3"),
    View(
        "in_house_by_system", "By body system, training institutions", "system", in_house=True, paper="Tables 4 and 5"
    ),
    View("overall_by_system", "By body system, all institutions", "system", paper="Tables 6 and 7"),
    View("by_modality", "By modality", "modality"),
    View("by_sex", "By sex", "sex"),
    View("by_age_band", "By age", "age_band"),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One subject's reports of one group. Rates are per 100 reports; NaN where `n` is 0."""

    n: int
    metrics: dict[str, Interval]
    red: float
    withheld: float
    degenerate: float


@dataclass(frozen=True, slots=True)
class Row:
    """One subject in one view: a cell for each group, all reports together (micro), and the plain mean over cells that hold any (macro)."""

    subject: str
    cells: dict[str, Cell]
    micro: Cell
    macro: dict[str, float]


@dataclass(frozen=True, slots=True)
class Table:
    """One view of every subject, the subjects in the order they were given."""

    view: View
    groups: tuple[str, ...]
    rows: tuple[Row, ...]


def tables(
    subjects: Mapping[str, Sequence[Measured]], *, institutions: Sequence[str], in_house: frozenset[str]
) -> tuple[Table, ...]:
    """Every view of every subject. `institutions` are all that were to be tested, so that one without reports shows as n = 0;
    `in_house` are those that trained."""
    return tuple(_table(view, subjects, institutions, in_house) for view in VIEWS)


def cell(group: Sequence[Measured]) -> Cell:
    """The figures of some reports."""

    def per_hundred(count: int) -> float:
        return 100 * count / len(group) if group else math.nan

    return Cell(
        n=len(group),
        metrics={metric: interval(column(group, metric)) for metric in METRICS},
        red=per_hundred(sum(one.red for one in group)),
        withheld=per_hundred(sum(one.withheld for one in group)),
        degenerate=per_hundred(sum(bool(one.degenerate) for one in group)),
    )


def _table(
    view: View, subjects: Mapping[str, Sequence[Measured]], institutions: Sequence[str], in_house: frozenset[str]
) -> Table:
    rows = []
    known = tuple(sorted(institutions)) if view.by == "institution" else GROUPS[view.by]
    seen = {group for reports in subjects.values() for one in reports for group in groups_of(one, view.by)}
    groups = (*known, *sorted(seen - set(known)))
    for subject, reports in subjects.items():
        wanted = [one for one in reports if one.institution in in_house] if view.in_house else list(reports)
        cells = {group: cell([one for one in wanted if group in groups_of(one, view.by)]) for group in groups}
        full = [each for each in cells.values() if each.n]
        macro = {
            metric: fmean(values)
            if (values := [c.metrics[metric].mean for c in full if c.metrics[metric].n])
            else math.nan
            for metric in METRICS
        }
        rows.append(Row(subject, cells, cell(wanted), macro))
    return Table(view, groups, tuple(rows))
