"""`valuer dataset`: frozen training sets."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from admin import console

if TYPE_CHECKING:
    from training.dataset import Plan
    from training.policy import Policy

app = typer.Typer(no_args_is_help=True, help="Frozen training sets, made of what was signed.")
Institutions = Annotated[list[str] | None, typer.Option("--institution", help="Only this one; may be repeated")]
Systems = Annotated[list[str] | None, typer.Option("--system", help="Only this body system; may be repeated")]
Modalities = Annotated[list[str] | None, typer.Option("--modality", help="Only this modality; may be repeated")]
Since = Annotated[str, typer.Option(help="Train only on what was signed on this day or later, as 2024-01-31")]
Until = Annotated[str, typer.Option(help="Train only on what was signed before this day")]
Cap = Annotated[int | None, typer.Option(help="Most reports to train on of one institution, systems and modality")]
Exclude = Annotated[Path | None, typer.Option(help="File with ids of cases to leave out, one a line", exists=True)]
Exposures = Annotated[
    list[str] | None,
    typer.Option(
        "--exposure", help="Train on texts of this exposure class only; repeatable. Without it, all but verbatim"
    ),
]
RedIssues = Annotated[
    bool, typer.Option("--red-issues", help="Train on texts signed with a red issue too, instead of leaving them out")
]
Dry = Annotated[bool, typer.Option("--dry-run", help="Show the card that the set would have; freeze nothing")]
ApartFrom = Annotated[list[str] | None, typer.Option(help="Earlier set whose tested findings never train; repeatable")]


@app.command()
def build(
    institution: Institutions = None,
    system: Systems = None,
    modality: Modalities = None,
    since: Since = "",
    until: Until = "",
    cap: Cap = None,
    exclude: Exclude = None,
    apart_from: ApartFrom = None,
    exposure: Exposures = None,
    red_issues: RedIssues = False,
    dry_run: Dry = False,
    json: console.Json = False,
) -> None:
    """Freeze the training set of this moment. The same reports and options give the same set; `show` prints its card.

    Refused where what would train says less than people do: fewer different words, hedges, rare findings, or shorter texts.
    """
    from core.db import transaction
    from ingest import duplicates
    from training import eligible
    from training.policy import Policy

    policy = Policy(
        institutions=tuple(institution or ()),
        systems=tuple(system or ()),
        modalities=tuple(modality or ()),
        since=since,
        until=until,
        cap=cap,
        exclude=() if exclude is None else tuple(sorted(set(exclude.read_text("utf-8").split()))),
        apart_from=tuple(apart_from or ()),
        red_issues=red_issues,
        **({"exposures": tuple(exposure)} if exposure else {}),
    )
    with console.opened() as here:
        duplicates.search(here.engine)
        with transaction(here.engine) as session:
            if dry_run:
                _planned(eligible.plan(session, here.settings.home, policy), policy, json)
                return
            data = _data(eligible.build(session, here.settings.home, policy))
    console.answer(json, data, f"{data['id']}: {data['train']} to train on, {data['test']} to test on; {data['path']}")


@app.command("list")
def listed(json: console.Json = False) -> None:
    """Every training set, newest first."""
    from sqlmodel import col, select

    from core.db import transaction
    from core.tables import Dataset

    with console.opened() as here, transaction(here.engine) as session:
        rows = [_data(row) for row in session.exec(select(Dataset).order_by(col(Dataset.created_at).desc()))]
    console.answer(json, {"datasets": rows}, console.table(rows, "There is no training set yet."))


@app.command()
def show(identity: Annotated[str, typer.Argument(metavar="ID")], json: console.Json = False) -> None:
    """A training set's data card: what is in it, what was left out and why."""
    from core.db import transaction
    from core.errors import NotFound
    from core.tables import Dataset
    from training import dataset

    with console.opened() as here, transaction(here.engine) as session:
        row = session.get(Dataset, identity)
    if row is None:
        raise NotFound(f"There is no training set {identity}; `valuer dataset list` shows those that are.")
    card = (Path(row.path) / dataset.CARD).read_text("utf-8")
    console.answer(json, {**_data(row), "policy": row.policy, "counts": row.counts}, card)


def _planned(made: "Plan", policy: "Policy", json: bool) -> None:
    from training import dataset, variety

    counts = dataset.counted(made)
    sentence = variety.refusal(made.guards)
    words = dataset.card("What would be frozen now", policy, counts)
    console.answer(
        json, {**counts, "refused": sentence}, words if sentence is None else f"{words}\nRefused: {sentence}"
    )


def _data(row: Any) -> dict[str, Any]:
    return {
        "id": row.id,
        "train": row.counts["train"]["reports"],
        "test": row.counts["test"]["reports"],
        "left_out": row.counts["left_out"],
        "path": row.path,
        "created_at": row.created_at,
    }
