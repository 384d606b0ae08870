"""One whole assessment: models and baselines over the same cases, each kept case by case, then everything that a report needs.

Opens no engine and prints nothing: whoever calls it brings what drafts. Stopped anywhere, it goes on where it was.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from core.db import transaction
from core.tables import Dataset, Evaluation, RegressionCase
from training import evaluations
from training.baselines import Baseline
from training.dataset import Case, from_line
from training.evaluate import House, Judged, judge_text, judged_again, scorer
from training.measured import Measured
from training.report import Report
from training.tables import tables
from training.utility import Utility

Drafting = Callable[[Sequence[Case]], Iterable[Judged]]
"""Drafts the cases it is given and yields them judged, in any order."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is assessed: its name, the digest of what drafts, and how it does. `told` says how its drafts were made; `energy` reads what drafting
    has used so far (training.energy)."""

    name: str
    digest: str
    drafting: Drafting
    model_version: str | None = None
    told: Mapping[str, Any] = field(default_factory=dict)
    energy: Callable[[], float | None] = lambda: None


def assess(
    database: sa.Engine,
    subject: Subject,
    dataset: str,
    cases: Sequence[Case],
    house: Mapping[str, House],
    on_case: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Judges every case that is not judged yet; `on_case` gets the number that is done, those of an earlier try included.

    Drafts of the same artefact that an earlier scorer judged are judged again, not drafted again. Seconds, tokens and joules are of the
    sessions that came to their end.
    """
    with transaction(database) as session:
        row = evaluations.open_one(
            session,
            subject.name,
            dataset,
            subject.digest,
            model_version=subject.model_version,
            scorer=scorer(house),
            result=subject.told,
        )
        done = evaluations.done(session, row.id)
        before = evaluations.earlier(session, subject.name, dataset, subject.digest, scorer(house))
    missing = [case for case in cases if case.id not in done]
    known = [case for case in missing if case.id in before]
    new = [case for case in missing if case.id not in before]
    count = len(cases) - len(missing)
    on_case(count)
    began, before_j, tokens = time.monotonic(), subject.energy() if new else None, 0
    again = (judged_again(case, before[case.id], house.get(case.input.institution, House())) for case in known)
    for judged in chain(again, subject.drafting(new) if new else ()):
        with transaction(database) as session:
            evaluations.keep(session, row.id, [judged.measured()])
        tokens += judged.new_tokens if judged.case.id not in before else 0
        count += 1
        on_case(count)
    with transaction(database) as session:
        if not missing and row.finished_at is not None:
            return session.get_one(Evaluation, row.id)
        spent: dict[str, float] = {}
        if new:
            spent = {"elapsed_s": time.monotonic() - began, "elapsed_tokens": tokens}
            after_j = subject.energy()
            if before_j is not None and after_j is not None:
                spent |= {"joules": after_j - before_j, "joules_reports": len(new)}
        return evaluations.finish(
            session, row.id, **{name: round(row.result.get(name, 0) + value, 2) for name, value in spent.items()}
        )


def of_text(baseline: Baseline, house: Mapping[str, House]) -> Drafting:
    """A baseline as something that drafts."""

    def draft(cases: Sequence[Case]) -> Iterator[Judged]:
        for case in cases:
            yield judge_text(case, baseline(case), house.get(case.input.institution, House()))

    return draft


def text_digest(name: str, taught: str) -> str:
    """What a baseline belongs to in place of an artefact: its name and the digest of the training set it looks into."""
    return hashlib.sha256(f"{name}/{taught}".encode()).hexdigest()


def pinned(session: Session) -> list[Case]:
    """The regression cases, as cases to draft; their ids say what they are."""
    rows = session.exec(select(RegressionCase).where(col(RegressionCase.retired_at).is_(None)))
    made = []
    for row in rows:
        case = from_line(json.dumps(row.case))
        made.append(Case(f"{evaluations.REGRESSION}{row.id}", case.input, case.signed))
    return made


def pin(
    session: Session,
    case: Case,
    *,
    forbids: Sequence[str],
    fact_floor: float,
    why: str,
    approved_by: str,
) -> RegressionCase:
    """Makes a regression case of a confirmed mistake. From now on every candidate has to draft it without the kinds that it forbids."""
    row = RegressionCase(
        institution=case.input.institution,
        case=json.loads(case.as_line()),
        forbids=sorted(forbids),
        fact_floor=fact_floor,
        why=why,
        approved_by=approved_by,
    )
    session.add(row)
    session.flush()
    return row


def report(
    session: Session,
    title: str,
    data: Dataset,
    measured: Mapping[str, Sequence[Measured]],
    *,
    about: Mapping[str, str],
    utilities: Sequence[Utility] = (),
    papers: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Report:
    """The report on subjects that were judged on one dataset."""
    tested = data.counts["test"].get("institution", {})
    facts = {
        "dataset": f"{data.id} ({data.digest[:12]}), tested on its test part only",
        "trained on": ", ".join(f"{name} {count}" for name, count in data.counts["train"]["institution"].items()),
        **about,
    }
    made = tables(
        measured,
        institutions=sorted(tested),
        in_house=frozenset(data.counts["train"]["institution"]),
    )
    return Report(title, facts, made, tuple(utilities), tuple(papers), tuple(notes))


def as_json(subject: str, row: Evaluation, utility: Utility | None = None) -> dict[str, Any]:
    """One subject for a program."""
    told: dict[str, Any] = {"subject": subject, "evaluation": str(row.id), **row.result["metrics"]}
    if utility is not None:
        told["utility"] = asdict(utility)
    return told
