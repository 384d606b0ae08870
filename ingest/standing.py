"""What ingest has: where each institution stands, and the table of what there is to learn from. Reads our own database only."""

from collections import Counter
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session

from ingest import cursor, duplicates

_STATUS = """
SELECT i.code, i.name, i.sandbox, c.polled_at, extract(epoch FROM clock_timestamp() - c.polled_at) AS fresh_s, c.skew_ms, c.failure, c.failed_at,
  c.failing_since, c.failure_message, c.next_at, s.rows_read, s.position_at, extract(epoch FROM clock_timestamp() - s.position_at) AS lag_s,
  (SELECT count(*) FROM reports WHERE institution = i.code) AS reports,
  (SELECT count(*) FROM quarantine WHERE institution = i.code AND resolved_at IS NULL) AS quarantined,
  d.reconciled_at, d.fetched, d.absent, b.days, b.done
FROM institutions i
LEFT JOIN cursors c ON c.institution = i.code AND c.stream = :whole
LEFT JOIN LATERAL (SELECT coalesce(sum(rows_read), 0) AS rows_read, max(position_at) AS position_at FROM cursors WHERE institution = i.code) s ON true
LEFT JOIN LATERAL (
  SELECT max(compared_at) AS reconciled_at, sum(fetched) AS fetched, sum(absent) AS absent FROM reconciled_days WHERE institution = i.code
) d ON true
LEFT JOIN LATERAL (SELECT count(*) AS days, count(done_at) AS done FROM backfill_days WHERE institution = i.code) b ON true
ORDER BY i.code
"""


def status(session: Session) -> list[dict[str, Any]]:
    """Where each institution stands. `fresh_s` is the age of the last good poll, `lag_s` that of the last row by the source's own time; the failure
    stands with its sentence and since when; the rest says what comes next and what the lanes beside the polls have done."""
    return [
        {
            "name": row.code,
            "title": row.name,
            "sandbox": row.sandbox,
            "polled_at": _iso(row.polled_at),
            "fresh_s": _rounded(row.fresh_s),
            "next_at": _iso(row.next_at),
            "position_at": _iso(row.position_at),
            "lag_s": _rounded(row.lag_s),
            "skew_ms": row.skew_ms,
            "failure": row.failure,
            "message": row.failure_message,
            "failed_at": _iso(row.failed_at),
            "failing_since": _iso(row.failing_since),
            "rows_read": int(row.rows_read),
            "reports": row.reports,
            "quarantined": row.quarantined,
            "reconciled": None
            if row.reconciled_at is None
            else {"at": _iso(row.reconciled_at), "fetched": int(row.fetched), "absent": int(row.absent)},
            "backfill": {"days": row.days, "done": row.done} if row.days else None,
        }
        for row in session.execute(sa.text(_STATUS), {"whole": cursor.WHOLE})
    ]


def searched(session: Session) -> dict[str, Any] | None:
    """The newest search for duplicates; one without an end runs, or was stopped and the next goes on. None: there was none."""
    run = duplicates.last(session)
    if run is None:
        return None
    return {
        "began_at": _iso(run.began_at),
        "ended_at": _iso(run.ended_at),
        "waiting": run.waiting,
        "examined": run.examined,
        "near": run.near,
        "exact": run.exact,
    }


def stats(session: Session) -> list[dict[str, Any]]:
    """What could be learnt from, as Table 1 of the paper counts it: per institution and split the reports by sex, modality and body system,
    and the range of ages; beside it, how many reports are kept out and why. A report of two systems counts in both."""
    query = sa.text(
        "SELECT institution, split, sex, modality, systems, CASE WHEN status IN ('final', 'amended') THEN excluded ELSE status END AS kept_out,"
        " count(*) AS number, min(age) AS youngest, max(age) AS oldest FROM reports GROUP BY 1, 2, 3, 4, 5, 6"
    )
    tables: dict[tuple[str, str], dict[str, Any]] = {}
    for row in session.execute(query):
        empty: dict[str, Any] = {
            "reports": 0,
            "age": None,
            "sex": Counter(),
            "modality": Counter(),
            "system": Counter(),
            "kept_out": Counter(),
        }
        table = tables.setdefault((row.institution, row.split), empty)
        if row.kept_out is not None:
            table["kept_out"][row.kept_out] += row.number
            continue
        table["reports"] += row.number
        table["sex"][row.sex] += row.number
        table["modality"][row.modality] += row.number
        for system in row.systems or ("unknown",):
            table["system"][system] += row.number
        ages = [age for age in (*(table["age"] or ()), row.youngest, row.oldest) if age is not None]
        table["age"] = [min(ages), max(ages)] if ages else None
    return [
        {"institution": institution, "split": split, **table} for (institution, split), table in sorted(tables.items())
    ]


def _rounded(seconds: Any) -> float | None:
    return None if seconds is None else round(float(seconds), 1)


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
