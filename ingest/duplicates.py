"""Reports that repeat another one, exactly or nearly, kept out of training: a pass of its own over what is new, after loading.

Two sides: what may train, and what is tested on (the patient's side of the split, and every report of an institution whose role is not `train`). Of
equal findings one report stays, and where any of them is tested on it is that one. A report that may train is kept out when its findings overlap
those of a report that stays by 0.8 or more (Jaccard of 5-grams), so no text that is tested on, and nothing that is nearly it, is ever trained on.
Reports that are tested on are not thinned: they are what the hospitals wrote. Each block of reports is one transaction; a pass that was stopped goes
on where it was. What changes reports holds the lock under which batches are stored, for the moment of the change and not while it is worked out, so
that a poll neither waits long nor meets a search half-way.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
import sqlalchemy as sa
from sqlmodel import Session, col, select

from clinical.text import comparable
from core.db import transaction
from core.errors import Retryable
from core.tables import DuplicateSearch
from ingest.exclusions import Exclusion
from ingest.load import LOAD_LOCK
from ingest.sketches import NEAR, WIDTH, Index, Sketch, grams, overlap, sketch

BLOCK = 2_000
LOCK = 0x76616C75_6572_0002
_TRIES = 16
"""So many of the likeliest are measured for one report; by then a report that is near another has found it."""

# The statements below are put together from these constants of this module and nothing else.
_SIDE = (
    "CASE WHEN r.split = 'test' OR coalesce(i.profile ->> 'role', 'test') <> 'train'"
    " OR coalesce(i.profile ->> 'role_from', '') > to_char(now(), 'YYYY-MM-DD') THEN 'test' ELSE 'train' END"
)
_OPEN = "r.status IN ('final', 'amended') AND (r.excluded IS NULL OR r.excluded = 'near_duplicate')"
_FORGET = sa.text(
    "WITH stale AS (DELETE FROM findings_sketches s USING reports r JOIN institutions i ON i.code = r.institution"  # noqa: S608
    f"  WHERE s.report_id = r.id AND (s.findings_hash <> r.findings_hash OR s.side <> {_SIDE} OR NOT ({_OPEN})) RETURNING s.report_id)"
    ", orphans AS (DELETE FROM findings_sketches WHERE keeper IN (SELECT report_id FROM stale)"
    "  AND report_id NOT IN (SELECT report_id FROM stale) RETURNING report_id)"
    " UPDATE reports SET excluded = NULL WHERE excluded = 'near_duplicate'"
    "  AND id IN (SELECT report_id FROM orphans UNION ALL SELECT report_id FROM stale)"
)
"""What changed since it was looked at, and what was kept out only because of it, is looked at anew."""
_EXACT = sa.text(
    "UPDATE reports r SET excluded = CASE WHEN d.place > 1 THEN 'duplicate' END FROM ("  # noqa: S608
    f"  SELECT r.id, row_number() OVER (PARTITION BY r.findings_hash ORDER BY {_SIDE} = 'train', r.excluded IS NOT NULL, r.ingested_at, r.source_id)"
    "    AS place FROM reports r JOIN institutions i ON i.code = r.institution"
    "  WHERE r.status IN ('final', 'amended') AND (r.excluded IS NULL OR r.excluded IN ('duplicate', 'near_duplicate'))"
    ") d WHERE r.id = d.id AND (d.place > 1) <> (r.excluded IS NOT DISTINCT FROM 'duplicate')"
)
_WAITING = sa.text(
    f"SELECT r.id, r.findings_hash, {_SIDE} AS side FROM reports r JOIN institutions i ON i.code = r.institution"  # noqa: S608
    f" WHERE {_OPEN} AND NOT EXISTS (SELECT 1 FROM findings_sketches s WHERE s.report_id = r.id)"
    f" ORDER BY {_SIDE} = 'train', r.ingested_at, r.id"
)
_HELD = sa.text("SELECT report_id, side, sketch FROM findings_sketches WHERE keeper IS NULL")
_TEXTS = sa.text("SELECT id, findings, findings_hash FROM reports WHERE id = ANY(:ids)")
_MARK = sa.text("UPDATE reports SET excluded = :why WHERE id = ANY(:ids) AND excluded IS NULL")
_KEEP = sa.text(
    "INSERT INTO findings_sketches (report_id, findings_hash, side, sketch, keeper)"
    " SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:hashes AS text[]), CAST(:sides AS text[]), CAST(:sketches AS bytea[]), CAST(:keepers AS uuid[]))"
)
_DEMOTE = sa.text(
    "UPDATE findings_sketches s SET keeper = d.keeper FROM unnest(CAST(:ids AS uuid[]), CAST(:keepers AS uuid[])) AS d (id, keeper)"
    " WHERE s.report_id = d.id OR s.keeper = d.id"
)


@dataclass(frozen=True, slots=True)
class Found:
    """What a pass did: reports looked at for nearness, how many of them are kept out, and exact duplicates that changed."""

    examined: int = 0
    near: int = 0
    exact: int = 0


@dataclass(frozen=True, slots=True)
class _Waiting:
    id: UUID
    findings_hash: str
    side: str


def search(
    engine: sa.Engine, told: Callable[[int, int], None] = lambda done, of: None, *, until: float = float("inf")
) -> Found:
    """Looks at every report that has not been looked at; `told` hears how many of how many are done. No block begins after the monotonic time `until`.

    Raises:
        Retryable: another process is at it.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as guard:
        if not guard.execute(sa.text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK}).scalar_one():
            raise Retryable("Another process is looking for duplicates.")
        try:
            return _search(engine, told, until)
        finally:
            guard.execute(sa.text("SELECT pg_advisory_unlock(:key)"), {"key": LOCK})


