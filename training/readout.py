"""What a study of expert reading found, as one HTML page with radar plots, as single SVG files and as CSV. Computes nothing of its own."""

import csv
import io
from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from clinical.case import System
from core.questionnaire import METRICS
from training.charts import COLOURS, RADAR, radar
from training.experts import VIEWS, Point, Rated, agreement, points

NAMES = {"OG": "overall", "IHG": "in-house", "OHG": "out-of-house"}
_STYLE = """<style>text{font:11px system-ui,sans-serif;fill:#1c2430}.tick{font-size:9px;fill:#5b6675}.grid{stroke:#d9dee5;fill:none}
.line{fill:none;stroke-width:2}.c0{stroke:#1f6feb}.c1{stroke:#d97706}.c2{stroke:#2f9e63}.c3{stroke:#b4519b}.c4{stroke:#7a8699}.c5{stroke:#c0392b}
.c6{stroke:#0f8b8d}.c7{stroke:#8b5e3c}.key{stroke-width:3}</style>"""


def write(study: str, title: str, answers: Sequence[Rated], folder: Path) -> dict[str, Path]:
    """`experts.html`, `experts.csv` and one SVG for each view and body system that has answers."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"html": folder / "experts.html", "csv": folder / "experts.csv"}
    files["html"].write_text(_page_of(study, title, answers), "utf-8")
    files["csv"].write_text(_table(answers), "utf-8")
    writers = sorted({one.writer for one in answers})
    for view in VIEWS:
        for system in (None, *System):
            found = points(answers, view=view, system=system)
            if found:
                name = f"radar-{view}-{system or 'all'}.svg"
                files[name] = folder / name
                files[name].write_text(_alone(_radar(view, system, _of_all(found, writers)), writers), "utf-8")
    return files


def _of_all(found: dict[str, dict[str, Point]], writers: Sequence[str]) -> dict[str, dict[str, Point]]:
    """Every writer of the study, so that a writer has the same colour in every plot."""
    nothing = dict.fromkeys((metric.name for metric in METRICS), Point(None, 0, 0))
    return {writer: found.get(writer, nothing) for writer in writers}


def _alone(plot: str, writers: Sequence[str]) -> str:
    """A plot that stands outside of the page: with colours of its own, and below it whose line is whose."""
    width, height = RADAR
    keys = "".join(
        f'<line class="key c{number % COLOURS}" x1="6" x2="22" y1="{height + 14 * number}" y2="{height + 14 * number}"/>'
        f'<text x="27" y="{height + 4 + 14 * number}">{escape(writer)}</text>'
        for number, writer in enumerate(writers)
    )
    taller = plot.replace(f"0 0 {width} {height}", f"0 0 {width} {height + 14 * len(writers)}", 1)
    return taller.replace("</title>", f"</title>{_STYLE}", 1).replace("</svg>", f"{keys}</svg>")


def _radar(view: str, system: str | None, found: dict[str, dict[str, Point]]) -> str:
    title = f"{view}, {NAMES[view]}: {(system or 'all body systems').replace('_', ' ')}"
    axes = [metric.name.replace("_", " ") for metric in METRICS]
    return radar(title, axes, {writer: [point.mean for point in each.values()] for writer, each in found.items()})


def _page_of(study: str, title: str, answers: Sequence[Rated]) -> str:
    writers = sorted({one.writer for one in answers})
    views = []
    for view in VIEWS:
        plots = []
        for system in (None, *System):
            found = points(answers, view=view, system=system)
            if found:
                full = _of_all(found, writers)
                plots.append((system or "all body systems", Markup(_radar(view, system, full)), full))  # noqa: S704 - our own SVG
        views.append((f"{view}: {NAMES[view]}", plots))
    agreed = [(metric, *agreement(answers, metric.name)) for metric in METRICS]
    page: str = _template().render(
        study=study,
        title=title,
        readers=len({one.reader for one in answers}),
        texts=len({one.text for one in answers}),
        legend=[(f"c{number % COLOURS}", writer) for number, writer in enumerate(writers)],
        views=views,
        metrics=METRICS,
        agreed=agreed,
    )
    return page


def _table(answers: Sequence[Rated]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("view", "system", "writer", "metric", "mean", "scores", "na"))
    for view in VIEWS:
        for system in (None, *System):
            for name, by_metric in points(answers, view=view, system=system).items():
                for metric, point in by_metric.items():
                    mean = "" if point.mean is None else f"{point.mean:.3f}"
                    writer.writerow((view, system or "all", name, metric, mean, point.scores, point.na))
    return out.getvalue()


@cache
def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("training", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("experts.html")
