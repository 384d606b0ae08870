"""How a worker holds a request: claim, heartbeat, settle, give back; and how the clerk takes back what a dead worker held.

The other half of core.requests: together they are the only writers of draft requests. Every write carries the lease, so that a worker
that was thought dead and wakes up changes nothing. Times are the database's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Session, col, select

from core import audit, callbacks
from core.db import bound, inserting, move, moving, new_id
from core.settings import QueueSettings
from core.states import AttemptState, Reason, RequestState
from core.tables import Attempt, AuditEvent, Draft, DraftIssue, DraftRequest, Generation

_REQUESTS = DraftRequest.__table__  # type: ignore[attr-defined]  # set by SQLModel's metaclass
_ATTEMPTS = Attempt.__table__  # type: ignore[attr-defined]
_DRAFTS = Draft.__table__  # type: ignore[attr-defined]
_ISSUES = DraftIssue.__table__  # type: ignore[attr-defined]
_EVENTS = AuditEvent.__table__  # type: ignore[attr-defined]
_WAITING = sa.text("state = 'queued'")
"""As the index for claims has it: with a parameter in its place PostgreSQL could not use that index for a plan that it keeps."""


def _given(table: sa.Table) -> tuple[str, ...]:
    return tuple(column.name for column in table.columns if column.server_default is None)


_GENERATION, _DRAFT, _ISSUE = _given(Generation.__table__), _given(_DRAFTS), _given(_ISSUES)  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Claim:
    """A request that this worker holds until its lease runs out."""

    request: DraftRequest
    lease: UUID
    number: int


def _seconds(amount: Any) -> Any:
    return sa.func.make_interval(0, 0, 0, 0, 0, 0, amount)


def claim(
    session: Session,
    worker: str,
    queue: QueueSettings,
    *,
    stat_only: bool = False,
    suspects: bool = True,
    institutions: Sequence[str] | None = None,
) -> Claim | None:
    """The best waiting request that this worker can serve, now leased to it; None when there is none.

    Stat first, then by due time: a routine request that waits long enough comes before a younger urgent one. `institutions` limits the
    claim to those whose model the worker holds. Without `suspects`, a request under which a worker has died already is passed over.
    """
    lease = new_id()
    given: dict[str, Any] = {"its_lease": lease, "its_worker": worker, "its_seconds": queue.lease_s}
    if institutions is not None:
        given["its_institutions"] = list(institutions)
    statement = _claiming(stat_only, suspects, institutions is not None)
    request = session.execute(statement, given).scalar_one_or_none()
    return None if request is None else Claim(request, lease, request.attempts)


@cache
def _claiming(stat_only: bool, suspects: bool, limited: bool) -> Any:
    """One statement: find the best waiting request, lock it past those that others are taking, lease it, begin its attempt, return it."""
    best = (
        sa.select(_REQUESTS.c.id, _REQUESTS.c.attempts)
        .where(_WAITING)
        .where(sa.or_(_REQUESTS.c.not_before.is_(None), _REQUESTS.c.not_before <= sa.func.clock_timestamp()))
        .order_by(_REQUESTS.c.is_stat.desc(), _REQUESTS.c.due_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if stat_only:
        best = best.where(_REQUESTS.c.is_stat)
    if not suspects:
        best = best.where(_REQUESTS.c.crashes == 0)
    if limited:
        served = sa.bindparam("its_institutions", type_=ARRAY(sa.Text))
        best = best.where(_REQUESTS.c.institution == sa.any_(served))
    found = best.cte("best")
    lease = sa.bindparam("its_lease", type_=_ATTEMPTS.c.id.type)
    taken = moving(
        DraftRequest,
        {"id": sa.select(found.c.id).scalar_subquery()},
        from_=RequestState.QUEUED,
        to=RequestState.DRAFTING,
        lease=lease,
        leased_until=sa.func.clock_timestamp() + _seconds(sa.bindparam("its_seconds", type_=sa.Float)),
        attempts=_REQUESTS.c.attempts + 1,
        not_before=None,
    )
    running = sa.literal(AttemptState.RUNNING, _ATTEMPTS.c.state.type)
    begun = sa.select(
        lease, found.c.id, found.c.attempts + 1, sa.bindparam("its_worker", type_=_ATTEMPTS.c.worker.type), running
    )
    attempt = sa.insert(_ATTEMPTS).from_select(["id", "request_id", "number", "worker", "state"], begun)
    return select(DraftRequest).from_statement(taken.add_cte(attempt.cte("attempt")).returning(_REQUESTS))


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


def _ended(lease: UUID, state: AttemptState, error: str | None = None) -> sa.Update:
    values = {"state": state, "ended_at": sa.func.clock_timestamp(), "error": error}
    return sa.update(_ATTEMPTS).where(_ATTEMPTS.c.id == lease, _ATTEMPTS.c.state == AttemptState.RUNNING).values(values)


Shape = Literal["none", "shown", "hidden"]
"""What becomes of the answer: no draft, one that the radiologist sees, one that is only scored."""


@cache
def _settling(to: RequestState, shape: Shape, generations: int, notice: bool) -> Any:
    """One statement: move the held request, end the attempt, keep the generations, store the draft with its issues, queue the sender's notice,
    tell the audit trail.

    Without the lease only the generations are kept, and the attempt and the audit trail say that the answer was thrown away.
    """
    identity = sa.bindparam("its_id", type_=_REQUESTS.c.id.type)
    lease = sa.bindparam("its_lease", type_=_ATTEMPTS.c.id.type)
    newest = sa.select(sa.func.coalesce(sa.func.max(_DRAFTS.c.version), 0) + 1).where(_DRAFTS.c.request_id == identity)
    number = newest.scalar_subquery()
    # of a hidden draft's request a former draft goes too: for the radiologist it has none any more
    versions: dict[Shape, dict[str, Any]] = {
        "shown": {"draft_version": number},
        "hidden": {"draft_version": None},
        "none": {},
    }
    moved = moving(
        DraftRequest,
        {"id": identity, "lease": lease},
        from_=RequestState.DRAFTING,
        to=to,
        lease=None,
        leased_until=None,
        settled_at=sa.func.clock_timestamp(),
        reason=sa.bindparam("its_reason", type_=_REQUESTS.c.reason.type),
        **versions[shape],
    )
    held = moved.returning(_REQUESTS.c.id, _REQUESTS.c.callback_url).cte("held")
    was_held = sa.exists(sa.select(held.c.id))
    finished, discarded = (
        sa.literal(s, _ATTEMPTS.c.state.type) for s in (AttemptState.FINISHED, AttemptState.DISCARDED)
    )
    ended = (
        sa.update(_ATTEMPTS)
        .where(_ATTEMPTS.c.id == lease, _ATTEMPTS.c.state == AttemptState.RUNNING)
        .values(
            state=sa.case((was_held, finished), else_=discarded),
            ended_at=sa.func.clock_timestamp(),
            model_version=sa.bindparam("its_model", type_=sa.Text),
        )
    )
    parts = [ended.cte("ended"), *(inserting(Generation, _GENERATION, f"kept_{at}") for at in range(generations))]
    event: dict[str, Any] = {name: sa.bindparam(f"told_{name}", type_=_EVENTS.c[name].type) for name in audit.COLUMNS}
    event["action"] = sa.case((was_held, event["action"]), else_=sa.literal("draft.discarded"))
    if notice:
        parts.append(callbacks.noticing(held, to).cte("notice"))
    if shape != "none":
        parts += _storing(held, number, shape)
        event["detail"] = event["detail"].op("||")(sa.func.jsonb_build_object("version", number))
    parts.append(sa.insert(_EVENTS).from_select(audit.COLUMNS, sa.select(*event.values())).cte("told"))
    return sa.select(held.c.id).add_cte(*parts)


def _storing(held: Any, number: Any, shape: Shape) -> list[sa.CTE]:
    """Puts the draft in the place of a former one. The draft waits for `former` by counting it: of two parts that do not read each other
    PostgreSQL may run either first, and two visible drafts are refused."""
    former = (
        sa.update(_DRAFTS)
        .where(_DRAFTS.c.request_id.in_(sa.select(held.c.id)), _DRAFTS.c.visible)
        .values(visible=False)
    )
    gone = former.returning(_DRAFTS.c.id).cte("former")
    draft: dict[str, Any] = {name: sa.bindparam(f"draft_{name}", type_=_DRAFTS.c[name].type) for name in _DRAFT}
    draft |= {"request_id": held.c.id, "version": number, "visible": sa.literal(shape == "shown")}
    draft |= {"role": sa.literal("serving" if shape == "shown" else "shadow")}
    first = sa.select(sa.func.count()).select_from(gone).scalar_subquery() >= 0
    stored = sa.insert(_DRAFTS).from_select(tuple(draft), sa.select(*draft.values()).where(first)).cte("stored")
    columns = [sa.column(name, _ISSUES.c[name].type) for name in _ISSUE]
    given = sa.func.jsonb_to_recordset(sa.bindparam("its_issues", type_=JSONB)).table_valued(*columns)
    issues = given.render_derived(name="given", with_types=True)
    noted = sa.select(*(issues.c[name] for name in _ISSUE)).where(sa.exists(sa.select(held.c.id)))
    return [gone, stored, sa.insert(_ISSUES).from_select(_ISSUE, noted).cte("noted")]


def _settle(
    session: Session,
    held: Claim,
    to: RequestState,
    reason: Reason | None,
    generations: Sequence[Generation],
    told: dict[str, Any],
    shape: Shape = "none",
    **more: Any,
) -> bool:
    given = {"its_id": held.request.id, "its_lease": held.lease, "its_reason": reason, **more, **bound("told", told)}
    for at, row in enumerate(generations):
        given |= bound(f"kept_{at}", {name: getattr(row, name) for name in _GENERATION})
    notice = held.request.callback_url is not None
    if notice:
        given["its_notice"] = new_id()
    return session.execute(_settling(to, shape, len(generations), notice), given).first() is not None


def _event(held: Claim, action: str, **detail: Any) -> dict[str, Any]:
    who, subject = f"worker:{held.lease}", f"request:{held.request.id}"
    return audit.values(who, action, subject, institution=held.request.institution, **detail)


def settle_drafted(
    session: Session,
    held: Claim,
    draft: Draft,
    issues: Sequence[DraftIssue],
    generations: Sequence[Generation],
    *,
    hidden: bool = False,
) -> bool:
    """Stores the draft as the request's newest visible one; False when the lease was lost, and then only the generations are kept.

    A `hidden` one is stored to be scored when the report is signed, and nobody sees it: for the radiologist the request has no draft.
    """
    to, reason = (RequestState.WITHHELD, Reason.HELD_BACK) if hidden else (RequestState.DRAFTED, None)
    told = _event(held, "draft.hidden" if hidden else "draft.shown", model=draft.model_version)
    more = bound("draft", {name: getattr(draft, name) for name in _DRAFT})
    more["its_issues"] = [
        {**{name: getattr(issue, name) for name in _ISSUE}, "id": str(issue.id), "draft_id": str(draft.id)}
        for issue in issues
    ]
    shape: Shape = "hidden" if hidden else "shown"
    return _settle(session, held, to, reason, generations, told, shape, its_model=draft.model_version, **more)


def settle_without(
    session: Session,
    held: Claim,
    reason: Reason,
    generations: Sequence[Generation] = (),
    model_version: str | None = None,
) -> bool:
    """Ends the request without a draft, with the reason that the radiologist is told; False when the lease was lost.

    Where a person asked for another draft and none came of it, the former one stands as before.
    """
    to = RequestState.NEEDS_HUMAN if reason is Reason.CRASHED else RequestState.WITHHELD
    told = _event(held, "draft.none", reason=reason)
    if to is RequestState.WITHHELD and held.request.draft_version is not None:
        return _settle(session, held, RequestState.DRAFTED, None, generations, told, its_model=model_version)
    return _settle(session, held, to, reason, generations, told, its_model=model_version)


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
    session.execute(_ended(held.lease, AttemptState.RETRIED if moved else AttemptState.DISCARDED, error=error))
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
            session.execute(_ended(lease, AttemptState.CRASHED))
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
