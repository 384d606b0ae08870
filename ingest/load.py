"""One batch into `reports`, in one transaction of its caller: rows, versions, duplicates, sign-offs.

What stands in `reports` is the strongest version by (status, source's time, content), whatever the order of arrival; `report_versions` holds every
version of the reports that have had more than one. Loading the same rows again changes nothing. Where an institution's mapping knows of signatures
that are taken back (`Mapping.by_time`), the latest of those statuses stands, and the stronger only of two of one moment; a retraction stays the
strongest. Of two versions of one status and moment the one that the source says now stands, where it is known to (`live`).

Reports that nobody has seen before, nearly all of a first reading, go straight into the table by COPY; everything else goes by a staging table and an
upsert. Should a report turn out to be there after all, COPY refuses the lot and the second way takes it: both end in the same state.
"""

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import NamedTuple
from uuid import UUID

import psycopg
import sqlalchemy as sa
from psycopg.errors import UniqueViolation
from sqlmodel import Session, col, select

from core import sign_offs
from core.db import new_ids
from core.states import ReportStatus, RequestState
from core.tables import DraftRequest, Report
from ingest.cells import NULL, coded_cells, copy_cells, text_cells
from ingest.cleaning import Cleaned
from ingest.mapping import FINAL
from ingest.rows import CONTENT, Incoming

LOAD_LOCK = 0x76616C75_6572_0001
"""Batches are stored one after another, so that of two reports with the same findings exactly one counts as the duplicate."""

_RENAMED = {"findings": "findings_raw", "impression": "impression_raw"}
_COLUMNS = (
    *(_RENAMED.get(word, word) for word in CONTENT), "findings", "impression", "modified_at", "institution", "language", "version", "id", "source_id",
    "content_hash", "split", "history", "prior_impression", "findings_hash", "cleaning_version", "removed", "excluded",
)  # fmt: skip
"""As `lines` writes them; what the last one holds of a copy is not known before the batch's turn has come."""
_KEPT = ", ".join(_COLUMNS)
_ASKED_FOR = "id, institution, source_id, accession, status, modality, findings_hash, split, excluded, signed_at"
_CHANGES = ", ".join(
    f"{column} = excluded.{column}"
    for column in _COLUMNS
    if column not in ("id", "institution", "source_id", "split", "version")
)

_STRENGTH = {status: number for number, status in enumerate(ReportStatus)}


def _strength(row: str, by_time: frozenset[ReportStatus], *, content: bool = True) -> str:
    """SQL of what makes one version of a report stronger than another; larger wins. With `content` it is one order over all versions that there can
    be, so that the strongest of a set is the same in whatever order they come."""
    rank, time = f"CASE {row}.status {_cases(_STRENGTH)} END", f"coalesce({row}.modified_at, '-infinity')"
    last = f", {row}.content_hash" if content else ""
    if not by_time:
        return f"({rank}, {time}{last})"
    alike = _STRENGTH | dict.fromkeys(by_time, max(_STRENGTH[status] for status in by_time))
    among = ", ".join(f"'{status}'" for status in sorted(by_time))
    return (
        f"(CASE {row}.status {_cases(alike)} END, CASE WHEN {row}.status IN ({among}) THEN {time} ELSE '-infinity' END,"
        f" {rank}, {time}{last})"
    )


def _cases(ranks: dict[ReportStatus, int]) -> str:
    return " ".join(f"WHEN '{status}' THEN {rank}" for status, rank in ranks.items())


_STAGE = f"""
CREATE TEMP TABLE IF NOT EXISTS ingest_staging ON COMMIT DELETE ROWS AS SELECT {_KEPT} FROM reports WITH NO DATA
"""  # noqa: S608 - constants of this module, as in the statements below
_FIRST = """
INSERT INTO report_versions
  (id, report_id, version, status, content_hash, findings_raw, impression_raw, author, reviewer, modified_at, ingested_at)
SELECT r.id, r.id, r.version, r.status, r.content_hash, r.findings_raw, r.impression_raw, r.author, r.reviewer, r.modified_at, r.ingested_at
FROM (SELECT DISTINCT institution, source_id FROM ingest_staging) k JOIN reports r USING (institution, source_id)
WHERE EXISTS (SELECT 1 FROM ingest_staging s WHERE s.source_id = r.source_id AND s.content_hash <> r.content_hash)
  AND NOT EXISTS (SELECT 1 FROM report_versions v WHERE v.report_id = r.id)
"""


