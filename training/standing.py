"""Whether drafting is in need of the machine that training uses: the rule by which training stands back. Reads the queue, moves nothing.

Training and serving share cores and often one card. A request that a running worker should have taken long ago says that there is not enough of
either; without a running worker there is nobody to stand back for.
"""

import sqlalchemy as sa
from sqlmodel import Session, col

from core import processes
from core.states import RequestState
from core.tables import Attempt, DraftRequest

CALM_S = 60.0
"""How long the queue has to be short before training goes on."""


def drafts_wait(session: Session, longer_than_s: float, calm_s: float = 0.0) -> bool:
    """Whether a request waits longer than so many seconds beside a running worker, or was taken that late within the last `calm_s`.

    A request that may not be taken yet does not count.
    """
    if not processes.alive(session, "worker"):
        return False
    now = sa.func.clock_timestamp()
    accepted = col(DraftRequest.accepted_at)
    since = sa.func.greatest(accepted, sa.func.coalesce(col(DraftRequest.not_before), accepted))
    late = sa.func.make_interval(0, 0, 0, 0, 0, 0, longer_than_s)
    waits = sa.exists().where(col(DraftRequest.state) == RequestState.QUEUED, now - since > late)
    if not calm_s:
        return bool(session.execute(sa.select(waits)).scalar_one())
    lately = now - sa.func.make_interval(0, 0, 0, 0, 0, 0, calm_s)
    taken_late = sa.exists().where(
        col(Attempt.request_id) == col(DraftRequest.id),
        col(Attempt.started_at) > lately,
        col(Attempt.started_at) - since > late,
    )
    return bool(session.execute(sa.select(sa.or_(waits, taken_late))).scalar_one())
