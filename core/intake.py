"""The Celery door: a request that came over the broker instead of HTTP. The same rules, the same result; what does not fit is quarantined.

The broker's own access control says who may send; an institution must also have opened this door (`intake = true`).
"""

import hashlib
import json
import logging
from typing import Any

import sqlalchemy as sa
from kombu import serialization
from kombu.utils.json import dumps
from sqlalchemy.dialects.postgresql import insert

from core import institutions, requests
from core.db import new_id, transaction
from core.errors import Forbidden, Refused
from core.identity import Keyring
from core.logs import event
from core.requests import Accepted, Actor
from core.settings import QueueSettings
from core.tables import Quarantine

STREAM = "intake"
LONGEST_NUMBER = 18
"""Digits of a whole number; a longer one stays text, which fits no field, and Python would refuse to read one of thousands."""


def read_as_sent() -> None:
    """From now on this process reads JSON off the broker so that nothing of it is lost unseen: a name that an object has twice gets all its values as
    a list, which fits no field, so that the message is quarantined whole. By default the last one of two findings would win."""
    serialization.register("json", dumps, _as_sent, "application/json", "utf-8")


def _as_sent(text: bytes | str) -> Any:
    return json.loads(text, object_pairs_hook=_every_value, parse_int=_number)


def _every_value(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) == len(pairs):
        return found
    values: dict[str, list[Any]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return {name: each if len(each) > 1 else each[0] for name, each in values.items()}


def _number(digits: str) -> int | str:
    return int(digits) if len(digits) <= LONGEST_NUMBER else digits


def take(database: sa.Engine, keyring: Keyring, settings: QueueSettings, message: Any) -> Accepted | None:
    """Accepts the request, rings, and returns what became of it; None when it was quarantined.

    Raises:
        Retryable: the database is away; the message must not be acknowledged.
    """
    try:
        body = requests.parse(message)
        actor = Actor("process", "intake", "system", body.institution)
        with transaction(database) as session:
            if not institutions.profile(session, body.institution).intake:
                raise Forbidden("This institution has not opened the Celery door.", code="intake_closed")
            accepted = requests.accept(session, keyring, body, actor, door="celery", queue=settings)
    except Refused as error:
        _quarantine(database, keyring, message, error)
        return None
    requests.ring(accepted)
    event("request_accepted", request=accepted.id, door="celery", created=accepted.created)
    return accepted


def _quarantine(database: sa.Engine, keyring: Keyring, message: Any, error: Refused) -> None:
    raw = json.dumps(message, ensure_ascii=True, sort_keys=True).encode()
    named = message.get("institution") if isinstance(message, dict) else None
    institution = named if isinstance(named, str) and institutions.CODE.fullmatch(named) else "unknown"
    row = {
        "id": new_id(),
        "institution": institution,
        "stream": STREAM,
        "reason": error.code,
        "raw": keyring.seal(institution, "quarantine", raw),
        "raw_hash": hashlib.sha256(raw).hexdigest(),
        "key_id": keyring.key_id,
        "context": {"door": "celery", "message": error.message},
    }
    again = {"times": Quarantine.__table__.c.times + 1, "last_seen_at": sa.func.now(), "resolved_at": None}  # type: ignore[attr-defined]
    with transaction(database) as session:
        statement = insert(Quarantine).values(**row)
        session.execute(
            statement.on_conflict_do_update(index_elements=["institution", "stream", "raw_hash", "reason"], set_=again)
        )
    event("request_quarantined", level=logging.WARNING, institution=institution, stream=STREAM, error=error.code)