@cache
def _upsert(by_time: frozenset[ReportStatus], live: bool) -> str:
    wins = f"{_strength('excluded', by_time)} > {_strength('reports', by_time)}"
    if live:
        as_strong = f"{_strength('excluded', by_time, content=False)} = {_strength('reports', by_time, content=False)}"
        wins += f" OR {as_strong} AND excluded.content_hash <> reports.content_hash"
    return f"""
INSERT INTO reports ({_KEPT})
SELECT DISTINCT ON (source_id) {_KEPT} FROM ingest_staging s ORDER BY source_id, {_strength("s", by_time)} DESC
ON CONFLICT (institution, source_id) DO UPDATE SET {_CHANGES}, updated_at = now()
WHERE {wins}
RETURNING id::text
"""  # noqa: S608


_VERSIONS = """
WITH fresh AS (
  SELECT DISTINCT ON (r.id, s.content_hash) s.*, r.id AS report_id
  FROM ingest_staging s JOIN reports r ON r.institution = s.institution AND r.source_id = s.source_id
  WHERE NOT EXISTS (SELECT 1 FROM report_versions v WHERE v.report_id = r.id AND v.content_hash = s.content_hash)
  ORDER BY r.id, s.content_hash, s.modified_at
),
numbered AS (
  SELECT f.*, (SELECT max(v.version) FROM report_versions v WHERE v.report_id = f.report_id) AS before,
    count(*) OVER (PARTITION BY f.report_id) AS together,
    row_number() OVER (PARTITION BY f.report_id ORDER BY f.modified_at NULLS FIRST, f.id) AS place
  FROM fresh f
)
INSERT INTO report_versions (id, report_id, version, status, content_hash, findings_raw, impression_raw, author, reviewer, modified_at)
SELECT gen_random_uuid(), report_id, coalesce(before, 0) + place, status, content_hash, findings_raw, impression_raw, author, reviewer, modified_at
FROM numbered WHERE before IS NOT NULL OR together > 1
"""
_NUMBER = """
UPDATE reports r SET version = v.version FROM ingest_staging s, report_versions v
WHERE r.institution = s.institution AND r.source_id = s.source_id
  AND v.report_id = r.id AND v.content_hash = r.content_hash AND r.version <> v.version
"""
_DUPLICATES = """
UPDATE reports r SET excluded = 'duplicate' FROM (
  SELECT id, row_number() OVER (PARTITION BY findings_hash ORDER BY id = ANY(%(changed)s::uuid[]), ingested_at, modified_at, source_id) AS place
  FROM reports WHERE excluded IS NULL AND status IN ('final', 'amended')
    AND findings_hash IN (SELECT findings_hash FROM reports WHERE id = ANY(%(changed)s::uuid[]) AND excluded IS NULL)
) d WHERE r.id = d.id AND d.place > 1
"""
_BY_KEY = """unnest(string_to_array(:ids, ',')) AS k (source_id),
LATERAL (SELECT * FROM reports WHERE institution = :institution AND source_id = k.source_id COLLATE "C" LIMIT 1) r"""
"""Reports by source id, which are pseudonyms and sent as one text: a list is made ready one by one. The limit leaves the planner no way but one look
into the index for each."""
_HELD = """
SELECT k.findings_hash FROM unnest(string_to_array(%s, ',')) AS k (findings_hash),
LATERAL (SELECT FROM reports
  WHERE findings_hash = k.findings_hash COLLATE "C" AND excluded IS NULL AND status IN ('final', 'amended') LIMIT 1) r
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """What one batch changed: reports that are new or stronger now, and sign-offs that wait for their score."""

    reports: int
    sign_offs: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """What we hold of a report: enough to see that a row brings nothing new."""

    content_hash: str
    modified_at: datetime | None


class _Line(NamedTuple):
    """One row for COPY. `findings_hash` is there when the report may train."""

    text: bytes
    id: str
    source_id: str
    accession: str | None
    findings_hash: str | None
    modified_at: datetime | None


@dataclass(frozen=True, slots=True)
class Lines:
    """A batch on its way: reports that nobody has seen before, and the others."""

    new: tuple[_Line, ...]
    others: tuple[_Line, ...]


def known(session: Session, institution: str, source_ids: Sequence[str]) -> dict[str, Known]:
    """What we hold of these reports, by pseudonym of the source's key."""
    query = sa.text(
        f"SELECT k.source_id, r.content_hash, r.modified_at FROM {_BY_KEY}"  # noqa: S608
    )
    rows = session.execute(query, {"institution": institution, "ids": ",".join(source_ids)})
    return {source_id: Known(content_hash, modified_at) for source_id, content_hash, modified_at in rows}


