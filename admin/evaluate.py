"""`valuer evaluate`: a model version over held-out cases, drafted and scored by the very code that serves."""

from pathlib import Path
from typing import Annotated

import typer

from admin import console
from core.settings import WorkerSettings

app = typer.Typer(no_args_is_help=True, help="Measure model versions on held-out cases.")


@app.command()
def run(
    version: Annotated[str, typer.Argument(metavar="MODEL")],
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="A frozen training set; without one, the newest")
    ] = None,
    count: Annotated[int, typer.Option(help="How many of its test cases", min=1)] = 60,
    json: console.Json = False,
) -> None:
    """Draft and score the test part of a training set with a version; the result is kept."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from sqlmodel import col, select

    from core import registry
    from core.db import transaction
    from core.errors import NotFound
    from core.tables import Dataset, Evaluation
    from training import evaluate
    from training.dataset import TEST, read, verify
    from worker.engine import weights
    from worker.engine.open import open_engine

    settings = console.read(WorkerSettings)
    with console.opened(settings) as here:
        with transaction(here.engine) as session:
            model = registry.get(session, version)
            newest = select(Dataset).order_by(col(Dataset.created_at).desc())
            data = session.exec(newest.where(Dataset.id == dataset) if dataset else newest).first()
        if data is None:
            raise NotFound("There is no such training set: `valuer dataset build` makes one.", code="no_dataset")
        verify(Path(data.path), data.digest)
        cases = evaluate.sample(read(Path(data.path), TEST), count)
        with transaction(here.engine) as session:
            house = evaluate.styles(session, cases)
        console.note("Loading the model …")
        adapter = Path(model.path) if model.manifest["adapter"] is not None else None
        engine = open_engine(settings, weights.base_model(settings.model, settings.models_dir), adapter)
        columns = (TextColumn("Drafting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        try:
            with Progress(*columns, console=console.aside()) as bar:
                task = bar.add_task("Drafting", total=len(cases))
                result = evaluate.evaluate(
                    engine,
                    cases,
                    template=model.manifest["prompt"]["template"],
                    max_new_tokens=settings.max_new_tokens,
                    in_flight=settings.in_flight,
                    decoding=settings.decoding,
                    house=house,
                    on_case=lambda done: bar.update(task, completed=done),
                ).as_json()
        finally:
            engine.drain(1.0)
        kept = {"metrics": result, "engine": settings.engine, "weights": settings.weights}
        with transaction(here.engine) as session:
            session.add(Evaluation(model_version=model.id, dataset=data.id, scorer=result["scorer"], result=kept))
    console.answer(json, {"model": model.id, "dataset": data.id, **result})
