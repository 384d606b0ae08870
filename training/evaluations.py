"""Evaluations as rows: begun, taken up again, finished and read. Decides nothing and drafts nothing.

An evaluation belongs to exactly what drafted (`core.serving`), one dataset and one scorer; each case is stored as soon as it is judged, so
an evaluation that was stopped goes on where it was.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from clinical.score import SCORER_VERSION
from core.tables import Evaluation, JudgedCase, ModelVersion
from training.evaluate import summary
from training.measured import Measured

MODEL, BASELINE = "model:", "baseline:"
BARE = "base:"
"""Prefix of the base model of a version, without its adapter."""
POOL = "pool:"
REGRESSION = "regression:"
"""Prefix of the case ids of pinned regression cases, which stand in no table."""


def open_one(
    session: Session,
    subject: str,
    dataset: str,
    digest: str,
    *,
    model_version: str | None,
    scorer: str = SCORER_VERSION,
    result: Mapping[str, Any],
) -> Evaluation:
    """The evaluation of the same subject, artefact, dataset and scorer, finished or not, or a new one: cases may be added to either.

    `result` holds what is known before it begins: engine, weights, device.
    """
    row = session.exec(_same(subject, dataset, digest).where(Evaluation.scorer == scorer)).first()
    if row is None:
        row = Evaluation(
            subject=subject,
            model_version=model_version,
            dataset=dataset,
            artefact=digest,
            scorer=scorer,
            result=dict(result),
        )
        session.add(row)
        session.flush()
    return row


def earlier(session: Session, subject: str, dataset: str, digest: str, scorer: str) -> dict[str, Measured]:
    """What the same artefact drafted for the same dataset under another scorer: drafts that need no model to be scored anew."""
    row = session.exec(_same(subject, dataset, digest).where(Evaluation.scorer != scorer)).first()
    return {} if row is None else {one.case_id: one for one in _read(session, row.id)}


def _same(subject: str, dataset: str, digest: str) -> SelectOfScalar[Evaluation]:
    wanted = (Evaluation.subject == subject, Evaluation.dataset == dataset, Evaluation.artefact == digest)
    return select(Evaluation).where(*wanted).order_by(col(Evaluation.created_at).desc())


def keep(session: Session, evaluation: UUID, measured: Iterable[Measured]) -> None:
    """Stores judged cases; one that is there already stays as it is."""
    rows = [{"evaluation_id": evaluation, **_row(one)} for one in measured]
    if rows:
        session.execute(insert(JudgedCase).values(rows).on_conflict_do_nothing())


def done(session: Session, evaluation: UUID) -> set[str]:
    """Ids of the cases that are judged already."""
    return set(session.exec(select(JudgedCase.case_id).where(JudgedCase.evaluation_id == evaluation)))


def finish(session: Session, evaluation: UUID, **more: Any) -> Evaluation:
    """Writes the summary; from now on the evaluation counts."""
    row = session.get_one(Evaluation, evaluation)
    row.result = {**row.result, **more, "metrics": {**summary(cases(session, evaluation)), "scorer": row.scorer}}
    row.finished_at = session.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    session.add(row)
    session.flush()
    return row


def store(
    session: Session,
    version: ModelVersion,
    dataset: str,
    digest: str,
    measured: Sequence[Measured],
    result: Mapping[str, Any],
    *,
    scorer: str = SCORER_VERSION,
) -> Evaluation:
    """A whole evaluation of a version at once, as a training run makes it."""
    row = Evaluation(
        subject=f"{MODEL}{version.id}",
        model_version=version.id,
        dataset=dataset,
        artefact=digest,
        scorer=scorer,
        result=dict(result),
    )
    session.add(row)
    session.flush()
    keep(session, row.id, measured)
    return finish(session, row.id)


def cases(session: Session, evaluation: UUID) -> list[Measured]:
    """The judged cases of the tables, by id; pinned regression cases are not among them."""
    return [one for one in _read(session, evaluation) if not one.case_id.startswith(REGRESSION)]


def regressions(session: Session, evaluation: UUID) -> dict[UUID, Measured]:
    """The judged regression cases, by the id of the pinned case."""
    return {
        UUID(one.case_id.removeprefix(REGRESSION)): one
        for one in _read(session, evaluation)
        if one.case_id.startswith(REGRESSION)
    }


def newest(
    session: Session,
    subject: str,
    *,
    dataset: str | None = None,
    digest: str | None = None,
    scorer: str | None = f"{SCORER_VERSION}%",
) -> Evaluation | None:
    """The newest finished evaluation of a subject, of one dataset, artefact and scorer where they are named; a scorer that ends in % stands
    for every one that begins so, which is today's with whichever departments' words."""
    query = select(Evaluation).where(Evaluation.subject == subject, col(Evaluation.finished_at).is_not(None))
    for column, value in ((Evaluation.dataset, dataset), (Evaluation.artefact, digest)):
        if value is not None:
            query = query.where(column == value)
    if scorer is not None:
        query = query.where(col(Evaluation.scorer).like(scorer))
    return session.exec(query.order_by(col(Evaluation.finished_at).desc())).first()


def _read(session: Session, evaluation: UUID) -> list[Measured]:
    query = select(JudgedCase).where(JudgedCase.evaluation_id == evaluation).order_by(col(JudgedCase.case_id))
    return [
        Measured(
            case_id=row.case_id,
            institution=row.institution,
            modality=row.modality,
            systems=tuple(row.systems),
            sex=row.sex,
            age_band=row.age_band,
            draft=row.draft,
            outcome=row.outcome,
            scores=row.scores,
            issues={severity: tuple(kinds) for severity, kinds in row.issues.items()},
            degenerate=tuple(row.degenerate),
            finish=row.finish,
            new_tokens=row.new_tokens,
            seconds=row.seconds,
        )
        for row in session.exec(query)
    ]


def _row(one: Measured) -> dict[str, Any]:
    return {
        "case_id": one.case_id,
        "institution": one.institution,
        "modality": one.modality,
        "systems": list(one.systems),
        "sex": one.sex,
        "age_band": one.age_band,
        "draft": one.draft,
        "outcome": one.outcome,
        "scores": one.scores,
        "issues": {severity: list(kinds) for severity, kinds in one.issues.items()},
        "degenerate": list(one.degenerate),
        "finish": one.finish,
        "new_tokens": one.new_tokens,
        "seconds": one.seconds,
    }
