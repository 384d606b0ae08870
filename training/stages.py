"""The course of a training: the paper's Algorithm 2 where the profile asks for its steps, else LoRA alone.

Embeddings on a small sample, each of the five templates on a short fine-tuning, LoRA on the rest from the best one's state. Every case is
in one step only. Knows models and cases, no database.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

from training import embeddings, prompts, qlora
from training.dataset import Case
from training.evaluate import House
from training.examples import examples
from training.packing import Example
from training.profiles import Profile
from training.ranks import ALONE, Ranks
from worker.engine import rows
from worker.engine.adapter import Adapter, attach

SHARE = 10
"""A step before the main one takes at most one case of so many."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The training set, divided: what embeddings learn from, what tries the templates, what scores them, and the rest for LoRA."""

    embedding: tuple[Case, ...]
    selection: tuple[Case, ...]
    scored: tuple[Case, ...]
    rest: tuple[Case, ...]


@dataclass(slots=True)
class Learned:
    """A finished training. `recipe` is the profile with the template that was trained, `fitting` what LoRA learned from.

    Not frozen, so that whoever has written the model's weights can let go of it.
    """

    model: Any
    recipe: Profile
    trained: qlora.Trained
    fitting: tuple[Example, ...]
    told: Mapping[str, Any]
    embeddings: Path | None


def parts(cases: Sequence[Case], recipe: Profile) -> Parts:
    """Divides by the hash of the cases' ids: the same cases and profile give the same parts, and each is spread over all institutions."""
    if not recipe.embedding_examples and not recipe.selection_examples:
        return Parts((), (), (), tuple(cases))
    drawn = sorted(cases, key=lambda case: sha256(case.id.encode()).digest())
    most = max(1, len(drawn) // SHARE)
    asked = (recipe.embedding_examples, recipe.selection_examples, recipe.selection_scored)
    embedding, selection, scored = (min(most, count) for count in asked)
    first, second, third = embedding, embedding + selection, embedding + selection + scored
    return Parts(tuple(drawn[:first]), tuple(drawn[first:second]), tuple(drawn[second:third]), tuple(drawn[third:]))


def follow(
    model: Any,
    tokenizer: Any,
    cases: Sequence[Case],
    recipe: Profile,
    folder: Path,
    *,
    max_new_tokens: int,
    house: Mapping[str, House] = MappingProxyType({}),
    before: Adapter | None = None,
    tell: Callable[[str, qlora.Progress], None] = lambda _phase, _at: None,
    stop: Callable[[], bool] = lambda: False,
    ranks: Ranks = ALONE,
) -> Learned | None:
    """Trains a bare frozen 4-bit `model` by the recipe; None when stopped, and then the same call goes on where it was.

    LoRA begins as `before`, or as nothing. Checkpoints lie in `folder`. The model that is returned has its LoRA, and its trained embeddings, in it.

    Raises:
        Broken: nothing fits `max_tokens`, or what `qlora.train` raises.
    """
    folder.mkdir(parents=True, exist_ok=True)
    divided = parts(cases, recipe)
    told: dict[str, Any] = {}
    trained_rows = None
    if divided.embedding:
        some = embeddings.sample(tokenizer, divided.embedding, recipe)
        first = embeddings.learn(
            model, some, recipe, folder, on_step=lambda at: tell("embeddings", at), stop=stop, ranks=ranks
        )
        if not first.finished:
            return None
        ranks.wait()  # until the first has written the file
        trained_rows = folder / rows.FILE
        told["embeddings"] = {"examples": len(some), "rows": embeddings.moved(trained_rows)}
    model = qlora.add_lora(model, recipe) if before is None else attach(model, before, trainable=True)
    if divided.selection:
        choice = prompts.select(
            model,
            tokenizer,
            divided.selection,
            divided.scored,
            recipe,
            folder,
            max_new_tokens=max_new_tokens,
            house=house,
            on_step=lambda template, at: tell(f"prompt {template}", at),
            stop=stop,
            ranks=ranks,
        )
        if choice is None:
            return None
        recipe = replace(recipe, template=choice.template)
        scores = {name: asdict(score) for name, score in choice.scores.items()}
        told["selection"] = {"template": choice.template, "examples": len(divided.selection), "scores": scores}
    fitting, too_long = examples(tokenizer, recipe, divided.rest)
    told |= {"examples": len(fitting), "too_long": too_long}
    trained = qlora.train(
        model,
        fitting,
        recipe,
        checkpoint=folder / "checkpoint.safetensors",
        on_step=lambda at: tell("train", at),
        stop=stop,
        ranks=ranks,
    )
    if not trained.finished:
        return None
    return Learned(model, recipe, trained, tuple(fitting), told, trained_rows)
