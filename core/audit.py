"""Hash-chained audit events: written in the transaction of the deed, sealed in one order by the clerk, verified by anyone.

Each sealed event's hash covers its content and the hash before it, so that an edited, deleted or reordered event breaks the chain. The
chain's head should be copied off the machine (`valuer audit export`), since whoever owns the database could seal it anew.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from core.db import new_id
from core.tables import AuditEvent

GENESIS = "0" * 64
_LOCK = 0x56414C55  # "VALU": one sealer at a time


def record(
    session: Session, actor: str, action: str, subject: str, *, institution: str | None = None, **detail: Any
) -> None:
    """One event: who (`key:…`, `user:…`, `process:…`) did what to which thing. `detail` holds ids, states and counts, never text."""
    session.add(AuditEvent(actor=actor, action=action, subject=subject, institution=institution, detail=detail))


COLUMNS = ("id", "actor", "action", "subject", "institution", "detail")


def values(actor: str, action: str, subject: str, *, institution: str | None = None, **detail: Any) -> dict[str, Any]:
    """The event of `record` by COLUMNS, for the lanes that insert it in the same round trip as the deed."""
    given = (new_id(), actor, action, subject, institution, detail)
    return dict(zip(COLUMNS, given, strict=True))


def _digest(previous: str, event: Any, seq: int) -> str:
    content = [
        str(event.id),
        event.at.isoformat(),
        event.actor,
        event.action,
        event.institution,
        event.subject,
        event.detail,
        seq,
    ]
    return hashlib.sha256((previous + json.dumps(content, ensure_ascii=False, sort_keys=True)).encode()).hexdigest()


def seal(session: Session, limit: int = 1000) -> int:
    """Chains up to `limit` committed events that are not sealed yet; returns how many. One sealer at a time."""
    if not session.execute(sa.select(sa.func.pg_try_advisory_xact_lock(_LOCK))).scalar_one():
        return 0
    last = session.exec(
        select(AuditEvent).where(col(AuditEvent.seq).is_not(None)).order_by(col(AuditEvent.seq).desc()).limit(1)
    ).first()
    previous, seq = (last.hash or GENESIS, last.seq or 0) if last else (GENESIS, 0)
    unsealed = sa.select(*_CHAINED).where(col(AuditEvent.seq).is_(None)).order_by(col(AuditEvent.id)).limit(limit)
    ids, numbers, hashes = [], [], []
    for event in session.execute(unsealed):
        seq += 1
        previous = _digest(previous, event, seq)
        ids.append(event.id)
        numbers.append(seq)
        hashes.append(previous)
    if ids:
        session.execute(_SEAL, {"ids": ids, "numbers": numbers, "hashes": hashes})
    return len(ids)


_CHAINED = (
    col(AuditEvent.id),
    col(AuditEvent.at),
    col(AuditEvent.actor),
    col(AuditEvent.action),
    col(AuditEvent.institution),
    col(AuditEvent.subject),
    col(AuditEvent.detail),
)
_SEAL = sa.text(
    "UPDATE audit_events e SET seq = s.seq, hash = s.hash"
    " FROM unnest(CAST(:ids AS uuid[]), CAST(:numbers AS bigint[]), CAST(:hashes AS text[])) AS s(id, seq, hash) WHERE e.id = s.id"
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found: `broken_at` is the first event's number that does not fit its predecessor, None for an intact chain."""

    events: int
    unsealed: int
    head: str
    broken_at: int | None


def verify(session: Session) -> Verdict:
    """Reads the whole chain and recomputes every hash."""
    previous, expected = GENESIS, 0
    query = (
        select(AuditEvent)
        .where(col(AuditEvent.seq).is_not(None))
        .order_by(col(AuditEvent.seq))
        .execution_options(yield_per=1000)
    )
    broken_at: int | None = None
    events = session.exec(query)
    for event in events:
        expected += 1
        if event.seq != expected or event.hash != _digest(previous, event, expected):
            broken_at = expected
            break
        previous = event.hash
    events.close()
    unsealed = session.execute(
        sa.select(sa.func.count()).select_from(AuditEvent).where(col(AuditEvent.seq).is_(None))
    ).scalar_one()
    return Verdict(expected, unsealed, previous, broken_at)
