"""One batch into `reports`, in one transaction of its caller: COPY to a staging table, one upsert, versions, duplicates, sign-offs, cursor.

What stands in `reports` is the strongest version by (status, source's time, content), whatever the order of arrival; every version that differs is
kept in `report_versions`. Loading the same rows again changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg
import sqlalchemy as sa
from sqlmodel import Session, col, select

from core import requests
from core.db import new_id
from core.states import ReportStatus, RequestState
from core.tables import DraftRequest, Report
from ingest.cleaning import VERSION, Cleaned
from ingest.rows import FINAL, Incoming

LOAD_LOCK = 0x76616C75_6572_0001
"""Batches are stored one after another, so that of two reports with the same findings exactly one counts as the duplicate."""

_COLUMNS = (
    "id", "version_id", "institution", "source_id", "accession", "patient", "status", "content_hash", "findings_hash", "language", "modality",
    "systems", "exam_title", "sex", "age", "patient_class", "history", "prior_impression", "findings_raw", "impression_raw", "findings",
    "impression", "cleaning_version", "author", "author_grade", "reviewer", "reviewer_grade", "examined_at", "reported_at", "signed_at",
    "modified_at", "split", "excluded",
)  # fmt: skip
_STAGED = ", ".join(_COLUMNS)
_KEPT = ", ".join(column for column in _COLUMNS if column != "version_id")
_CHANGES = ", ".join(
    f"{column} = excluded.{column}"
    for column in _COLUMNS
    if column not in ("id", "version_id", "institution", "source_id", "split")
)

_STRENGTH = {status: number for number, status in enumerate(ReportStatus)}


def _strength(row: str) -> str:
    """SQL of what makes one version of a report stronger than another; larger wins."""
    ranks = " ".join(f"WHEN '{status}' THEN {rank}" for status, rank in _STRENGTH.items())
    return f"(CASE {row}.status {ranks} END, coalesce({row}.modified_at, '-infinity'), {row}.content_hash)"


_STAGE = f"""
CREATE TEMP TABLE IF NOT EXISTS ingest_staging ON COMMIT DELETE ROWS AS
SELECT {_KEPT}, id AS version_id FROM reports WITH NO DATA
"""  # noqa: S608 - constants of this module, as in the statements below
_UPSERT = f"""
INSERT INTO reports ({_KEPT}, version)
SELECT DISTINCT ON (source_id) {_KEPT}, 1 FROM ingest_staging s ORDER BY source_id, {_strength("s")} DESC
ON CONFLICT (institution, source_id) DO UPDATE SET {_CHANGES}, updated_at = now()
WHERE {_strength("excluded")} > {_strength("reports")}
RETURNING id
"""  # noqa: S608
_VERSIONS = """
WITH latest AS (SELECT report_id, max(version) AS version FROM report_versions WHERE report_id IN (SELECT id FROM ingest_touched) GROUP BY report_id),
fresh AS (
  SELECT DISTINCT ON (t.id, s.content_hash) s.*, t.id AS report_id
  FROM ingest_staging s JOIN ingest_touched t USING (source_id)
  WHERE NOT EXISTS (SELECT 1 FROM report_versions v WHERE v.report_id = t.id AND v.content_hash = s.content_hash)
  ORDER BY t.id, s.content_hash, s.modified_at
)
INSERT INTO report_versions (id, report_id, version, status, content_hash, findings_raw, impression_raw, author, reviewer, modified_at)
SELECT f.version_id, f.report_id,
  coalesce(l.version, 0) + row_number() OVER (PARTITION BY f.report_id ORDER BY f.modified_at NULLS FIRST, f.version_id),
  f.status, f.content_hash, f.findings_raw, f.impression_raw, f.author, f.reviewer, f.modified_at
FROM fresh f LEFT JOIN latest l USING (report_id)
"""
_TOUCHED = """
CREATE TEMP TABLE IF NOT EXISTS ingest_touched (id uuid, source_id text COLLATE "C") ON COMMIT DELETE ROWS
"""
_TOUCH = """
INSERT INTO ingest_touched
SELECT r.id, r.source_id FROM reports r WHERE r.institution = %s AND r.source_id IN (SELECT source_id FROM ingest_staging)
"""
_NUMBER = """
UPDATE reports r SET version = v.version FROM report_versions v
WHERE r.id IN (SELECT id FROM ingest_touched) AND v.report_id = r.id AND v.content_hash = r.content_hash AND r.version <> v.version
"""
_DUPLICATES = """
UPDATE reports r SET excluded = 'duplicate' FROM (
  SELECT id, row_number() OVER (PARTITION BY findings_hash ORDER BY id = ANY(%(changed)s), ingested_at, modified_at, source_id) AS place
  FROM reports WHERE excluded IS NULL AND status IN ('final', 'amended')
    AND findings_hash IN (SELECT findings_hash FROM reports WHERE id = ANY(%(changed)s) AND excluded IS NULL)
) d WHERE r.id = d.id AND d.place > 1
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


