"""`valuer evaluate`: model versions over held-out cases, drafted and scored by the very code that serves, baselines beside them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from admin import console
from core.settings import WorkerSettings

if TYPE_CHECKING:
    from core.tables import Dataset, Evaluation, ModelVersion
    from training.dataset import Case
    from training.evaluate import House, Judged
    from training.measured import Measured
    from training.utility import Utility
    from worker.engine.protocol import Engine

PAPERS_OWN = "ChatRadio-Valuer"
"""The paper's own model, whose published figures stand beside ours."""
app = typer.Typer(no_args_is_help=True, help="Measure models and baselines on held-out cases.")
Reports = Annotated[int, typer.Option("--reports", help="How many test cases, evenly over institutions; 0: all", min=0)]
BareSample = Annotated[int, typer.Option(help="How many of them the bare base drafts too; 0: none", min=0)]
Out = Annotated[Path | None, typer.Option(help="Folder for report.md, report.csv and report.html")]
SetOption = Annotated[str | None, typer.Option("--dataset", help="A frozen training set; without one, the newest")]


@app.command()
def run(
    version: Annotated[str, typer.Argument(metavar="MODEL")],
    dataset: SetOption = None,
    reports: Reports = 200,
    bare_sample: BareSample = 100,
    out: Out = None,
    json: console.Json = False,
) -> None:
    """Draft and score the test part of a training set with a version, baselines beside it. Run it again and it goes on where it was."""
    from core.db import transaction
    from training import dataset as sets
    from training import evaluate

    settings = console.read(WorkerSettings)
    with console.opened(settings) as here:
        with transaction(here.engine) as session:
            data = frozen(session, dataset)
        sets.verify(Path(data.path), data.digest)
        tested = sets.read(Path(data.path), sets.TEST)
        cases = evaluate.sample(tested, reports) if reports else list(tested)
        with transaction(here.engine) as session:
            house = evaluate.houses(session, here.settings.home, cases)
        _assessed(here, settings, version, data, cases, house, bare_sample, out, json)


