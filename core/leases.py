"""How a worker holds a request: claim, heartbeat, settle, give back; and how the clerk takes back what a dead worker held.

The other half of core.requests: together they are the only writers of draft requests. Every write carries the lease, so that a worker
that was thought dead and wakes up changes nothing. Times are the database's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Session, col, select

from core import audit, callbacks
from core.db import move, new_id
from core.settings import QueueSettings
from core.states import AttemptState, Reason, RequestState
from core.tables import Attempt, Draft, DraftIssue, DraftRequest, Generation

_REQUESTS = DraftRequest.__table__  # type: ignore[attr-defined]  # set by SQLModel's metaclass


@dataclass(frozen=True, slots=True)
class Claim:
    """A request that this worker holds until its lease runs out."""

    request: DraftRequest
    lease: UUID
    number: int


def _seconds(amount: float) -> Any:
    return sa.func.make_interval(0, 0, 0, 0, 0, 0, amount)


def claim(
    session: Session,
    worker: str,
    queue: QueueSettings,
    *,
    stat_only: bool = False,
    institutions: Sequence[str] | None = None,
) -> Claim | None:
    """The best waiting request that this worker can serve, now leased to it; None when there is none.

    Stat first, then by due time: a routine request that waits long enough comes before a younger urgent one. `institutions` limits the
    claim to those whose model the worker holds.
    """
    best = (
        sa.select(_REQUESTS.c.id)
        .where(_REQUESTS.c.state == RequestState.QUEUED)
        .where(sa.or_(_REQUESTS.c.not_before.is_(None), _REQUESTS.c.not_before <= sa.func.clock_timestamp()))
        .order_by(_REQUESTS.c.is_stat.desc(), _REQUESTS.c.due_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if stat_only:
        best = best.where(_REQUESTS.c.is_stat)
    if institutions is not None:
        best = best.where(_REQUESTS.c.institution.in_(institutions))
    identity = session.execute(best).scalar_one_or_none()
    if identity is None:
        return None
    lease = new_id()
    until = sa.func.clock_timestamp() + _seconds(queue.lease_s)
    moved = move(
        session,
        DraftRequest,
        {"id": identity},
        from_=RequestState.QUEUED,
        to=RequestState.DRAFTING,
        lease=lease,
        leased_until=until,
        attempts=_REQUESTS.c.attempts + 1,
        not_before=None,
    )
    if not moved:
        return None
    request = session.exec(select(DraftRequest).where(DraftRequest.id == identity)).one()
    session.add(Attempt(id=lease, request_id=identity, number=request.attempts, worker=worker))
    session.flush()
    return Claim(request, lease, request.attempts)


def heartbeat(session: Session, leases: Sequence[UUID], queue: QueueSettings) -> frozenset[UUID]:
    """Extends the leases that are still held; returns them. A lease that is missing was lost: its request was closed or taken back."""
    if not leases:
        return frozenset()
    held = session.execute(
        sa.update(_REQUESTS)
        .where(_REQUESTS.c.lease.in_(leases), _REQUESTS.c.state == RequestState.DRAFTING)
        .values(leased_until=sa.func.clock_timestamp() + _seconds(queue.lease_s))
        .returning(_REQUESTS.c.lease)
    )
    kept = frozenset(held.scalars())
    if kept:
        session.execute(
            sa.update(Attempt).where(col(Attempt.id).in_(kept)).values(heartbeat_at=sa.func.clock_timestamp())
        )
    return kept


def _end_attempt(
    session: Session, lease: UUID, state: AttemptState, error: str | None = None, model_version: str | None = None
) -> None:
    values: dict[str, Any] = {"state": state, "ended_at": sa.func.clock_timestamp(), "error": error}
    if model_version is not None:
        values["model_version"] = model_version
    session.execute(
        sa.update(Attempt).where(col(Attempt.id) == lease, col(Attempt.state) == AttemptState.RUNNING).values(**values)
    )


def settle_drafted(
    session: Session, held: Claim, draft: Draft, issues: Sequence[DraftIssue], generations: Sequence[Generation]
) -> bool:
    """Stores the draft as the request's newest visible one; False when the lease was lost, and then only the generations are kept."""
    session.add_all(generations)
    session.flush()
    row = session.exec(select(DraftRequest).where(DraftRequest.id == held.request.id).with_for_update()).one()
    session.refresh(row)
    version = 1 + (
        session.execute(sa.select(sa.func.max(Draft.version)).where(col(Draft.request_id) == row.id)).scalar_one() or 0
    )
    moved = move(
        session,
        DraftRequest,
        {"id": row.id, "lease": held.lease},
        from_=RequestState.DRAFTING,
        to=RequestState.DRAFTED,
        lease=None,
        leased_until=None,
        reason=None,
        draft_version=version,
        settled_at=sa.func.clock_timestamp(),
    )
    if not moved:
        _end_attempt(session, held.lease, AttemptState.DISCARDED, model_version=draft.model_version)
        audit.record(
            session, f"worker:{held.lease}", "draft.discarded", f"request:{row.id}", institution=row.institution
        )
        return False
    session.execute(sa.update(Draft).where(col(Draft.request_id) == row.id, col(Draft.visible)).values(visible=False))
    draft.request_id, draft.version, draft.visible = row.id, version, True
    session.add(draft)
    session.flush()
    session.add_all(issues)
    _end_attempt(session, held.lease, AttemptState.FINISHED, model_version=draft.model_version)
    audit.record(
        session,
        f"worker:{held.lease}",
        "draft.shown",
        f"request:{row.id}",
        institution=row.institution,
        version=version,
        model=draft.model_version,
    )
    callbacks.due(session, row, RequestState.DRAFTED)
    return True


