"""`valuer train`: training runs. The training worker of `valuer up` takes them; without one, this command does."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from admin import console
from core.settings import TrainingSettings

if TYPE_CHECKING:
    import sqlalchemy as sa

    from core.tables import TrainingRun

app = typer.Typer(help="Learn from what was signed: training runs.", invoke_without_command=True)
ProfileName = Annotated[str, typer.Option("--profile", help="paper, recommended or smoke")]
Dataset = Annotated[str | None, typer.Option("--dataset", help="A frozen training set; without one, a new one")]
Dry = Annotated[bool, typer.Option("--dry-run", help="Show the recipe and count what would train; start nothing")]
Run = Annotated[UUID, typer.Argument(metavar="RUN")]


@app.callback()
def train(
    context: typer.Context,
    profile: ProfileName = "smoke",
    dataset: Dataset = None,
    dry_run: Dry = False,
    json: console.Json = False,
) -> None:
    """Start a run and follow it to its end; the commands below do it in steps."""
    if context.invoked_subcommand is not None:
        return
    if dry_run:
        _dry(profile, dataset, json)
        return
    with console.opened() as here:
        identity = _start(here, profile, dataset)
        with _worker(here):
            row = _follow(here.engine, identity)
    _tell(row, json)


@app.command()
def start(
    profile: ProfileName = "smoke", dataset: Dataset = None, dry_run: Dry = False, json: console.Json = False
) -> None:
    """Queue a run for the training worker and return at once."""
    if dry_run:
        _dry(profile, dataset, json)
        return
    with console.opened() as here:
        identity = _start(here, profile, dataset)
    console.answer(json, {"run": str(identity)}, f"Run {identity} waits; `valuer train follow {identity}` shows it.")


@app.command("list")
def listed(json: console.Json = False) -> None:
    """Runs, newest first."""
    from core.db import transaction
    from training import runs

    with console.opened() as here, transaction(here.engine) as session:
        rows = [_data(row) for row in runs.newest(session)]
    console.answer(json, {"runs": rows}, console.table(rows, "There is no run yet."))


@app.command()
def follow(run: Run, json: console.Json = False) -> None:
    """Watch a run until it ends. Ctrl-C stops watching, not the run."""
    with console.opened() as here:
        row = _follow(here.engine, run)
    _tell(row, json)


@app.command()
def cancel(run: Run, json: console.Json = False) -> None:
    """Stop a run that has not ended."""
    from core.db import transaction
    from training import runs

    with console.opened() as here, transaction(here.engine) as session:
        row = runs.cancel(session, run, console.person())
    console.answer(json, _data(row), f"Run {run} is cancelled.")


def _start(here: console.Opened, profile: str, dataset: str | None) -> UUID:
    from core import queue
    from core.db import transaction
    from training import runs

    with transaction(here.engine) as session:
        row = runs.start(session, profile, runs.Options(dataset=dataset), console.person())
    queue.configure(here.broker_url)
    queue.ring_training(row.id)
    return row.id


@contextmanager
def _worker(here: console.Opened) -> Iterator[None]:
    """A training worker of our own for as long as needed, where none runs."""
    from core import processes
    from core.db import transaction
    from training.service import Trainer

    with transaction(here.engine) as session:
        running = processes.alive(session, "training")
    if running:
        yield
        return
    trainer = Trainer(here.engine)
    trainer.start()
    try:
        yield
    finally:
        trainer.stop()


def _follow(engine: "sa.Engine", identity: UUID) -> "TrainingRun":
    """Draws the run's phase, its progress and the time left until it has ended."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from training import runs

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[loss]}"), console=console.aside()) as bar:
        tasks: dict[str, Any] = {}
        for row in runs.follow(engine, identity):
            at = row.progress
            phase = at.get("phase", "wait")
            if phase not in tasks:
                tasks[phase] = bar.add_task(phase, total=at.get("steps"), loss="")
            loss = f"loss {at['loss']:.3f}" if "loss" in at else ""
            bar.update(tasks[phase], total=at.get("steps"), completed=at.get("step", 0), loss=loss)
    return row


def _tell(row: "TrainingRun", as_json: bool) -> None:
    from core.errors import Broken
    from core.states import RunState

    data = _data(row)
    if row.state is not RunState.DONE:
        console.answer(as_json, data, f"Run {row.id}: {row.state}.")
        raise Broken(f"The run has {row.state}: {row.error or 'no error is noted'}")
    metrics = row.progress.get("metrics", {})
    shown = f"{row.model_version}: ROUGE-1 {metrics['r1']:.3f}" if "r1" in metrics else str(row.model_version)
    console.answer(as_json, data, f"{shown}\nTo let it serve: valuer models promote {row.model_version}")


def _dry(profile: str, dataset: str | None, as_json: bool) -> None:
    from dataclasses import asdict

    from core.db import transaction
    from core.errors import NotFound
    from core.tables import Dataset as Frozen
    from training import dataset as sets
    from training.profiles import profile as recipe

    chosen = asdict(recipe(profile))
    settings = console.read(TrainingSettings)
    with console.opened(settings) as here, transaction(here.engine) as session:
        row = session.get(Frozen, dataset) if dataset else sets.build(session, settings.home, sets.Policy())
        if row is None:
            raise NotFound(f"There is no training set {dataset}; `valuer dataset list` shows those that are.")
        counts = {part: row.counts[part]["reports"] for part in ("train", "test")}
    data = {"profile": chosen, "dataset": row.id, **counts}
    lines = [f"{name}: {console.shown(value)}" for name, value in {**chosen, "dataset": row.id, **counts}.items()]
    console.answer(as_json, data, "\n".join(lines))


def _data(row: "TrainingRun") -> dict[str, Any]:
    return {
        "run": str(row.id),
        "profile": row.profile,
        "state": str(row.state),
        "dataset": row.dataset,
        "model": row.model_version,
        "metrics": {name: row.progress.get("metrics", {}).get(name) for name in ("reports", "r1", "r2", "rl")},
        "error": row.error,
        "created_at": row.created_at,
    }
