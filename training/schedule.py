"""When to train again without being asked: by the clock, after so many newly signed reports, or when drafts drift.

Each schedule starts a fresh run on all eligible data. The training worker looks whenever it has nothing to do; nothing is promoted by a schedule.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from celery.schedules import ParseException, crontab
from sqlmodel import Session, col, select

from core import audit, institutions, logs, processes
from core.db import database_now
from core.errors import NotFound, Refused
from core.identity import split_of
from core.states import ReportStatus
from core.tables import Report, TrainingRun, TrainingSchedule
from training import runs
from training.drift import drifting
from training.eligible import signed_here_only
from training.profiles import profile as recipe
from training.utility import quantised_bytes

BY = "process:schedule"


@dataclass(frozen=True, slots=True)
class Fresh:
    """How many texts there are, and how many by institution × system; a text of two systems is in the stratum of each."""

    texts: int
    strata: dict[str, int]


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run started now would find. `new` are reports signed since the schedule's last run, by institution × system; `hours` is from the
    pace of the newest run of the same profile, None where there was none; `weights_bytes` is what the base alone takes in 4 bits, None where
    it is not on this machine yet."""

    new: dict[str, int]
    eligible: int
    hours: float | None
    weights_bytes: int | None
    blockers: tuple[str, ...]


def put(
    session: Session,
    name: str,
    profile: str,
    options: runs.Options,
    actor: str,
    *,
    cron: str | None = None,
    after_reports: int | None = None,
    on_drift: bool = False,
) -> TrainingSchedule:
    """Makes or changes a schedule.

    Raises:
        Refused: it says no occasion, or its cron line or profile is not valid.
    """
    recipe(profile, **options.changes)
    if cron is None and after_reports is None and not on_drift:
        raise Refused("A schedule needs an occasion: --cron, --after or --on-drift.")
    if cron is not None:
        _crontab(cron)
    row = session.get(TrainingSchedule, name) or TrainingSchedule(name=name, profile=profile, created_by=actor)
    row.profile, row.options = profile, asdict(options)
    row.cron, row.after_reports, row.on_drift = cron, after_reports, on_drift
    session.add(row)
    session.flush()
    audit.record(session, actor, "schedule.set", f"schedule:{name}", cron=cron, after=after_reports, on_drift=on_drift)
    return row


def remove(session: Session, name: str, actor: str) -> None:
    """Forgets a schedule; its runs stay. Raises NotFound."""
    row = session.get(TrainingSchedule, name)
    if row is None:
        raise NotFound(f"There is no schedule {name}; `valuer train schedule list` shows those that are.")
    session.delete(row)
    audit.record(session, actor, "schedule.removed", f"schedule:{name}")


def due(session: Session, row: TrainingSchedule) -> str | None:
    """Why the schedule is due now; None when it is not. It never is while its last run has not ended, or when nothing was signed since."""
    if row.last_run is not None and runs.get(session, row.last_run).state not in runs.ENDED:
        return None
    fresh = signed_since(session, _since(row)).texts
    if not fresh:
        return None
    if row.after_reports is not None and fresh >= row.after_reports:
        return f"{fresh} newly signed reports"
    if row.cron is not None and _passed(row.cron, _since(row), database_now(session)):
        return f"the clock ({row.cron})"
    # what a run has answered is no reason for the next one: the same drift goes on until somebody promotes what was trained
    trained = None if row.last_run_at is None else row.last_run_at.date()
    if row.on_drift and (houses := drifting(session, trained)):
        return f"drift at {', '.join(houses)}"
    return None


def start_due(session: Session) -> list[TrainingRun]:
    """Queues a run for every schedule that is due; two workers that look at once start one."""
    query = select(TrainingSchedule).order_by(col(TrainingSchedule.name)).with_for_update(skip_locked=True)
    started = []
    for row in session.exec(query):
        reason = due(session, row)
        if reason is None:
            continue
        try:
            run = runs.start(session, row.profile, runs.chosen(row.options), BY)
        except Refused as error:  # made by an earlier release, or its set is gone: the others go on
            logs.event("schedule_refused", level=logging.WARNING, schedule=row.name, error=error.code)
            continue
        row.last_run, row.last_run_at = run.id, database_now(session)
        session.add(row)
        audit.record(session, BY, "schedule.started", f"schedule:{row.name}", run=str(run.id), reason=reason)
        started.append(run)
    return started


def signed_since(session: Session, since: datetime | None) -> Fresh:
    """Texts that may train and came in since: reports that were read, and impressions signed here that no report covers."""
    roles = institutions.roles(session, database_now(session).date())
    teaching = [code for code, role in roles.items() if role == "train"]
    query = (
        sa.select(col(Report.institution), col(Report.systems), sa.func.count())
        .where(col(Report.institution).in_(teaching), col(Report.split) == "train", col(Report.excluded).is_(None))
        .where(col(Report.status).in_([ReportStatus.FINAL, ReportStatus.AMENDED]))
        .group_by(col(Report.institution), col(Report.systems))
    )
    if since is not None:
        query = query.where(col(Report.ingested_at) > since)
    found = [(institution, systems, count) for institution, systems, count in session.execute(query)]
    for _, request in signed_here_only(session, since):
        if request.institution in teaching and split_of(request.patient) == "train":
            found.append((request.institution, request.systems, 1))
    strata: Counter[str] = Counter()
    for institution, systems, count in found:
        for system in systems:
            strata[f"{institution} × {system}"] += count
    return Fresh(sum(count for _, _, count in found), dict(sorted(strata.items())))


def preview(session: Session, profile: str, base: Path, row: TrainingSchedule | None = None) -> Preview:
    """What starting `profile` on the base model in the folder `base` would find; `row` is the schedule that would start it."""
    new = signed_since(session, None if row is None else _since(row))
    every = signed_since(session, None).texts
    blockers = []
    if not every:
        blockers.append('no report may train: an institution with role = "train" must have been read first')
    elif not new.texts:
        blockers.append("nothing was signed since the last run")
    if not processes.alive(session, "training"):
        blockers.append("no training worker runs: `valuer up` starts one")
    waiting = [run for run in runs.newest(session) if run.state not in runs.ENDED]
    if waiting:
        blockers.append(f"{len(waiting)} runs wait or run before it")
    return Preview(new.strata, every, _hours(session, profile, every), quantised_bytes(base), tuple(blockers))


def _hours(session: Session, profile: str, reports: int) -> float | None:
    query = sa.text(
        "SELECT v.manifest->'training' FROM training_runs r JOIN model_versions v ON v.id = r.model_version "
        "WHERE r.profile = :profile ORDER BY r.ended_at DESC LIMIT 1"
    ).bindparams(profile=profile)
    told: Mapping[str, Any] | None = session.execute(query).scalar_one_or_none()
    if not told or not told.get("examples") or not told.get("seconds"):
        return None
    return float(told["seconds"]) / float(told["examples"]) * reports / 3600


def _since(row: TrainingSchedule) -> datetime:
    return row.last_run_at or row.created_at


def _passed(line: str, since: datetime, now: datetime) -> bool:
    """Whether an occasion of the cron line lies between the two times; UTC."""
    schedule = _crontab(line)
    schedule.nowfun = lambda: now
    return bool(schedule.is_due(since).is_due)


def _crontab(line: str) -> Any:
    try:
        return crontab.from_string(line)
    except (ParseException, ValueError, TypeError):
        raise Refused(
            f'{line!r} is no cron line: minute, hour, day of month, month, day of week, such as "0 2 * * 6".'
        ) from None
