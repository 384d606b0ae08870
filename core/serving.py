"""How workers serve a version: the form of its weights, the decoding and the length; and whether it was ever evaluated so.

Evaluations are training's to make; this says what one belongs to, so that gate and worker mean the same by "as it serves".
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlmodel import Session, col, select

from core.registry import Active
from core.settings import WorkerSettings
from core.tables import Evaluation

DEFAULT_WEIGHTS = "nf4+adapter"
"""The form that a version is trained in; any other one is a choice that an evaluation has to bear out."""


@dataclass(frozen=True, slots=True)
class Serving:
    """How the workers serve: part of what an evaluation belongs to."""

    weights: str
    decoding: str
    max_new_tokens: int

    @classmethod
    def of(cls, settings: WorkerSettings) -> "Serving":
        """As a worker with these settings serves."""
        return cls(settings.weights, settings.decoding, settings.max_new_tokens)

    def artefact(self, manifest: Mapping[str, Any]) -> str:
        """SHA-256 of exactly what drafts: base, files of the adapter, prompt, the weights' form, how it decodes and how long an answer may be.

        What the manifest says of metrics does not count, so that a version evaluated before it was sealed is the one that serves.
        """
        parts = {name: manifest[name] for name in ("files", "prompt")} | {
            "base": manifest["base"]["digest"],
            **asdict(self),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def was_evaluated(session: Session, version: Active, serving: Serving) -> bool:
    """Whether there is a finished evaluation of the version as it would serve."""
    return any(each.artefact == serving.artefact(version.manifest) for each in evaluations(session, version.id))


def evaluations(session: Session, version: str) -> list[Evaluation]:
    """The finished evaluations of a version in whichever form, oldest first."""
    finished = col(Evaluation.finished_at)
    query = select(Evaluation).where(Evaluation.model_version == version, finished.is_not(None))
    return list(session.exec(query.order_by(finished)))
