"""`valuer train`: training runs. The training worker of `valuer up` takes them; without one, this command does."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from admin import console
from admin.evaluate import frozen
from core.settings import TrainingSettings

if TYPE_CHECKING:
    import sqlalchemy as sa

    from core.tables import TrainingRun

app = typer.Typer(help="Learn from what was signed: training runs.", invoke_without_command=True)
ProfileName = Annotated[str, typer.Option("--profile", help="paper, recommended or smoke")]
Dataset = Annotated[str | None, typer.Option("--dataset", help="A frozen training set; without one, a new one")]
Dry = Annotated[bool, typer.Option("--dry-run", help="Show the recipe and count what would train; start nothing")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Change of the profile, as accumulation=1; repeatable")]
Continue = Annotated[
    str | None,
    typer.Option("--continue", metavar="VERSION", help="Train on from this version's adapter; without it, a fresh one"),
]
Run = Annotated[UUID, typer.Argument(metavar="RUN")]


@app.callback()
def train(
    context: typer.Context,
    profile: ProfileName = "smoke",
    dataset: Dataset = None,
    dry_run: Dry = False,
    changed: Set = None,
    continued_from: Continue = None,
    json: console.Json = False,
) -> None:
    """Start a run and follow it to its end; the commands below do it in steps."""
    if context.invoked_subcommand is not None:
        return
    if dry_run:
        _dry(profile, dataset, _changes(changed), continued_from, json)
        return
    with console.opened() as here:
        identity = _start(here, profile, dataset, _changes(changed), continued_from)
        with _worker(here):
            row = _follow(here.engine, identity)
    _tell(row, json)


@app.command()
def start(
    profile: ProfileName = "smoke",
    dataset: Dataset = None,
    dry_run: Dry = False,
    changed: Set = None,
    continued_from: Continue = None,
    json: console.Json = False,
) -> None:
    """Queue a run for the training worker and return at once."""
    if dry_run:
        _dry(profile, dataset, _changes(changed), continued_from, json)
        return
    with console.opened() as here:
        identity = _start(here, profile, dataset, _changes(changed), continued_from)
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


@app.command()
def compare(
    profile: Annotated[list[str] | None, typer.Option("--profile", help="A profile; repeatable")] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", help="A base: directory, hub id in the cache or demo; repeatable")
    ] = None,
    dataset: Dataset = None,
    json: console.Json = False,
) -> None:
    """What each profile would leave out and take on the same set: tokens, updates, hours. It says nothing of how good the drafts become.

    Without --model the base is VALUER_MODEL. Nothing is trained; of a base only the tokenizer is read.
    """
    from dataclasses import asdict

    from core.db import transaction
    from core.errors import Refused
    from training import comparison
    from training import dataset as sets
    from training.profiles import profile as recipe
    from worker.engine import weights

    settings = console.read(TrainingSettings)
    told: list[dict[str, Any]] = []
    paces: dict[str, str] = {}
    with console.opened(settings) as here:
        with transaction(here.engine) as session:
            data = frozen(session, dataset)
        sets.verify(Path(data.path), data.digest)
        cases = list(sets.read(Path(data.path), sets.TRAIN))
        if not cases:
            raise Refused(f"The set {data.id} has nothing to train on.", code="nothing_to_train_on")
        for base in model or [settings.model]:
            with transaction(here.engine) as session:
                found = comparison.pace(session, base)
            paces[base] = "no run yet, so no hours" if found is None else f"{found[0]:,.0f} tokens/s in {found[1]}"
            tokenizer = _tokenizer(weights.base_model(base, settings.models_dir))
            for name in profile or ["paper", "recommended"]:
                made = comparison.course(tokenizer, recipe(name), cases, None if found is None else found[0])
                told.append({"base": base, **asdict(made), "excluded": made.excluded})
    answer = {"dataset": data.id, "courses": told, "pace": paces}
    console.answer(json, answer, _compared(data.id, told, paces))


def _tokenizer(base: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base, local_files_only=True)


def _compared(dataset: str, told: list[dict[str, Any]], paces: dict[str, str]) -> Any:
    from rich.console import Group
    from rich.text import Text

    rows = [
        {
            "base": one["base"],
            "profile": one["profile"],
            "reports": f"{one['reports']:,}",
            "longer than": f"{one['max_tokens']:,}",
            "left out": f"{one['too_long']:,} ({100 * one['excluded']:.1f} %)",
            "in earlier steps": f"{one['aside']:,}",
            "tokens p50 / p95 / p99 / longest": f"{one['p50']:,} / {one['p95']:,} / {one['p99']:,} / {one['longest']:,}",
            "learned each": f"{one['mean']:.0f}",
            "tokens in all": f"{one['tokens'] / 1e6:,.2f} M",
            "updates": f"{one['updates']:,}" + (f" + {one['first']:,} before" if one["first"] else ""),
            "hours": "–" if one["hours"] is None else f"{one['hours']:.2f}",
        }
        for one in told
    ]
    paced = "\n".join(f"{base}: {how}" for base, how in paces.items())
    said = f"Set {dataset}. Left out is only what is too long, prompt and answer together; nothing is cut. Quality is not compared here.\n"
    return Group(Text(said), console.table(rows, ""), Text(f"\n{paced}"))


def _start(
    here: console.Opened, profile: str, dataset: str | None, changes: dict[str, Any], continued_from: str | None
) -> UUID:
    from core import queue
    from core.db import transaction
    from ingest import duplicates
    from training import runs

    chosen = runs.Options(dataset=dataset, changes=changes, continued_from=continued_from)
    if continued_from is not None:
        _fits(here, continued_from, profile, changes)

    if dataset is None:
        duplicates.search(here.engine)
    with transaction(here.engine) as session:
        row = runs.start(session, profile, chosen, console.person())
    queue.configure(here.broker_url)
    queue.ring_training(row.id)
    return row.id


def _fits(here: console.Opened, version: str, profile: str, changes: dict[str, Any]) -> None:
    """Says now what the run would say later: that the version does not fit."""
    from core.db import transaction
    from training import continuation
    from training.profiles import profile as recipe
    from worker.engine import weights

    digest = weights.digest(weights.base_model(here.settings.model, here.settings.models_dir))
    with transaction(here.engine) as session:
        continuation.fit(session, version, recipe(profile, **changes), digest)


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
    console.answer(
        as_json,
        data,
        f"{shown}\nTo let it serve: valuer evaluate run {row.model_version}, then valuer models promote {row.model_version}",
    )


def _dry(profile: str, dataset: str | None, changes: dict[str, Any], continued_from: str | None, as_json: bool) -> None:
    from dataclasses import asdict

    from core.db import transaction
    from core.errors import NotFound
    from core.tables import Dataset as Frozen
    from training import eligible
    from training.policy import Policy
    from training.profiles import SILENT
    from training.profiles import profile as recipe

    chosen = asdict(recipe(profile, **changes))
    silent = SILENT if profile == "paper" else {}
    settings = console.read(TrainingSettings)
    with console.opened(settings) as here:
        if continued_from is not None:
            _fits(here, continued_from, profile, changes)
        with transaction(here.engine) as session:
            row = session.get(Frozen, dataset) if dataset else eligible.build(session, settings.home, Policy())
        if row is None:
            raise NotFound(f"There is no training set {dataset}; `valuer dataset list` shows those that are.")
    counts = {part: row.counts[part]["reports"] for part in ("train", "test")}
    data = {"profile": chosen, "dataset": row.id, **counts, "paper_silent": silent}
    lines = [f"{name}: {console.shown(value)}" for name, value in {**chosen, "dataset": row.id, **counts}.items()]
    lines += [f"The paper does not say {sentence}." for sentence in silent.values()]
    console.answer(as_json, data, "\n".join(lines))


def _changes(changed: list[str] | None) -> dict[str, Any]:
    """`name=value` with the value as in TOML; one that is none is text."""
    import tomllib

    from core.errors import Refused

    changes: dict[str, Any] = {}
    for one in changed or ():
        name, sign, value = one.partition("=")
        if not sign:
            raise Refused(f"{one!r} changes nothing; write it as accumulation=1.")
        try:
            changes[name] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            changes[name] = value
    return changes


def _data(row: "TrainingRun") -> dict[str, Any]:
    return {
        "run": str(row.id),
        "profile": row.profile,
        "state": str(row.state),
        "dataset": row.dataset,
        "continued_from": row.options.get("continued_from"),
        "model": row.model_version,
        "metrics": {name: row.progress.get("metrics", {}).get(name) for name in ("reports", "r1", "r2", "rl")},
        "error": row.error,
        "created_at": row.created_at,
    }
