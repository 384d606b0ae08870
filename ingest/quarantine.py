"""Rows that could not be taken: their bytes sealed, the reason, when first and last seen. Listing shows no content; `show` opens one on purpose.

A row leaves quarantine when it is taken after all: by `replay` once the mapping is mended, or because a poll reads it in a better state.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session, col, select

from core.db import new_id, transaction
from core.errors import NotFound
from core.identity import Keyring
from core.tables import Quarantine
from ingest import load
from ingest.cleaning import cleaned
from ingest.mapping import Mapping as InstitutionMapping
from ingest.rows import Reject, Rows
from ingest.sources import Batch

SEEN_AGAIN_S = 3600
"""A row that is still wrong is counted again at most this often: the overlap makes every poll meet it."""


def put(
    session: Session, keyring: Keyring, institution: str, stream: str, mapping_version: str, rejects: Iterable[Reject]
) -> None:
    """Keeps rejected rows, each once per reason."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for reject in rejects:
        raw = reject.raw if isinstance(reject.raw, bytes) else pack(reject.raw)
        digest = hashlib.sha256(raw).hexdigest()
        rows[(digest, reject.reason)] = {
            "id": new_id(),
            "institution": institution,
            "stream": stream,
            "reason": reject.reason,
            "raw": keyring.seal(institution, "quarantine", raw),
            "raw_hash": digest,
            "key_id": keyring.key_id,
            "context": {
                **reject.context,
                "source_id": reject.source_id,
                "mapping": mapping_version,
                "packed": not isinstance(reject.raw, bytes),
            },
            "times": 1,
        }
    if not rows:
        return
    statement = insert(Quarantine).values(list(rows.values()))
    again = sa.or_(
        col(Quarantine.resolved_at).is_not(None),
        col(Quarantine.last_seen_at) < sa.func.now() - sa.func.make_interval(0, 0, 0, 0, 0, 0, SEEN_AGAIN_S),
    )
    changes = {
        "times": col(Quarantine.times) + 1,
        "last_seen_at": sa.func.now(),
        "resolved_at": None,
        "context": statement.excluded.context,
    }
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["institution", "stream", "raw_hash", "reason"], set_=changes, where=again
        )
    )


def open_sources(session: Session, institution: str) -> set[str]:
    """Pseudonyms of the source keys that have an open row."""
    query = select(col(Quarantine.context)["source_id"].astext).where(
        Quarantine.institution == institution, col(Quarantine.resolved_at).is_(None)
    )
    return {source_id for source_id in session.exec(query) if source_id is not None}


def resolve(session: Session, institution: str, source_ids: Sequence[str]) -> None:
    """Closes what is open of rows that have now been taken."""
    session.execute(
        sa.update(Quarantine)
        .where(col(Quarantine.institution) == institution, col(Quarantine.resolved_at).is_(None))
        .where(col(Quarantine.context)["source_id"].astext == sa.any_(sa.literal(list(source_ids), sa.ARRAY(sa.Text))))
        .values(resolved_at=sa.func.now())
    )


def list_open(
    session: Session, institution: str | None = None, reason: str | None = None, limit: int = 100
) -> list[dict[str, Any]]:
    """What waits, newest first: ids, reasons, places and counts, never content."""
    query = select(Quarantine).where(col(Quarantine.resolved_at).is_(None))
    if institution is not None:
        query = query.where(Quarantine.institution == institution)
    if reason is not None:
        query = query.where(Quarantine.reason == reason)
    return [
        _line(row)
        for row in session.exec(
            query.order_by(col(Quarantine.last_seen_at).desc(), col(Quarantine.id).desc()).limit(limit)
        )
    ]


