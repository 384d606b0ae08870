"""An evaluation as Markdown, as CSV and as one HTML page that needs no network. Writes what it is given and computes nothing."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from training.charts import COLOURS, bars
from training.pool import of_paper
from training.published import of_model
from training.statistics import Interval
from training.tables import SHOWN, Cell, Table
from training.utility import Utility

NAMES = {"r1": "R-1", "r2": "R-2", "rl": "R-L", "fact_f1": "fact F1"}
CAUTION = "ROUGE shows how far drafts are from what was signed. It does not show that they are safe."
RATES = "red / withheld / degenerate in 100"
READING = (
    "R-1, R-2, R-L and fact F1 are F1 in hundredths: the mean over the n reports of the column, and in parentheses the interval that holds it in 95 of "
    "100 bootstrap draws. micro is over all reports, macro the mean of the columns.",
    "",
    "model: a version of ours. base: its base model without the adapter. baseline: a text that no model wrote: copy, the findings; lead, their first "
    "sentences; nearest, the impression of the most similar training report.",
    "",
    "red: drafts with an issue that a radiologist has to confirm. withheld: reports without a draft, which score 0. degenerate: first tries that were no "
    "impression at all.",
)
"""What a reader has to know, a paragraph each."""
PUBLISHED = "Published (arXiv 2310.05242), on the paper's own hospitals: another set of reports and another scorer, so no comparison of figures"
UTILITY = "Practical utility (Table 8)"


@dataclass(frozen=True, slots=True)
class Report:
    """What is written down. `about` are facts in the order shown; `papers` names the paper's models whose published values stand below
    ours; `notes` are sentences, such as which rows were not run and why."""

    title: str
    about: Mapping[str, str]
    tables: tuple[Table, ...]
    utilities: tuple[Utility, ...] = ()
    papers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def write(report: Report, folder: Path) -> dict[str, Path]:
    """The three files, `report.md`, `report.csv` and `report.html`, by their kind."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {"markdown": "report.md", "csv": "report.csv", "html": "report.html"}
    for kind, text in (("markdown", markdown(report)), ("csv", as_csv(report)), ("html", html(report))):
        (folder / made[kind]).write_text(text, "utf-8")
    return {kind: folder / name for kind, name in made.items()}


def markdown(report: Report) -> str:
    """Every table with counts and intervals; F1 in hundredths."""
    lines = [f"# {report.title}", "", CAUTION, "", *READING, ""]
    lines += [f"- {name}: {value}" for name, value in report.about.items()]
    lines += [f"- {note}" for note in report.notes]
    for table in report.tables:
        lines += ["", f"## {_titled(table)}", ""]
        lines += _grid(["model", "figure", *map(_named, table.groups), "micro", "macro"], _rows(table))
        published = _published(table, report.papers)
        if published:
            lines += ["", f"{PUBLISHED}:", "", *_grid(["model", "figure", *published.groups], published.rows)]
    if report.utilities:
        rows = [_utility(each) for each in report.utilities]
        lines += ["", f"## {UTILITY}", "", *_grid(list(rows[0]), [list(row.values()) for row in rows])]
        if published_8 := _published_utility(report.papers):
            lines += [
                "",
                f"{PUBLISHED}:",
                "",
                *_grid(list(published_8[0]), [list(row.values()) for row in published_8]),
            ]
    return "\n".join((*lines, ""))


def _rows(table: Table) -> list[list[str]]:
    """One line a figure, each with its model's name."""
    lines = []
    for row in table.rows:
        cells = [row.cells[group] for group in table.groups]
        lines.append([row.subject, "n", *(str(cell.n) for cell in cells), str(row.micro.n), ""])
        for metric in SHOWN:
            figures = [_figure(cell.metrics[metric]) for cell in (*cells, row.micro)]
            lines.append([row.subject, NAMES[metric], *figures, _hundredths(row.macro[metric])])
        lines.append([row.subject, RATES, *(_rates(cell) for cell in (*cells, row.micro)), ""])
    return lines


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [_line(head), _line(["---"] * len(head)), *map(_line, rows)]


