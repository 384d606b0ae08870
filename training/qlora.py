"""QLoRA: trains a LoRA adapter in fp32 beside a frozen 4-bit base, on packed rows, with the answers only in the loss.

Knows token ids and tensors, nothing of reports or databases. A run is a pure function of model, examples and profile; a checkpoint after
any step continues to the same weights.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional

from core import logs
from core.errors import Broken
from training import checkpoint as saved
from training.checkpoint import Done
from training.memory import Memory
from training.packing import Example, Row, pack, row, steps_of_epoch
from training.profiles import Profile
from training.ranks import ALONE, Ranks
from worker.engine.architectures import adapter_targets


@dataclass(frozen=True, slots=True)
class Progress:
    """After an optimizer step: where the run stands. The rate and the time left are this session's, the rest counts the whole run."""

    step: int
    steps: int
    loss: float
    tokens: int
    tokens_per_s: float
    seconds: float
    seconds_left: float


@dataclass(frozen=True, slots=True)
class Trained:
    """What a finished run was. `losses` has one mean loss per optimizer step, in nats per predicted token."""

    steps: int
    tokens: int
    seconds: float
    losses: tuple[float, ...]
    finished: bool


def add_lora(model: Any, profile: Profile) -> Any:
    """The model with a fresh LoRA adapter: fp32, A random by the profile's seed, B zero, so that it begins as the base."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(profile.seed)
    config = LoraConfig(
        r=profile.rank,
        lora_alpha=profile.alpha,
        target_modules=adapter_targets(model, attention_only=profile.targets == "attention"),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    wrapped = get_peft_model(model, config)
    wrong = sorted({str(p.dtype) for p in trainable(wrapped).values() if p.dtype is not torch.float32})
    if wrong:
        raise Broken(f"LoRA weights must be float32 to learn at small rates, not {', '.join(wrong)}.")
    return wrapped


def trainable(model: Any) -> dict[str, torch.nn.Parameter]:
    """The parameters that learn, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def mean_loss(model: Any, examples: Sequence[Example], row_tokens: int) -> float:
    """Nats per predicted token over examples that are not trained on."""
    was_training = model.training
    model.eval()
    capacity = packing_capacity(model, row_tokens)
    rows = [row([examples[i] for i in packed]) for packed in pack([len(one) for one in examples], capacity)]
    total = sum(summed_loss(model, one).item() for one in rows)
    model.train(was_training)
    return total / sum(one.weights.sum().item() for one in rows)


def learning_rate(profile: Profile, step: int, steps: int) -> float:
    """Of optimizer step `step` (from 0) of `steps`: linear warm-up, then cosine or linear fall to a tenth of a step above 0."""
    warmup = round(profile.warmup * steps)
    if step < warmup:
        return profile.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    share = 0.5 * (1 + math.cos(math.pi * done)) if profile.schedule == "cosine" else 1 - done
    return profile.learning_rate * share


def summed_loss(model: Any, one: Row) -> torch.Tensor:
    """Weighted cross-entropy in nats, summed over the row's answers; logits exist only where they are needed, fp32 for the softmax."""
    device = model.device
    with _precision(model):
        logits = model(
            input_ids=one.input_ids.to(device),
            position_ids=one.position_ids.to(device),
            use_cache=False,
            logits_to_keep=one.predicts.to(device),
        ).logits
    losses = functional.cross_entropy(logits.float().flatten(0, -2), one.targets.to(device), reduction="none")
    return (losses * one.weights.to(device)).sum()


def _precision(model: Any) -> torch.autocast:
    """What the model computes in: bfloat16 if anything of it is, though its embedding is fp32 while it learns."""
    half = any(parameter.dtype is torch.bfloat16 for parameter in model.parameters())
    return torch.autocast(model.device.type, torch.bfloat16, enabled=half)


@torch.no_grad()
def packing_capacity(model: Any, row_tokens: int) -> int:
    """Tokens that a row may have: `row_tokens`, or 1, which is each example alone, where packed examples would see each other.

    Not every architecture separates them: Falcon, Bloom, OPT and recurrent ones read on. So it is tried: what comes before an example in its
    row must not change what the model says of it.
    """
    was_training = model.training
    model.eval()
    told = []
    for before in ((5, 6), (7, 5)):
        one = row([Example(before, ()), Example((6, 8), ())])
        ids, positions = one.input_ids.to(model.device), one.position_ids.to(model.device)
        with _precision(model):
            told.append(model(input_ids=ids, position_ids=positions, use_cache=False, logits_to_keep=2).logits)
    model.train(was_training)
    if torch.equal(*told):
        return row_tokens
    logs.event("training_unpacked", level=logging.WARNING, architecture=model.config.model_type)
    return 1


