"""The clerk: one small process that keeps promises. It takes back stale leases, rings again, asks again for scores and training runs,
delivers webhooks, seals the audit chain and forgets dead processes.

Only the holder of an advisory lock works; a second clerk waits to take over. Each chore is one short transaction, and a chore that fails
is logged and tried again in the next round; no chore can stop the others.
"""

import logging
import signal
import threading
from collections.abc import Callable

import sqlalchemy as sa
from sqlmodel import select

from clinical.score import SCORER_VERSION
from core import audit, callbacks, embedded, leases, logs, processes, queue, requests, sign_offs
from core.db import connect, transaction
from core.errors import Retryable, ValuerError
from core.identity import Keyring
from core.settings import ClerkSettings
from core.states import RunState
from core.tables import TrainingRun

_LOCK = 0x434C45524B  # "CLERK"
CANARY_ROUNDS = 20
"""Rounds of the clerk (a second each by default) between two canaries."""


class Clerk:
    """The chores over one database and one broker."""

    def __init__(self, engine: sa.Engine, keyring: Keyring, settings: ClerkSettings) -> None:
        self._engine, self._keyring, self._settings = engine, keyring, settings
        self._round = 0
        self.stopping = threading.Event()

    def chores(self) -> tuple[tuple[str, int, Callable[[], int]], ...]:
        """(name, every how many rounds, chore)."""
        return (
            ("take_back", 1, self.take_back),
            ("ring", 1, self.ring),
            ("canary", CANARY_ROUNDS, self.send_canary),
            ("callbacks", 1, lambda: callbacks.deliver(self._engine, self._keyring)),
            ("scores", 5, self.ask_for_scores),
            ("training", 5, self.ask_for_training),
            ("seal", 1, self.seal),
            ("forget", 30, self.forget),
        )

    def take_back(self) -> int:
        """Leases that ran out."""
        with transaction(self._engine) as session:
            return leases.take_back(session, self._settings)

    def ring(self) -> int:
        """Rings for requests that wait unrung, at most for twice the workers' capacity at a time."""
        with transaction(self._engine) as session:
            waiting = leases.unrung(session, self._settings, 2 * max(processes.places(session), 1))
        return sum(queue.ring("stat" if is_stat else "routine", identity) for identity, is_stat in waiting)

    def send_canary(self) -> int:
        """A permit for nothing, two for each worker: whoever consumes has heard of one lately, and a worker that is deaf is seen (core.processes)."""
        with transaction(self._engine) as session:
            workers = len(processes.alive(session, "worker"))
        return sum(queue.canary() for _ in range(2 * workers))

    def ask_for_scores(self) -> int:
        """Sign-offs that have something to score and no score of today's scorer yet, with whichever department's words, at most 100 at a time."""
        with transaction(self._engine) as session:
            missing = sign_offs.unscored(session, f"{SCORER_VERSION}%", limit=100)
        return sum(queue.ring_score(identity) for identity in missing)

    def ask_for_training(self) -> int:
        """Training runs that still wait."""
        with transaction(self._engine) as session:
            waiting = list(session.exec(select(TrainingRun.id).where(TrainingRun.state == RunState.QUEUED).limit(5)))
        return sum(queue.ring_training(identity) for identity in waiting)

    def seal(self) -> int:
        """Events not chained yet."""
        with transaction(self._engine) as session:
            return audit.seal(session)

    def forget(self) -> int:
        """Processes that are gone."""
        with transaction(self._engine) as session:
            return processes.forget_silent(session)

    def once(self) -> dict[str, int]:
        """One round: what each chore that was due did. A failing chore counts -1."""
        done: dict[str, int] = {}
        for name, every, chore in self.chores():
            if self._round % every:
                continue
            try:
                done[name] = chore()
            except ValuerError as error:
                done[name] = -1
                logs.event("chore_failed", level=logging.WARNING, chore=name, error=error.code)
            except Exception as error:  # a chore must never stop the others; the class name says what to look for
                done[name] = -1
                logs.event("chore_failed", level=logging.ERROR, chore=name, error=type(error).__name__)
        self._round += 1
        return done

    def run(self) -> None:
        """Rounds until `stopping` is set, while this process holds the lock."""
        while not self.stopping.is_set():
            try:
                with self._engine.connect() as connection:
                    locked = connection.execute(sa.select(sa.func.pg_try_advisory_lock(_LOCK))).scalar_one()
                    connection.rollback()  # the lock is the session's; no transaction stays open beside it
                    if locked:
                        with transaction(self._engine) as session:
                            requests.restamp(session)
                    while locked and not self.stopping.is_set():
                        self.once()
                        connection.execute(sa.text("SELECT 1"))  # raises when the lock's session is gone
                        connection.rollback()
                        self.stopping.wait(self._settings.tick_s)
            except (Retryable, sa.exc.SQLAlchemyError) as error:
                logs.event("clerk_waits", level=logging.WARNING, error=type(error).__name__)
            self.stopping.wait(2.0)


def main() -> None:
    """Runs until SIGTERM or Ctrl-C."""
    settings = ClerkSettings()
    logs.configure(settings.log_level, "clerk")
    servers = embedded.resolve(settings)
    engine = connect(servers.database_url, pool_size=3, application="clerk")
    queue.configure(servers.broker_url)
    clerk = Clerk(engine, Keyring.load(settings.master_key_file), settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: clerk.stopping.set())
    presence = processes.Presence(engine, "clerk").start()
    presence.update("ready")
    try:
        clerk.run()
    finally:
        presence.stop()
        engine.dispose()


if __name__ == "__main__":
    main()
