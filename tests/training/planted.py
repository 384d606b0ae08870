"""Planted evaluations: scores drawn by a seed, with the real gate, registry and tables around them."""

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlmodel import Session

from core import registry
from core.serving import Serving
from core.tables import Dataset, ModelVersion
from training import evaluations
from training.measured import Measured

SERVING = Serving("nf4+adapter", "clinical", 128)
HOSPITALS = ("north", "south", "west")
Shift = Callable[[str], float]


def measured(number: int, institution: str, score: float, **changes: Any) -> Measured:
    """One case whose scores are all `score`."""
    values: dict[str, Any] = {
        "case_id": f"report:{institution}/{number}",
        "institution": institution,
        "modality": "CT",
        "systems": ("chest",),
        "sex": "F" if number % 2 else "M",
        "age_band": "40-64",
        "draft": f"右肺上叶结节{number % 7}",
        "outcome": "drafted",
        "scores": dict.fromkeys(("r1", "r2", "rl", "core_r1", "core_r2", "core_rl", "fact_f1"), score),
        "issues": {},
        "seconds": 1.0 + number % 10 / 10,
    }
    return Measured(**{**values, **changes})


def evaluation(
    shift: Shift, *, per_house: int = 300, seed: int = 1, houses: Sequence[str] = HOSPITALS
) -> list[Measured]:
    """`per_house` cases of each hospital: a mean of 0.6 that depends on the case, the hospital's `shift` (in F1), and noise of this seed."""
    noise = random.Random(seed)
    found = []
    for house in houses:
        hard = random.Random(house)
        for number in range(per_house):
            score = 0.6 + hard.uniform(-0.2, 0.2) + shift(house) + noise.gauss(0, 0.04)
            found.append(measured(number, house, min(1.0, max(0.0, score))))
    return found


def dataset(session: Session, identity: str = "0123456789abcdef") -> str:
    """The row of a frozen set; its files are not needed here."""
    counts = {"train": {"reports": 0, "institution": {"north": 1}}, "test": {"reports": 0, "institution": {}}}
    session.add(Dataset(id=identity, digest=identity * 4, policy={}, counts=counts, path="none"))
    session.flush()
    return identity


def version(session: Session, folder: Path, name: str, *, systems: Sequence[str] = ("chest",)) -> ModelVersion:
    """A registered version with real files, whose content is its name."""
    made = folder / "models" / name
    made.mkdir(parents=True)
    (made / "adapter_model.safetensors").write_bytes(name.encode())
    manifest = {
        "id": name,
        "base": {"model": "base", "digest": "b" * 64},
        "adapter": {"r": 8},
        "weights": "nf4+adapter",
        "prompt": {"template": "brief", "version": "brief-1"},
        "training": {},
        "scope": [
            {"modality": "CT", "system": system, "age_band": "40-64", "language": "zh-Hans", "count": 9}
            for system in systems
        ],
        "sandbox_only": False,
        "files": {"adapter_model.safetensors": hashlib.sha256(name.encode()).hexdigest()},
        "created_at": "2026-01-01T00:00:00+00:00",
    }
    (made / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return registry.register(session, made)


def evaluated(
    session: Session, row: ModelVersion, data: str, cases: Sequence[Measured], serving: Serving = SERVING
) -> None:
    """Keeps `cases` as the finished evaluation of a version as it serves."""
    evaluations.store(session, row, data, serving.artefact(row.manifest), cases, {})


def baseline(session: Session, name: str, data: str, cases: Sequence[Measured]) -> None:
    """Keeps `cases` as a baseline's."""
    row = evaluations.open_one(session, f"baseline:{name}", data, "text", model_version=None, result={})
    evaluations.keep(session, row.id, cases)
    evaluations.finish(session, row.id)
