"""Rows that could not be taken: their bytes sealed, the reason, when first and last seen. Listing shows no content; `show` opens one on purpose.

A row leaves quarantine when it is taken after all: by `replay` once the mapping is mended, or because a poll reads it in a better state.
"""

import base64
import hashlib
import json
from collections import Counter
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
from ingest.cleaning import cleaned_batch, cleaning_of
from ingest.mapping import Mapping as InstitutionMapping
from ingest.rejections import WHY
from ingest.rows import Incoming, Reject, Rows
from ingest.sources import Batch

SEEN_AGAIN_S = 3600
"""A row that is still wrong is counted again at most this often: the overlap makes every poll meet it."""
PAGE = 500
"""Rows of one transaction of a replay."""


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
    statement = insert(Quarantine)
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
        ),
        list(rows.values()),  # not in the statement, which would be compiled anew for every number of rows
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
    """What a replay did, or would do: rows taken, rows that are still wrong, those by reason, and sign-offs that wait for their score."""

    taken: int
    left: int
    reasons: dict[str, int]
    sign_offs: tuple[UUID, ...]


def replay(
    engine: sa.Engine,
    keyring: Keyring,
    mappings: Mapping[str, InstitutionMapping],
    identities: Sequence[UUID] | None = None,
    *,
    reason: str | None = None,
    dry_run: bool = False,
) -> Replayed:
    """Tries open rows again with the mappings as they are now: all of those institutions, those with a reason, or the named ones. A dry run
    stores nothing and counts what would become of them.

    A row that is still wrong keeps its bytes and first day; its attempt is counted, and its reason becomes what is wrong with it now.

    Raises:
        Retryable: the database went away. Broken: a row was sealed with another key.
    """
    query = select(Quarantine).where(
        col(Quarantine.resolved_at).is_(None), col(Quarantine.institution).in_(list(mappings))
    )
    if identities is not None:
        query = query.where(col(Quarantine.id).in_(identities))
    if reason is not None:
        query = query.where(Quarantine.reason == reason)
    with transaction(engine) as session:
        newest = session.exec(query.order_by(col(Quarantine.id).desc()).limit(1)).first()
    rows = {code: Rows(of, keyring) for code, of in mappings.items()}
    taken, reasons, sign_offs = 0, Counter[str](), list[UUID]()
    last: UUID | None = None
    while newest is not None and last != newest.id:
        page = query.where(col(Quarantine.id) <= newest.id).order_by(col(Quarantine.id)).limit(PAGE)
        with transaction(engine) as session:
            waiting = session.exec(page if last is None else page.where(col(Quarantine.id) > last)).all()
            if not waiting:
                break
            last = waiting[-1].id
            tried = [(row, *_tried(keyring, rows[row.institution], row)) for row in waiting]
            good = [(row, incoming) for row, incoming, _ in tried if incoming is not None]
            bad = [(row, reject) for row, incoming, reject in tried if incoming is None]
            taken += len(good)
            reasons.update(row.reason if reject is None else reject.reason for row, reject in bad)
            if not dry_run:
                for code in sorted({row.institution for row, _ in good}):
                    sign_offs += _take(session, mappings[code], [pair for pair in good if pair[0].institution == code])
                for row, reject in bad:
                    _still_wrong(session, row, reject, mappings[row.institution].version)
    return Replayed(taken, sum(reasons.values()), dict(reasons), tuple(sign_offs))


def _tried(keyring: Keyring, rows: Rows, row: Quarantine) -> tuple[Incoming | None, Reject | None]:
    """What a row would be now: taken, or rejected; neither when it never was a row."""
    batch = _as_batch(keyring, row)
    if batch is None:
        return None, None
    taken, rejects = rows.take(batch)
    if not taken:
        return None, rejects[0]
    return taken[0]._replace(modified_at=taken[0].modified_at or row.first_seen_at), None


def _take(session: Session, of: InstitutionMapping, good: list[tuple[Quarantine, Incoming]]) -> tuple[UUID, ...]:
    incoming = [each for _, each in good]
    pairs = list(zip(incoming, cleaned_batch(incoming, cleaning_of(of)), strict=True))
    stored = load.store(session, of.code, load.lines(of.code, of.language, pairs), of.by_time)
    identities = [row.id for row, _ in good]
    session.execute(sa.update(Quarantine).where(col(Quarantine.id).in_(identities)).values(resolved_at=sa.func.now()))
    return stored.sign_offs


def _still_wrong(session: Session, row: Quarantine, reject: Reject | None, mapping_version: str) -> None:
    row.attempts += 1
    row.context = {**row.context, **(reject.context if reject else {}), "mapping": mapping_version}
    if reject is not None and reject.reason != row.reason:
        same = select(Quarantine.id).where(
            Quarantine.institution == row.institution,
            Quarantine.stream == row.stream,
            Quarantine.raw_hash == row.raw_hash,
            Quarantine.reason == reject.reason,
        )
        if session.exec(same).first() is None:
            row.reason = str(reject.reason)
        else:  # it lies there under that reason already
            row.resolved_at = session.execute(sa.select(sa.func.now())).scalar_one()
    session.flush()


def counts(session: Session, institution: str | None = None) -> list[dict[str, Any]]:
    """How many rows wait, by institution and reason, most first; what the reason means, since when and until when they were seen."""
    query = sa.select(
        col(Quarantine.institution),
        col(Quarantine.reason),
        sa.func.count(),
        sa.func.min(col(Quarantine.first_seen_at)),
        sa.func.max(col(Quarantine.last_seen_at)),
    ).where(col(Quarantine.resolved_at).is_(None))
    if institution is not None:
        query = query.where(col(Quarantine.institution) == institution)
    query = query.group_by(col(Quarantine.institution), col(Quarantine.reason))
    return [
        {
            "institution": code,
            "reason": reason,
            "rows": rows,
            "why": WHY.get(reason),
            "first_seen_at": first.isoformat(),
            "last_seen_at": last.isoformat(),
        }
        for code, reason, rows, first, last in session.execute(
            query.order_by(sa.func.count().desc(), col(Quarantine.reason))
        )
    ]


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
        "attempts": row.attempts,
        "first_seen_at": row.first_seen_at.isoformat(),
        "last_seen_at": row.last_seen_at.isoformat(),
    }
