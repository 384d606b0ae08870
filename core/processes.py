"""Which of our processes run, as rows with a heartbeat: what `valuer status` and `/readyz` read. It supervises nothing."""

import logging
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session, col, select

from core.db import transaction
from core.errors import Retryable
from core.logs import event
from core.tables import Process

HEARTBEAT_S = 5.0
DEAF_S = 90.0
"""The clerk sends a permit to every worker's queue each half minute; a worker that none has reached for three times that consumes nothing."""
SILENT_S = 20.0
"""A process that was silent for so long is gone."""


class Presence:
    """Announces this process under `kind` from a daemon thread until `stop`. Losing the database only pauses it."""

    def __init__(self, engine: sa.Engine, kind: str, **detail: Any) -> None:
        self._engine, self._kind, self._detail = engine, kind, dict(detail)
        self._state = "starting"
        self._watched: Callable[[], dict[str, Any]] = dict
        self._stop = threading.Event()
        self.name = f"{kind}@{socket.gethostname()}:{os.getpid()}"
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> "Presence":
        """Writes the row at once, then every 5 s."""
        self._write()
        self._thread.start()
        return self

    def update(self, state: str | None = None, **detail: Any) -> None:
        """Changes what is announced, at once."""
        self._state = state or self._state
        self._detail.update(detail)
        self._write()

    def watch(self, detail: Callable[[], dict[str, Any]]) -> None:
        """Adds what `detail` says at each heartbeat."""
        self._watched = detail

    def stop(self) -> None:
        """Takes the row away."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=HEARTBEAT_S)
        try:
            with transaction(self._engine) as session:
                session.execute(sa.delete(Process).where(col(Process.name) == self.name))
        except Retryable:
            event("presence_lost", level=logging.WARNING, process=self._kind)

    def _write(self) -> None:
        row = {
            "name": self.name,
            "kind": self._kind,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "state": self._state,
            "detail": {**self._detail, **self._watched()},
        }
        try:
            with transaction(self._engine) as session:
                statement = insert(Process).values(**row)
                changes = {"state": self._state, "detail": row["detail"], "heartbeat_at": sa.func.clock_timestamp()}
                session.execute(statement.on_conflict_do_update(index_elements=["name"], set_=changes))
        except Retryable:
            event("presence_lost", level=logging.WARNING, process=self._kind)

    def _run(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            self._write()


def _fresh() -> sa.ColumnElement[bool]:
    return col(Process.heartbeat_at) > sa.func.clock_timestamp() - sa.func.make_interval(0, 0, 0, 0, 0, 0, SILENT_S)


def alive(session: Session, kind: str | None = None) -> list[Process]:
    """The processes heard of lately, by name."""
    query = select(Process).where(_fresh()).order_by(col(Process.name))
    if kind is not None:
        query = query.where(Process.kind == kind)
    return list(session.exec(query))


def places(session: Session) -> int:
    """How many requests the drafting workers that live can draft at once."""
    return sum(int(each.detail.get("in_flight", 1)) for each in alive(session, "worker"))


def deaf(session: Session) -> list[Process]:
    """Drafting workers that live and say that they are ready, and that no permit has reached for a minute though the clerk sends them."""
    return [
        each
        for each in alive(session, "worker")
        if each.state == "ready" and each.detail.get("permit_age_s", 0) > DEAF_S
    ]


def forget_silent(session: Session) -> int:
    """Removes rows of processes that are gone; returns how many."""
    return int(session.execute(sa.delete(Process).where(sa.not_(_fresh()))).rowcount)  # type: ignore[attr-defined]
