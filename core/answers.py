"""What a sender or a reader is told of requests: one request with its draft, the look-up, the change feed, the worklist. Reads only.

The change feed's rows come in the order of a number that a trigger stamps (migrations); core.requests.restamp mends it after a restore.
"""

import re
from collections.abc import Collection
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Session, col, select

from core.errors import Invalid
from core.identity import Keyring
from core.requests import Actor
from core.states import UNCLOSED, Reason, RequestState
from core.tables import Draft, DraftIssue, DraftRequest, Identity, SignOff, Withdrawal

_REQUESTS = DraftRequest.__table__  # type: ignore[attr-defined]  # set by SQLModel's metaclass
_CURSOR = re.compile(r"[0-9]{1,18}\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def visible_draft(session: Session, row: DraftRequest) -> Draft | None:
    """The draft that the radiologist sees, if there is one."""
    return session.exec(select(Draft).where(Draft.request_id == row.id, col(Draft.visible))).first()


def hidden_draft(session: Session, row: DraftRequest) -> Draft | None:
    """The draft that nobody sees, of a request in the shadow stage or the hold-back arm; it is scored when the report is signed."""
    if row.reason is not Reason.HELD_BACK:
        return None
    hidden = select(Draft).where(Draft.request_id == row.id, Draft.role == "shadow")
    return session.exec(hidden.order_by(col(Draft.version).desc())).first()


def issues_of(session: Session, draft: Draft) -> list[dict[str, Any]]:
    """The draft's issues with the keys of `valuer check`, red before amber before info."""
    order = {"withhold": 0, "red": 1, "amber": 2, "info": 3}
    rows = session.exec(select(DraftIssue).where(DraftIssue.draft_id == draft.id)).all()
    return [
        {
            "kind": i.kind,
            "severity": i.severity,
            "span_findings": i.span_findings,
            "span_impression": i.span_impression,
            "message": i.message,
        }
        for i in sorted(rows, key=lambda i: (order[i.severity], i.span_impression or [0], i.kind))
    ]


def view(session: Session, row: DraftRequest) -> dict[str, Any]:
    """The answer of `GET /v1/requests/{id}`."""
    answer: dict[str, Any] = {"id": str(row.id), "state": str(row.state)}
    if row.reason is not None:
        answer["reason"] = str(row.reason)
    if row.supersedes is not None:
        answer["supersedes"] = str(row.supersedes)
    if row.amends is not None:
        answer["amends"] = str(row.amends)
    draft = visible_draft(session, row) if row.draft_version is not None else None
    if draft is not None:
        answer["draft"] = {
            "version": draft.version,
            "impression": draft.impression,
            "issues": issues_of(session, draft),
            "model": draft.model_version,
            "label": draft.label,
        }
    if row.state is RequestState.SIGNED:
        answer |= _signature(session, row)
    return answer


def _signature(session: Session, row: DraftRequest) -> dict[str, Any]:
    """The newest signature that stands; where the RIS has taken them all back, which one and how, without its words."""
    query = (
        select(SignOff, Withdrawal.status)
        .join(Withdrawal, col(Withdrawal.sign_off_id) == col(SignOff.id), isouter=True)
        .where(SignOff.request_id == row.id)
        .order_by(col(Withdrawal.sign_off_id).is_not(None), col(SignOff.version).desc())
    )
    found = session.exec(query).first()
    if found is None:
        return {}
    signed, withdrawn = found
    if withdrawn is not None:
        return {"withdrawn": {"version": signed.version, "place": signed.place, "status": str(withdrawn)}}
    return {"signed": {"version": signed.version, "impression": signed.impression, "place": signed.place}}


def find(
    session: Session, keyring: Keyring, accession: str, actor: Actor, institution: str | None = None
) -> list[DraftRequest]:
    """The requests of an accession number, newest first; an administrator names the institution.

    Raises:
        Invalid: no institution is named and the caller has none.
    """
    institution = actor.institution or institution
    if institution is None:
        raise Invalid("Name the institution of this accession number.", code="institution_missing")
    pseudonym = keyring.pseudonym(institution, "accession", accession)
    query = select(DraftRequest).where(DraftRequest.institution == institution, DraftRequest.accession == pseudonym)
    return list(session.exec(query.order_by(col(DraftRequest.accepted_at).desc(), col(DraftRequest.id).desc())))


def changes(session: Session, actor: Actor, since: str | None, limit: int = 100) -> tuple[list[dict[str, Any]], str]:
    """Requests that changed after the cursor, oldest change first, and the next cursor; None starts at the beginning.

    Safe against late commits: a row is shown only when every transaction that started before its last change has ended. A request that
    changed twice in between is shown once, as it stands.

    Raises:
        Invalid: the cursor is not one of ours.
    """
    xid, identity = 0, UUID(int=0)
    if since:
        if _CURSOR.fullmatch(since) is None:
            raise Invalid("The cursor is not one that this server gave.", code="cursor")
        first, _, second = since.partition(".")
        xid, identity = int(first), UUID(second)
    horizon = sa.cast(sa.cast(sa.func.pg_snapshot_xmin(sa.func.pg_current_snapshot()), sa.Text), sa.BigInteger)
    query = (
        select(DraftRequest)
        .where(
            sa.tuple_(_REQUESTS.c.changed_xid, _REQUESTS.c.id)
            > sa.tuple_(sa.literal(xid), sa.literal(identity, _REQUESTS.c.id.type))
        )
        .where(_REQUESTS.c.changed_xid < horizon)
        .order_by(_REQUESTS.c.changed_xid, _REQUESTS.c.id)
        .limit(limit)
    )
    if actor.institution is not None:
        query = query.where(DraftRequest.institution == actor.institution)
    rows = session.exec(query).all()
    cursor = f"{rows[-1].changed_xid}.{rows[-1].id}" if rows else (since or f"0.{UUID(int=0)}")
    return [view(session, row) for row in rows], cursor


def _accessions(session: Session, keyring: Keyring, rows: Collection[DraftRequest]) -> dict[tuple[str, str], str]:
    """The accession numbers of these requests by (institution, pseudonym), with one question for all of them."""
    query = select(Identity).where(
        col(Identity.institution).in_({row.institution for row in rows}),
        Identity.purpose == "accession",
        col(Identity.pseudonym).in_({row.accession for row in rows}),
    )
    return {
        (known.institution, known.pseudonym): keyring.open(known.institution, "accession", known.sealed).decode()
        for known in session.exec(query)
    }


def worklist(
    session: Session,
    actor: Actor,
    states: Collection[RequestState] | None = None,
    limit: int = 200,
    keyring: Keyring | None = None,
) -> list[dict[str, Any]]:
    """What waits for the radiologist, stat first, then by due time; with a keyring each entry has its accession number."""
    wanted = sorted(states) if states else sorted(UNCLOSED)
    query = select(DraftRequest).where(col(DraftRequest.state).in_(wanted))
    if actor.institution is not None:
        query = query.where(DraftRequest.institution == actor.institution)
    rows = session.exec(
        query.order_by(
            col(DraftRequest.is_stat).desc(), col(DraftRequest.is_critical).desc(), col(DraftRequest.due_at)
        ).limit(limit)
    ).all()
    accessions = {} if keyring is None else _accessions(session, keyring, rows)
    return [
        {
            "id": str(row.id),
            "institution": row.institution,
            "accession": accessions.get((row.institution, row.accession)),
            "state": str(row.state),
            "reason": None if row.reason is None else str(row.reason),
            "priority": row.priority,
            "critical": row.is_critical,
            "modality": row.modality,
            "systems": list(row.systems),
            "exam_title": row.exam_title,
            "sex": row.sex,
            "age": row.age,
            "accepted_at": row.accepted_at.isoformat(),
            "due_at": row.due_at.isoformat(),
            "draft_version": row.draft_version,
        }
        for row in rows
    ]
