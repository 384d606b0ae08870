"""Follows the active version: which adapter the engine holds, which institutions it may draft for, and how one gives way to another.

One engine serves one version at a time. While it changes, no new work is admitted, what is in flight gets three seconds and the rest is
cancelled; its tasks begin again under the new version on the same attempt, so that no draft is ever made by two. A version that may not serve
or cannot be loaded is refused loudly, in the log and in the audit trail, and what served before it goes on for the same institutions; where
nothing did, they have no model.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa
from sqlmodel import Session, col, select

from core import audit, institutions, leases, processes, registry, serving
from core.db import transaction
from core.errors import Broken, EngineRestarting, Retryable
from core.institutions import Profile
from core.logs import event
from core.serving import Serving
from core.states import RequestState
from core.tables import DraftRequest, Institution
from worker import prompt
from worker.engine.protocol import Engine

GRACE_S = 3.0
LOOK_S = 1.0
STUCK_S = 30.0
"""How long a task whose generations are cancelled may take to leave: it has checks to run and rows to save."""
TRY_AGAIN_S = 60.0
"""After how long a refused version is tried again; each time twice as long, since trying stops the work. At once when its files change."""
PATIENCE_S = 5.0
"""How long the best waiting request of another version waits while the present version still has work."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Who is served by what, at one look at the database: `versions` by institution code, None where no version may serve."""

    versions: dict[str, registry.Active | None]
    profiles: dict[str, Profile] = field(default_factory=dict)

    def institutions(self, version: str | None) -> list[str]:
        """Those that `version` may draft for, and those for whom nothing may (their requests are settled without a draft)."""
        return [code for code, active in self.versions.items() if active is None or active.id == version]


def plan(session: Session, refused: Collection[str] = ()) -> Plan:
    """Reads the pointers. What is `refused` gives way to what served before it; a version that is for the sandbox only serves nobody else."""
    pointers = registry.pointers(session)
    versions: dict[str, registry.Active | None] = {}
    profiles: dict[str, Profile] = {}
    for institution in session.exec(select(Institution)):
        following = registry.succession(session, pointers, institution.code)
        active = next((version for version in following if version.id not in refused), None)
        fits = active is not None and (institution.sandbox or not active.sandbox_only)
        versions[institution.code] = active if fits else None
        profiles[institution.code] = institutions.stored(institution.profile)
    return Plan(versions, profiles)


@dataclass(frozen=True, slots=True)
class Refusal:
    """That a version was refused: when, for the how-manieth time, why, where it lies and what its files were then."""

    at: float
    times: int
    reason: str
    path: Path
    files: tuple[tuple[str, int, int], ...]

    @property
    def holds(self) -> bool:
        """Whether there is no use in trying again yet."""
        rested = time.monotonic() - self.at >= TRY_AGAIN_S * 2 ** (self.times - 1)
        return not rested and _files(self.path) == self.files


def _files(path: Path) -> tuple[tuple[str, int, int], ...]:
    try:
        return tuple(sorted((each.name, each.stat().st_size, each.stat().st_mtime_ns) for each in path.iterdir()))
    except OSError:
        return ()


