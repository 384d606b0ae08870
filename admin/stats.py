"""`valuer ingest stats`: what there is to learn from, laid out as the paper's Table 1."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from admin import console

if TYPE_CHECKING:
    from rich.console import RenderableType

LINES = (
    ("female / male", "sex", ("F", "M")),
    ("CT / MR / XR", "modality", ("CT", "MR", "XR")),
    ("chest", "system", ("chest",)),
    ("abdomen", "system", ("abdomen",)),
    ("musculoskeletal", "system", ("musculoskeletal",)),
    ("head", "system", ("head",)),
    ("maxillofacial & neck", "system", ("maxillofacial_neck",)),
)
"""The lines of Table 1 below reports and ages, each the counts of some values of one column."""


def stats(json: console.Json = False) -> None:
    """What there is to learn from, counted like the paper's Table 1, and what is kept out and why."""
    from core import institutions
    from core.db import database_now, transaction
    from ingest import standing
    from ingest.exclusions import WHY

    with console.opened() as here, transaction(here.engine) as session:
        rows = standing.stats(session)
        roles = institutions.roles(session, database_now(session).date())
    for row in rows:
        row["role"] = roles[row["institution"]]
    together = _together(rows)
    why = {reason: sentence for reason, sentence in WHY.items() if reason in together["kept_out"]}
    data = {"institutions": rows, "all": together, "why": why}
    console.answer(json, data, _page(rows, why) if rows else "There is no report yet.")


def _columns(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The columns of Table 1: train and test part of an institution that trains, the whole of one that only tests, and all of them."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (row["institution"], row["split"] == "test")):
        title = f"{row['institution']} {row['split']}" if row["role"] == "train" else row["institution"]
        found.setdefault(title, []).append(row)
    return {title: _together(of) for title, of in found.items()} | {"all": _together(rows)}


def _together(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    ages = [age for row in rows for age in row["age"] or ()]
    counts = {
        name: sum((Counter(row[name]) for row in rows), Counter()) for name in ("sex", "modality", "system", "kept_out")
    }
    return {"reports": sum(row["reports"] for row in rows), "age": [min(ages), max(ages)] if ages else None, **counts}


def _page(rows: Sequence[dict[str, Any]], why: Mapping[str, str]) -> "RenderableType":
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    columns = _columns(rows)
    made = Table("", *columns, box=None, pad_edge=False, header_style="bold")
    made.add_row("reports", *(f"{each['reports']:,}" for each in columns.values()))
    made.add_row("age (y)", *(f"{each['age'][0]}–{each['age'][1]}" if each["age"] else "" for each in columns.values()))
    for title, name, values in LINES:
        made.add_row(title, *(" / ".join(f"{each[name][value]:,}" for value in values) for each in columns.values()))
    known = {value for _, name, values in LINES for value in values}
    for title, name in (("other sex", "sex"), ("other modality", "modality"), ("no known system", "system")):
        others = [sum(count for value, count in each[name].items() if value not in known) for each in columns.values()]
        if any(others):
            made.add_row(title, *(f"{other:,}" for other in others))
    for reason in sorted({reason for each in columns.values() for reason in each["kept_out"]}):
        made.add_row(f"kept out: {reason}", *(f"{each['kept_out'][reason]:,}" for each in columns.values()))
    notes = [
        "A report of two systems counts in both. What is kept out is not counted above.",
        *(f"{reason}: {sentence}" for reason, sentence in why.items()),
    ]
    return Group(made, Text(""), Text("\n".join(notes)))
