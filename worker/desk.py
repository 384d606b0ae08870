"""The drafting desk: takes the best waiting request, has it drafted, saves the answer, and keeps the leases of what it holds alive.

No transaction is open while the model works. What it does not decide: which request is best (core.leases), what a draft needs (worker.draft),
which model serves (worker.swap).
"""

import logging
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import sqlalchemy as sa

from clinical import checks
from clinical.style import Style
from core import leases, queue, vocabulary
from core.db import new_id, statement, transaction
from core.errors import DeadlinePassed, OutOfMemory, Retryable
from core.logs import event
from core.registry import Active
from core.requests import LABELS
from core.settings import WorkerSettings
from core.states import Reason
from core.tables import Draft, DraftIssue, Generation
from worker import draft as drafting
from worker.deadline import Deadline
from worker.engine.protocol import Engine
from worker.leave import Leave, permitted
from worker.prompt import clinical_input
from worker.swap import Swap

GIVE_UP_AFTER = 8
"""Attempts, crashed or not, after which a request that keeps failing for passing reasons is settled."""
DEGENERATE = 2
"""Requests in a row with nothing but degenerate output, after which the model itself is looked at."""
STOP_GRACE_S = 10.0
GIVE_BACK_S = 3.0
"""How long a stopping worker waits for what it cancelled to be back in the queue."""


