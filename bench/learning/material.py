"""Model and examples that every trainer gets alike: the demo base with pretend reports, or a shape with random weights and tokens.

Nothing here is timed.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from admin import demo_adapter
from bench.serving import shapes
from core.settings import Settings
from training.examples import example, examples
from training.packing import Example
from training.profiles import SMOKE, Profile
from training.qlora import add_lora
from worker.engine import weights

HELD_OUT = 16
BIN = 64
"""Tokens of a bar of the histogram."""


def model_of(shape: str | None, recipe: Profile, device: str) -> tuple[Any, Any]:
    """A fresh 4-bit model with a fresh LoRA in fp32, ready to train, and its tokenizer."""
    torch.manual_seed(recipe.seed)
    if shape is None:
        base = weights.base_model(weights.DEMO, Settings().models_dir)
        model, tokenizer = weights.load(base, None, device=device, training=True)
        return add_lora(model, recipe), tokenizer
    model, tokenizer = shapes.build(shape, "nf4+adapter", device)
    weights.keep_unpacked(model)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
    return model.train(), tokenizer


def reports(tokenizer: Any, recipe: Profile, count: int) -> tuple[list[Example], list[Example]]:
    """`count` examples of pretend hospital 1, and the held-out batch: reports with other findings."""
    cases = demo_adapter.taught(count + HELD_OUT)
    fitting, _ = examples(tokenizer, recipe, cases)
    return fitting[HELD_OUT:], fitting[:HELD_OUT]


def lengths(count: int) -> list[int]:
    """Tokens of so many such reports with their impressions, in the demo's tokenizer and of any length."""
    from transformers import AutoTokenizer

    base = weights.base_model(weights.DEMO, Settings().models_dir)
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    return [len(example(tokenizer, SMOKE.template, case)) for case in demo_adapter.taught(count)]


def drawn(lengths: Sequence[int], mean: float, longest: int, vocabulary: int, count: int) -> list[Example]:
    """`count` examples of random tokens, as long as those measured in another tokenizer would be if, cut at `longest`, their mean were
    `mean`.

    A fifth of each is the answer. Lengths decide the speed of training, tokens do not.
    """
    draw = random.Random(5)
    stretched = _stretched(lengths, mean, longest)
    made = []
    for _ in range(count):
        length = draw.choice(stretched)
        ids = tuple(draw.randrange(3, vocabulary) for _ in range(length))
        made.append(Example(ids[: length * 4 // 5], ids[length * 4 // 5 :]))
    return made


def _stretched(lengths: Sequence[int], mean: float, longest: int) -> list[int]:
    """All lengths times one number, none above `longest`, with that mean or, where it lies too near `longest`, the nearest to it."""
    low, high = 0.0, 100.0
    for _ in range(40):
        times = (low + high) / 2
        stretched = [min(longest, max(10, round(length * times))) for length in lengths]
        low, high = (times, high) if sum(stretched) / len(stretched) < mean else (low, times)
    return stretched


def histogram(examples: Sequence[Example]) -> dict[str, int]:
    """Examples by length in bins of `BIN` tokens."""
    bins = Counter(len(example) // BIN for example in examples)
    return {f"{number * BIN}-{number * BIN + BIN - 1}": bins[number] for number in sorted(bins)}


def recipe_of(shape: str | None, steps: int, batch: int, row_tokens: int, max_tokens: int) -> Profile:
    """The same for every trainer: a constant amount of work at a rate that moves the demo model within few steps."""
    return replace(
        SMOKE,
        name="bench",
        rank=SMOKE.rank if shape is None else shapes.RANK,
        learning_rate=1e-3,
        schedule="linear",
        warmup=0.0,
        epochs=1,
        batch=batch,
        row_tokens=row_tokens,
        max_tokens=max_tokens,
        steps=steps,
    )


WORK = Path("build/bench-training")
"""Where TRL insists on a folder; nothing is kept there."""