def settle_without(
    session: Session,
    held: Claim,
    reason: Reason,
    generations: Sequence[Generation] = (),
    model_version: str | None = None,
) -> bool:
    """Ends the request without a draft, with the reason that the radiologist is told; False when the lease was lost."""
    session.add_all(generations)
    to = RequestState.NEEDS_HUMAN if reason is Reason.CRASHED else RequestState.WITHHELD
    moved = move(
        session,
        DraftRequest,
        {"id": held.request.id, "lease": held.lease},
        from_=RequestState.DRAFTING,
        to=to,
        lease=None,
        leased_until=None,
        reason=reason,
        settled_at=sa.func.clock_timestamp(),
    )
    _end_attempt(
        session, held.lease, AttemptState.FINISHED if moved else AttemptState.DISCARDED, model_version=model_version
    )
    if moved:
        callbacks.due(session, held.request, to)
        audit.record(
            session,
            f"worker:{held.lease}",
            "draft.none",
            f"request:{held.request.id}",
            institution=held.request.institution,
            reason=reason,
        )
    return moved


def give_back(session: Session, held: Claim, *, retry_after: float, error: str) -> bool:
    """Back to queued, not before `retry_after` seconds: it failed for a reason that passes. False when the lease was lost."""
    moved = move(
        session,
        DraftRequest,
        {"id": held.request.id, "lease": held.lease},
        from_=RequestState.DRAFTING,
        to=RequestState.QUEUED,
        lease=None,
        leased_until=None,
        not_before=sa.func.clock_timestamp() + _seconds(retry_after),
        rung_at=None,
    )
    _end_attempt(session, held.lease, AttemptState.RETRIED if moved else AttemptState.DISCARDED, error=error)
    return moved


def take_back(session: Session, queue: QueueSettings, limit: int = 200) -> int:
    """Takes back requests whose lease ran out without a word; returns how many. The third time it needs a human."""
    lapsed = session.exec(
        select(DraftRequest)
        .where(DraftRequest.state == RequestState.DRAFTING, col(DraftRequest.leased_until) < sa.func.clock_timestamp())
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    for row in lapsed:
        lease, crashes = row.lease, row.crashes + 1
        final = crashes >= queue.max_attempts
        values: dict[str, Any] = (
            {"reason": Reason.CRASHED, "settled_at": sa.func.clock_timestamp()}
            if final
            else {"not_before": sa.func.clock_timestamp() + _seconds(2.0 ** (crashes - 1)), "rung_at": None}
        )
        to = RequestState.NEEDS_HUMAN if final else RequestState.QUEUED
        where = {"id": row.id, "lease": lease}
        if not move(
            session,
            DraftRequest,
            where,
            from_=RequestState.DRAFTING,
            to=to,
            lease=None,
            leased_until=None,
            crashes=crashes,
            **values,
        ):
            continue
        if lease is not None:
            _end_attempt(session, lease, AttemptState.CRASHED)
        audit.record(
            session,
            "process:clerk",
            "lease.taken_back",
            f"request:{row.id}",
            institution=row.institution,
            crashes=crashes,
            to=to,
        )
        if final:
            callbacks.due(session, row, to)
    return len(lapsed)


def unrung(session: Session, queue: QueueSettings, limit: int) -> list[tuple[UUID, bool]]:
    """(id, is_stat) of up to `limit` waiting requests whose bell is due (again), marked as rung now; best first."""
    chosen = (
        sa.select(_REQUESTS.c.id)
        .where(_REQUESTS.c.state == RequestState.QUEUED)
        .where(sa.or_(_REQUESTS.c.not_before.is_(None), _REQUESTS.c.not_before <= sa.func.clock_timestamp()))
        .where(
            sa.or_(
                _REQUESTS.c.rung_at.is_(None),
                _REQUESTS.c.rung_at < sa.func.clock_timestamp() - _seconds(queue.ring_again_s),
            )
        )
        .order_by(_REQUESTS.c.is_stat.desc(), _REQUESTS.c.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    statement = (
        sa.update(_REQUESTS)
        .where(_REQUESTS.c.id.in_(chosen))
        .values(rung_at=sa.func.clock_timestamp())
        .returning(_REQUESTS.c.id, _REQUESTS.c.is_stat)
    )
    return [(row.id, row.is_stat) for row in session.execute(statement)]


def unring(session: Session, institutions: Sequence[str]) -> int:
    """Forgets that the bell was rung for what waits at these institutions, because somebody can serve them only now; the clerk rings again."""
    statement = sa.update(_REQUESTS).where(
        _REQUESTS.c.state == RequestState.QUEUED, _REQUESTS.c.institution.in_(institutions)
    )
    return int(session.execute(statement.values(rung_at=None)).rowcount)  # type: ignore[attr-defined]
