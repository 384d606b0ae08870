"""What the paper published (arXiv 2310.05242): every ROUGE value of its Tables 2 to 7, as data. Never ours, and always marked so."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Published:
    """One published value, F1 in 0-1. `view` and `metric` are named as in `training.tables`."""

    table: int
    view: str
    model: str
    group: str
    metric: str
    value: float


@cache
def published() -> tuple[Published, ...]:
    """All 720 values: 15 models, 16 groups, 3 metrics."""
    text = files("training").joinpath("paper_tables.csv").read_text("utf-8")
    return tuple(
        Published(int(row["table"]), row["view"], row["model"], row["group"], row["metric"], float(row["value"]))
        for row in csv.DictReader(text.splitlines())
    )


@cache
def of_model(model: str) -> dict[tuple[str, str, str], float]:
    """(view, group, metric) to value, of one of the paper's models; empty for one that it does not have."""
    return {(each.view, each.group, each.metric): each.value for each in published() if each.model == model}
