"""Training runs as rows: start, list, cancel, follow; and how a training worker claims one, beats for it and ends it.

Moves states and trains nothing. Every write of a worker carries its token, so that one that was thought dead changes nothing.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Session, col, select

from core import audit
from core.db import transaction
from core.errors import Conflict, NotFound
from core.states import RunState
from core.tables import Dataset, TrainingRun
from training.policy import Policy, policy
from training.profiles import Profile, profile

SILENT_S = 60.0
"""A worker that did not beat for so long is gone, and its run is taken up by the next."""
CRASHES = 3
"""So many crashes of a run that got no further between them, and it has failed."""
ENDED = frozenset({RunState.DONE, RunState.FAILED, RunState.CANCELLED})


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is asked for beside its profile: a frozen dataset's id or a policy to build one by, changed fields of the profile, how many
    test cases are drafted to evaluate it, and the version whose adapter is trained on (None: a fresh one)."""

    dataset: str | None = None
    policy: Policy = field(default_factory=Policy)
    changes: dict[str, Any] = field(default_factory=dict)
    evaluate: int = 60
    continued_from: str | None = None


def options(row: TrainingRun) -> Options:
    """The options that the row was started with."""
    return chosen(row.options)


def chosen(told: dict[str, Any]) -> Options:
    """The options that were stored as JSON."""
    stored = dict(told)
    return Options(policy=policy(stored.pop("policy")), **stored)


def recipe(row: TrainingRun) -> Profile:
    """The profile of the row with its changes."""
    return profile(row.profile, **options(row).changes)


def start(session: Session, name: str, chosen: Options, actor: str) -> TrainingRun:
    """Queues a run of the profile `name`; the caller rings `core.queue.ring_training` after its commit.

    Raises:
        Refused: there is no such profile or option.
        NotFound: there is no such training set.
    """
    profile(name, **chosen.changes)
    if chosen.dataset is not None and session.get(Dataset, chosen.dataset) is None:
        raise NotFound(f"There is no training set {chosen.dataset}; `valuer dataset list` shows those that are.")
    row = TrainingRun(profile=name, options=asdict(chosen), dataset=chosen.dataset, requested_by=actor)
    session.add(row)
    session.flush()
    audit.record(session, actor, "training.requested", f"run:{row.id}", profile=name)
    return row


def get(session: Session, identity: UUID) -> TrainingRun:
    """The run as it stands in the database. Raises NotFound."""
    row = session.get(TrainingRun, identity, populate_existing=True)
    if row is None:
        raise NotFound("There is no such training run.", code="unknown_run")
    return row


def newest(session: Session, limit: int = 50) -> list[TrainingRun]:
    """Runs, newest first."""
    return list(session.exec(select(TrainingRun).order_by(col(TrainingRun.id).desc()).limit(limit)))


def cancel(session: Session, identity: UUID, actor: str) -> TrainingRun:
    """Stops a run that has not ended; its worker sees it within seconds. Raises NotFound, and Conflict when it has ended."""
    row = get(session, identity)
    if not _move(session, {"id": identity}, frozenset(RunState) - ENDED, RunState.CANCELLED, ended_at=_NOW):
        raise Conflict(f"The run is {row.state} already.", code=f"already_{row.state}")
    audit.record(session, actor, "training.cancelled", f"run:{identity}")
    return get(session, identity)


def follow(engine: sa.Engine, identity: UUID, every_s: float = 1.0) -> Iterator[TrainingRun]:
    """The run's row again and again until it has ended; the last one yielded is the ended one."""
    while True:
        with transaction(engine) as session:
            row = get(session, identity)
        yield row
        if row.state in ENDED:
            return
        time.sleep(every_s)


def claim(session: Session, token: str) -> TrainingRun | None:
    """The oldest waiting run, now held by `token`; runs of silent workers go back to waiting first, as crashed ones."""
    silent = col(TrainingRun.heartbeat_at) < sa.func.clock_timestamp() - sa.func.make_interval(
        0, 0, 0, 0, 0, 0, SILENT_S
    )
    held = select(TrainingRun).where(TrainingRun.state == RunState.RUNNING, silent).with_for_update(skip_locked=True)
    for lost in session.exec(held):
        give_back(session, lost.id, lost.worker or "", crashed=True)
    waiting = select(TrainingRun).where(TrainingRun.state == RunState.QUEUED).order_by(col(TrainingRun.id)).limit(1)
    row = session.exec(waiting.with_for_update(skip_locked=True)).first()
    if row is None:
        return None
    started = sa.func.coalesce(col(TrainingRun.started_at), _NOW)
    queued = frozenset({RunState.QUEUED})
    _move(session, {"id": row.id}, queued, RunState.RUNNING, worker=token, started_at=started, heartbeat_at=_NOW)
    return get(session, row.id)


def beat(session: Session, identity: UUID, token: str) -> bool:
    """Says that the worker lives; False when the run is no longer its own: cancelled, or taken over."""
    return _move(
        session, {"id": identity, "worker": token}, frozenset({RunState.RUNNING}), RunState.RUNNING, heartbeat_at=_NOW
    )


def report(session: Session, identity: UUID, token: str, progress: dict[str, Any], **values: Any) -> bool:
    """Stores where the run stands; False when it is no longer the caller's."""
    before = get(session, identity).progress
    return _move(
        session,
        {"id": identity, "worker": token},
        frozenset({RunState.RUNNING}),
        RunState.RUNNING,
        progress={**progress, "crashes": before.get("crashes", 0), "furthest": before.get("furthest", 0)},
        heartbeat_at=_NOW,
        **values,
    )


def give_back(session: Session, identity: UUID, token: str, *, crashed: bool) -> bool:
    """Back to waiting, to be resumed from its checkpoint. A run that crashed `CRASHES` times has failed, unless it trained further than at its
    crash before: then it is counted from one."""
    progress = dict(get(session, identity).progress)
    if crashed:
        step = progress.get("step", 0) if progress.get("phase") == "train" else 0
        if step > progress.get("furthest", 0):
            progress |= {"crashes": 1, "furthest": step}
        else:
            progress["crashes"] = progress.get("crashes", 0) + 1
    if progress.get("crashes", 0) >= CRASHES:
        error = "The training process died three times without getting any further; its log says of what."
        return end(session, identity, token, RunState.FAILED, error=error, progress=progress)
    where = {"id": identity, "worker": token}
    return _move(session, where, frozenset({RunState.RUNNING}), RunState.QUEUED, progress=progress, worker=None)


def end(session: Session, identity: UUID, token: str, state: RunState, **values: Any) -> bool:
    """Done or failed; False when the run is no longer the caller's."""
    where = {"id": identity, "worker": token}
    moved = _move(session, where, frozenset({RunState.RUNNING}), state, ended_at=_NOW, **values)
    if moved:
        detail = {name: values[name] for name in ("model_version",) if name in values}
        audit.record(session, "process:training", f"training.{state}", f"run:{identity}", **detail)
    return moved


_NOW = sa.func.clock_timestamp()


def _move(session: Session, where: dict[str, Any], sources: frozenset[RunState], to: RunState, **values: Any) -> bool:
    statement = sa.update(TrainingRun).where(col(TrainingRun.state).in_(sorted(sources)))
    for column, value in where.items():
        statement = statement.where(getattr(TrainingRun, column) == value)
    result = session.execute(statement.values(state=to, **values).execution_options(synchronize_session=False))
    return bool(result.rowcount)  # type: ignore[attr-defined]  # a CursorResult for every UPDATE
