"""Which signed reports may train and which are tested on, by the policy: the way from the database to a frozen training set.

Reads the reports that ingest stored and the impressions that were signed here. Who may train is the institution's role, the patient's side of
the split, how far a draft of ours may have shaped the text, and what the checks said of it. Writes nothing but what `training.dataset` freezes.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Session, col, select

from clinical import cleaning
from clinical.issues import Severity
from clinical.text import findings_hash
from core import institutions, vocabulary
from core.db import database_now
from core.errors import NotFound, Refused
from core.identity import split_of
from core.states import ReportStatus, RequestState
from core.tables import Dataset, Draft, DraftRequest, Report, ScoreRow, SignOff
from training import dataset, variety
from training.dataset import Case, Plan
from training.policy import HUMAN, Candidate, Policy, chosen, stratum
from training.variety import Text
from worker.prompt import clinical_input

GRAVE = (Severity.WITHHOLD, Severity.RED)
"""Severities of an issue in a signed text with which it does not train."""


@dataclass(frozen=True, slots=True)
class _Signed:
    """A case with what decides on it. `findings` is their hash; `day` that of signing; `flagged`: it was signed with a grave issue."""

    case: Case
    patient: str
    findings: str
    exposure: str
    day: date | None
    flagged: bool


@dataclass(slots=True)
class _Sides:
    """Cases on either side so far, and hashes of all findings that are tested on, in the set or not."""

    train: list[_Signed] = field(default_factory=list)
    test: list[_Signed] = field(default_factory=list)
    tested: set[str] = field(default_factory=set)
    dropped: Counter[str] = field(default_factory=Counter)


def build(session: Session, home: Path, policy: Policy) -> Dataset:
    """Freezes the training set of this moment; the same reports and policy give the same id, and then the row that is there.

    Raises:
        Refused: nothing may be trained on, or what would train says less than people do (training.variety).
    """
    made = plan(session, home, policy)
    if not made.train:
        raise Refused(
            'There is no signed report to train on: an institution with role = "train" must have been read first '
            "(valuer ingest run, valuer ingest stats).",
            code="nothing_to_train_on",
        )
    sentence = variety.refusal(made.guards)
    if sentence is not None:
        raise Refused(sentence, code="too_little_variety")
    return dataset.freeze(session, home, policy, made)


def plan(session: Session, home: Path, policy: Policy) -> Plan:
    """What `build` would freeze now."""
    sides = _sides(session, home, policy)
    train = _apart(sides)
    older = {one.case.id for one in train if not policy.signed_within(one.day)}
    candidates = {
        one.case.id: Candidate(one.case.id, stratum(one.case.input), one.exposure, one.day, one.case.id in older)
        for one in train
    }
    taken, surplus = chosen(candidates.values(), policy)
    texts = [_text(one, candidates[one.case.id]) for one in train]
    return Plan(
        tuple(replace(one.case, weight=candidates[one.case.id].weight) for one in train if one.case.id in taken),
        tuple(one.case for one in sides.test),
        sides.dropped + surplus,
        len(older & taken),
        variety.guards((text for text in texts if text.id in taken), texts),
    )


def _text(one: _Signed, candidate: Candidate) -> Text:
    case = one.case
    return Text(case.id, candidate.stratum, case.signed, case.input.language, candidate.weight, one.exposure in HUMAN)


def _sides(session: Session, home: Path, policy: Policy) -> _Sides:
    """Every signed case on its side, but those that the policy leaves out."""
    roles = institutions.roles(session, database_now(session).date())
    exposures, flagged = _exposures(session), _flagged(session)
    sides = _Sides(tested=_tested_before(session, policy))
    excluded = frozenset(policy.exclude)

    def consider(institution: str, split: str, one: _Signed) -> None:
        on_test_side = roles.get(institution) != "train" or split == "test"
        if on_test_side:
            sides.tested.add(one.findings)
        if one.case.id in excluded:
            sides.dropped["excluded"] += 1
        elif not policy.covers(one.case.input):
            sides.dropped["not_in_policy"] += 1
        elif on_test_side:
            if one.exposure in HUMAN:
                sides.test.append(one)
            else:
                sides.dropped["test_text_may_be_shaped_by_a_draft"] += 1
        elif one.exposure not in policy.exposures:
            sides.dropped[f"exposure_{one.exposure}"] += 1
        elif one.flagged and not policy.red_issues:
            sides.dropped["red_issue_in_signed_text"] += 1
        elif policy.signed_within(one.day) or (one.exposure in HUMAN and policy.signed_before(one.day)):
            sides.train.append(one)
        else:
            sides.dropped["not_signed_within"] += 1

    query = select(Report).where(
        col(Report.status).in_([ReportStatus.FINAL, ReportStatus.AMENDED]),
        sa.or_(col(Report.excluded).is_(None), col(Report.excluded) == "duplicate"),
        col(Report.findings) != "",
        col(Report.impression) != "",
    )
    split_by: dict[tuple[str, str], str] = {}
    for row in session.exec(query.execution_options(yield_per=1000)):
        case = Case(
            f"report:{row.institution}/{row.source_id}",
            clinical_input(row, vocabulary.of(home, row.institution).phrases),
            row.impression.strip(),
        )
        patient = row.patient or row.accession or row.source_id
        split_by[(row.institution, patient)] = row.split
        findings = findings_hash(case.input.findings)
        if row.excluded is not None:
            if roles.get(row.institution) != "train" or row.split == "test":
                sides.tested.add(findings)  # its copy on the other side may not train either
            continue
        when = row.signed_at or row.reported_at or row.examined_at
        day = None if when is None else when.date()
        exposure = exposures.get(str(row.id), "unassisted")
        signed = _Signed(case, f"{row.institution}/{patient}", findings, exposure, day, row.id in flagged)
        consider(row.institution, row.split, signed)
    for sign_off, request in signed_here_only(session):
        phrases = vocabulary.of(home, request.institution).phrases
        text = cleaning.impression(sign_off.impression, terms=phrases).text.strip()  # as ingest stores an impression
        case = Case(f"sign_off:{sign_off.id}", clinical_input(request, phrases), text)
        split = split_by.get((request.institution, request.patient)) or split_of(request.patient)
        findings = findings_hash(case.input.findings)
        patient = f"{request.institution}/{request.patient}"
        day = sign_off.signed_at.date()
        signed = _Signed(case, patient, findings, sign_off.exposure, day, sign_off.id in flagged)
        consider(request.institution, split, signed)
    return sides


def _tested_before(session: Session, policy: Policy) -> set[str]:
    """Hashes of the findings that the sets of `policy.apart_from` are tested on. Raises NotFound for a set that is not there."""
    tested: set[str] = set()
    for identity in policy.apart_from:
        row = session.get(Dataset, identity)
        if row is None:
            raise NotFound(f"There is no training set {identity}; `valuer dataset list` shows those that are.")
        dataset.verify(Path(row.path), row.digest)
        tested |= {findings_hash(case.input.findings) for case in dataset.read(Path(row.path), dataset.TEST)}
    return tested


def _apart(sides: _Sides) -> Sequence[_Signed]:
    """What trains of a set with nothing on both sides: no patient, and no findings equal to any of the test side; equal findings train once."""
    patients = {one.patient for one in sides.test}
    seen = set(sides.tested)
    train = []
    for one in sorted(sides.train, key=lambda one: one.case.id):
        if one.patient in patients:
            sides.dropped["patient_is_tested_on"] += 1
        elif one.findings in seen:
            sides.dropped["findings_occur_elsewhere"] += 1
        else:
            seen.add(one.findings)
            train.append(one)
    return train


def _exposures(session: Session) -> dict[str, str]:
    """Report id to the exposure class of the sign-off of its present text, else of its newest one; a report that no draft was made for is not
    in it.

    A report that belongs to no sign-off although its examination had a draft before it was signed (a request that was cancelled) may
    be that draft, word for word.
    """
    drafted = (
        sa.select(col(Report.id), sa.literal("verbatim"))
        .join(
            DraftRequest,
            sa.and_(
                col(DraftRequest.institution) == col(Report.institution),
                col(DraftRequest.accession) == col(Report.accession),
            ),
        )
        .join(Draft, col(Draft.request_id) == col(DraftRequest.id))
        .where(
            col(Draft.role) == "serving",
            sa.or_(col(Report.signed_at).is_(None), col(Draft.created_at) < col(Report.signed_at)),
        )
    )
    present = col(SignOff.report_version) == col(Report.version)
    known = (
        sa.select(col(SignOff.report_id), col(SignOff.exposure))
        .join(Report, col(Report.id) == col(SignOff.report_id))
        .order_by(sa.func.coalesce(present, False), col(SignOff.version))
    )
    found = {str(report): exposure for report, exposure in session.execute(drafted)}
    return found | {str(report): exposure for report, exposure in session.execute(known)}


def _flagged(session: Session) -> frozenset[UUID]:
    """Sign-offs whose text has an issue that would pin or withhold a draft, by what the checks said when it was last scored, and reports
    whose present text is one of these. A text that was signed anew without the issue is not among them."""
    issues = col(ScoreRow.detail)["signed_issues"]
    grave = sa.or_(*(issues.contains([{"severity": severity.value}]) for severity in GRAVE))
    scored = sa.select(col(ScoreRow.sign_off_id), grave).order_by(col(ScoreRow.created_at), col(ScoreRow.id))
    newest = {identity: bool(found) for identity, found in session.execute(scored)}
    sign_offs = {identity for identity, found in newest.items() if found}
    present = (
        sa.select(col(SignOff.report_id), col(SignOff.id))
        .join(Report, col(Report.id) == col(SignOff.report_id))
        .where(col(SignOff.report_version) == col(Report.version))
    )
    return frozenset(sign_offs | {report for report, identity in session.execute(present) if identity in sign_offs})


def signed_here_only(session: Session, since: datetime | None = None) -> Iterable[tuple[SignOff, DraftRequest]]:
    """Newest sign-offs of this page and API, after `since`, whose examination no ingested report covers: where there is one, the RIS's text wins."""
    newest = sa.select(col(SignOff.request_id), sa.func.max(SignOff.version).label("version")).group_by(
        col(SignOff.request_id)
    )
    last = newest.subquery()
    covered = sa.exists().where(
        col(Report.institution) == col(DraftRequest.institution), col(Report.accession) == col(DraftRequest.accession)
    )
    query = (
        select(SignOff, DraftRequest)
        .join(last, sa.and_(col(SignOff.request_id) == last.c.request_id, col(SignOff.version) == last.c.version))
        .join(DraftRequest, col(DraftRequest.id) == col(SignOff.request_id))
        .where(SignOff.place == "here", DraftRequest.state == RequestState.SIGNED, ~covered)
    )
    if since is not None:
        query = query.where(col(SignOff.signed_at) > since)
    return session.exec(query)