class Desk:
    """One per worker process: `in_flight` places that serve any lane, and `stat_threads` beside them that serve stat requests only."""

    def __init__(self, engine: Engine, swap: Swap, database: sa.Engine, settings: WorkerSettings) -> None:
        self._engine, self._swap, self._database, self._settings = engine, swap, database, settings
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._at_work = {True: 0, False: 0}  # places that serve any lane, and those beside them that serve stat only
        self._places = ThreadPoolExecutor(settings.in_flight + settings.stat_threads, "place")
        self._held: dict[UUID, str] = {}
        self._suspect = threading.Lock()
        self._spent, self._permit_at = 0, time.monotonic()  # permits that met too few free places
        self._degenerate = 0
        self._deadline = Deadline(settings.deadline_s)
        self._lock = threading.Lock()
        self._stop, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep_leases, name="leases", daemon=True)

    def start(self) -> None:
        """Begins to keep leases alive."""
        self._thread.start()

    def stop(self) -> None:
        """Admits no more work and gives what is in flight ten seconds; what is left then goes back to the queue at once."""
        self._stop.set()
        self._swap.stop()
        until = time.monotonic() + STOP_GRACE_S
        while self._is_busy() and time.monotonic() < until:
            time.sleep(0.05)
        with self._lock:
            rest = list(self._held.values())
        for job_id in rest:
            self._swap.cancel(job_id)
        while self._is_busy() and time.monotonic() < until + GIVE_BACK_S:
            time.sleep(0.05)
        self._places.shutdown(wait=False, cancel_futures=True)
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(GIVE_BACK_S)

    def _is_busy(self) -> bool:
        return bool(self._held) or any(self._at_work.values())

    @property
    def in_flight(self) -> int:
        """Requests held now."""
        return len(self._held)

    def permit(self, lane: queue.Lane, many: int = 1) -> None:
        """Puts up to `many` free places to work; each serves until nothing waits, so that one permit is enough for a whole queue.

        A permit that meets too few free places is spent at once: those who work look again before they leave.
        """
        with self._lock:
            self._permit_at = time.monotonic()
            for _ in range(many):
                any_lane = self._at_work[True] < self._settings.in_flight
                beside = lane == "stat" and self._at_work[False] < self._settings.stat_threads
                if self._stop.is_set() or not (any_lane or beside):
                    self._spent += 1
                    return
                self._places.submit(self._work_on, any_lane)
                self._at_work[any_lane] += 1

    def _work_on(self, any_lane: bool) -> None:
        while True:
            spent = self._spent
            try:
                more = self.work(stat_only=not any_lane)
            except Exception as error:  # whatever it is, the place must become free, and the clerk rings again
                event("place_failed", level=logging.ERROR, error=error)
                more, spent = False, self._spent
            with self._lock:
                if not more and (spent == self._spent or self._stop.is_set()):
                    self._at_work[any_lane] -= 1
                    return

    @property
    def is_broken(self) -> bool:
        """The model answers its golden prompt wrongly: the process must end."""
        return self._swap.is_broken

    @property
    def permit_age_s(self) -> float:
        """Seconds since a permit last arrived; the clerk sends one every half minute, so a longer silence says that nothing is consumed."""
        return time.monotonic() - self._permit_at

    def _watch_output(self, outcome: drafting.Outcome) -> None:
        """After two requests in a row whose every generation was degenerate, the engine has to answer its golden prompt again, or it is dead."""
        degenerate = bool(outcome.rungs) and all(rung.is_degenerate for rung in outcome.rungs)
        with self._lock:
            self._degenerate = self._degenerate + 1 if degenerate else 0
            asked = self._degenerate == DEGENERATE
            if asked:
                self._degenerate = 0
        if asked:
            self._swap.doubt()

    def work(self, *, stat_only: bool = False) -> bool:
        """Serves one request; False when there was none for this worker.

        A request under which a worker has died is a suspect. A worker serves one suspect at a time, so that a poison, which takes everything in
        flight down with it, does so to the same innocent request once and not three times.
        """
        if self._stop.is_set():
            return False
        alone = self._suspect.acquire(blocking=False)
        try:
            with statement(self._database) as session:
                held = leases.claim(
                    session,
                    self.name,
                    self._settings,
                    stat_only=stat_only,
                    suspects=alone,
                    institutions=self._swap.served(),
                )
            if held is None:
                return False
            if alone and held.request.crashes == 0:
                self._suspect.release()
                alone = False
            self._serve(held)
            return True
        finally:
            if alone:
                self._suspect.release()

    def _serve(self, held: leases.Claim) -> None:
        job_id, row, began = str(held.lease), held.request, time.monotonic()
        with self._lock:
            self._held[held.lease] = job_id
        try:
            answer = self._answer(held, job_id)
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

    def _answer(self, held: leases.Claim, job_id: str) -> str:
        row = held.request
        while True:
            with self._swap.admitted(job_id) as version:
                wanted = self._swap.plan.versions.get(row.institution)
                if wanted is None:
                    with statement(self._database) as session:
                        leases.settle_without(session, held, Reason.NO_MODEL)
                    return Reason.NO_MODEL
                if version is None or version.id != wanted.id:  # the pointer moved between claim and admission
                    with transaction(self._database) as session:
                        leases.give_back(session, held, retry_after=0.0, error="other_version")
                    return "other_version"
                profile = self._swap.plan.profiles[row.institution]
                own = vocabulary.of(self._settings.home, row.institution)
                case = clinical_input(row, own.phrases)
                leave = permitted(row, case, profile, version)
                if isinstance(leave, Reason):
                    with statement(self._database) as session:
                        leases.settle_without(session, held, leave, model_version=version.id)
                    return leave
                began = time.monotonic()
                try:
                    outcome = drafting.draft(
                        self._engine,
                        case,
                        raw_findings=row.findings,
                        template=version.template,
                        decoding=self._settings.decoding,
                        max_new_tokens=self._settings.max_new_tokens,
                        deadline_s=self._deadline.seconds(),
                        job_id=job_id,
                        seed=row.id.int & 0x7FFFFFFF,
                        style=Style.of(profile.style),
                        words=own.words,
                    )
                except drafting.Interrupted:
                    if held.lease not in self._held:
                        return "lease_lost"
                    if self._stop.is_set():
                        raise Retryable("The worker is stopping.", retry_after=0.0, code="worker_stopping") from None
                    continue
                self._deadline.took(time.monotonic() - began)
                self._watch_output(outcome)
                return self._save(held, outcome, version, leave, checks.version(own.words))

    def _save(
        self, held: leases.Claim, outcome: drafting.Outcome, version: Active, leave: Leave, checks_version: str
    ) -> str:
        rows = {
            rung.number: _generation(held, rung, version, outcome.prompt_version, checks_version)
            for rung in outcome.rungs
        }
        with statement(self._database) as session:
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
                checks_version=checks_version,
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
                for issue in (*outcome.chosen.issues, *leave.marks)
            ]
            saved = leases.settle_drafted(session, held, draft, issues, list(rows.values()), hidden=leave.hidden)
            return ("hidden" if leave.hidden else "drafted") if saved else "discarded"

    def _failed(self, held: leases.Claim, error: Retryable) -> None:
        """Back to the queue, or the end of it: a deadline or too little memory three times over is an answer, and so is failing again and again."""
        event("request_failed", level=logging.WARNING, request=held.request.id, attempt=held.number, error=error.code)
        if isinstance(error, DeadlinePassed):
            self._deadline.forget()  # the next attempt gets all the time that the setting gives
        try:
            with transaction(self._database) as session:
                if isinstance(error, DeadlinePassed) and held.number >= self._settings.max_attempts:
                    leases.settle_without(session, held, Reason.DEADLINE)
                elif held.number >= (self._settings.max_attempts if isinstance(error, OutOfMemory) else GIVE_UP_AFTER):
                    leases.settle_without(session, held, Reason.CRASHED)
                else:
                    leases.give_back(session, held, retry_after=error.retry_after, error=error.code)
        except Retryable:
            event(
                "give_back_failed", level=logging.WARNING, request=held.request.id
            )  # the lease runs out and the clerk takes it back

    def _keep_leases(self) -> None:
        while not self._stopped.wait(self._settings.heartbeat_s):
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


def _generation(
    held: leases.Claim, rung: drafting.Rung, version: Active, prompt_version: str, checks_version: str
) -> Generation:
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
        checks_version=checks_version,
    )