def _search(engine: sa.Engine, told: Callable[[int, int], None], until: float) -> Found:
    with transaction(engine) as session:
        _alone(session)
        exact = session.execute(_EXACT).rowcount  # type: ignore[attr-defined]
        session.execute(_FORGET)
    with transaction(engine) as session:
        waiting = [_Waiting(*row) for row in session.execute(_WAITING)]
        held = session.execute(_HELD).all() if waiting else []
        run = DuplicateSearch(waiting=len(waiting), exact=exact)
        session.add(run)
    told(0, len(waiting))
    keepers = _Keepers()
    for start in range(0, len(held), BLOCK):
        some = held[start : start + BLOCK]
        rows = np.frombuffer(b"".join(row.sketch for row in some), "<u2").reshape(-1, WIDTH)
        keepers.add([row.report_id for row in some], [row.side for row in some], rows)
    done = near = 0
    while done < len(waiting) and time.monotonic() < until:
        block = waiting[done : done + BLOCK]
        with transaction(engine) as session:
            near += _block(session, keepers, block)
            done += len(block)
            _note(session, run.id, examined=done, near=near)
        told(done, len(waiting))
    if done == len(waiting):
        with transaction(engine) as session:
            _note(session, run.id, ended_at=sa.func.clock_timestamp())
    return Found(done, near, exact)


def _alone(session: Session) -> None:
    """No batch is stored until this transaction ends: both change reports, and in no common order."""
    session.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOAD_LOCK})


def _note(session: Session, run: UUID, **values: Any) -> None:
    session.execute(sa.update(DuplicateSearch).where(col(DuplicateSearch.id) == run).values(**values))


def last(session: Session) -> DuplicateSearch | None:
    """The newest search, whether it has ended or not."""
    return session.exec(select(DuplicateSearch).order_by(col(DuplicateSearch.began_at).desc()).limit(1)).first()


def searched_since(session: Session, moment: datetime) -> bool:
    """Whether a search that began after that has looked at everything."""
    query = select(DuplicateSearch.id).where(
        col(DuplicateSearch.began_at) >= moment, col(DuplicateSearch.ended_at).is_not(None)
    )
    return session.exec(query.limit(1)).first() is not None


class _Keepers:
    """The reports that stay, by their place in the index."""

    def __init__(self) -> None:
        self.index = Index()
        self.ids: list[UUID] = []
        self.sides: list[str] = []
        self.gone: set[int] = set()

    def add(self, ids: Sequence[UUID], sides: Sequence[str], rows: Sketch) -> None:
        self.index.add(rows)
        self.ids += ids
        self.sides += sides


def _block(session: Session, keepers: _Keepers, waiting: Sequence[_Waiting]) -> int:
    """Decides on some reports, test side before train side, and stores what was decided; returns how many train reports are kept out by it."""
    found = {row.id: row for row in session.execute(_TEXTS, {"ids": [one.id for one in waiting]})}
    block = [one for one in waiting if one.id in found and found[one.id].findings_hash == one.findings_hash]
    if not block:
        return 0
    texts = [comparable(found[one.id].findings) for one in block]
    rows = sketch(texts)
    before = len(keepers.index)
    keepers.add([one.id for one in block], [one.side for one in block], rows)
    likely = keepers.index.near(rows)
    wanted = {keepers.ids[place] for places in likely for place in places[: 2 * _TRIES] if place < before}
    sets = {row.id: grams(comparable(row.findings)) for row in session.execute(_TEXTS, {"ids": list(wanted)})}
    sets |= {one.id: grams(text) for one, text in zip(block, texts, strict=True)}
    keeper_of: dict[UUID, UUID | None] = {}
    demoted: dict[UUID, UUID] = {}
    for number, one in enumerate(block):
        place = before + number
        others = [at for at in likely[number] if at < place and at not in keepers.gone]
        keeper_of[one.id] = None
        if one.side == "train":
            for at in others[:_TRIES]:
                other = keepers.ids[at]
                if other in sets and overlap(sets[one.id], sets[other]) >= NEAR:
                    keeper_of[one.id] = other
                    keepers.gone.add(place)
                    break
            continue
        for at in others:  # a report that trains gives way to one that is tested on, whichever came first
            other = keepers.ids[at]
            if keepers.sides[at] == "train" and other in sets and overlap(sets[one.id], sets[other]) >= NEAR:
                demoted[other] = one.id
                keepers.gone.add(at)
    _alone(session)
    session.execute(
        _KEEP,
        {
            "ids": [one.id for one in block],
            "hashes": [one.findings_hash for one in block],
            "sides": [one.side for one in block],
            "sketches": [row.astype("<u2").tobytes() for row in rows],
            "keepers": [keeper_of[one.id] for one in block],
        },
    )
    if demoted:
        session.execute(_DEMOTE, {"ids": list(demoted), "keepers": list(demoted.values())})
    out = [identity for identity, keeper in keeper_of.items() if keeper is not None] + list(demoted)
    if out:
        session.execute(_MARK, {"ids": out, "why": Exclusion.NEAR_DUPLICATE.value})
    return len(out)
