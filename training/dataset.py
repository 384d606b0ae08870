"""Frozen training sets: what has been signed, split, filtered and written once under its own hash.

Reads the reports that ingest stored and the impressions that were signed here; writes files and one row, and never changes either
again. Who may train is the institution's role, the patient's side of the split, and how far a draft of ours may have shaped the text.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from clinical.case import AGE_BANDS, ClinicalInput, Modality, Sex, System
from clinical.text import clean, deidentify, findings_hash
from core.db import new_id
from core.errors import Broken, Refused
from core.identity import split_of
from core.states import ReportStatus, RequestState
from core.tables import Dataset, DraftRequest, Institution, Report, SignOff
from worker.prompt import clinical_input

TRAIN, TEST, CARD = "train.jsonl", "test.jsonl", "card.md"
UNTOUCHED = frozenset({"unassisted", "hold_back", "not_opened"})
"""Exposure classes of texts that no draft of ours can have shaped; only these are a reference to measure by."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What goes into a training set. Empty means all; `exposures` are the classes of signed text that train (checks-and-learning, D1)."""

    institutions: tuple[str, ...] = ()
    systems: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    exposures: tuple[str, ...] = ("unassisted", "hold_back", "not_opened", "light_edit", "heavy_edit")


@dataclass(frozen=True, slots=True)
class Case:
    """One signed examination: what a model may know, in the model's form, and what was signed, in the house's own (cleaned and
    de-identified). `id` names its source and holds nothing of a patient."""

    id: str
    input: ClinicalInput
    signed: str

    def as_line(self) -> str:
        """One line of JSON, keys sorted, so that equal cases are equal bytes."""
        return json.dumps(
            {"id": self.id, "signed": self.signed, **asdict(self.input)}, ensure_ascii=False, sort_keys=True
        )


def from_line(line: str) -> Case:
    """The case that `as_line` wrote."""
    data = json.loads(line)
    identity, signed = data.pop("id"), data.pop("signed")
    data["modality"] = None if data["modality"] is None else Modality(data["modality"])
    data["sex"] = None if data["sex"] is None else Sex(data["sex"])
    data["systems"] = tuple(System(system) for system in data["systems"])
    return Case(identity, ClinicalInput(**data), signed)


def build(session: Session, home: Path, policy: Policy) -> Dataset:
    """Freezes the training set of this moment; the same reports and policy give the same id, and then the row that is there.

    The files lie in `home`/datasets/ID. A case whose findings occur in the test part is left out of the training part.

    Raises:
        Refused: nothing may be trained on.
    """
    kept, dropped = _gather(session, policy)
    train, test = kept["train"], kept["test"]
    if not train:
        raise Refused(
            'There is no signed report to train on: an institution with role = "train" must have been read first '
            "(valuer ingest run, valuer ingest stats).",
            code="nothing_to_train_on",
        )
    policy_line = json.dumps(asdict(policy), sort_keys=True)
    lines = {TRAIN: sorted(case.as_line() for case in train), TEST: sorted(case.as_line() for case in test)}
    digest = _digest(policy_line, lines)
    identity = digest[:16]
    row = session.get(Dataset, identity)
    if row is not None:
        verify(Path(row.path), digest)
        return row
    counts: dict[str, Any] = {"train": _count(train), "test": _count(test), "left_out": dict(sorted(dropped.items()))}
    folder = home / "datasets" / identity
    _write(folder, lines, policy_line, _card(identity, policy, counts))
    row = Dataset(id=identity, digest=digest, policy=json.loads(policy_line), counts=counts, path=str(folder))
    session.add(row)
    session.flush()
    return row


def verify(folder: Path, digest: str) -> None:
    """Raises Broken when the files are not those that the digest was made of."""
    try:
        lines = {name: (folder / name).read_text("utf-8").splitlines() for name in (TRAIN, TEST)}
        policy = (folder / "policy.json").read_text("utf-8")
    except OSError:
        raise Broken(f"The files of dataset {folder.name} are missing.") from None
    if _digest(policy, lines) != digest:
        raise Broken(f"The files of dataset {folder.name} are not what its digest says.")


def read(folder: Path, part: str) -> Iterator[Case]:
    """The cases of `TRAIN` or `TEST`, in the file's order."""
    with (folder / part).open(encoding="utf-8") as file:
        for line in file:
            yield from_line(line)


def scope(cases: Iterator[Case]) -> list[dict[str, Any]]:
    """How many cases of each modality, system, age band and language: what a model trained on them has seen."""
    counted: Counter[tuple[str, str, str, str]] = Counter()
    for case in cases:
        for system in case.input.systems or ("unknown",):
            counted[(case.input.modality or "OT", system, case.input.age_band or "unknown", case.input.language)] += 1
    names = ("modality", "system", "age_band", "language")
    return [{**dict(zip(names, key, strict=True)), "count": count} for key, count in sorted(counted.items())]