def known(session: Session, institution: str, source_ids: Sequence[str]) -> dict[str, Known]:
    """What we hold of these reports, by pseudonym of the source's key."""
    query = sa.text(
        "SELECT source_id, content_hash, modified_at FROM reports WHERE institution = :institution AND source_id = ANY(:ids)"
    )
    rows = session.execute(query, {"institution": institution, "ids": list(source_ids)})
    return {source_id: Known(content_hash, modified_at) for source_id, content_hash, modified_at in rows}


def touch(session: Session, institution: str, times: dict[str, datetime]) -> None:
    """Notes a later time of change on reports whose content is what we hold, so that an older version that arrives late stays the older one."""
    statement = sa.text(
        "UPDATE reports r SET modified_at = t.at FROM unnest(CAST(:ids AS text[]), CAST(:times AS timestamptz[])) AS t (source_id, at)"
        " WHERE r.institution = :institution AND r.source_id = t.source_id AND (r.modified_at IS NULL OR r.modified_at < t.at)"
    )
    session.execute(statement, {"institution": institution, "ids": list(times), "times": list(times.values())})


def lines(institution: str, language: str, rows: Sequence[tuple[Incoming, Cleaned]]) -> bytes:
    """The rows as PostgreSQL's COPY text format, in one piece: made by the thread that cleans, so that the one that stores only sends."""
    return "".join([_line(_staged(institution, language, row, cleaned)) for row, cleaned in rows]).encode()


def store(session: Session, institution: str, copy_lines: bytes) -> Stored:
    """Stores what `lines` made of one batch. Never commits."""
    if not copy_lines:
        return Stored(0, ())
    driver = session.connection().connection.driver_connection
    assert isinstance(driver, psycopg.Connection)  # noqa: S101 - core.db.connect knows no other driver
    with driver.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOAD_LOCK])
        for statement in (_STAGE, _TOUCHED, "DELETE FROM ingest_staging", "DELETE FROM ingest_touched"):
            cursor.execute(statement)
        with cursor.copy(f"COPY ingest_staging ({_STAGED}) FROM STDIN") as copy:
            copy.write(copy_lines)
        changed = [each[0] for each in cursor.execute(_UPSERT).fetchall()]
        cursor.execute(_TOUCH, [institution])
        cursor.execute(_VERSIONS)
        cursor.execute(_NUMBER)
        if changed:
            cursor.execute(_DUPLICATES, {"changed": changed})
    return Stored(len(changed), tuple(_sign_offs(session, institution, changed)))


def _staged(
    institution: str, language: str, row: Incoming, cleaned: Cleaned
) -> tuple[str | int | datetime | UUID | None, ...]:
    return (
        new_id(), new_id(), institution, row.source_id, row.accession, row.patient, row.status.value, row.content_hash, cleaned.findings_hash,
        language, row.modality.value, f"{{{','.join(row.systems)}}}", row.exam_title, row.sex.value, row.age, row.patient_class,
        cleaned.history, cleaned.prior_impression, row.findings, row.impression, cleaned.findings, cleaned.impression, VERSION, row.author,
        row.author_grade, row.reviewer, row.reviewer_grade, row.examined_at, row.reported_at, row.signed_at, row.modified_at, row.split,
        cleaned.excluded,
    )  # fmt: skip


def _line(values: Sequence[str | int | datetime | UUID | None]) -> str:
    return "\t".join(["\\N" if value is None else _escaped(str(value)) for value in values]) + "\n"


def _escaped(text: str) -> str:
    """What COPY reads as `text`; plain replacing is far quicker here than a translation table."""
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _sign_offs(session: Session, institution: str, changed: list[UUID]) -> list[UUID]:
    """Tells core.requests of every final report whose accession a reporting system has asked about."""
    asked = (
        select(DraftRequest.id)
        .where(DraftRequest.institution == institution, DraftRequest.accession == Report.accession)
        .where(col(DraftRequest.state).not_in([RequestState.SUPERSEDED, RequestState.CANCELLED]))
        .exists()
    )
    query = (
        select(Report)
        .where(col(Report.id).in_(changed), col(Report.status).in_(FINAL), asked)
        .order_by(col(Report.signed_at), col(Report.id))
    )
    return [
        sign_off for report in session.exec(query).all() for sign_off in requests.match_ris_sign_off(session, report)
    ]
