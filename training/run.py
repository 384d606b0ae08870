"""One training run, `python -m training.run RUN TOKEN`: dataset, QLoRA, evaluation, artefact, registration. Started by training.service.

Works at low priority and ends when its parent does. Everything on the way is resumable: the dataset is frozen before anything else, the
adapter has a checkpoint, and the version is registered in the transaction that ends the run.
"""

import os

os.environ.setdefault(
    "OMP_WAIT_POLICY", "PASSIVE"
)  # before torch: threads that spin while they wait lose more than they win on shared cores

import logging
import shutil
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import UUID

import sqlalchemy as sa
import torch
from sqlmodel import Session, select

from core import embedded, logs, registry
from core.db import connect, transaction
from core.errors import Retryable, ValuerError
from core.serving import Serving
from core.settings import TrainingSettings, WorkerSettings
from core.states import RunState
from core.tables import Dataset, Institution, TrainingRun
from training import (
    artefact,
    assessment,
    continuation,
    dataset,
    eligible,
    evaluate,
    evaluations,
    merge,
    qlora,
    ranks,
    runs,
    stages,
)
from training.measured import Measured
from training.profiles import Profile
from training.ranks import Ranks
from training.service import SAVED_EXIT
from worker.engine import weights
from worker.engine.adapter import Adapter, verify
from worker.engine.architectures import adapter_targets
from worker.engine.open import open_engine

NICENESS = 10
WRITE_S = 1.0
"""Seconds between two writes of progress."""


class Stopped(Exception):
    """The run is to stop; what is worth saving has been saved."""


class _Child:
    """This process's hold on its run: whether to go on, and where it stands."""

    def __init__(self, database: sa.Engine, identity: UUID, token: str, ranks: Ranks) -> None:
        self.database, self.identity, self.token, self.ranks = database, identity, token, ranks
        self._parent = os.getppid()
        self._stopping = False
        self._written = 0.0

    def ask_to_stop(self, *_: object) -> None:
        """Signal handler."""
        self._stopping = True

    def stopping(self) -> bool:
        """Asked to stop, no longer the run's worker, or left alone by a parent that died."""
        return self._stopping or os.getppid() != self._parent

    def go_on(self) -> None:
        """Raises Stopped where the run is to stop."""
        if self.stopping():
            raise Stopped

    def require(self, ours: bool) -> None:
        """Raises Stopped, which rolls the transaction back, where the answer of `training.runs` is that the run is no longer ours."""
        if not ours:
            raise Stopped

    def tell(self, progress: dict[str, Any], *, at_once: bool = False) -> None:
        """Stores progress, at most once a second; learns that the run is no longer ours."""
        if not self.ranks.leads:
            return
        if not at_once and time.monotonic() - self._written < WRITE_S:
            return
        self._written = time.monotonic()
        try:
            with transaction(self.database) as session:
                self._stopping |= not runs.report(session, self.identity, self.token, progress)
        except Retryable:
            pass  # training does not need the database until its end


