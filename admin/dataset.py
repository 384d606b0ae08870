"""`valuer dataset`: frozen training sets."""

from pathlib import Path
from typing import Annotated, Any

import typer

from admin import console

app = typer.Typer(no_args_is_help=True, help="Frozen training sets, made of what was signed.")
Institutions = Annotated[list[str] | None, typer.Option("--institution", help="Only this one; may be repeated")]
Systems = Annotated[list[str] | None, typer.Option("--system", help="Only this body system; may be repeated")]
Modalities = Annotated[list[str] | None, typer.Option("--modality", help="Only this modality; may be repeated")]


@app.command()
def build(
    institution: Institutions = None, system: Systems = None, modality: Modalities = None, json: console.Json = False
) -> None:
    """Freeze the training set of this moment. The same reports give the same set."""
    from core.db import transaction
    from training import dataset

    policy = dataset.Policy(tuple(institution or ()), tuple(system or ()), tuple(modality or ()))
    with console.opened() as here, transaction(here.engine) as session:
        data = _data(dataset.build(session, here.settings.home, policy))
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


def _data(row: Any) -> dict[str, Any]:
    return {
        "id": row.id,
        "train": row.counts["train"]["reports"],
        "test": row.counts["test"]["reports"],
        "left_out": row.counts["left_out"],
        "path": row.path,
        "created_at": row.created_at,
    }
