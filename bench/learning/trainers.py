"""Ours and TRL's SFTTrainer over the same model and examples: the same examples in every optimizer step, in the same order.

TRL gets the tokens ready made, a mask of the answers and an order, so that neither tokenising, nor shuffling, nor another loss tells the
two apart; both divide a step's loss by its predicted tokens. TRL rounds the LoRA weights of a 4-bit model to bfloat16; they are put back to
the fp32 they had, or else TRL would end at a higher loss for a reason that is not speed.

`padded` is TRL as the paper's numbers ask for it: batches padded to their longest example, and TRL's defaults for the rest, activation
checkpointing among them. `best` is TRL without padding (`padding_free`) and without checkpointing, in rows as long as ours.
Where TRL has no Triton, as on a CPU, it puts every position through the output layer, prompt and padding too, not the answers alone;
with 262,144 words in the demo's vocabulary that, and not padding, is most of what it takes there.
"""

import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch

from bench.learning.material import WORK
from training.packing import Example, steps_of_epoch
from training.profiles import Profile
from training.qlora import Progress, mean_loss, train, trainable


@dataclass(frozen=True, slots=True)
class Outcome:
    """Real tokens (no padding), seconds by the wall and of this process's CPU, all without the first step, which warms up; the loss on
    the held-out batch after the last, in nats per token; the most memory of the card, in MiB."""

    tokens: int
    seconds: float
    cpu_seconds: float
    loss: float
    peak_mb: int

    @property
    def tokens_per_s(self) -> float:
        """By the wall clock."""
        return self.tokens / self.seconds

    @property
    def tokens_per_cpu_s(self) -> float:
        """By this process's CPU time, which other work on the machine disturbs less."""
        return self.tokens / self.cpu_seconds


class _Clock:
    """Wall and CPU time from the end of the first step to the end of the last."""

    def __init__(self, model: Any) -> None:
        self._card = model.device if model.device.type == "cuda" else None
        self._times: list[tuple[float, float]] = []
        if self._card is not None:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._card)

    def step_ended(self) -> None:
        if self._card is not None:
            torch.cuda.synchronize(self._card)
        self._times.append((time.perf_counter(), time.process_time()))

    def outcome(self, tokens: int, loss: float) -> Outcome:
        wall, cpu = (last - first for first, last in zip(self._times[0], self._times[-1], strict=True))
        peak = 0 if self._card is None else torch.cuda.max_memory_allocated(self._card)
        return Outcome(tokens, wall, cpu, loss, round(peak / 2**20))


def ours(model: Any, examples: Sequence[Example], held_out: Sequence[Example], recipe: Profile) -> Outcome:
    """The product's own loop."""
    clock = _Clock(model)

    def on_step(_: Progress) -> None:
        clock.step_ended()

    train(model, examples, recipe, on_step=on_step)
    return clock.outcome(_timed(examples, recipe), mean_loss(model, held_out, recipe.row_tokens))


def trl(
    model: Any, tokenizer: Any, examples: Sequence[Example], held_out: Sequence[Example], recipe: Profile, *, best: bool
) -> Outcome:
    """TRL's SFTTrainer, padded as in the paper or as quick as it goes."""
    from datasets import Dataset, disable_progress_bars
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    disable_progress_bars()
    mean = sum(map(len, examples)) / len(examples)
    micro = _micro(recipe.batch, recipe.row_tokens / mean) if best else _micro(recipe.batch, 16)
    rows = Dataset.from_list(
        [
            {
                "input_ids": [*one.prompt, *one.answer],
                "completion_mask": [0] * len(one.prompt) + [1] * len(one.answer),
            }
            for one in _in_order(examples, recipe)
        ]
    )
    settings = SFTConfig(
        output_dir=str(WORK),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=recipe.batch // micro,
        max_steps=recipe.steps,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="linear",
        weight_decay=0.0,
        max_length=None if best else recipe.max_tokens,
        padding_free=best,
        gradient_checkpointing=not best,
        completion_only_loss=True,
        train_sampling_strategy="sequential",
        bf16=True,
        use_cpu=model.device.type == "cpu",
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        seed=recipe.seed,
    )
    clock = _Clock(model)

    class Listens(TrainerCallback):  # type: ignore[misc]  # transformers ships no types for it
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.step_ended()

    with warnings.catch_warnings(), redirect_stdout(sys.stderr):  # the trainer prints its own figures
        warnings.simplefilter("ignore")  # TRL and transformers deprecate each other's arguments
        trainer = SFTTrainer(
            model=model, args=settings, train_dataset=rows, processing_class=tokenizer, callbacks=[Listens()]
        )
        for parameter in trainable(trainer.model).values():
            parameter.data = parameter.data.float()
        trainer.train()
    return clock.outcome(_timed(examples, recipe), mean_loss(trainer.model, held_out, recipe.row_tokens))


def _in_order(examples: Sequence[Example], recipe: Profile) -> list[Example]:
    """The examples as our loop takes them, step after step."""
    steps = steps_of_epoch(len(examples), recipe.examples_per_step, recipe.seed, epoch=0)
    return [examples[index] for step in steps for index in step]


def _timed(examples: Sequence[Example], recipe: Profile) -> int:
    """Tokens of all steps but the first."""
    return sum(map(len, _in_order(examples, recipe)[recipe.examples_per_step :]))


def _micro(batch: int, most: float) -> int:
    """The largest divisor of the batch that is no more than `most`, so that every step has the same examples."""
    return max(size for size in range(1, batch + 1) if batch % size == 0 and size <= max(1.0, most))
