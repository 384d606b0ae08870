"""Blinded reading: the seven questions of the paper's Figure 9 in our words, what a reader is shown, and how an answer is kept.

A reader never learns who wrote a text: nothing that leaves this module names the writer. Studies are made and evaluated by `training.experts`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session, col, select

from core.errors import Invalid, NotFound
from core.tables import ExpertAssignment, ExpertRating, ExpertText

GRADES = ("junior", "intermediate", "senior")
BAND = 20
"""Points of each of the five bands between 0 and 100."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One question. `bands` run from 80-100 down to 0-20; high is good for every metric."""

    name: str
    chinese: str
    asks: str
    bands: tuple[str, str, str, str, str]

    def band(self, score: int) -> str:
        """The words of the band that a score lies in."""
        return self.bands[4 - min(4, score // BAND)]


_DIAGNOSES = (
    "very few",
    "relatively few",
    "a moderate number",
    "relatively serious",
    "extremely serious",
)

METRICS = (
    Metric(
        "understandability",
        "可理解性",
        "Is the impression easy for a layperson or clinician to understand and to explain, in plain concise language?",
        ("very easy", "fairly easy", "moderate", "somewhat difficult", "very difficult"),
    ),
    Metric(
        "coherence",
        "连贯性",
        "Is it logically clear, its parts connected rather than piled up?",
        ("highly coherent", "fairly coherent", "moderately coherent", "somewhat incoherent", "highly incoherent"),
    ),
    Metric(
        "relevance",
        "相关性",
        "Does it stay with the question and the findings?",
        ("highly relevant", "fairly relevant", "moderately relevant", "somewhat irrelevant", "completely irrelevant"),
    ),
    Metric(
        "conciseness",
        "简洁性",
        "Is it free of redundancy without losing what matters?",
        ("very concise", "fairly concise", "moderately concise", "somewhat verbose", "excessively wordy"),
    ),
    Metric(
        "clinical_utility",
        "临床实用性",
        "Does it help clinical judgement: condition, diagnosis, advice?",
        ("highly useful", "fairly useful", "moderately useful", "somewhat unhelpful", "completely useless"),
    ),
    Metric("missed_diagnosis", "漏诊", "Does it leave a disease unnamed that is there? High: hardly any.", _DIAGNOSES),
    Metric(
        "overdiagnosis",
        "过度诊断",
        "Does it name disease where the state is normal, or overcall a mild one? High: hardly any.",
        _DIAGNOSES,
    ),
)
NOTE = "Where the text is clinically irrelevant choose 0 or NA, copy the passage, and explain it briefly, one point a line."


@dataclass(frozen=True, slots=True)
class Reading:
    """One text as a reader sees it; `answered` are the metrics that have an answer."""

    assignment: UUID
    position: int
    modality: str
    exam_title: str | None
    findings: str
    impression: str
    answered: frozenset[str]


def readings(session: Session, study: str, reader: str) -> list[Reading]:
    """Everything that a reader is asked to read, in the reader's own order."""
    query = (
        select(ExpertAssignment, ExpertText)
        .join(ExpertText, col(ExpertText.id) == col(ExpertAssignment.text_id))
        .where(ExpertAssignment.study == study, ExpertAssignment.reader == reader)
        .order_by(col(ExpertAssignment.position))
    )
    rated = select(ExpertRating.assignment_id, ExpertRating.metric).join(
        ExpertAssignment, col(ExpertAssignment.id) == col(ExpertRating.assignment_id)
    )
    answered: dict[UUID, set[str]] = {}
    for assignment, metric in session.exec(
        rated.where(ExpertAssignment.study == study, ExpertAssignment.reader == reader)
    ):
        answered.setdefault(assignment, set()).add(metric)
    return [
        Reading(
            assignment.id,
            assignment.position,
            text.modality,
            text.exam_title,
            text.findings,
            text.impression,
            frozenset(answered.get(assignment.id, ())),
        )
        for assignment, text in session.exec(query)
    ]


def rate(
    session: Session,
    assignment: UUID,
    reader: str,
    metric: str,
    score: int | None,
    *,
    excerpts: Sequence[str] = (),
    explanations: Sequence[str] = (),
) -> None:
    """Keeps one answer; given again, the newer one stands. `score` None is NA.

    Raises:
        NotFound: the reader has no such assignment.
        Invalid: there is no such metric, the score is outside of 0-100, 0 or NA is not explained, or an excerpt is in neither text.
    """
    if metric not in {each.name for each in METRICS}:
        raise Invalid(f"There is no metric called {metric}; there are {', '.join(each.name for each in METRICS)}.")
    if score is not None and not 0 <= score <= 100:
        raise Invalid(f"{metric}: a score lies between 0 and 100, or is NA.")
    query = (
        select(ExpertText)
        .join(ExpertAssignment, col(ExpertAssignment.text_id) == col(ExpertText.id))
        .where(ExpertAssignment.id == assignment, ExpertAssignment.reader == reader)
    )
    text = session.exec(query).first()
    if text is None:
        raise NotFound("The reader has no such assignment.", code="unknown_assignment")
    passages = [each.strip() for each in excerpts if each.strip()]
    reasons = [each.strip() for each in explanations if each.strip()]
    if not score and not reasons:
        raise Invalid(f"{metric}: 0 and NA need an explanation.")
    both = _compact(text.impression) + "\n" + _compact(text.findings)
    for passage in passages:
        if _compact(passage) not in both:
            raise Invalid(f"{metric}: an excerpt is copied from the impression or the findings, word for word.")
    values = {"score": score, "excerpts": passages, "explanations": reasons}
    statement = insert(ExpertRating).values(assignment_id=assignment, metric=metric, **values)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["assignment_id", "metric"], set_={**values, "rated_at": sa.func.clock_timestamp()}
        )
    )


def _compact(text: str) -> str:
    return "".join(text.split())