def as_csv(report: Report) -> str:
    """One line a value: ours with counts and interval, the paper's with neither; F1 in 0-1. Practical utility is a view without groups."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("source", "view", "model", "group", "metric", "n", "value", "low", "high"))
    for table in report.tables:
        for row in table.rows:
            for group, cell in (*row.cells.items(), ("micro", row.micro)):
                for metric, value in cell.metrics.items():
                    figures = (value.n, _plain(value.mean), _plain(value.low), _plain(value.high))
                    writer.writerow(("ours", table.view.name, row.subject, group, metric, *figures))
                for name in ("red", "withheld", "degenerate"):
                    writer.writerow(
                        (
                            "ours",
                            table.view.name,
                            row.subject,
                            group,
                            f"{name}_per_100",
                            cell.n,
                            _plain(getattr(cell, name)),
                            "",
                            "",
                        )
                    )
            for metric, mean in row.macro.items():
                writer.writerow(("ours", table.view.name, row.subject, "macro", metric, "", _plain(mean), "", ""))
    for model in report.papers:
        for (view, group, metric), published in of_model(model).items():
            writer.writerow(("published", view, model, group, metric, "", published, "", ""))
    for each in report.utilities:
        for name, known in asdict(each).items():
            if known is not None and name != "subject":
                writer.writerow(("ours", "practical_utility", each.subject, "", name, "", known, "", ""))
    papers = of_paper() if report.utilities else {}
    for model in report.papers:
        if model in papers:
            for name, told in (("training_hours", papers[model].paper_hours), ("seconds", papers[model].paper_seconds)):
                writer.writerow(
                    ("published", "practical_utility", model, "", name, "", "" if told is None else told, "", "")
                )
    return out.getvalue()


def html(report: Report) -> str:
    """The page: charts of ROUGE-L and of facts for every view, the tables below them, nothing fetched from anywhere."""
    views = [
        {
            "title": _titled(table),
            "groups": [*map(_named, table.groups)],
            "charts": [Markup(_chart(table, metric)) for metric in ("rl", "fact_f1")],  # noqa: S704 - our own SVG, its texts escaped
            "rows": _rows(table),
            "published": _published(table, report.papers),
        }
        for table in report.tables
    ]
    subjects = [row.subject for row in report.tables[0].rows] if report.tables else []
    page: str = _page().render(
        report=report,
        caution=CAUTION,
        reading=[paragraph for paragraph in READING if paragraph],
        published=PUBLISHED,
        utility=UTILITY,
        views=views,
        legend=[(f"c{number % COLOURS}", subject) for number, subject in enumerate(subjects)],
        utilities=[_utility(each) for each in report.utilities],
        published_utilities=_published_utility(report.papers) if report.utilities else [],
    )
    return page


@cache
def _page() -> Any:
    environment = Environment(
        loader=PackageLoader("training", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("report.html")


def _chart(table: Table, metric: str) -> str:
    title = f"{NAMES[metric]}, {table.view.title.lower()}"
    return bars(
        title,
        [*map(_named, table.groups)],
        {row.subject: [row.cells[g].metrics[metric] for g in table.groups] for row in table.rows},
    )


def _titled(table: Table) -> str:
    return f"{table.view.title} ({table.view.paper})" if table.view.paper else table.view.title


@dataclass(frozen=True, slots=True)
class _Published:
    groups: tuple[str, ...]
    rows: list[list[str]]


def _published(table: Table, models: Sequence[str]) -> _Published | None:
    """The paper's values in its own groups, which are its institutions and not ours; None for a view that it does not have."""
    found = {model: of_model(model) for model in models}
    groups = tuple(
        dict.fromkeys(group for values in found.values() for view, group, _ in values if view == table.view.name)
    )
    rows = [
        [model, NAMES[metric], *(f"{100 * values[table.view.name, group, metric]:.1f}" for group in groups)]
        for model, values in found.items()
        for metric in ("r1", "r2", "rl")
        if values
    ]
    return _Published(tuple(map(_named, groups)), rows) if groups else None


def _published_utility(models: Sequence[str]) -> list[dict[str, str]]:
    known = of_paper()
    return [
        {
            "model": model,
            "parameters": known[model].parameters,
            "fine-tuning": "–" if known[model].paper_hours is None else f"{known[model].paper_hours:g} h",
            "s per impression": f"{known[model].paper_seconds:g}",
        }
        for model in models
        if model in known
    ]


def _named(group: str) -> str:
    return group.replace("_", " ")


def _utility(each: Utility) -> dict[str, str]:
    def number(value: float | None, pattern: str, factor: float = 1.0) -> str:
        return "–" if value is None else pattern.format(value * factor)

    return {
        "model": each.subject,
        "parameters": number(each.parameters, "{:.2f} M", 1e-6),
        "trained": number(each.trained, "{:.2f} M", 1e-6),
        "adapter": number(each.adapter_bytes, "{:.1f} MB", 1e-6),
        "weights": each.weights or "–",
        "training reports": number(each.training_reports, "{:.0f}"),
        "fine-tuning": number(each.training_hours, "{:.2f} h"),
        "trained on": each.training_device or "–",
        "s per impression p50": number(each.seconds_p50, "{:.2f}"),
        "p95": number(each.seconds_p95, "{:.2f}"),
        "in flight": number(each.in_flight, "{:.0f}"),
        "tokens/s": number(each.tokens_per_s, "{:.1f}"),
        "peak memory": number(each.peak_bytes, "{:.2f} GB", 1e-9),
        "device": each.device or "–",
        "joules per impression": number(each.joules, "{:.1f}"),
    }


def _figure(value: Interval) -> str:
    if not value.n:
        return "n = 0"
    return f"{100 * value.mean:.1f} ({100 * value.low:.1f}–{100 * value.high:.1f})"


def _hundredths(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def _rates(cell: Cell) -> str:
    return f"{cell.red:.1f} / {cell.withheld:.1f} / {cell.degenerate:.1f}" if cell.n else "–"


def _plain(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6f}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
