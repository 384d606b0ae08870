"""The drafting desk: takes the best waiting request, has it drafted, saves the answer, and keeps the leases of what it holds alive.

No transaction is open while the model works. What it does not decide: which request is best (core.leases), what a draft needs (worker.draft),
which model serves (worker.swap).
"""

import logging
import os
import socket
import threading
import time
from uuid import UUID

import sqlalchemy as sa

from clinical.checks import CHECKS_VERSION
from clinical.style import Style
from core import institutions, leases
from core.db import new_id, transaction
from core.errors import DeadlinePassed, Retryable
from core.logs import event
from core.registry import Active
from core.requests import LABELS
from core.settings import WorkerSettings
from core.states import Reason
from core.tables import Draft, DraftIssue, Generation
from worker import draft as drafting
from worker.engine.protocol import Engine
from worker.prompt import clinical_input
from worker.swap import Swap

GIVE_UP_AFTER = 8
"""Attempts, crashed or not, after which a request that keeps failing for passing reasons is settled."""
STOP_GRACE_S = 10.0


class Desk:
    """One per worker process. `work` may be called from any number of threads."""

    def __init__(self, engine: Engine, swap: Swap, database: sa.Engine, settings: WorkerSettings) -> None:
        self._engine, self._swap, self._database, self._settings = engine, swap, database, settings
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._routine = threading.BoundedSemaphore(settings.in_flight)
        self._held: dict[UUID, str] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_leases, name="leases", daemon=True)

    def start(self) -> None:
        """Begins to keep leases alive."""
        self._thread.start()

    def stop(self) -> None:
        """Admits no more work and gives what is in flight ten seconds; what is left then goes back to the queue at once."""
        self._stop.set()
        self._swap.stop()
        until = time.monotonic() + STOP_GRACE_S
        while self._held and time.monotonic() < until:
            time.sleep(0.1)
        with self._lock:
            rest = list(self._held.values())
        for job_id in rest:
            self._swap.cancel(job_id)

    @property
    def in_flight(self) -> int:
        """Requests held now."""
        return len(self._held)

    def work(self) -> bool:
        """Serves one request; False when there was none for this worker. Threads beyond `in_flight` take stat requests only."""
        if self._stop.is_set():
            return False
        any_lane = self._routine.acquire(blocking=False)
        try:
            with transaction(self._database) as session:
                held = leases.claim(
                    session, self.name, self._settings, stat_only=not any_lane, institutions=self._swap.served()
                )
                if held is None:
                    return False
                style = Style.of(institutions.profile(session, held.request.institution).style)
            self._serve(held, style)
            return True
        finally:
            if any_lane:
                self._routine.release()

    def _serve(self, held: leases.Claim, style: Style) -> None:
        job_id, row, began = str(held.lease), held.request, time.monotonic()
        with self._lock:
            self._held[held.lease] = job_id
        try:
            answer = self._answer(held, job_id, style)
            event(
                "request_served",
                request=row.id,
                attempt=held.number,
                answer=answer,
                seconds=round(time.monotonic() - began, 3),
            )
        except Retryable as error:
            self._failed(held, error)
        finally:
            with self._lock:
                self._held.pop(held.lease, None)

    def _answer(self, held: leases.Claim, job_id: str, style: Style) -> str:
        row = held.request
        while True:
            with self._swap.admitted(job_id) as version:
                wanted = self._swap.plan.versions.get(row.institution)
                if wanted is None:
                    with transaction(self._database) as session:
                        leases.settle_without(session, held, Reason.NO_MODEL)
                    return Reason.NO_MODEL
                if version is None or version.id != wanted.id:  # the pointer moved between claim and admission
                    with transaction(self._database) as session:
                        leases.give_back(session, held, retry_after=0.0, error="other_version")
                    return "other_version"
                try:
                    outcome = drafting.draft(
                        self._engine,
                        clinical_input(row),
                        raw_findings=row.findings,
                        template=version.template,
                        decoding=self._settings.decoding,
                        max_new_tokens=self._settings.max_new_tokens,
                        deadline_s=self._settings.deadline_s,
                        job_id=job_id,
                        seed=row.id.int & 0x7FFFFFFF,
                        style=style,
                    )
                except drafting.Interrupted:
                    if held.lease not in self._held:
                        return "lease_lost"
                    if self._stop.is_set():
                        raise Retryable("The worker is stopping.", retry_after=0.0, code="worker_stopping") from None
                    continue
                return self._save(held, outcome, version)

    def _save(self, held: leases.Claim, outcome: drafting.Outcome, version: Active) -> str:
        rows = {rung.number: _generation(held, rung, version, outcome.prompt_version) for rung in outcome.rungs}
        with transaction(self._database) as session:
            if outcome.chosen is None:
                reason = outcome.reason or Reason.CHECKS_FAILED
                saved = leases.settle_without(session, held, reason, list(rows.values()), version.id)
                return str(reason) if saved else "discarded"
            draft = Draft(
                id=new_id(),
                request_id=held.request.id,
                version=0,
                impression=outcome.chosen.text,
                label=LABELS.get(held.request.language, LABELS["zh-Hans"]),
                generation_id=rows[outcome.chosen.number].id,
                model_version=version.id,
                prompt_version=outcome.prompt_version,
                checks_version=CHECKS_VERSION,
            )
            issues = [
                DraftIssue(
                    draft_id=draft.id,
                    kind=issue.kind,
                    severity=issue.severity,
                    span_findings=None if issue.span_findings is None else list(issue.span_findings),
                    span_impression=None if issue.span_impression is None else list(issue.span_impression),
                    message=issue.message,
                    rule=issue.rule,
                )
                for issue in outcome.chosen.issues
            ]
            return (
                "drafted" if leases.settle_drafted(session, held, draft, issues, list(rows.values())) else "discarded"
            )

    def _failed(self, held: leases.Claim, error: Retryable) -> None:
        """Back to the queue, or the end of it: a deadline three times over is an answer, and so is failing again and again."""
        event("request_failed", level=logging.WARNING, request=held.request.id, attempt=held.number, error=error.code)
        try:
            with transaction(self._database) as session:
                if isinstance(error, DeadlinePassed) and held.number >= self._settings.max_attempts:
                    leases.settle_without(session, held, Reason.DEADLINE)
                elif held.number >= GIVE_UP_AFTER:
                    leases.settle_without(session, held, Reason.CRASHED)
                else:
                    leases.give_back(session, held, retry_after=error.retry_after, error=error.code)
        except Retryable:
            event(
                "give_back_failed", level=logging.WARNING, request=held.request.id
            )  # the lease runs out and the clerk takes it back

    def _keep_leases(self) -> None:
        while not self._stop.wait(self._settings.heartbeat_s) or self._held:
            with self._lock:
                mine = dict(self._held)
            if not mine:
                continue
            try:
                with transaction(self._database) as session:
                    kept = leases.heartbeat(session, list(mine), self._settings)
            except Retryable as error:
                event("heartbeat_failed", level=logging.WARNING, error=error.code)
                continue
            for lease in mine.keys() - kept:  # signed, superseded, cancelled, or taken back by the clerk
                with self._lock:
                    job_id = self._held.pop(lease, None)
                if job_id is not None:
                    self._swap.cancel(job_id)


def _generation(held: leases.Claim, rung: drafting.Rung, version: Active, prompt_version: str) -> Generation:
    options = rung.generation.options
    return Generation(
        id=new_id(),
        request_id=held.request.id,
        attempt_id=held.lease,
        rung=rung.number,
        options={
            "temperature": options.temperature,
            "top_k": options.top_k,
            "top_p": options.top_p,
            "max_new_tokens": options.max_new_tokens,
        },
        seed=options.seed,
        text=rung.generation.text.replace("\0", ""),
        finish=rung.generation.finish,
        prompt_tokens=rung.generation.prompt_tokens,
        new_tokens=rung.generation.new_tokens,
        seconds=rung.generation.seconds,
        passed=rung.passed,
        issues=[issue.as_json() for issue in rung.issues],
        model_version=version.id,
        prompt_version=prompt_version,
        checks_version=CHECKS_VERSION,
    )