def _by_index(session: Session) -> None:
    """For this transaction: keys are looked up by index even where the planner's statistics are older than the table is large, as they are while a
    hospital is read for the first time; and nothing is compiled, which takes longer than any of these statements."""
    session.execute(sa.text("SELECT set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true)"))


def analyse(session: Session) -> None:
    """Brings the planner's statistics up to date after many rows, for the columns that are asked for; the server would do it for all of them by itself a
    minute later."""
    session.execute(sa.text(f"ANALYZE reports ({_ASKED_FOR})"))


def touch(session: Session, institution: str, times: dict[str, datetime]) -> None:
    """Notes a later time of change on reports whose content is what we hold, so that an older version that arrives late stays the older one."""
    _by_index(session)
    statement = sa.text(
        "UPDATE reports r SET modified_at = t.at FROM unnest(CAST(:ids AS text[]), CAST(:times AS timestamptz[])) AS t (source_id, at)"
        ' WHERE r.institution = :institution AND r.source_id = t.source_id COLLATE "C" AND (r.modified_at IS NULL OR r.modified_at < t.at)'
    )
    session.execute(statement, {"institution": institution, "ids": list(times), "times": list(times.values())})


def source_hashes(session: Session, institution: str, source_ids: Sequence[str]) -> dict[str, str]:
    """The source's own hashes of these reports' rows, as far as they are remembered."""
    query = sa.text(
        f"SELECT k.source_id, r.source_hash FROM {_BY_KEY} WHERE r.source_hash IS NOT NULL"  # noqa: S608
    )
    rows = session.execute(query, {"institution": institution, "ids": ",".join(source_ids)})
    return {row.source_id: row.source_hash for row in rows}


def remember(session: Session, institution: str, hashes: Mapping[str, str]) -> None:
    """Keeps the source's own hashes of rows that have been taken."""
    _by_index(session)
    statement = sa.text(
        "UPDATE reports r SET source_hash = h.hash FROM unnest(CAST(:ids AS text[]), CAST(:hashes AS text[])) AS h (source_id, hash)"
        ' WHERE r.institution = :institution AND r.source_id = h.source_id COLLATE "C"'
    )
    session.execute(statement, {"institution": institution, "ids": list(hashes), "hashes": list(hashes.values())})


def lines(
    institution: str, language: str, rows: Sequence[tuple[Incoming, Cleaned]], unseen: Container[str] = frozenset()
) -> Lines:
    """The rows in PostgreSQL's COPY text format: made by the thread that cleans, so that the one that stores only sends.

    `unseen` are source ids of which there was no report a moment ago. One that comes twice in a batch is treated as seen.
    """
    times = Counter([row.source_id for row, _ in rows])
    new: list[_Line] = []
    others: list[_Line] = []
    for line in _lines(institution, language, rows):
        (new if times[line.source_id] == 1 and line.source_id in unseen else others).append(line)
    return Lines(tuple(new), tuple(others))


def _lines(institution: str, language: str, rows: Sequence[tuple[Incoming, Cleaned]]) -> Iterator[_Line]:
    fixed = "\t".join(text_cells([institution, language, "1"]))
    clean = zip(
        text_cells([its.history for _, its in rows]),
        text_cells([its.prior_impression for _, its in rows]),
        coded_cells([its.removed or None for _, its in rows]),
        strict=True,
    )
    for identity, (one, its), (history, prior, removed) in zip(new_ids(len(rows)), rows, clean, strict=True):
        # most cells are there already: texts that cleaning left as they are, and the time of a report that was changed last when it was signed
        _, findings, impression, _ = one.content.split(b"\t", 3)
        if its.findings is not one.findings:
            findings = text_cells([its.findings])[0].encode()
        if its.impression is not one.impression:
            impression = text_cells([its.impression])[0].encode()
        modified = (
            one.content[one.content.rindex(b"\t") + 1 :]
            if one.modified_at == one.signed_at
            else copy_cells([one.modified_at])[0].encode()
        )
        rest = (
            f"{fixed}\t{identity}\t{one.source_id}\t{one.content_hash}\t{one.split}\t{history}\t{prior}"
            f"\t{its.findings_hash}\t{its.version}\t{removed}\t{its.excluded or NULL}\n"
        )
        yield _Line(
            b"%b\t%b\t%b\t%b\t%b" % (one.content, findings, impression, modified, rest.encode()),
            identity,
            one.source_id,
            one.accession,
            its.findings_hash if its.excluded is None and one.status in FINAL else None,
            one.modified_at,
        )


