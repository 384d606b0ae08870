"""Webhooks: a request that settles or closes tells its sender, with id and state only. Rows here; core.clerk delivers them.

A callback goes to a host that the institution listed, follows no redirect, and is signed: `X-Valuer-Signature: sha256=<hex>` is the
HMAC-SHA256 of the body with the institution's callback secret. One receiver that is slow, or an address that cannot be called, holds up no other.
"""

import asyncio
import hashlib
import hmac
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import sqlalchemy as sa
from sqlmodel import Session, col, select

from core import audit
from core.db import transaction
from core.errors import Invalid
from core.identity import Keyring
from core.institutions import Profile
from core.tables import Callback, DraftRequest

TRIES = 8
TIMEOUT_S = 5.0
"""For the whole answer, however slowly its bytes come."""
_CALLBACKS = Callback.__table__  # type: ignore[attr-defined]  # set by SQLModel's metaclass


def allowed(url: str, profile: Profile) -> str:
    """`url` when its host is one that the institution lists, as the client that will call it reads it. Raises Invalid otherwise."""
    try:
        parts = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError):
        raise Invalid("callback_url is no address.", code="callback_url") from None
    if parts.scheme not in ("http", "https") or not parts.host or parts.userinfo:
        raise Invalid("callback_url must be an http or https address without user name.", code="callback_url")
    if parts.port is not None and not 0 < parts.port < 1 << 16:
        raise Invalid("callback_url names a port that there cannot be.", code="callback_url")
    if parts.host not in profile.callback_hosts:
        raise Invalid("callback_url names a host that is not listed for this institution.", code="callback_host")
    return url


def due(session: Session, row: DraftRequest, state: str) -> None:
    """Queues the notice of `state`, when the request asked for one; in the transaction of the move."""
    if row.callback_url is not None:
        session.add(Callback(request_id=row.id, url=row.callback_url, request_state=state))


def noticing(moved: sa.CTE, state: str) -> sa.Insert:
    """What `due` does, as a part of the statement whose part `moved` returns the request's id and callback_url; its own id is `its_notice`."""
    notice: dict[str, Any] = {
        "id": sa.bindparam("its_notice", type_=_CALLBACKS.c.id.type),
        "request_id": moved.c.id,
        "url": moved.c.callback_url,
        "request_state": sa.literal(state, sa.Text),
        "state": sa.literal("waiting"),
        "tries": sa.literal(0),
    }
    return sa.insert(_CALLBACKS).from_select(tuple(notice), sa.select(*notice.values()))


def dead(session: Session, limit: int = 1000) -> list[Callback]:
    """Notices that were given up, oldest first."""
    return list(session.exec(select(Callback).where(Callback.state == "dead").order_by(col(Callback.id)).limit(limit)))


def again(session: Session, actor: str, ids: Collection[UUID] | None = None) -> int:
    """Lets the clerk try notices again that were given up (None: all of them); returns how many."""
    statement = sa.update(Callback).where(col(Callback.state) == "dead")
    if ids:
        statement = statement.where(col(Callback.id).in_(ids))
    moved = session.execute(
        statement.values(state="waiting", tries=0, next_at=sa.func.now()).returning(col(Callback.id))
    )
    count = len(moved.all())
    audit.record(session, actor, "callbacks.retried", "callbacks", count=count)
    return count


def secret(keyring: Keyring, institution: str) -> str:
    """The secret that the institution checks signatures with, as hex (shown by `valuer keys callback-secret`)."""
    return keyring.secret(institution, "callback").hex()


def deliver(engine: sa.Engine, keyring: Keyring, limit: int = 20) -> int:
    """Sends what is due, all at once; returns how many were delivered. A failure backs off from 2 s to some 4 minutes; after 8 tries it is dead.

    No transaction is open while receivers answer, which takes `TIMEOUT_S` at the longest.
    """
    with transaction(engine) as session:
        query = (
            select(Callback, DraftRequest.institution)
            .join(DraftRequest, col(DraftRequest.id) == col(Callback.request_id))
            .where(Callback.state == "waiting", col(Callback.next_at) <= sa.func.now())
            .order_by(col(Callback.next_at))
            .limit(limit)
        )
        waiting = [(row.id, _Notice.of(row, institution, keyring)) for row, institution in session.exec(query)]
    if not waiting:
        return 0
    delivered = 0
    errors = asyncio.run(_send([notice for _, notice in waiting]))
    for (identity, _), error in zip(waiting, errors, strict=True):
        with transaction(engine) as session:
            row = session.get(Callback, identity, with_for_update=True)
            if row is None or row.state != "waiting":
                continue
            row.tries, row.last_error = row.tries + 1, error
            if error is None:
                row.state, delivered = "delivered", delivered + 1
            elif row.tries >= TRIES:
                row.state = "dead"
            else:
                wait = timedelta(seconds=2**row.tries)
                row.next_at = session.execute(sa.select(sa.func.now() + wait)).scalar_one()
            session.add(row)
    return delivered


@dataclass(frozen=True, slots=True)
class _Notice:
    """What goes over the wire."""

    url: str
    body: bytes
    signature: str

    @classmethod
    def of(cls, row: Callback, institution: str, keyring: Keyring) -> "_Notice":
        body = json.dumps({"id": str(row.request_id), "state": row.request_state}).encode()
        return cls(row.url, body, hmac.new(secret(keyring, institution).encode(), body, hashlib.sha256).hexdigest())


async def _send(notices: Sequence[_Notice]) -> list[str | None]:
    """What went wrong with each, None where it was taken."""
    async with httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False) as client:
        return await asyncio.gather(*(_post(client, notice) for notice in notices))


async def _post(client: httpx.AsyncClient, notice: _Notice) -> str | None:
    headers = {"Content-Type": "application/json", "X-Valuer-Signature": f"sha256={notice.signature}"}
    try:
        async with (
            asyncio.timeout(TIMEOUT_S),
            client.stream("POST", notice.url, content=notice.body, headers=headers) as answer,  # nobody reads its body
        ):
            return None if answer.is_success else f"HTTP {answer.status_code}"
    except Exception as failure:  # whatever an address or a receiver does, the other notices are sent
        return type(failure).__name__
