"""When a waiting request may have its draft: measured, never guessed. From how long the last drafts took, how many are made at once and what waits before it.

Says nothing where nothing was drafted within the last hour or no worker is there: then nobody knows.
It decides nothing either: a draft's deadline is the worker's own (`worker.deadline`).
"""

import math
import time
from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Session

from core import processes
from core.states import RequestState
from core.tables import DraftRequest

RECENT_S = 3600.0
LAST = 50
"""Drafts whose median counts as the pace: enough that one slow case does not move it, few enough that it follows a busier hour."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Whole seconds: since the request came, and until its draft is expected (None: nothing was measured)."""

    elapsed_s: int
    expected_s: int | None


def wait(session: Session, row: DraftRequest) -> Wait | None:
    """How long a request has waited and is expected to wait; None once it is answered or closed."""
    if row.state not in (RequestState.QUEUED, RequestState.DRAFTING):
        return None
    found = session.execute(
        _WAITED,
        {"id": row.id, "since": _first_id(RECENT_S), "last": LAST, "is_stat": row.is_stat, "due_at": row.due_at},
    ).one()
    places = processes.places(session)
    if found.took is None or not places:
        return Wait(int(found.elapsed), None)
    left = found.took * (found.before // places + 1) - (found.drafting or 0.0)
    return Wait(int(found.elapsed), max(0, math.ceil(left)))


def _first_id(seconds: float) -> UUID:
    """The smallest UUIDv7 of the last `seconds`: ids are in the order of time, so that the primary key finds what is recent."""
    return UUID(int=(time.time_ns() // 1_000_000 - int(seconds * 1000)) << 80)


_WAITED = sa.text(
    "SELECT extract(epoch FROM clock_timestamp() - r.accepted_at)::float AS elapsed,"
    " (SELECT extract(epoch FROM clock_timestamp() - started_at)::float FROM attempts WHERE id = r.lease) AS drafting,"
    " (SELECT count(*) FROM draft_requests q WHERE q.state = 'queued' AND r.state = 'queued'"
    "   AND (q.is_stat, :due_at) > (:is_stat, q.due_at)) AS before,"
    " (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) FROM ("
    "   SELECT extract(epoch FROM a.ended_at - a.started_at)::float AS seconds FROM generations g JOIN attempts a ON a.id = g.attempt_id"
    "   WHERE g.id > :since AND g.rung = 0 AND a.state = 'finished' ORDER BY g.id DESC LIMIT :last) recent) AS took"
    " FROM draft_requests r WHERE r.id = :id"
)
"""One look: the request's age, how long it has been drafted, how many are claimed before it (stat first, then by due time), and the pace."""