def show(session: Session, keyring: Keyring, identity: UUID) -> dict[str, Any]:
    """One row with its content, for a person who mends the mapping: bytes as they came, readable where they can be read.

    Raises:
        NotFound: there is no such row.
        Broken: it was sealed with another key.
    """
    row = session.get(Quarantine, identity)
    if row is None:
        raise NotFound("There is no such row in quarantine.")
    raw = keyring.open(row.institution, "quarantine", row.raw)
    content: Any = unpack(raw) if row.context.get("packed") else {"bytes": raw}
    shown = {word: _readable(value) for word, value in content.items()}
    return {**_line(row), "content": shown}


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay did: rows taken, rows that are still wrong, and sign-offs that wait for their score."""

    taken: int
    left: int
    sign_offs: tuple[UUID, ...]


def replay(
    engine: sa.Engine,
    keyring: Keyring,
    mappings: Mapping[str, InstitutionMapping],
    identities: Sequence[UUID] | None = None,
) -> Replayed:
    """Tries open rows again with the mappings as they are now: all of those institutions, or only the named rows.

    Raises:
        Retryable: the database went away. Broken: a row was sealed with another key.
    """
    with transaction(engine) as session:
        query = select(Quarantine).where(
            col(Quarantine.resolved_at).is_(None), col(Quarantine.institution).in_(list(mappings))
        )
        if identities is not None:
            query = query.where(col(Quarantine.id).in_(identities))
        waiting = session.exec(query.order_by(col(Quarantine.id))).all()
    taken, sign_offs = 0, list[UUID]()
    for row in waiting:
        of = mappings[row.institution]
        batch = _as_batch(keyring, row)
        incoming = Rows(of, keyring).take(batch)[0] if batch is not None else []
        if not incoming:
            continue
        with transaction(engine) as session:
            dated = [each._replace(modified_at=each.modified_at or row.first_seen_at) for each in incoming]
            stored = load.store(
                session, of.code, load.lines(of.code, of.language, [(each, cleaned(each)) for each in dated])
            )
            session.execute(sa.update(Quarantine).where(col(Quarantine.id) == row.id).values(resolved_at=sa.func.now()))
        taken += 1
        sign_offs += stored.sign_offs
    return Replayed(taken, len(waiting) - taken, tuple(sign_offs))


def _as_batch(keyring: Keyring, row: Quarantine) -> Batch | None:
    """The rejected row as its source gave it; None for a piece of a file that was no row."""
    if not row.context.get("packed"):
        return None
    content = unpack(keyring.open(row.institution, "quarantine", row.raw))
    return Batch(row.stream, tuple(content), [tuple(content.values())], None, None, row.first_seen_at)


def pack(row: dict[str, Any]) -> bytes:
    """A source row as bytes that `unpack` turns back into the same values."""
    return json.dumps({word: _packed(value) for word, value in row.items()}, ensure_ascii=False, default=str).encode(
        "utf-8", "surrogatepass"
    )


def unpack(raw: bytes) -> dict[str, Any]:
    """The row that was packed."""
    return {word: _unpacked(value) for word, value in json.loads(raw.decode("utf-8", "surrogatepass")).items()}


def _packed(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return {"bytes": base64.b64encode(bytes(value)).decode()}
    if isinstance(value, datetime):
        return {"time": value.isoformat()}
    if isinstance(value, date):
        return {"date": value.isoformat()}
    return str(value) if isinstance(value, Decimal) else value


def _unpacked(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    kind, text = next(iter(value.items()))
    if kind == "bytes":
        return base64.b64decode(text)
    return datetime.fromisoformat(text) if kind == "time" else date.fromisoformat(text)


def _readable(value: Any) -> Any:
    """Bytes by their escapes where they are no text in any charset we know; everything else as it is."""
    if not isinstance(value, bytes):
        return value.isoformat() if isinstance(value, date) else value
    for charset in ("utf-8", "gb18030"):
        try:
            return value.decode(charset)
        except UnicodeDecodeError:
            continue
    return value.decode("utf-8", "backslashreplace")


def _line(row: Quarantine) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "institution": row.institution,
        "stream": row.stream,
        "reason": row.reason,
        "context": row.context,
        "times": row.times,
        "first_seen_at": row.first_seen_at.isoformat(),
        "last_seen_at": row.last_seen_at.isoformat(),
    }
