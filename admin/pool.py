"""`valuer evaluate pool`: the model pool over the same cases, the paper's published figures beside ours."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from admin import console
from admin.evaluate import Out, SetOption, bar, drafting, frozen, how, meter, no_joules
from core.settings import WorkerSettings

if TYPE_CHECKING:
    from training.measured import Measured
    from training.pool import Row
    from training.utility import Utility
    from worker.engine.protocol import Engine

TEMPLATE = "brief"
"""The prompt of models that were trained on none."""


def pool(
    dataset: SetOption = None,
    reports: Annotated[
        int, typer.Option("--reports", help="How many test cases, evenly over institutions", min=1)
    ] = 200,
    row: Annotated[list[str] | None, typer.Option("--row", help="Only this row; may be repeated")] = None,
    leave_network: Annotated[
        bool, typer.Option("--leave-network", help="Let de-identified findings go to endpoints outside of this machine")
    ] = False,
    only_list: Annotated[
        bool, typer.Option("--list", help="Only say which rows would run, and why not the others")
    ] = False,
    out: Out = None,
    json: console.Json = False,
) -> None:
    """Draft the same cases with every model of the pool that is here; the rest is skipped aloud. Run again, it goes on where it was."""
    from sqlmodel import select

    from core import registry
    from core.db import transaction
    from core.errors import NotFound
    from core.tables import ModelVersion
    from training import pool as models

    settings = console.read(WorkerSettings)
    known = models.rows(settings.home)
    chosen = [each for each in known if not row or each.name in row]
    if row and len(chosen) < len(set(row)):
        raise NotFound(f"The pool has no row {(set(row) - {each.name for each in known}).pop()}.", code="unknown_row")
    with console.opened(settings) as here:
        with transaction(here.engine) as session:
            offered = set(session.exec(select(ModelVersion.id)))
            active = registry.pointers(session).get(registry.EVERYONE)
        reasons = {
            each.name: models.skipped(
                each, offered=offered, active=None if active is None else active.id, leave_network=leave_network
            )
            for each in chosen
        }
        skipped = {name: reason for name, reason in reasons.items() if reason is not None}
        if only_list:
            told = [_told(each, reasons[each.name]) for each in chosen]
            lines = [
                f"{each['row']} ({each['parameters']}, {each['licence']}; verified: {each['verified']}): "
                f"{each['why not'] or 'runs'}; {each['exercised']}"
                for each in told
            ]
            console.answer(json, {"rows": told}, "\n".join(lines))
            return
        for name, reason in skipped.items():
            console.note(f"skipped: {name}: {reason}")
        runs = [each for each in chosen if each.name not in skipped]
        _run(here, settings, runs, skipped, dataset, reports, None if active is None else active.id, out, json)


def _run(
    here: console.Opened,
    settings: WorkerSettings,
    runs: "Sequence[Row]",
    skipped: dict[str, str],
    dataset: str | None,
    reports: int,
    active: str | None,
    out: Path | None,
    json: bool,
) -> None:
    from core.db import transaction
    from core.errors import Broken
    from training import assessment, evaluate, evaluations
    from training import dataset as sets
    from training.chat import holds_identity
    from training.published import of_model
    from training.report import markdown, write
    from training.utility import utility
    from worker.prompt import render

    with transaction(here.engine) as session:
        data = frozen(session, dataset)
    sets.verify(Path(data.path), data.digest)
    cases = evaluate.sample(sets.read(Path(data.path), sets.TEST), reports)
    with transaction(here.engine) as session:
        house = evaluate.houses(session, here.settings.home, cases)
    papers = [name for name in (*(each.name for each in runs), *skipped) if of_model(name)]
    measured: dict[str, Sequence[Measured]] = {}
    utilities: list[Utility] = []
    notes = [f"Skipped: {name}: {reason}." for name, reason in skipped.items()]
    with bar() as advance:
        for each in runs:
            energy = (lambda: None) if each.kind == "endpoint" else meter(settings)
            sent = [case for case in cases if not (each.leaves and holds_identity(render(TEMPLATE, case.input).text))]
            try:
                with _opened(here, settings, each, active) as (engine, template, digest):
                    subject = assessment.Subject(
                        f"{evaluations.POOL}{each.name}",
                        digest,
                        drafting(engine, template, settings, house),
                        told=how(settings) | {"row": each.name, "prompt": each.prompt},
                        energy=energy,
                    )
                    row = assessment.assess(
                        here.engine, subject, data.id, sent, house, advance(subject.name, len(sent))
                    )
            except Broken as error:
                notes.append(f"Failed: {each.name}: {error.message}")
                console.note(f"failed: {each.name}: {error.message}")
                continue
            with transaction(here.engine) as session:
                found = {one.case_id: one for one in evaluations.cases(session, row.id)}
            measured[each.name] = [found[case.id] for case in sent]
            utilities.append(utility(each.name, measured[each.name], result=row.result))
            notes.append(f"{each.name}: {each.exercised}. {each.note}".rstrip())
            if len(sent) < len(cases):
                notes.append(
                    f"{each.name}: {len(cases) - len(sent)} reports were not sent, since they may hold an identity."
                )
    notes += no_joules(utilities)
    with transaction(here.engine) as session:
        made = assessment.report(
            session, "Model pool", data, measured, about=_about(), utilities=utilities, papers=papers, notes=notes
        )
    files = write(made, out or settings.home / "evaluations" / f"pool-{data.id[:8]}")
    answer = {
        "dataset": data.id,
        "ran": list(measured),
        "skipped": skipped,
        "notes": notes,
        "files": {kind: str(path) for kind, path in files.items()},
    }
    console.answer(json, answer, f"{markdown(made)}\nThe same with charts: {files['html']}")


@contextmanager
def _opened(
    here: console.Opened, settings: WorkerSettings, row: "Row", active: str | None
) -> "Iterator[tuple[Engine, str, str]]":
    """The row's engine, its prompt template, and the digest of what drafts."""
    import hashlib
    import os

    from core import registry
    from core.db import transaction
    from core.serving import Serving
    from training.chat import Chat
    from training.pool import located
    from worker.engine import weights
    from worker.engine.open import open_engine

    template, digest = TEMPLATE, ""
    engine: Engine
    if row.kind == "version":
        with transaction(here.engine) as session:
            model = registry.get(session, row.version or active or "")
        serving = Serving.of(settings)
        template, digest = model.manifest["prompt"]["template"], serving.artefact(model.manifest)
        name = str(model.manifest["base"]["model"])
        adapter = Path(model.path) if model.manifest["adapter"] is not None else None
        engine = open_engine(settings, weights.base_model(row.path or name, settings.models_dir), adapter)
    elif row.kind == "local":
        base = located(row)
        assert base is not None  # skipped() said so  # noqa: S101
        engine = _local(settings, base, chat=row.prompt == "chat")
        digest = weights.digest(base)
    else:
        key = os.environ.get(row.key_env) if row.key_env else None
        engine = Chat(row.url, row.source, key=key, in_flight=settings.in_flight, leaves=row.leaves)
        digest = f"{row.url}/{row.source}"
    told = f"{digest}/{row.prompt}/{template}/{settings.weights}/{settings.decoding}/{settings.max_new_tokens}"
    try:
        yield engine, template, hashlib.sha256(told.encode()).hexdigest()
    finally:
        engine.drain(1.0)


def _local(settings: WorkerSettings, base: Path, *, chat: bool) -> "Engine":
    """A base of the pool in 4 bits; one that was made to chat reads each prompt as a turn in its own template."""
    from training.turns import Turns
    from worker.engine import weights
    from worker.engine.limits import Limits
    from worker.engine.open import ENGINES, open_engine

    if not chat:
        return open_engine(settings, base, None)
    model, tokenizer = weights.load(base, None, weights=settings.weights, device=settings.device)
    limits = Limits(
        prompt_tokens=settings.max_input_tokens,
        total_tokens=settings.max_input_tokens + settings.max_new_tokens,
        in_flight=settings.in_flight,
    )
    return ENGINES["generate"](model, Turns(tokenizer), limits, base=base, weights=settings.weights, adapter=None)


def _about() -> dict[str, str]:
    return {
        "published": "figures marked so are those of arXiv 2310.05242 on its own hospitals' reports; ours are on other reports",
    }


def _told(row: "Row", reason: str | None) -> dict[str, Any]:
    return {
        "row": row.name,
        "kind": row.kind,
        "parameters": row.parameters,
        "licence": row.licence,
        "verified": row.verified or "nothing",
        "runs": reason is None,
        "why not": reason,
        "exercised": row.exercised,
    }
