"""The worker processes: `python -m worker.app draft` (the model) and `python -m worker.app score` (scores and intake, without torch).

One process holds one model, and as many threads of the desk as may be in flight wait for it; Celery brings the permits. The model is loaded
before Celery starts to consume, so that the first permit meets it ready.
"""

import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from celery.signals import worker_ready, worker_shutting_down

from core import embedded, intake, logs, processes, queue, schema, vocabulary
from core.db import connect, transaction
from core.errors import ValuerError
from core.identity import Keyring
from core.serving import Serving
from core.settings import QueueSettings, WorkerSettings
from worker import tasks
from worker.desk import Desk
from worker.engine.protocol import Engine
from worker.swap import Swap

FATAL_EXIT = 70
"""The engine died under us (EX_SOFTWARE): the supervisor starts a new process, since a poisoned one must not go on."""
SCORE_THREADS = 4
PERMIT_THREADS = 2
"""A permit is passed on to the desk at once; the work is done at the desk's own places."""
ROLE = "valuer_worker"
"""The database role that drafts: it cannot read identities (migrations/versions/0001)."""


def _restricted(url: str) -> str | None:
    """The role to work under, where this login may take it; a server whose administrator left it out is served all the same, aloud."""
    engine = connect(url, pool_size=1, application="worker")
    with transaction(engine) as session:
        query = (
            "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = :role AND pg_has_role(current_user, oid, 'MEMBER'))"
        )
        there = session.execute(sa.text(query), {"role": ROLE}).scalar_one()
    engine.dispose()
    if not there:
        logs.event("worker_role_missing", level=logging.WARNING, role=ROLE)
    return ROLE if there else None


def _consume(queues: str, concurrency: int, name: str) -> None:
    arguments = [
        "worker",
        "--pool",
        "threads",
        "--concurrency",
        str(concurrency),
        "--queues",
        queues,
        "--hostname",
        f"{name}@%h",
    ]
    quiet = ["--without-gossip", "--without-mingle", "--loglevel", "WARNING"]
    queue.app.worker_main([*arguments, *quiet])


def _watch(engine: Engine, desk: Desk, presence: processes.Presence, stop: threading.Event) -> None:
    """Leaves the process when the engine is dead: its work goes back first, then somebody new begins."""
    while not stop.wait(1.0):
        health = engine.health()
        if (not health.alive or desk.is_broken) and not stop.is_set():
            logs.event("engine_dead", level=logging.ERROR, fatal=health.fatal or "golden_check")
            desk.stop()
            presence.stop()
            os._exit(FATAL_EXIT)


def draft() -> None:
    """The drafting worker, until it is told to stop."""

    def opened(settings: WorkerSettings) -> tuple[Engine, str]:
        from worker.engine import open as engines  # torch: only here, and only in this process
        from worker.engine import weights

        base = weights.base_model(settings.model, settings.models_dir)
        return engines.open_engine(settings, base, None), weights.digest(base)

    serve(opened)


def serve(opened: Callable[[WorkerSettings], tuple[Engine, str]]) -> None:
    """Drafts with the engine that `opened` makes, until it is told to stop; the text beside the engine is the digest of its base."""
    settings = WorkerSettings()
    logs.configure(settings.log_level, "worker")
    vocabulary.load(settings.home)
    servers = embedded.resolve(settings)
    capacity = settings.in_flight + settings.stat_threads
    database = connect(
        servers.database_url, pool_size=capacity + 4, application="worker", role=_restricted(servers.database_url)
    )
    schema.require(database)
    presence = processes.Presence(database, "worker", in_flight=capacity).start()
    engine, base_digest = opened(settings)
    swap = Swap(engine, database, base_digest, Serving.of(settings))
    desk = Desk(engine, swap, database, settings)
    swap.start()
    desk.start()
    queue.configure(servers.broker_url)
    tasks.bind(tasks.Context(database, settings, desk=desk))
    stop = threading.Event()
    threading.Thread(target=_watch, args=(engine, desk, presence, stop), name="watch", daemon=True).start()

    @worker_ready.connect(weak=False)  # type: ignore[untyped-decorator]
    def ready(**_: Any) -> None:
        presence.watch(
            lambda: {
                "version": None if swap.version is None else swap.version.id,
                "permit_age_s": round(desk.permit_age_s),
                "in_flight_now": desk.in_flight,
            }
        )
        presence.update("ready")
        logs.event("worker_ready")

    @worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]
    def shutting_down(**_: Any) -> None:
        presence.update("draining")
        threading.Thread(target=desk.stop, name="drain", daemon=True).start()

    try:
        _consume("draft.stat,draft.routine", PERMIT_THREADS, "draft")
    finally:
        stop.set()
        desk.stop()
        engine.drain(5.0)
        presence.stop()
        database.dispose()


def score() -> None:
    """The score and intake worker, until it is told to stop."""
    settings = QueueSettings()
    logs.configure(settings.log_level, "score")
    vocabulary.load(settings.home)
    servers = embedded.resolve(settings)
    database: sa.Engine = connect(servers.database_url, pool_size=SCORE_THREADS + 2, application="score")
    schema.require(database)
    queue.configure(servers.broker_url)
    intake.read_as_sent()
    tasks.bind(tasks.Context(database, settings, keyring=Keyring.load(settings.master_key_file)))
    presence = processes.Presence(database, "score").start()

    @worker_ready.connect(weak=False)  # type: ignore[untyped-decorator]
    def ready(**_: Any) -> None:
        presence.update("ready")

    try:
        _consume("score,intake", SCORE_THREADS, "score")
    finally:
        presence.stop()
        database.dispose()


def main() -> None:
    """Runs the worker that the first argument names."""
    kinds = {"draft": draft, "score": score}
    if len(sys.argv) != 2 or sys.argv[1] not in kinds:
        raise SystemExit("usage: python -m worker.app draft|score")
    try:
        kinds[sys.argv[1]]()
    except ValuerError as error:
        logs.event("worker_failed", level=logging.ERROR, error=error)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
