"""QLoRA: trains a LoRA adapter in fp32 beside a frozen 4-bit base, on packed rows, with the answers only in the loss.

Knows token ids and tensors, nothing of reports or databases. A run is a pure function of model, examples and profile; a checkpoint after
any step continues to the same weights.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from core.errors import Broken
from training.packing import Example, Row, row, steps_of_epoch
from training.profiles import Profile

Parameters = dict[str, torch.nn.Parameter]
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True)
class Done:
    """What a run has behind it, sessions before a resumption included: a loss per step, tokens read, seconds."""

    losses: tuple[float, ...] = ()
    tokens: int = 0
    seconds: float = 0.0


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
        target_modules=sorted(profile.targets),
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


def learning_rate(profile: Profile, step: int, steps: int) -> float:
    """Of optimizer step `step` (from 0) of `steps`: linear warm-up, then cosine or linear fall to a tenth of a step above 0."""
    warmup = round(profile.warmup * steps)
    if step < warmup:
        return profile.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    share = 0.5 * (1 + math.cos(math.pi * done)) if profile.schedule == "cosine" else 1 - done
    return profile.learning_rate * share


def summed_loss(model: Any, one: Row) -> torch.Tensor:
    """Cross-entropy in nats, summed over the row's answers; logits exist only where they are needed, and in fp32 for the softmax."""
    device = model.device
    with torch.autocast(device.type, torch.bfloat16, enabled=model.dtype is torch.bfloat16):
        logits = model(
            input_ids=one.input_ids.to(device),
            position_ids=one.position_ids.to(device),
            use_cache=False,
            logits_to_keep=one.predicts.to(device),
        ).logits
    return functional.cross_entropy(logits.float(), one.targets.to(device), reduction="sum")


def total_steps(profile: Profile, examples: int) -> int:
    """Optimizer steps of a run over so many examples."""
    everything = math.ceil(examples / profile.batch) * profile.epochs
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
) -> Trained:
    """Trains the adapter in `model` in place.

    `checkpoint` is a file that is written about every `every_s` seconds, at the end, and when `stop()`, asked between rows, ends the run. If it is there
    already the run goes on from it, and refuses to when it is of other examples or another profile.

    Raises:
        Broken: there is nothing to train on, the checkpoint is another run's, or the loss is no number any more.
    """
    if not examples:
        raise Broken("There is no example to train on.")
    lengths = [len(example) for example in examples]
    steps = total_steps(profile, len(examples))
    parameters = trainable(model)
    optimizer = torch.optim.AdamW(parameters.values(), lr=profile.learning_rate, weight_decay=0.0, fused=True)
    run = _fingerprint(examples, profile)
    done = Done()
    if checkpoint is not None and checkpoint.exists():
        done = _restore(checkpoint, run, parameters, optimizer)
    per_epoch = math.ceil(len(examples) / profile.batch)
    model.train()
    first, tokens_before, seconds_before = len(done.losses), done.tokens, done.seconds
    began = saved = time.monotonic()
    for step in range(first, steps):
        epoch, position = divmod(step, per_epoch)
        if position == 0 or step == first:
            plan = steps_of_epoch(lengths, profile.batch, profile.row_tokens, profile.seed, epoch)
        rows = [row([examples[index] for index in packed]) for packed in plan[position]]
        loss = _accumulate(model, rows, stop)
        if loss is None:
            if checkpoint is not None and done.losses:
                _save(checkpoint, run, parameters, optimizer, done)
            return Trained(step, done.tokens, done.seconds, done.losses, finished=False)
        if not math.isfinite(loss):
            raise Broken(f"The loss of step {step + 1} is no number.")
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(profile, step, steps)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds = time.monotonic() - began
        tokens = done.tokens + sum(one.input_ids.numel() for one in rows)
        done = Done((*done.losses, loss), tokens, seconds_before + seconds)
        left = seconds / (step + 1 - first) * (steps - step - 1)
        on_step(Progress(step + 1, steps, loss, tokens, (tokens - tokens_before) / seconds, done.seconds, left))
        if checkpoint is not None and (time.monotonic() - saved >= every_s or step + 1 == steps):
            _save(checkpoint, run, parameters, optimizer, done)
            saved = time.monotonic()
    return Trained(steps, done.tokens, done.seconds, done.losses, finished=True)


def _accumulate(model: Any, rows: Sequence[Row], stop: Callable[[], bool]) -> float | None:
    """Gradients of one optimizer step, row by row; the mean loss in nats per predicted token, or None when it was stopped midway."""
    predicted = sum(one.targets.numel() for one in rows)
    total = 0.0
    for one in rows:
        if stop():
            return None
        loss = summed_loss(model, one)
        (loss / predicted).backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    return total / predicted


def _fingerprint(examples: Sequence[Example], profile: Profile) -> str:
    """What a checkpoint belongs to: the same profile and the same examples in the same order."""
    total = hashlib.sha256(json.dumps(asdict(profile), sort_keys=True).encode())
    for example in examples:
        total.update(repr((example.prompt, example.answer)).encode())
    return total.hexdigest()


def _save(file: Path, run: str, parameters: Parameters, optimizer: torch.optim.AdamW, done: Done) -> None:
    """Weights, AdamW's moments and what is done so far in one file, which takes the last one's place when it is whole."""
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in parameters.items():
        state = optimizer.state[parameter]
        tensors[f"weight/{name}"] = parameter.detach()
        tensors |= {f"{key}/{name}": state[key] for key in _MOMENTS}
    partial = file.with_name(file.name + ".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"run": run, "done": json.dumps(asdict(done))}
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, partial, metadata)
    partial.replace(file)


def _restore(file: Path, run: str, parameters: Parameters, optimizer: torch.optim.AdamW) -> Done:
    """Puts a checkpoint back; returns what it stands for."""
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata()
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError:
        raise Broken(f"The checkpoint {file.name} is not whole; remove it to begin anew.") from None
    if metadata["run"] != run:
        raise Broken(f"The checkpoint {file.name} belongs to another run; remove it to begin anew.")
    for name, parameter in parameters.items():
        with torch.no_grad():
            parameter.copy_(tensors[f"weight/{name}"])
        optimizer.state[parameter] = {key: tensors[f"{key}/{name}"].to(parameter.device) for key in _MOMENTS}
    done = json.loads(metadata["done"])
    return Done(tuple(done["losses"]), done["tokens"], done["seconds"])