@app.command()
def sandbox(
    version: Annotated[str, typer.Argument(metavar="MODEL")] = "demo-1",
    reports: Annotated[int, typer.Option("--reports", help="How many, evenly over the six hospitals", min=6)] = 2000,
    bare_sample: BareSample = 100,
    out: Out = None,
    json: console.Json = False,
) -> None:
    """The same on reports of the six pretend hospitals that are generated for it and that no model has seen."""
    from admin import demo_adapter, rounds
    from core import registry
    from core.db import transaction
    from training import dataset as sets
    from training.policy import Policy

    settings = console.read(WorkerSettings)
    with console.opened(settings) as here:
        taught = demo_adapter.taught(demo_adapter.REPORTS)
        cases = demo_adapter.held_out(-(-reports // len(demo_adapter.HOUSES)), taught)[:reports]
        with transaction(here.engine) as session:
            registry.register(session, rounds.MODEL)
            data = sets.freeze(session, here.settings.home, Policy(), sets.Plan(tuple(taught), tuple(cases)))
        _assessed(here, settings, version, data, cases, demo_adapter.houses(), bare_sample, out, json)


@app.command()
def pin(
    case: Annotated[str, typer.Argument(metavar="CASE", help="Id of a case of a training set, such as report:north/…")],
    why: Annotated[str, typer.Option(help="The mistake that must not come back")],
    forbid: Annotated[list[str], typer.Option(help="Kind of issue that its draft may not have; may be repeated")],
    fact_floor: Annotated[float, typer.Option(help="Least fact F1 against the signed text", min=0, max=1)] = 0.5,
    dataset: SetOption = None,
    json: console.Json = False,
) -> None:
    """Make a confirmed mistake a regression case: no version that makes it again is promoted."""
    from clinical.issues import Kind
    from core import audit
    from core.db import transaction
    from core.errors import NotFound, Refused
    from training import assessment
    from training import dataset as sets

    unknown = sorted(set(forbid) - set(Kind))
    if unknown:
        raise Refused(f"There is no kind of issue called {unknown[0]}; there are {', '.join(Kind)}.")
    with console.opened() as here, transaction(here.engine) as session:
        folder = Path(frozen(session, dataset).path)
        found = next(
            (one for part in (sets.TEST, sets.TRAIN) for one in sets.read(folder, part) if one.id == case), None
        )
        if found is None:
            raise NotFound(f"The training set has no case {case}.", code="unknown_case")
        by = console.person()
        row = assessment.pin(session, found, forbids=forbid, fact_floor=fact_floor, why=why, approved_by=by)
        audit.record(session, by, "regression.pinned", f"regression:{row.id}", forbids=row.forbids)
    console.answer(json, {"regression": str(row.id)}, f"Pinned as {row.id}: {why}")


def frozen(session: Any, identity: str | None) -> "Dataset":
    """The training set that was named, or the newest. Raises NotFound."""
    from sqlmodel import col, select

    from core.errors import NotFound
    from core.tables import Dataset

    newest = select(Dataset).order_by(col(Dataset.created_at).desc())
    row = session.exec(newest.where(Dataset.id == identity) if identity else newest).first()
    if row is None:
        raise NotFound("There is no such training set: `valuer dataset build` makes one.", code="no_dataset")
    return row  # type: ignore[no-any-return]


def _assessed(
    here: console.Opened,
    settings: WorkerSettings,
    version: str,
    data: "Dataset",
    cases: "Sequence[Case]",
    house: "Mapping[str, House]",
    bare_sample: int,
    out: Path | None,
    json: bool,
) -> None:
    """Model, bare base and baselines over the cases; the report; the answer."""
    from core import registry
    from core.db import transaction
    from core.serving import Serving
    from training import assessment, evaluations
    from training.evaluate import sample
    from training.report import markdown, write

    with transaction(here.engine) as session:
        model = registry.get(session, version)
    own, bare = f"{evaluations.MODEL}{version}", f"{evaluations.BARE}{model.manifest['base']['model']}"
    asked = {own: cases}
    if bare_sample and model.manifest["adapter"] is not None:
        asked[bare] = sample(cases, bare_sample)
    rows, peak = _drafted(here, settings, model, data, asked, house)
    rows |= _baselines(here, data, cases, house)
    with transaction(here.engine) as session:
        measured: dict[str, Sequence[Measured]] = {}
        for subject, row in rows.items():
            found = {one.case_id: one for one in evaluations.cases(session, row.id)}
            measured[subject] = [found[case.id] for case in asked.get(subject, cases)]
        utilities = [
            _utility(settings, subject, measured[subject], rows[subject], peak, model if subject == own else None)
            for subject in asked
        ]
        about = {
            "model": f"{version}, artefact {Serving.of(settings).artefact(model.manifest)[:12]}",
            "served as": ", ".join(f"{key} {value}" for key, value in how(settings).items()),
            "scorer": rows[own].scorer,
        }
        notes = [*_notes(bare, len(asked.get(bare, ()))), *no_joules(utilities)]
        made = assessment.report(
            session,
            f"Evaluation of {version}",
            data,
            measured,
            about=about,
            utilities=utilities,
            papers=(PAPERS_OWN,),
            notes=notes,
        )
    files = write(made, out or settings.home / "evaluations" / f"{version}-{data.id[:8]}")
    answer = {
        "model": version,
        "dataset": data.id,
        **rows[own].result["metrics"],
        "subjects": [assessment.as_json(subject, row) for subject, row in rows.items()],
        "files": {kind: str(path) for kind, path in files.items()},
    }
    console.answer(json, answer, f"{markdown(made)}\nThe same with charts: {files['html']}")


def _drafted(
    here: console.Opened,
    settings: WorkerSettings,
    model: "ModelVersion",
    data: "Dataset",
    asked: "Mapping[str, Sequence[Case]]",
    house: "Mapping[str, House]",
) -> "tuple[dict[str, Evaluation], int]":
    """The evaluations of the model, which also drafts the pinned mistakes, and of its bare base, by subject; and the most memory it took."""
    from core.db import transaction
    from core.serving import Serving
    from training import assessment, evaluations

    serving, told, energy = Serving.of(settings), how(settings), meter(settings)
    with transaction(here.engine) as session:
        mistakes = assessment.pinned(session)
    rows = {}
    with bar() as advance, _engine(settings, _base(settings), _adapter(model)) as engine:
        draft = drafting(engine, model.manifest["prompt"]["template"], settings, house)
        for name, cases in asked.items():
            if name.startswith(evaluations.BARE):
                engine.swap(None)
                subject = assessment.Subject(
                    name, serving.artefact({**model.manifest, "files": {}}), draft, told=told, energy=energy
                )
            else:
                subject = assessment.Subject(name, serving.artefact(model.manifest), draft, model.id, told, energy)
                cases = [*cases, *mistakes]
            rows[name] = assessment.assess(here.engine, subject, data.id, cases, house, advance(name, len(cases)))
        return rows, _peak_bytes(settings)


def _baselines(
    here: console.Opened, data: "Dataset", cases: "Sequence[Case]", house: "Mapping[str, House]"
) -> "dict[str, Evaluation]":
    """The evaluations of what needs no model, by subject."""
    from training import assessment, baselines, evaluations
    from training import dataset as sets

    rows = {}
    with bar() as advance:
        taught = list(sets.read(Path(data.path), sets.TRAIN))
        for kind, text in baselines.baselines(taught).items():
            name, digest = f"{evaluations.BASELINE}{kind}", assessment.text_digest(kind, data.digest)
            subject = assessment.Subject(name, digest, assessment.of_text(text, house))
            rows[name] = assessment.assess(here.engine, subject, data.id, cases, house, advance(name, len(cases)))
    return rows


def _utility(
    settings: WorkerSettings,
    subject: str,
    measured: "Sequence[Measured]",
    row: "Evaluation",
    peak_bytes: int,
    model: "ModelVersion | None",
) -> "Utility":
    """What a subject that drafts with a model cost; `model` is None for the bare base."""
    from training.utility import utility

    return utility(
        subject,
        measured,
        result={**row.result, "peak_bytes": peak_bytes},
        base=_base(settings),
        adapter=None if model is None else _adapter(model),
        manifest=None if model is None else model.manifest,
    )


def _base(settings: WorkerSettings) -> Path:
    from worker.engine import weights

    return weights.base_model(settings.model, settings.models_dir)


def _adapter(model: "ModelVersion") -> Path | None:
    return Path(model.path) if model.manifest["adapter"] is not None else None


def how(settings: WorkerSettings) -> dict[str, Any]:
    """What an evaluation says of how its drafts were made."""
    import torch

    device = settings.device if settings.device != "auto" else ("cuda:0" if torch.cuda.is_available() else "cpu")
    named = (
        torch.cuda.get_device_name(device) if device.startswith("cuda") else f"cpu, {torch.get_num_threads()} threads"
    )
    return {
        "engine": settings.engine,
        "weights": settings.weights,
        "decoding": settings.decoding,
        "max_new_tokens": settings.max_new_tokens,
        "in_flight": settings.in_flight,
        "device": named,
    }


def meter(settings: WorkerSettings) -> "Callable[[], float | None]":
    """Reads what the card that drafts has used so far; nothing where none does."""
    import torch

    from training.energy import joules

    if settings.device == "cpu" or settings.engine == "openai" or not torch.cuda.is_available():
        return lambda: None
    card = torch.cuda.get_device_properties(None if settings.device == "auto" else settings.device).uuid
    return lambda: joules(f"GPU-{card}")


def no_joules(utilities: "Sequence[Utility]") -> list[str]:
    """Why a dash stands under joules."""
    if all(each.joules is not None for each in utilities):
        return []
    return [
        "Joules are read from the counter of the card that drafts; – where there is no such card, driver or counter."
    ]


def _peak_bytes(settings: WorkerSettings) -> int:
    """The most memory that this process held: of the card where there is one, else of the machine."""
    import resource

    import torch

    if settings.device.startswith("cuda") or (settings.device == "auto" and torch.cuda.is_available()):
        return int(torch.cuda.max_memory_reserved())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _notes(bare: str, bare_reports: int) -> list[str]:
    if not bare_reports:
        return []
    return [
        f"{bare} is the base model without its adapter, on {bare_reports} of the reports; the checks withhold what loops, and that scores 0."
    ]


@contextmanager
def _engine(settings: WorkerSettings, base: Path, adapter: Path | None) -> "Iterator[Engine]":
    from worker.engine.open import open_engine

    console.note("Loading the model …")
    engine = open_engine(settings, base, adapter)
    try:
        yield engine
    finally:
        engine.drain(1.0)


def drafting(engine: "Engine", template: str, settings: WorkerSettings, house: "Mapping[str, House]") -> Any:
    """Something that drafts cases as the settings say (training.assessment.Drafting)."""
    from training.evaluate import judged

    def draft(cases: "Sequence[Case]") -> "Iterator[Judged]":
        return judged(
            engine,
            cases,
            template=template,
            max_new_tokens=settings.max_new_tokens,
            in_flight=settings.in_flight,
            decoding=settings.decoding,
            house=house,
        )

    return draft


@contextmanager
def bar() -> Iterator[Any]:
    """Draws one line a subject; gives a function that makes an `on_case` of a subject and its number of cases."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console.aside()) as bar:

        def advance(subject: str, total: int) -> Any:
            task = bar.add_task(subject, total=total)
            return lambda done: bar.update(task, completed=done)

        yield advance
