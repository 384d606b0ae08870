"""Where a training run stands, as one safetensors file: weights, AdamW's moments, and what is done so far.

The file takes the last one's place when it is whole, so that a process may be killed at any moment. It belongs to one run, by fingerprint,
and to no other.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from core.errors import Broken
from training.packing import Example
from training.profiles import Profile

Parameters = Mapping[str, torch.nn.Parameter]
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True)
class Done:
    """What a run has behind it, sessions before a resumption included: a loss per step, tokens read, seconds."""

    losses: tuple[float, ...] = ()
    tokens: int = 0
    seconds: float = 0.0


def fingerprint(examples: Sequence[Example], profile: Profile) -> str:
    """What a checkpoint belongs to: the same profile and the same examples in the same order."""
    total = hashlib.sha256(json.dumps(asdict(profile), sort_keys=True).encode())
    for example in examples:
        total.update(repr((example.prompt, example.answer, example.weight)).encode())
    return total.hexdigest()


def save(file: Path, run: str, parameters: Parameters, optimizer: torch.optim.AdamW, done: Done) -> None:
    """Writes the checkpoint of the run with that fingerprint."""
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


def restore(file: Path, run: str, parameters: Parameters, optimizer: torch.optim.AdamW) -> Done:
    """Puts a checkpoint back; returns what it stands for. Raises Broken when it is not whole or another run's."""
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