def total_steps(profile: Profile, examples: int) -> int:
    """Optimizer steps of a run over so many examples."""
    everything = math.ceil(examples / profile.examples_per_step) * profile.epochs
    return everything if profile.steps is None else min(profile.steps, everything)


def train(
    model: Any,
    examples: Sequence[Example],
    profile: Profile,
    *,
    checkpoint: Path | None = None,
    every_s: float = 300.0,
    on_step: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    ranks: Ranks = ALONE,
) -> Trained:
    """Trains what is trainable in `model`, in place.

    `checkpoint` is a file that is written about every `every_s` seconds, at the end, and when `stop()`, asked between rows, ends the run. If it is there
    already the run goes on from it, and refuses to when it is of other examples or another profile. A finished one only puts its weights back.
    Of several `ranks` each calls this with the same arguments; the first one writes.

    Raises:
        Broken: there is nothing to train on, the checkpoint is another run's, the loss is no number any more, or an example fits no memory.
    """
    if not examples:
        raise Broken("There is no example to train on.")
    steps = total_steps(profile, len(examples))
    parameters = trainable(model)
    optimizer = torch.optim.AdamW(parameters.values(), lr=profile.learning_rate, weight_decay=0.0, fused=True)
    run = saved.fingerprint(examples, profile)
    done = Done()
    if checkpoint is not None and checkpoint.exists():
        done = saved.restore(checkpoint, run, parameters, optimizer)
    per_epoch = math.ceil(len(examples) / profile.examples_per_step)
    memory = Memory(model, packing_capacity(model, profile.row_tokens))
    model.train()
    first, tokens_before, seconds_before = len(done.losses), done.tokens, done.seconds
    began = written = time.monotonic()
    for step in range(first, steps):
        epoch, position = divmod(step, per_epoch)
        if position == 0 or step == first:
            plan = steps_of_epoch(len(examples), profile.examples_per_step, profile.seed, epoch)
        seen = [examples[index] for index in plan[position]]
        loss = _accumulate(model, seen, memory, stop, ranks)
        if loss is None:
            if checkpoint is not None and done.losses and ranks.leads:
                saved.save(checkpoint, run, parameters, optimizer, done)
            return Trained(step, done.tokens, done.seconds, done.losses, finished=False)
        if not math.isfinite(loss):
            raise Broken(f"The loss of step {step + 1} is no number.")
        ranks.add(_gradients(parameters.values()) if ranks.count > 1 else ())
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(profile, step, steps)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds = time.monotonic() - began
        tokens = done.tokens + sum(map(len, seen))
        done = Done((*done.losses, loss), tokens, seconds_before + seconds)
        left = seconds / (step + 1 - first) * (steps - step - 1)
        on_step(Progress(step + 1, steps, loss, tokens, (tokens - tokens_before) / seconds, done.seconds, left))
        due = time.monotonic() - written >= every_s or step + 1 == steps
        if checkpoint is not None and due and ranks.leads:
            saved.save(checkpoint, run, parameters, optimizer, done)
            written = time.monotonic()
    return Trained(steps, done.tokens, done.seconds, done.losses, finished=True)


def _gradients(parameters: Iterable[torch.nn.Parameter]) -> Iterator[torch.Tensor]:
    """Every parameter's gradient, zeros where this rank had no row; all ranks have to hand in the same ones."""
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        yield parameter.grad


def _accumulate(
    model: Any, seen: Sequence[Example], memory: Memory, stop: Callable[[], bool], ranks: Ranks
) -> float | None:
    """Gradients of one optimizer step, this rank's share of them, row by row; the step's mean loss in nats per predicted token.

    None when it was stopped: between rows where a process is alone, before the first where several have to stop together.
    """
    lengths = [len(example) for example in seen]
    predicted = sum(example.weight * len(example.answer) for example in seen)
    if ranks.any(stop(), model.device):
        return None
    while True:
        rows = pack(lengths, memory.row_tokens)
        total = 0.0
        try:
            for packed in rows[ranks.index :: ranks.count]:
                if ranks.count == 1 and stop():
                    model.zero_grad(set_to_none=True)
                    return None
                loss = summed_loss(model, row([seen[index] for index in packed]))
                (loss / predicted).backward()  # type: ignore[no-untyped-call]
                total += loss.item()
        except torch.OutOfMemoryError:
            model.zero_grad(set_to_none=True)
            loss = None  # lets go of the graph before the next try
            memory.tighten(max(lengths))
            continue
        everywhere = torch.tensor([total], device=model.device)
        ranks.add([everywhere])
        return everywhere.item() / predicted if ranks.count > 1 else total / predicted
