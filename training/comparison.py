"""What training by a profile would take on a frozen set, before anything is trained: what it leaves out, tokens, updates, hours. Says nothing of quality.

Knows a base by its tokenizer alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlmodel import Session

from training.dataset import Case
from training.embeddings import short
from training.examples import example
from training.profiles import Profile
from training.qlora import total_steps
from training.stages import parts
from worker.prompt import TEMPLATES


@dataclass(frozen=True, slots=True)
class Course:
    """One profile on one base. `reports` are those of the main step, of which `too_long` exceed `max_tokens`, prompt and answer together, and are
    left out; `aside` are those that earlier steps take. Quantiles are of all reports' tokens, `tokens` and `updates` of what is learned: `first`
    of the steps before the main one. `hours` is None where no run on this base says how fast this machine is."""

    profile: str
    template: str
    max_tokens: int
    reports: int
    too_long: int
    aside: int
    p50: int
    p95: int
    p99: int
    longest: int
    mean: float
    tokens: int
    updates: int
    first: int
    hours: float | None

    @property
    def excluded(self) -> float:
        """Share of the reports that are too long, 0-1."""
        return self.too_long / self.reports if self.reports else 0.0


def course(tokenizer: Any, recipe: Profile, cases: Sequence[Case], pace: float | None) -> Course:
    """What `recipe` would come to; `pace` is tokens per second. Raises ValueError where there is no case."""
    divided = parts(cases, recipe)
    lengths = np.array([len(example(tokenizer, recipe.template, case)) for case in divided.rest])
    if not len(lengths):
        raise ValueError("no case")
    fitting = lengths[lengths <= recipe.max_tokens]
    steps = total_steps(recipe, len(fitting))
    first = [len(divided.embedding)] if divided.embedding else []
    first += [len(divided.selection)] * len(TEMPLATES) if divided.selection else []
    shorter = short(recipe)
    mean = float(fitting.mean()) if len(fitting) else 0.0
    tokens = round(mean * min(steps * recipe.examples_per_step, len(fitting) * recipe.epochs))
    before = round(mean * sum(first))
    p50, p95, p99 = (int(value) for value in np.quantile(lengths, (0.5, 0.95, 0.99)))
    return Course(
        profile=recipe.name,
        template=recipe.template,
        max_tokens=recipe.max_tokens,
        reports=len(lengths),
        too_long=len(lengths) - len(fitting),
        aside=len(cases) - len(lengths),
        p50=p50,
        p95=p95,
        p99=p99,
        longest=int(lengths.max()),
        mean=mean,
        tokens=tokens,
        updates=steps,
        first=sum(total_steps(shorter, count) for count in first),
        hours=None if pace is None else (tokens + before) / pace / 3600,
    )


def pace(session: Session, model: str) -> tuple[float, str] | None:
    """Tokens per second of this installation's newest run on the base `model`, and the version it made; None where there was none."""
    query = sa.text(
        "SELECT v.id, v.manifest->'training' FROM training_runs r JOIN model_versions v ON v.id = r.model_version"
        " WHERE v.base = :model ORDER BY r.ended_at DESC LIMIT 1"
    ).bindparams(model=model)
    found = session.execute(query).first()
    if found is None or not found[1].get("tokens") or not found[1].get("seconds"):
        return None
    return float(found[1]["tokens"]) / float(found[1]["seconds"]), str(found[0])
