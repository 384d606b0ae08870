"""The worker's Celery tasks: each claims, calls, saves, and decides nothing.

Importing this module loads no model. `bind` gives the process's context to the tasks before the worker consumes.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from core import intake, queue
from core.errors import Retryable
from core.identity import Keyring
from core.logs import event
from core.settings import QueueSettings
from worker.desk import Desk
from worker.scoring import score_sign_off


@dataclass(frozen=True, slots=True)
class Context:
    """What this process works with: a desk (drafting worker) or a keyring (score and intake worker)."""

    database: sa.Engine
    settings: QueueSettings
    desk: Desk | None = None
    keyring: Keyring | None = None


_bound: list[Context] = []


def bind(context: Context) -> None:
    """Gives the tasks their context; once per process."""
    _bound[:] = [context]


@queue.app.task(name=queue.DRAFT, bind=True)  # type: ignore[untyped-decorator]  # Celery ships no types
def draft(task: Any, hint: str, many: int = 1) -> None:
    """A permit to serve `many` requests, the best ones that wait; the id is only a hint."""
    desk = _bound[0].desk
    if desk is not None:
        stat = (task.request.delivery_info or {}).get("routing_key") == "draft.stat"
        desk.permit("stat" if stat else "routine", many)


@queue.app.task(name=queue.SCORE, bind=True, max_retries=None)  # type: ignore[untyped-decorator]
def score(task: Any, sign_off_id: str) -> None:
    """Scores one sign-off. When the database is away the clerk asks again."""
    try:
        score_sign_off(_bound[0].database, UUID(sign_off_id), _bound[0].settings.home)
    except Retryable as error:
        event("score_failed", sign_off=sign_off_id, error=error.code)


@queue.app.task(name=queue.INTAKE, bind=True, max_retries=None)  # type: ignore[untyped-decorator]
def take_in(task: Any, request: Any) -> None:
    """A request over the broker; the same door rules as over HTTP. A message that does not fit becomes a quarantine row."""
    context = _bound[0]
    if context.keyring is None:
        return
    try:
        intake.take(context.database, context.keyring, context.settings, request)
    except (
        Retryable
    ) as error:  # the message is the sender's only copy: it stays with the broker until the database is back
        raise task.retry(countdown=error.retry_after, exc=error) from None
