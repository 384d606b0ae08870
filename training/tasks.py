"""The training worker's Celery task: a bell, nothing more. Importing this module loads no model."""

import threading

from core import queue

rung = threading.Event()
"""Set whenever somebody asks for training; `training.service` waits for it."""


@queue.app.task(name=queue.TRAIN, acks_late=False)  # type: ignore[untyped-decorator]  # Celery ships no types
def train(hint: str) -> None:
    """A permit to look for waiting runs; the id is only a hint."""
    rung.set()