def work(child: _Child, settings: TrainingSettings, serving: WorkerSettings) -> None:
    """Sees the run through to its registered version."""
    if not child.ranks.leads:
        child.ranks.wait()  # until the first has frozen the set and said which it is
    with transaction(child.database) as session:
        row = runs.get(session, child.identity)
        data = _dataset(session, settings.home, row)
        if child.ranks.leads:  # in one transaction with the set, since a checkpoint belongs to no other
            child.require(runs.report(session, row.id, child.token, {"phase": "load"}, dataset=data.id))
    chosen = runs.options(row)
    if child.ranks.leads:
        child.ranks.wait()
    folder = settings.home / "training" / str(row.id)
    staged = folder / "adapter"
    base = weights.base_model(settings.model, settings.models_dir)
    model, tokenizer = weights.load(base, None, device=_device(settings, child.ranks), training=True)
    cases = list(dataset.read(Path(data.path), dataset.TRAIN))
    asked = runs.recipe(row)
    with transaction(child.database) as session:
        house = evaluate.houses(session, settings.home, cases) if asked.selection_examples else {}
        layers = adapter_targets(model, attention_only=asked.targets == "attention")
        before = _before(session, chosen.continued_from, asked, weights.digest(base), layers, data)
    learned = stages.follow(
        model,
        tokenizer,
        cases,
        asked,
        folder,
        max_new_tokens=serving.max_new_tokens,
        house=house,
        before=before,
        tell=lambda phase, at: child.tell({"phase": phase, **_rounded(at)}, at_once=at.step == at.steps),
        stop=child.stopping,
        ranks=child.ranks,
    )
    if learned is None:
        raise Stopped
    if not child.ranks.leads:
        return  # the first process does the rest
    child.go_on()
    recipe, trained = learned.recipe, learned.trained
    shutil.rmtree(staged, ignore_errors=True)
    artefact.write_weights(learned.model, staged, recipe, settings.model)
    if learned.embeddings is not None:
        shutil.copy(learned.embeddings, staged)
    ends = weights.end_tokens(learned.model, tokenizer)
    answer = artefact.golden(learned.model, list(learned.fitting[0].prompt), ends)
    del model, learned.model
    origin = _origin(child.database, settings.model, base, data)
    told = {
        "run": str(row.id),
        "learning_rate": recipe.learning_rate,
        "batch": recipe.batch,
        "accumulation": recipe.accumulation,
        "seed": recipe.seed,
        **({} if before is None else {"continued_from": before.id}),
        "steps": trained.steps,
        **learned.told,
        "first_loss": round(trained.losses[0], 4),
        "last_loss": round(trained.losses[-1], 4),
        "seconds": round(trained.seconds, 1),
        "tokens": trained.tokens,
        "device": settings.training_device,
    }
    identity = f"{recipe.name}-{data.id[:6]}-{row.id.hex[-8:]}"
    artefact.seal(staged, identity, recipe, origin, training=told, metrics={}, golden_answer=answer)
    measured, scorer = _measure(child, serving, base, staged, recipe.template, data, chosen.evaluate)
    metrics = evaluate.summary([one for one in measured if not one.case_id.startswith(evaluations.REGRESSION)])
    artefact.seal(staged, identity, recipe, origin, training=told, metrics=metrics, golden_answer=answer)
    if recipe.merged:
        child.tell({"phase": "merge"}, at_once=True)
        merged = settings.home / "merged" / identity
        if not (merged / merge.DERIVED).exists():
            merge.merge(base, staged, merged)
    with transaction(child.database) as session:
        # holds the run's row until the end, so that nobody else has published and registered it when the folder is put in place
        child.require(runs.beat(session, row.id, child.token))
        registered = registry.register(session, artefact.publish(staged, settings.models_dir / identity))
        served = Serving.of(serving).artefact(registered.manifest)
        about = {"engine": serving.engine, "weights": serving.weights}
        evaluations.store(session, registered, data.id, served, measured, about, scorer=scorer)
        progress = {"phase": "done", "step": trained.steps, "steps": trained.steps, "metrics": metrics}
        runs.end(session, row.id, child.token, RunState.DONE, model_version=identity, progress=progress)
    shutil.rmtree(folder, ignore_errors=True)


def _device(settings: TrainingSettings, ranks: Ranks) -> str:
    """The device of this process; of several on one machine, each has the card of its number."""
    several = ranks.count > 1 and settings.training_device == "auto" and torch.cuda.is_available()
    return f"cuda:{os.environ['LOCAL_RANK']}" if several else settings.training_device


def _dataset(session: Session, home: Path, row: TrainingRun) -> Dataset:
    """The frozen set of the run: the one it names (from the start, or since an earlier try), else a new one by its policy."""
    if row.dataset is None:
        return eligible.build(session, home, runs.options(row).policy)
    data = session.exec(select(Dataset).where(Dataset.id == row.dataset)).one()
    dataset.verify(Path(data.path), data.digest)
    return data


