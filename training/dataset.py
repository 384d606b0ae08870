"""Frozen training sets: cases written once under their own hash, with a card that says what is in them and what is not.

Writes files and one row, and never changes either again. Which signed reports are cases of which part is `training.eligible`'s.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session

from clinical.case import AGE_BANDS, ClinicalInput, Modality, Sex, System
from core.db import new_id
from core.errors import Broken
from core.tables import Dataset
from training.policy import Policy
from training.variety import Guard

TRAIN, TEST, CARD = "train.jsonl", "test.jsonl", "card.md"


@dataclass(frozen=True, slots=True)
class Case:
    """One signed examination: what a model may know, in the model's form, and what was signed, in the house's own (cleaned and
    de-identified). `id` names its source and holds nothing of a patient; `weight` is its share in training."""

    id: str
    input: ClinicalInput
    signed: str
    weight: float = 1.0

    def as_line(self) -> str:
        """One line of JSON, keys sorted, so that equal cases are equal bytes."""
        weight = {} if self.weight == 1.0 else {"weight": self.weight}
        return json.dumps(
            {"id": self.id, "signed": self.signed, **weight, **asdict(self.input)}, ensure_ascii=False, sort_keys=True
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What a set would be: both parts, how many were left out for which reason, how many older human texts stay in strata that are short of
    them, and how what trains compares to what people write."""

    train: tuple[Case, ...]
    test: tuple[Case, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    older: int = 0
    guards: tuple[Guard, ...] = ()


def from_line(line: str) -> Case:
    """The case that `as_line` wrote."""
    data = json.loads(line)
    identity, signed, weight = data.pop("id"), data.pop("signed"), data.pop("weight", 1.0)
    data["modality"] = None if data["modality"] is None else Modality(data["modality"])
    data["sex"] = None if data["sex"] is None else Sex(data["sex"])
    data["systems"] = tuple(System(system) for system in data["systems"])
    return Case(identity, ClinicalInput(**data), signed, weight)


def freeze(session: Session, home: Path, policy: Policy, planned: Plan) -> Dataset:
    """Writes the parts once under their own hash, to `home`/datasets/ID; the same parts and policy give the row that is there. The rest of the
    plan is told on the card and belongs to no hash."""
    policy_line = json.dumps(asdict(policy), sort_keys=True)
    parts = {TRAIN: planned.train, TEST: planned.test}
    lines = {name: sorted(case.as_line() for case in cases) for name, cases in parts.items()}
    digest = _digest(policy_line, lines)
    identity = digest[:16]
    session.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(f"dataset/{identity}", 0))))
    row = session.get(Dataset, identity)
    if row is not None:
        verify(Path(row.path), digest)
        return row
    counts = counted(planned)
    folder = home / "datasets" / identity
    _write(folder, lines, policy_line, card(f"Training set {identity}", policy, counts))
    row = Dataset(id=identity, digest=digest, policy=json.loads(policy_line), counts=counts, path=str(folder))
    session.add(row)
    session.flush()
    return row


def counted(planned: Plan) -> dict[str, Any]:
    """Everything that the card tells, as it is kept with the set."""
    return {
        "train": _count(planned.train),
        "test": _count(planned.test),
        "left_out": dict(sorted(planned.left_out.items())),
        "older": planned.older,
        "variety": [{**asdict(guard), "share": round(guard.share, 4)} for guard in planned.guards],
    }


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


def _digest(policy: str, lines: dict[str, list[str]]) -> str:
    total = hashlib.sha256(policy.encode())
    for name in (TRAIN, TEST):
        total.update(f"\n{name}\n".encode())
        for line in lines[name]:
            total.update(line.encode() + b"\n")
    return total.hexdigest()


def _count(cases: Sequence[Case]) -> dict[str, Any]:
    """Cases by institution, system, modality, sex and age band."""
    inputs = [case.input for case in cases]
    views: dict[str, list[str]] = {
        "institution": [one.institution for one in inputs],
        "system": [system for one in inputs for system in one.systems],
        "modality": [one.modality or "OT" for one in inputs],
        "sex": [one.sex or "U" for one in inputs],
        "age": [one.age_band or "unknown" for one in inputs],
    }
    weight = round(sum(case.weight for case in cases), 2)
    return {
        "reports": len(cases),
        "weight": weight,
        **{name: dict(sorted(Counter(values).items())) for name, values in views.items()},
    }


def card(title: str, policy: Policy, counts: dict[str, Any]) -> str:
    """The data card: what is in the set, what was left out and why, in Markdown."""
    lines = [f"# {title}", "", f"Policy: `{json.dumps(asdict(policy), sort_keys=True)}`", ""]
    for part in ("train", "test"):
        views = {name: view for name, view in counts[part].items() if isinstance(view, dict)}
        lines += [
            f"## {part}: {counts[part]['reports']} reports, weight {counts[part]['weight']:g}",
            "",
            "| by | counts |",
            "|---|---|",
        ]
        lines += [f"| {name} | {', '.join(f'{key} {n}' for key, n in view.items())} |" for name, view in views.items()]
        lines.append("")
    lines += ["## Left out", "", "| why | reports |", "|---|---|"]
    lines += [f"| {why} | {n} |" for why, n in counts["left_out"].items()]
    if counts["older"]:
        lines += [
            "",
            f"{counts['older']} human texts from before the days asked for stay in strata that are short of them.",
        ]
    lines += [
        "",
        "## What trains against what people write",
        "",
        "| | trains | people | share | |",
        "|---|---|---|---|---|",
    ]
    for guard in counts["variety"]:
        judged = "" if guard["judged"] else "not judged"
        lines.append(
            f"| {guard['name']} | {guard['trains']:.4g} | {guard['human']:.4g} | {100 * guard['share']:.0f} % | {judged} |"
        )
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
