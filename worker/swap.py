"""Follows the active version: which adapter the engine holds, which institutions it may draft for, and how one gives way to another.

One engine serves one version at a time. While it changes, no new work is admitted, what is in flight gets three seconds and the rest is
cancelled; its tasks begin again under the new version on the same attempt, so that no draft is ever made by two. A version that cannot be
loaded is refused loudly and the old one goes on.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa
from sqlmodel import Session, col, select

from core import leases, registry
from core.db import transaction
from core.errors import Broken, EngineRestarting, Retryable
from core.logs import event
from core.states import RequestState
from core.tables import DraftRequest, Institution
from worker.engine.protocol import Engine

GRACE_S = 3.0
LOOK_S = 1.0
TRY_AGAIN_S = 60.0
PATIENCE_S = 5.0
"""How long the best waiting request of another version waits while the present version still has work."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Who is served by what, at one look at the database: `versions` by institution code, None where no version may serve."""

    versions: dict[str, registry.Active | None]

    def institutions(self, version: str | None) -> list[str]:
        """Those that `version` may draft for, and those for whom nothing may (their requests are settled without a draft)."""
        return [code for code, active in self.versions.items() if active is None or active.id == version]


def plan(session: Session) -> Plan:
    """Reads the pointers; a version that is for the sandbox only serves nobody else."""
    pointers = registry.pointers(session)
    versions: dict[str, registry.Active | None] = {}
    for code, sandbox in session.exec(select(Institution.code, Institution.sandbox)):
        active = pointers.get(code) or pointers.get(registry.EVERYONE)
        versions[code] = None if active is None or (active.sandbox_only and not sandbox) else active
    return Plan(versions)


class Swap:
    """The gate between tasks and the engine. Tasks work inside `admitted`; a thread of its own moves the engine along."""

    def __init__(self, engine: Engine, database: sa.Engine, base_digest: str) -> None:
        self._engine, self._database, self._base_digest = engine, database, base_digest
        self._condition = threading.Condition()
        self._admitting = True
        self._stopping = False
        self._inside: set[str] = set()
        self._version: registry.Active | None = None
        self._plan = Plan({})
        self._refused: dict[str, float] = {}
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
            self._plan = plan(session)
            wanted = self._wanted(session)
        if wanted is not None and (self._version is None or wanted.id != self._version.id):
            self._change(wanted)
        if new := sorted(set(self.served()) - before):  # their bells rang for nobody
            with transaction(self._database) as session:
                leases.unring(session, new)

    def served(self) -> list[str]:
        """Codes of the institutions whose requests this worker can answer now."""
        return self._plan.institutions(None if self._version is None else self._version.id)

    def _wanted(self, session: Session) -> registry.Active | None:
        """The version to hold: the present one while it is active and has work, else the one that the best waiting request needs."""
        usable = {
            code: active
            for code, active in self._plan.versions.items()
            if active is not None and active.base_digest == self._base_digest and not self._is_refused(active.id)
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

    def _is_refused(self, version: str) -> bool:
        """Whether it was refused lately; its files may have been mended since."""
        return time.monotonic() - self._refused.get(version, -TRY_AGAIN_S) < TRY_AGAIN_S

    def _change(self, wanted: registry.Active) -> None:
        began = time.monotonic()
        with self._condition:
            self._admitting = False
            self._condition.wait_for(lambda: not self._inside, timeout=GRACE_S)
            rest = list(self._inside)
        try:
            for job_id in rest:
                self.cancel(job_id)
            with self._condition:
                self._condition.wait_for(lambda: not self._inside, timeout=GRACE_S)
            self._engine.swap(wanted.path if wanted.manifest["adapter"] is not None else None)
            self._version = wanted
            event(
                "version_serves", version=wanted.id, resubmitted=len(rest), seconds=round(time.monotonic() - began, 3)
            )
        except Broken as error:
            self._refused[wanted.id] = time.monotonic()
            event("version_refused", level=logging.ERROR, version=wanted.id, error=error)
        finally:
            with self._condition:
                self._admitting = True
                self._condition.notify_all()

    def _run(self) -> None:
        while not self._stopping:
            time.sleep(LOOK_S)
            try:
                self.look()
            except Retryable as error:
                event("swap_waits", level=logging.WARNING, error=error.code)