def _gather(session: Session, policy: Policy) -> tuple[dict[str, list[Case]], Counter[str]]:
    """Train and test cases, and how many were left out for which reason."""
    roles = {row.code: row.profile.get("role", "test") for row in session.exec(select(Institution))}
    exposures = _exposures(session)
    kept: dict[str, list[tuple[str, str, Case]]] = {"train": [], "test": []}
    dropped: Counter[str] = Counter()

    def consider(institution: str, split: str, exposure: str, patient: str, findings: str, case: Case) -> None:
        if not _wanted(case.input, policy):
            dropped["not_in_policy"] += 1
        elif roles.get(institution) != "train" or split == "test":
            if exposure in UNTOUCHED:
                kept["test"].append((f"{institution}/{patient}", findings, case))
            else:
                dropped["test_text_may_be_shaped_by_a_draft"] += 1
        elif exposure in policy.exposures:
            kept["train"].append((f"{institution}/{patient}", findings, case))
        else:
            dropped[f"exposure_{exposure}"] += 1

    query = select(Report).where(
        col(Report.status).in_([ReportStatus.FINAL, ReportStatus.AMENDED]),
        col(Report.excluded).is_(None),
        col(Report.findings) != "",
        col(Report.impression) != "",
    )
    sides: dict[tuple[str, str], str] = {}
    for row in session.exec(query.execution_options(yield_per=1000)):
        case = Case(f"report:{row.institution}/{row.source_id}", clinical_input(row), row.impression.strip())
        patient = row.patient or row.accession or row.source_id
        sides[(row.institution, patient)] = row.split
        consider(row.institution, row.split, exposures.get(str(row.id), "unassisted"), patient, row.findings_hash, case)
    for sign_off, request in _signed_here_only(session):
        case = Case(f"sign_off:{sign_off.id}", clinical_input(request), _cleaned(sign_off.impression))
        split = sides.get((request.institution, request.patient)) or split_of(request.patient)
        findings = findings_hash(case.input.findings)
        consider(request.institution, split, sign_off.exposure, request.patient, findings, case)
    return _apart(kept, dropped), dropped


def _apart(kept: dict[str, list[tuple[str, str, Case]]], dropped: Counter[str]) -> dict[str, list[Case]]:
    """Nothing on both sides: no patient and no equal findings; and equal findings train once."""
    patients = {patient for patient, _, _ in kept["test"]}
    seen = {findings for _, findings, _ in kept["test"]}
    train = []
    for patient, findings, case in sorted(kept["train"], key=lambda entry: entry[2].id):
        if patient in patients:
            dropped["patient_is_tested_on"] += 1
        elif findings in seen:
            dropped["findings_occur_elsewhere"] += 1
        else:
            seen.add(findings)
            train.append(case)
    return {"train": train, "test": [case for _, _, case in kept["test"]]}


def _wanted(case: ClinicalInput, policy: Policy) -> bool:
    return (
        (not policy.institutions or case.institution in policy.institutions)
        and (not policy.modalities or case.modality in policy.modalities)
        and (not policy.systems or any(system in policy.systems for system in case.systems))
    )


def _exposures(session: Session) -> dict[str, str]:
    """Report id to the exposure class of its newest sign-off; a report that no request ever asked about is not in it."""
    query = sa.select(col(SignOff.report_id), col(SignOff.exposure)).where(col(SignOff.report_id).is_not(None))
    return {str(report): exposure for report, exposure in session.execute(query.order_by(col(SignOff.version)))}


def _signed_here_only(session: Session) -> Iterable[tuple[SignOff, DraftRequest]]:
    """Newest sign-offs of this page and API whose examination no ingested report covers: where there is one, the RIS's text wins."""
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
    return session.exec(query)


def _cleaned(impression: str) -> str:
    """As ingest stores an impression: cleaned and de-identified, in the house's own form, since drafts are scored against it."""
    return deidentify(clean(impression).text).text.strip()


def _digest(policy: str, lines: dict[str, list[str]]) -> str:
    total = hashlib.sha256(policy.encode())
    for name in (TRAIN, TEST):
        total.update(f"\n{name}\n".encode())
        for line in lines[name]:
            total.update(line.encode() + b"\n")
    return total.hexdigest()


def _count(cases: list[Case]) -> dict[str, Any]:
    """Cases by institution, system, modality, sex and age band."""
    inputs = [case.input for case in cases]
    views: dict[str, list[str]] = {
        "institution": [one.institution for one in inputs],
        "system": [system for one in inputs for system in one.systems],
        "modality": [one.modality or "OT" for one in inputs],
        "sex": [one.sex or "U" for one in inputs],
        "age": [one.age_band or "unknown" for one in inputs],
    }
    return {"reports": len(cases), **{name: dict(sorted(Counter(values).items())) for name, values in views.items()}}


def _card(identity: str, policy: Policy, counts: dict[str, Any]) -> str:
    """The data card: what is in the set, what was left out and why, in Markdown."""
    lines = [f"# Training set {identity}", "", f"Policy: `{json.dumps(asdict(policy), sort_keys=True)}`", ""]
    for part in ("train", "test"):
        views = {name: view for name, view in counts[part].items() if name != "reports"}
        lines += [f"## {part}: {counts[part]['reports']} reports", "", "| by | counts |", "|---|---|"]
        lines += [f"| {name} | {', '.join(f'{key} {n}' for key, n in view.items())} |" for name, view in views.items()]
        lines.append("")
    lines += ["## Left out", "", "| why | reports |", "|---|---|"]
    lines += [f"| {why} | {n} |" for why, n in counts["left_out"].items()]
    bands = ", ".join(f"{low}-{high}" for low, high in AGE_BANDS)
    lines += ["", f"Texts are cleaned and de-identified; nobody's text is on both sides. Age bands: {bands}.", ""]
    return "\n".join(lines)


def _write(folder: Path, lines: dict[str, list[str]], policy: str, card: str) -> None:
    """The files, in place when all are whole."""
    partial = folder.with_name(f".{folder.name}.{new_id().hex}.partial")
    partial.mkdir(parents=True, mode=0o700)
    for name, content in lines.items():
        (partial / name).write_text("".join(f"{line}\n" for line in content), "utf-8")
    (partial / "policy.json").write_text(policy, "utf-8")
    (partial / CARD).write_text(card, "utf-8")
    shutil.rmtree(folder, ignore_errors=True)  # left by a build whose transaction was rolled back
    partial.rename(folder)
