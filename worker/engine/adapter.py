"""A LoRA adapter as an artefact: a directory whose manifest.json was written last and names every file's hash and the base it is for.

Verifies before anything is loaded, and attaches to a model in memory. Which adapter should serve is decided elsewhere.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from core.errors import Broken
from worker.engine import rows

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_SETTINGS = ("peft_type", "task_type", "base_model_name_or_path", "r", "lora_alpha", "lora_dropout", "target_modules")
_HARMLESS = {"bias": "none", "inference_mode": True, "init_lora_weights": True, "megatron_core": "megatron.core"}
"""What PEFT writes beside them; any other setting that is on changes what the tensors mean, and nobody evaluated that."""
_GOLDEN_GAP = 1.0
"""Nats that a golden token may fall behind the likeliest one: kernels of another machine differ by far less, a wrong adapter by more."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A verified adapter directory. `golden` is a prompt's tokens and the first tokens the adapter answers with; empty: not recorded.

    `embeddings`: it brings trained rows of the embedding, without which it is not the model that was evaluated.
    """

    id: str
    path: Path
    golden_prompt: tuple[int, ...]
    golden_first: tuple[int, ...]
    embeddings: bool = False


def verify(path: Path, base_digest: str) -> Adapter:
    """Read the manifest and check base, files and hashes. Raises Broken with what is wrong; nothing of the adapter is executed."""
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        identity, base, files = str(manifest["id"]), str(manifest["base"]["digest"]), dict(manifest["files"])
        golden = manifest.get("golden") or {}
        prompt = tuple(map(int, golden.get("prompt_tokens", ())))
        first = tuple(map(int, golden.get("first_tokens", ())))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Broken(f"Adapter {path.name} has no readable manifest.json") from error
    if base != base_digest:
        raise Broken(f"Adapter {identity} was trained on another base model ({base[:12]}, not {base_digest[:12]})")
    for name in (_CONFIG, _WEIGHTS):
        if name not in files:
            raise Broken(f"Adapter {identity}: its manifest does not list {name}")
    for name, expected in files.items():
        if Path(name).name != name:
            raise Broken(f"Adapter {identity}: its manifest names a file outside its directory")
        if (path / name).is_symlink():
            raise Broken(f"Adapter {identity}: {name} is a link, whose content could change after it was verified")
        try:
            with (path / name).open("rb") as file:
                actual = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise Broken(f"Adapter {identity}: {name} is missing") from error
        if actual != expected:
            raise Broken(f"Adapter {identity}: {name} is truncated or changed (its hash is not the manifest's)")
    _require_plain(identity, path / _CONFIG, manifest.get("adapter"))
    _require_numbers(identity, path / _WEIGHTS)
    return Adapter(identity, path, prompt, first, rows.FILE in files)


def _require_plain(identity: str, config: Path, told: Any) -> None:
    """Raises Broken unless the configuration is that of a plain LoRA adapter, of the rank and scale that the manifest tells of."""
    try:
        settings = dict(json.loads(config.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise Broken(f"Adapter {identity}: {config.name} cannot be read") from error
    if settings.get("peft_type") != "LORA":
        raise Broken(f"Adapter {identity} is not a LoRA adapter")
    odd = [name for name, value in settings.items() if name not in _SETTINGS and value and value != _HARMLESS.get(name)]
    if odd:
        raise Broken(f"Adapter {identity} is not a plain LoRA adapter: {', '.join(sorted(odd))}")
    if isinstance(told, dict) and any(
        name in told and told[name] != settings.get(its) for name, its in (("r", "r"), ("alpha", "lora_alpha"))
    ):
        raise Broken(f"Adapter {identity}: rank or alpha in {config.name} are not those of its manifest")


def _require_numbers(identity: str, weights: Path) -> None:
    """Raises Broken unless it is a whole safetensors file of finite floating-point numbers."""
    try:
        with safe_open(weights, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - not a dict
                tensor = opened.get_tensor(name)
                if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
                    raise Broken(f"Adapter {identity}: {name} in {weights.name} holds what is not a number")
    except SafetensorError as error:
        raise Broken(f"Adapter {identity}: {weights.name} is not a whole safetensors file") from error


def attach(model: Any, adapter: Adapter, *, trainable: bool = False) -> Any:
    """The model with the adapter in it, as a PeftModel around the same base. Raises Broken and leaves the base clean if they do not fit."""
    from peft import PeftModel, get_peft_model_state_dict

    try:
        wrapped = PeftModel.from_pretrained(model, adapter.path, is_trainable=trainable, local_files_only=True)
    except Exception as error:  # peft and torch raise whatever the mismatch leads to; all of it means the same here
        _strip(model)
        raise Broken(f"Adapter {adapter.id} does not fit the base model: {type(error).__name__}") from error
    got = {
        name: tuple(tensor.shape)
        for name, tensor in get_peft_model_state_dict(wrapped, save_embedding_layers=False).items()
    }
    if got != _shapes(adapter):
        wrapped.unload()
        raise Broken(f"Adapter {adapter.id} does not fit the base model: its tensors are not those the model asks for")
    if adapter.embeddings:
        try:
            rows.put(wrapped, adapter.path / rows.FILE)
        except Broken:
            wrapped.unload()
            raise
    return wrapped


def detach(model: Any) -> Any:
    """The base without its adapter and with its own embedding; the model itself when it has none."""
    from peft import PeftModel

    rows.take_out(model)
    return model.unload() if isinstance(model, PeftModel) else model


@torch.no_grad()
def check_golden(model: Any, adapter: Adapter) -> None:
    """Compare the model's answer to the golden prompt with the recorded one, in one forward pass. Raises Broken when they differ."""
    if not adapter.golden_prompt or not adapter.golden_first:
        return
    ids = torch.tensor([[*adapter.golden_prompt, *adapter.golden_first[:-1]]], device=model.device)
    last = len(adapter.golden_first)
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=last).logits[0, -last:].float()
    golden = torch.tensor(adapter.golden_first, device=logits.device)
    gap = logits.amax(dim=-1) - logits.gather(1, golden[:, None])[:, 0]
    if not bool((gap <= _GOLDEN_GAP).all()):
        raise Broken(f"Adapter {adapter.id} does not answer its golden prompt as recorded")


def _shapes(adapter: Adapter) -> dict[str, tuple[int, ...]]:
    with safe_open(adapter.path / _WEIGHTS, framework="pt") as opened:
        return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118 - not a dict


def _strip(model: Any) -> None:
    """Take half-attached LoRA layers out of a base model again, by peft's own unload."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BaseTunerLayer):
                setattr(parent, name, child.get_base_layer())
    vars(model).pop("peft_config", None)
