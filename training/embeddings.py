"""Step one of the paper's Algorithm 2: the embeddings learn on a small sample while everything else is frozen.

They learn in fp32 and are rounded to the model's own type at the end, which is what step two and serving read. Where the output layer is
tied to the embedding, it learns with it. No LoRA is in the model yet.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import safe_open

from training.dataset import Case
from training.examples import example
from training.packing import Example
from training.profiles import Profile
from training.qlora import Progress, Trained, train
from training.ranks import ALONE, Ranks
from worker.engine import rows
from worker.prompt import TEMPLATES


def short(profile: Profile) -> Profile:
    """The profile for a short fine-tuning: its examples once, an update after each batch."""
    return replace(profile, accumulation=1, epochs=1, steps=None)


def sample(tokenizer: Any, cases: Sequence[Case], profile: Profile) -> list[Example]:
    """The cases as examples that fit, dealt over the five templates, since none is chosen yet."""
    dealt = [example(tokenizer, TEMPLATES[index % len(TEMPLATES)], case) for index, case in enumerate(cases)]
    return [one for one in dealt if len(one) <= profile.max_tokens]


def learn(
    model: Any,
    examples: Sequence[Example],
    profile: Profile,
    folder: Path,
    *,
    on_step: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    ranks: Ranks = ALONE,
) -> Trained:
    """Trains the embedding of a frozen `model` in place; the rows that moved are in `folder`/embeddings.safetensors when it has finished.

    A folder that has the file already is not trained again: its rows are put in. Resumes from its own checkpoint as `qlora.train` does.
    """
    file = folder / rows.FILE
    if file.exists():
        rows.put(model, file)
        return Trained(0, 0, 0.0, (), finished=True)
    embedding = model.get_input_embeddings()
    before = embedding.weight.detach().clone()
    embedding.weight.data = before.float()
    embedding.weight.requires_grad_(True)
    rounding = embedding.register_forward_hook(lambda _module, _args, output: output.to(before.dtype))
    checkpoint = folder / "embeddings.checkpoint.safetensors"
    try:
        trained = train(model, examples, short(profile), checkpoint=checkpoint, on_step=on_step, stop=stop, ranks=ranks)
    finally:
        rounding.remove()
        embedding.weight.requires_grad_(False)
        embedding.weight.grad = None
        embedding.weight.data = embedding.weight.detach().to(before.dtype)
    if trained.finished and ranks.leads:
        partial = folder / f"{rows.FILE}.partial"
        rows.write(before, embedding.weight.detach(), partial)
        partial.replace(file)
        checkpoint.unlink()
    return trained


def moved(file: Path) -> int:
    """How many rows of the embedding the file holds."""
    with safe_open(file, framework="pt") as opened:
        return int(opened.get_slice("ids").get_shape()[0])