class Swap:
    """The gate between tasks and the engine. Tasks work inside `admitted`; a thread of its own moves the engine along."""

    def __init__(self, engine: Engine, database: sa.Engine, base_digest: str, as_served: Serving) -> None:
        self._engine, self._database, self._base_digest = engine, database, base_digest
        self._as_served = as_served
        self._condition = threading.Condition()
        self._admitting = True
        self._stopping = False
        self._inside: set[str] = set()
        self._version: registry.Active | None = None
        self._plan = Plan({})
        self._refusals: dict[str, Refusal] = {}
        self._foreign: set[str] = set()  # versions of another base, of which it was said
        self._doubted = False
        self._broken = False
        self._thread = threading.Thread(target=self._run, name="swap", daemon=True)

    @property
    def version(self) -> registry.Active | None:
        """The version that serves now."""
        return self._version

    @property
    def plan(self) -> Plan:
        """The last look at who is served by what."""
        return self._plan

    def start(self) -> None:
        """Looks once, so that the first task meets the right version, then keeps looking."""
        self.look()
        self._thread.start()

    def stop(self) -> None:
        """Admits nobody any more; whoever waits at the gate is turned away."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()

    @contextmanager
    def admitted(self, job_id: str) -> Iterator[registry.Active | None]:
        """The version to work under; it does not change inside. Waits while the engine is changing.

        Raises:
            EngineRestarting: the worker is stopping.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._admitting or self._stopping)
            if self._stopping:
                raise EngineRestarting("The worker is stopping.", retry_after=0.0)
            self._inside.add(job_id)
            version = self._version
        try:
            yield version
        finally:
            with self._condition:
                self._inside.discard(job_id)
                self._condition.notify_all()

    def cancel(self, job_id: str) -> None:
        """Cancels every rung of a job."""
        for number in range(8):
            self._engine.cancel(f"{job_id}/{number}")

    def look(self) -> None:
        """One look at the pointers and at what waits; changes the engine's version when another one is wanted."""
        before = set(self.served())
        with transaction(self._database) as session:
            elsewhere = _held_elsewhere(session) if self._refusals else frozenset[str]()
            refused = self._refused()
            trial = plan(session, refused - elsewhere)
            wanted = self._wanted(session, trial, refused)
        if wanted is not None and (self._version is None or wanted.id != self._version.id):
            self._change(wanted, trial)
        elif self._doubted:
            self._check_again()
        self._plan = trial
        if self._refusals:  # what was refused serves nobody, also while its next try is due
            with transaction(self._database) as session:
                self._plan = plan(session, self._refusals.keys() - elsewhere)
        self._tell_of_other_bases()
        if new := sorted(set(self.served()) - before):  # their bells rang for nobody
            with transaction(self._database) as session:
                leases.unring(session, new)

    def served(self) -> list[str]:
        """Codes of the institutions whose requests this worker can answer now."""
        return self._plan.institutions(None if self._version is None else self._version.id)

    def _wanted(self, session: Session, trial: Plan, refused: Collection[str]) -> registry.Active | None:
        """The version to hold: the present one while it is active and has work, else the one that the best waiting request needs."""
        usable = {
            code: active
            for code, active in trial.versions.items()
            if active is not None and active.base_digest == self._base_digest and active.id not in refused
        }
        candidates = {active.id: active for active in usable.values()}
        if not candidates:
            return None
        queued = col(DraftRequest.institution)
        waiting = (
            select(DraftRequest.institution, sa.func.clock_timestamp() - col(DraftRequest.accepted_at))
            .where(DraftRequest.state == RequestState.QUEUED, queued.in_(list(usable)))
            .order_by(col(DraftRequest.is_stat).desc(), col(DraftRequest.due_at))
            .limit(1)
        )
        present = self._version.id if self._version is not None and self._version.id in candidates else None
        best = session.exec(waiting).first()
        if best is None:
            return candidates[present] if present else next(iter(candidates.values()))
        wanted = usable[best[0]]
        if present is None or wanted.id == present:
            return wanted
        mine = [code for code, active in usable.items() if active.id == present]
        still = session.exec(waiting.where(queued.in_(mine))).first()
        return wanted if still is None or best[1].total_seconds() > PATIENCE_S else candidates[present]

    def _tell_of_other_bases(self) -> None:
        """Once for each: its requests wait for a worker with that base, and where there is none somebody has to know."""
        for version in filter(None, self._plan.versions.values()):
            if version.base_digest != self._base_digest and version.id not in self._foreign:
                self._foreign.add(version.id)
                event("version_of_another_base", level=logging.WARNING, version=version.id)

    def doubt(self) -> None:
        """What comes out looks broken: at the next look the version that serves is loaded and has to answer its golden prompt again."""
        self._doubted = True

    @property
    def is_broken(self) -> bool:
        """The version that serves failed its golden check while it served: the process must not go on."""
        return self._broken

    def _check_again(self) -> None:
        self._doubted = False
        if self._version is None:
            return
        event("version_doubted", level=logging.WARNING, version=self._version.id)
        self._broken = not self._change(self._version, self._plan)

    def _refused(self) -> frozenset[str]:
        """Versions that are not worth another try now."""
        return frozenset(name for name, refusal in self._refusals.items() if refusal.holds)

    def _require_allowed(self, wanted: registry.Active) -> None:
        """Raises Broken when the version may not serve here, whether or not it can be loaded. Stops no work."""
        registry.require_registered(wanted)
        if (rendered := prompt.version(wanted.template)) != wanted.manifest["prompt"]["version"]:
            event("prompt_changed", level=logging.WARNING, version=wanted.id, rendered=rendered)
        if self._as_served.weights == serving.DEFAULT_WEIGHTS:
            return
        with transaction(self._database) as session:
            if not serving.was_evaluated(session, wanted, self._as_served):
                raise Broken(
                    f"{wanted.id} was not evaluated as this worker would serve it ({self._as_served.weights}, "
                    f"{self._as_served.decoding}, {self._as_served.max_new_tokens} tokens)."
                )

    def _change(self, wanted: registry.Active, by: Plan) -> bool:
        """Makes the engine serve a version, by this plan; False when it was refused, and then all is as it was."""
        try:
            self._require_allowed(wanted)
            self._exchange(wanted, by)
        except Broken as error:
            self._refuse(wanted, error)
            return False
        self._refusals.pop(wanted.id, None)
        return True

    def _exchange(self, wanted: registry.Active, by: Plan) -> None:
        began = time.monotonic()
        with self._condition:
            self._admitting = False
            self._condition.wait_for(lambda: not self._inside, timeout=GRACE_S)
            rest = list(self._inside)
        try:
            self._clear(began + GRACE_S + STUCK_S)
            self._engine.swap(wanted.path if wanted.manifest["adapter"] is not None else None)
            self._version, self._plan = wanted, by
        finally:
            with self._condition:
                self._admitting = True
                self._condition.notify_all()
        event("version_serves", version=wanted.id, resubmitted=len(rest), seconds=round(time.monotonic() - began, 3))

    def _clear(self, until: float) -> None:
        """Gives up what is inside, again and again: who was between two tries when the first was cancelled begins the next one.

        Raises:
            EngineRestarting: somebody stays inside, so that no version may change under them.
        """
        while self._inside:
            if time.monotonic() > until:
                raise EngineRestarting("A task does not leave the engine, so its version cannot change now.")
            for job_id in list(self._inside):
                self.cancel(job_id)
            with self._condition:
                self._condition.wait_for(lambda: not self._inside, timeout=0.05)

    def _refuse(self, version: registry.Active, error: Broken) -> None:
        before = self._refusals.get(version.id)
        times = 1 if before is None else before.times + 1
        files = _files(version.path)
        self._refusals[version.id] = Refusal(time.monotonic(), times, error.message, version.path, files)
        event("version_refused", level=logging.ERROR, version=version.id, error=error)
        if before is None or before.reason != error.message:
            with transaction(self._database) as session:
                audit.record(session, "process:worker", "model.refused", f"model:{version.id}", reason=error.message)

    def _run(self) -> None:
        while not self._stopping:
            time.sleep(LOOK_S)
            try:
                self.look()
            except Retryable as error:
                event("swap_waits", level=logging.WARNING, error=error.code)
            except Exception as error:  # whoever follows the pointers may not fall silent
                event("swap_failed", level=logging.ERROR, error=error)


def _held_elsewhere(session: Session) -> frozenset[str]:
    """What other drafting workers serve: a version that is broken on this machine only is left to them."""
    me = (socket.gethostname(), os.getpid())
    others = (worker for worker in processes.alive(session, "worker") if (worker.host, worker.pid) != me)
    return frozenset(str(worker.detail.get("version")) for worker in others if worker.state == "ready")
