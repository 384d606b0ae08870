"""A trained adapter as an artefact: bf16 weights, PEFT's configuration, and a manifest that names it all and is written last.

What it was trained on and how it answers its golden prompt is recorded here; whether it should serve is decided elsewhere. A directory
without a manifest is unfinished and nobody loads it.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from training.profiles import Profile
from worker import prompt
from worker.engine import rows

CONFIG, WEIGHTS, MANIFEST = "adapter_config.json", "adapter_model.safetensors", "manifest.json"
GOLDEN_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an adapter comes from. `base` is its model's name, `base_digest` that of its tensors; `dataset` and `scope` as counted."""

    base: str
    base_digest: str
    dataset: dict[str, Any]
    scope: list[dict[str, Any]]
    sandbox_only: bool


def trained_base(base_digest: str, embeddings: str) -> str:
    """Digest of a base with trained embeddings in it, from the base's and the SHA-256 of the embeddings' file: what LoRA was trained on."""
    return hashlib.sha256(f"{base_digest} {embeddings}".encode()).hexdigest()


def write_weights(model: Any, folder: Path, profile: Profile, base: str) -> None:
    """The adapter's two files, as `worker.engine.adapter` reads them. The weights are rounded to bf16: half the size, and what serving computes in."""
    from peft import get_peft_model_state_dict

    folder.mkdir(parents=True)
    # "auto" would ask the hub whether the base's embeddings were resized
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    save_file(
        {name: tensor.detach().cpu().to(torch.bfloat16).contiguous() for name, tensor in state.items()},
        folder / WEIGHTS,
    )
    (folder / WEIGHTS).chmod(0o644)  # safetensors makes it private, and the worker may be another user
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": profile.rank,
        "lora_alpha": profile.alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted(model.peft_config["default"].target_modules),
        "bias": "none",
        "inference_mode": True,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


@torch.no_grad()
def golden(model: Any, prompt_tokens: list[int], ends: tuple[int, ...]) -> dict[str, list[int]]:
    """The first tokens that the model as it serves answers greedily to a prompt; a worker checks them before it serves."""
    model.eval()
    tokens = list(prompt_tokens)
    while len(tokens) < len(prompt_tokens) + GOLDEN_TOKENS and tokens[-1] not in ends:
        logits = model(input_ids=torch.tensor([tokens], device=model.device), use_cache=False, logits_to_keep=1).logits
        tokens.append(int(logits[0, -1].argmax()))
    return {"prompt_tokens": list(prompt_tokens), "first_tokens": tokens[len(prompt_tokens) :]}


def seal(
    folder: Path,
    identity: str,
    profile: Profile,
    origin: Origin,
    *,
    training: dict[str, Any],
    metrics: dict[str, Any],
    golden_answer: dict[str, list[int]] | None = None,
) -> dict[str, Any]:
    """Writes the manifest over every file of the folder, last; until then the folder is nobody's. Sealing again replaces the manifest only."""
    files = {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    base = {"model": origin.base, "digest": origin.base_digest}
    if rows.FILE in files:
        base["with_embeddings"] = trained_base(origin.base_digest, files[rows.FILE])
    targets = json.loads((folder / CONFIG).read_text("utf-8"))["target_modules"]
    manifest = {
        "id": identity,
        "base": base,
        "adapter": {"r": profile.rank, "alpha": profile.alpha, "target_modules": targets},
        "weights": "nf4+adapter",
        "prompt": {"template": profile.template, "version": prompt.version(profile.template)},
        "dataset": origin.dataset,
        "training": {"profile": profile.name, **training},
        "metrics": metrics,
        "scope": origin.scope,
        "sandbox_only": origin.sandbox_only,
        "golden": golden_answer or {},
        "files": files,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    partial = folder / f".{MANIFEST}.partial"
    partial.write_text(json.dumps(manifest, ensure_ascii=False, indent=1) + "\n", "utf-8")
    partial.replace(folder / MANIFEST)
    return manifest


def publish(folder: Path, target: Path) -> Path:
    """Moves a sealed folder to where versions live; what an earlier, interrupted publication left there is replaced."""
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(target)
    return target


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