def _before(
    session: Session, version: str | None, recipe: Profile, base_digest: str, layers: list[str], data: Dataset
) -> Adapter | None:
    """The adapter that the run goes on from; None for a fresh one."""
    if version is None:
        return None
    row = continuation.fit(session, version, recipe, base_digest, layers)
    continuation.apart(session, row, data)
    return verify(Path(row.path), base_digest)


def _origin(database: sa.Engine, model: str, base: Path, data: Dataset) -> artefact.Origin:
    taught = data.counts["train"]["institution"]
    with transaction(database) as session:
        pretend = set(session.exec(select(Institution.code).where(Institution.sandbox)))
    return artefact.Origin(
        base=model,
        base_digest=weights.digest(base),
        dataset={
            "id": data.id,
            "digest": data.digest,
            "reports": data.counts["train"]["reports"],
            "institutions": taught,
        },
        scope=dataset.scope(dataset.read(Path(data.path), dataset.TRAIN)),
        # The demo base is no clinical model, and pretend reports teach nothing about patients.
        sandbox_only=model == weights.DEMO or bool(pretend & set(taught)),
    )


def _measure(
    child: _Child, serving: WorkerSettings, base: Path, adapter: Path, template: str, data: Dataset, count: int
) -> tuple[list[Measured], str]:
    """The test cases through the engine that serves, with the very files that will serve; and the scorer that judged them."""
    cases = evaluate.sample(dataset.read(Path(data.path), dataset.TEST), count)
    if not cases:
        return [], evaluate.scorer({})
    with transaction(child.database) as session:
        house = evaluate.houses(session, serving.home, cases)
        cases += assessment.pinned(session)
    engine = open_engine(serving, base, adapter)

    def on_case(done: int) -> None:
        child.tell({"phase": "evaluate", "step": done, "steps": len(cases)})
        child.go_on()

    try:
        result = evaluate.evaluate(
            engine,
            cases,
            template=template,
            max_new_tokens=serving.max_new_tokens,
            in_flight=serving.in_flight,
            decoding=serving.decoding,
            house=house,
            on_case=on_case,
        )
    finally:
        engine.drain(1.0)
    return [one.measured() for one in result.judged], evaluate.scorer(house)


def _rounded(at: qlora.Progress) -> dict[str, Any]:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(at).items()}


def main() -> None:
    """Ends with 0 (registered), 75 (stopped and saved, the run waits), or 1: failed, and the row says why, or interrupted, which the parent
    counts as a crash."""
    identity, token = UUID(sys.argv[1]), sys.argv[2]
    os.nice(NICENESS)
    settings, serving = TrainingSettings(), WorkerSettings()
    logs.configure(settings.log_level, "training-run")
    if settings.training_threads:
        torch.set_num_threads(settings.training_threads)
    database = connect(embedded.resolve(settings).database_url, pool_size=2, application="training-run")
    child = _Child(database, identity, token, ranks.joined(cpu=settings.training_device == "cpu"))
    signal.signal(signal.SIGTERM, child.ask_to_stop)
    signal.signal(signal.SIGINT, child.ask_to_stop)
    try:
        work(child, settings, serving)
    except Stopped:
        if not child.ranks.leads:
            raise SystemExit(SAVED_EXIT) from None
        logs.event("training_stopped", run=identity)
        with transaction(database) as session:
            runs.give_back(session, identity, token, crashed=False)
        raise SystemExit(SAVED_EXIT) from None
    except Retryable as error:
        logs.event("training_interrupted", level=logging.WARNING, run=identity, error=error)
        raise SystemExit(1) from None
    except ValuerError as error:
        logs.event("training_failed", level=logging.ERROR, run=identity, error=error)
        with transaction(database) as session:
            runs.end(session, identity, token, RunState.FAILED, error=f"{error.code}: {error.message}")
        raise SystemExit(1) from None
    logs.event("training_done", run=identity)


if __name__ == "__main__":
    main()