def store(
    session: Session,
    institution: str,
    lines: Lines,
    by_time: frozenset[ReportStatus] = frozenset(),
    *,
    live: bool = False,
) -> Stored:
    """Stores what `lines` made of one batch; `by_time` is the mapping's, and `live` rows are what their source says now. Never commits."""
    if not (lines.new or lines.others):
        return Stored(0, ())
    _by_index(session)
    driver = session.connection().connection.driver_connection
    assert isinstance(driver, psycopg.Connection)  # noqa: S101 - core.db.connect knows no other driver
    changed: list[str] = []
    with driver.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOAD_LOCK])
        others = lines.others
        if lines.new:
            try:
                with driver.transaction():
                    _copy(cursor, "reports", lines.new, _repeated(cursor, lines.new))
                changed += [line.id for line in lines.new]
            except UniqueViolation:  # somebody else has stored one of them since
                others = lines.new + lines.others
        if others:
            changed += _merge(cursor, others, by_time, live)
    accessions = [line.accession for line in (*lines.new, *lines.others) if line.accession is not None]
    return Stored(len(changed), tuple(_sign_offs(session, institution, accessions, changed)))


def _copy(cursor: psycopg.Cursor[tuple[str]], table: str, rows: Sequence[_Line], repeated: Container[str]) -> None:
    lines = [row.text if row.id not in repeated else _as_duplicate(row.text) for row in rows]
    with cursor.copy(f"COPY {table} ({_KEPT}) FROM STDIN") as copy:
        copy.write(b"".join(lines))


def _as_duplicate(line: bytes) -> bytes:
    """The line of a report that nothing has kept out so far."""
    return line.removesuffix(_STAYS) + b"duplicate\n"


_STAYS = f"{NULL}\n".encode()


def _repeated(cursor: psycopg.Cursor[tuple[str]], rows: Sequence[_Line]) -> set[str]:
    """Which of these new reports repeat the findings of one that trains already, or of an earlier one among themselves: what `_DUPLICATES` does
    to rows that are stored."""
    may_train = [row for row in rows if row.findings_hash is not None]
    if not may_train:
        return set()
    found = cursor.connection.execute(_HELD, [",".join([str(row.findings_hash) for row in may_train])])
    held = {each[0] for each in found.fetchall()}
    times = Counter([row.findings_hash for row in may_train])
    repeated = set()
    again = [row for row in may_train if times[row.findings_hash] > 1 or row.findings_hash in held]
    for row in sorted(again, key=lambda row: (row.modified_at or _LAST, row.source_id)):
        if row.findings_hash in held:
            repeated.add(row.id)
        held.add(row.findings_hash)
    return repeated


_LAST = datetime.max.replace(tzinfo=UTC)


def _merge(
    cursor: psycopg.Cursor[tuple[str]], rows: Sequence[_Line], by_time: frozenset[ReportStatus], live: bool
) -> list[str]:
    """Stores reports that may be there already, and keeps the versions that differ; returns those that are new or stronger now."""
    cursor.execute(_STAGE)
    cursor.execute("DELETE FROM ingest_staging")
    _copy(cursor, "ingest_staging", rows, frozenset())
    cursor.execute(_FIRST)
    changed = [each[0] for each in cursor.execute(_upsert(by_time, live)).fetchall()]
    cursor.execute(_VERSIONS)
    cursor.execute(_NUMBER)
    if changed:
        cursor.execute(_DUPLICATES, {"changed": changed})
    return changed


def _sign_offs(session: Session, institution: str, accessions: list[str], changed: list[str]) -> list[UUID]:
    """Tells core.sign_offs of every changed report whose accession a reporting system has asked about: signed, or taken back."""
    asked = set(
        session.exec(
            select(DraftRequest.accession)
            .where(DraftRequest.institution == institution)
            .where(col(DraftRequest.accession) == sa.any_(sa.func.string_to_array(",".join(accessions), ",")))
            .where(col(DraftRequest.state).not_in([RequestState.SUPERSEDED, RequestState.CANCELLED]))
        )
    )
    if not asked:
        return []
    query = (
        select(Report)
        .where(Report.institution == institution, col(Report.accession).in_(asked))
        .where(col(Report.id) == sa.any_(sa.literal(changed, sa.ARRAY(sa.Uuid(as_uuid=False)))))
        .order_by(col(Report.signed_at), col(Report.id))
    )
    found: list[UUID] = []
    for report in session.exec(query).all():
        if report.status in FINAL:
            found += sign_offs.match_ris(session, report)
        else:
            sign_offs.withdraw_ris(session, report)
    return found
