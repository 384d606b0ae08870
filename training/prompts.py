"""Prompt selection of the paper's Algorithm 2: a short fine-tuning with each of the five templates, scored, and the best one's state kept.

Scored on a slice of the training part that nothing else reads, never on what is reported as the test.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from training import evaluate
from training.dataset import Case
from training.embeddings import short
from training.evaluate import House
from training.examples import example, examples
from training.profiles import Profile
from training.qlora import Progress, mean_loss, train, trainable
from training.ranks import ALONE, Ranks
from worker.engine.batched import Batched
from worker.engine.limits import Limits
from worker.prompt import TEMPLATES

IN_FLIGHT = 16


@dataclass(frozen=True, slots=True)
class Score:
    """What a template's short fine-tuning came to: mean of ROUGE-1, -2 and -L of its drafts (0–1), loss in nats per token, reports."""

    rouge: float
    loss: float
    reports: int


@dataclass(frozen=True, slots=True)
class Choice:
    """The template with the best score, and every template's."""

    template: str
    scores: Mapping[str, Score]


def best(scores: Mapping[str, Score]) -> str:
    """The template of the highest ROUGE; of equal ones, that of the lowest loss."""
    return max(scores, key=lambda name: (scores[name].rouge, -scores[name].loss))


def select(
    model: Any,
    tokenizer: Any,
    cases: Sequence[Case],
    scored: Sequence[Case],
    profile: Profile,
    folder: Path,
    *,
    max_new_tokens: int,
    house: Mapping[str, House] = MappingProxyType({}),
    on_step: Callable[[str, Progress], None] = lambda _name, _at: None,
    stop: Callable[[], bool] = lambda: False,
    ranks: Ranks = ALONE,
) -> Choice | None:
    """Tries every template on `cases`, from the same fresh LoRA in `model`, and leaves the best one's weights in it; None when stopped.

    What is done lies in `folder`, a checkpoint for each template and `selection.json`, so that a run that was killed goes on.
    """
    start = {name: parameter.detach().clone() for name, parameter in trainable(model).items()}
    settings = short(profile)
    kept = folder / "selection.json"
    scores = (
        {name: Score(**score) for name, score in json.loads(kept.read_text("utf-8")).items()} if kept.exists() else {}
    )

    def taught(template: str) -> bool:
        _put(model, start)
        fitting, _ = examples(tokenizer, settings, cases, template=template)
        trained = train(
            model,
            fitting,
            settings,
            checkpoint=folder / f"prompt-{template}.safetensors",
            on_step=lambda at: on_step(template, at),
            stop=stop,
            ranks=ranks,
        )
        return trained.finished

    for template in TEMPLATES:
        if template in scores:
            continue
        if not taught(template):
            return None
        score = _score(model, tokenizer, template, scored, settings, max_new_tokens, house)
        scores[template] = _agreed(score, model.device, ranks)
        if ranks.leads:
            partial = kept.with_suffix(".partial")
            partial.write_text(json.dumps({name: _numbers(one) for name, one in scores.items()}), "utf-8")
            partial.replace(kept)
    chosen = best(scores)
    taught(chosen)  # it has finished: this only puts its weights back
    return Choice(chosen, scores)


@torch.no_grad()
def _put(model: Any, weights: Mapping[str, torch.Tensor]) -> None:
    for name, parameter in trainable(model).items():
        parameter.copy_(weights[name])


def _score(
    model: Any,
    tokenizer: Any,
    template: str,
    cases: Sequence[Case],
    profile: Profile,
    max_new_tokens: int,
    house: Mapping[str, House],
) -> Score:
    """Drafts through the serving path, by the model in memory; the loss over the signed texts beside it."""
    model.eval()
    limits = Limits(profile.max_tokens, profile.max_tokens + max_new_tokens, IN_FLIGHT)
    encoded = [example(tokenizer, template, case) for case in cases]
    fitting = [case for case, one in zip(cases, encoded, strict=True) if len(one) <= profile.max_tokens]
    engine = Batched(model, tokenizer, limits, base=Path())
    try:
        result = evaluate.evaluate(
            engine, fitting, template=template, max_new_tokens=max_new_tokens, in_flight=IN_FLIGHT, house=house
        ).as_json()
    finally:
        engine.drain(1.0)
        model.train()
    loss = mean_loss(model, [one for one in encoded if len(one) <= profile.max_tokens], profile.row_tokens)
    return Score(sum(result[name] for name in ("r1", "r2", "rl")) / 3, loss, len(fitting))


def _agreed(score: Score, device: torch.device, ranks: Ranks) -> Score:
    """The mean over the ranks, so that all of them choose the same template."""
    both = torch.tensor([score.rouge, score.loss], device=device, dtype=torch.float64) / ranks.count
    ranks.add([both])
    return Score(float(both[0]), float(both[1]), score.reports)


def _numbers(score: Score) -> dict[str, float | int]:
    return {"rouge": score.rouge, "loss": score.loss, "reports": score.reports}
