"""The training worker, `python -m training.service`: takes one run at a time and gives it to a child process of low priority.

This process holds no model: it listens for the bell, beats for the child's run, and sees to it that every run ends with a state. It also
looks for itself every few seconds, so that a lost message loses nothing, and starts what schedules ask for. Drafts come first: while requests wait
longer than they should, the child saves and stands back.
"""

import logging
import os
import signal
import socket
import subprocess
import threading
import time
from uuid import UUID

import sqlalchemy as sa
from celery.signals import worker_ready, worker_shutting_down

from core import embedded, logs, processes, queue, registry, schema
from core.db import connect, new_id, transaction
from core.errors import Retryable, ValuerError
from core.serving import Serving
from core.settings import TrainingSettings, WorkerSettings
from core.states import RunState
from training import notice, promotion, ranks, runs, schedule, standing, tasks

LOOK_S = 10.0
BEAT_S = 5.0
WATCH_S = 0.2
GRACE_S = 8.0
"""How long a child gets to save its checkpoint before it is killed."""
SAVED_EXIT = 75
"""The child's exit status when it was asked to stop and saved (EX_TEMPFAIL): its run waits to be resumed."""


class Trainer:
    """Takes runs one after the other until `stop`."""

    def __init__(self, database: sa.Engine, settings: TrainingSettings | None = None) -> None:
        self._database = database
        self._settings = settings or TrainingSettings()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="trainer", daemon=True)

    def start(self) -> None:
        """Begins to look for runs."""
        self._thread.start()

    def stop(self) -> None:
        """Stops the child, whose run goes back to waiting, and returns when it is gone."""
        self._stop.set()
        tasks.rung.set()
        if self._thread.is_alive():
            self._thread.join(timeout=GRACE_S + 5.0)

    def _work(self) -> None:
        while not self._stop.is_set():
            tasks.rung.clear()
            try:
                with transaction(self._database) as session:
                    schedule.start_due(session)
                while not self._stop.is_set() and self.take_one():
                    pass
            except ValuerError as error:  # of one run or schedule; the next may be sound
                logs.event("training_paused", level=logging.WARNING, error=error.code)
            except Exception as error:  # whoever takes runs may not fall silent
                logs.event("training_paused", level=logging.ERROR, error=error)
            tasks.rung.wait(LOOK_S)

    def take_one(self) -> bool:
        """Claims the oldest waiting run and sees it through; False when none waits, or drafts are in need of the machine."""
        if self._drafts_wait(standing.CALM_S):
            return False
        token = f"{socket.gethostname()}:{os.getpid()}:{new_id().hex[-8:]}"
        with transaction(self._database) as session:
            row = runs.claim(session, token)
        if row is None:
            return False
        logs.event("training_taken", run=row.id, profile=row.profile)
        command = ranks.command(self._settings.training_processes, "training.run", str(row.id), token)
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        try:
            status = self._see_through(child, row.id, token)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        logs.event("training_child_ended", run=row.id, status=status)
        if status != 0:
            # A child that failed for a reason, or saved, has written so itself, and then this changes nothing.
            with transaction(self._database) as session:
                runs.give_back(session, row.id, token, crashed=status != SAVED_EXIT)
        self._tell(row.id)
        return not self._stop.is_set()

    def _drafts_wait(self, calm_s: float = 0.0) -> bool:
        """Whether drafting is in need of the machine, or was within the last `calm_s` seconds."""
        if not self._settings.yield_s:
            return False
        try:
            with transaction(self._database) as session:
                return standing.drafts_wait(session, self._settings.yield_s, calm_s)
        except Retryable:
            return False

    def _tell(self, identity: UUID) -> None:
        """Tells who wants to know how a run ended, and what the gate says of its version."""
        serving = WorkerSettings()
        with transaction(self._database) as session:
            row = runs.get(session, identity)
            if row.state not in runs.ENDED:
                return
            outcome, rules = str(row.state), tuple[str, ...]()
            if row.state is RunState.DONE and row.model_version is not None:
                served = Serving.of(serving)
                try:
                    verdict = promotion.ask(session, row.model_version, registry.EVERYONE, served)
                    rules = tuple(sorted({finding.rule for finding in verdict.held_by}))
                except ValuerError as error:
                    rules = (error.code,)
                outcome = "held" if rules else "done"
            told = notice.Notice(str(row.id), row.profile, outcome, row.model_version, rules, row.error)
        logs.event("training_told", run=identity, outcome=outcome)
        notice.send(self._settings, told)

    def _see_through(self, child: "subprocess.Popen[bytes]", identity: UUID, token: str) -> int:
        """Beats for the run until its child ends; ends the child when the run is no longer ours or this process stops."""
        beaten = time.monotonic()
        while True:
            try:
                return child.wait(timeout=WATCH_S)
            except subprocess.TimeoutExpired:
                pass
            ours, wanted = True, False
            if time.monotonic() - beaten > BEAT_S:
                ours, wanted, beaten = self._ours(identity, token), self._drafts_wait(), time.monotonic()
                if wanted:
                    logs.event("training_stands_back", run=identity)
            if self._stop.is_set() or not ours or wanted:
                child.send_signal(signal.SIGTERM)
                try:
                    status = child.wait(timeout=GRACE_S)
                except subprocess.TimeoutExpired:
                    child.kill()
                    status = child.wait()
                # killed, or told to stop before it listened: its last checkpoint is at most minutes old, and being stopped is no crash
                return SAVED_EXIT if status < 0 else status

    def _ours(self, identity: UUID, token: str) -> bool:
        try:
            with transaction(self._database) as session:
                return runs.beat(session, identity, token)
        except Retryable:
            return True  # the child does not need the database to train


def main() -> None:
    """The training worker, until it is told to stop."""
    settings = TrainingSettings()
    logs.configure(settings.log_level, "training")
    try:
        servers = embedded.resolve(settings)
        database = connect(servers.database_url, pool_size=2, application="training")
        schema.require(database)
    except ValuerError as error:
        logs.event("training_failed", level=logging.ERROR, error=error)
        raise SystemExit(1) from None
    queue.configure(servers.broker_url)
    presence = processes.Presence(database, "training").start()
    trainer = Trainer(database, settings)

    @worker_ready.connect(weak=False)  # type: ignore[untyped-decorator]
    def ready(**_: object) -> None:
        trainer.start()
        presence.update("ready")

    @worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]
    def shutting_down(**_: object) -> None:
        presence.update("draining")

    arguments = ["worker", "--pool", "solo", "--queues", "training", "--hostname", "training@%h"]
    quiet = ["--without-gossip", "--without-mingle", "--loglevel", "WARNING"]
    try:
        queue.app.worker_main([*arguments, *quiet])
    finally:
        trainer.stop()
        presence.stop()
        database.dispose()


if __name__ == "__main__":
    main()
