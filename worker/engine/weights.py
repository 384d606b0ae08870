"""Base models and adapters on disk, and how they become a model in memory: 4-bit, verified, from safetensors only.

Knows directories, digests and quantisation; nothing of jobs or batches. A base model is a local directory in the Hugging Face layout.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open

from core.errors import Broken
from worker.engine.adapter import attach, verify
from worker.engine.beside import lighten
from worker.engine.layouts import keep_both

DEMO = "demo"
DEMO_DIGEST = "3314252db4873946e05b89cc7b5962e25f2f413cc45d0049c17c5fc08e9af36f"
"""Digest of the demo base as the pinned packages give it; an adapter trained on it fits no other weights."""

_DIGEST_FILE = "valuer-digest.json"
_HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "tokenizer.model", "merges.txt", "vocab.txt"]


def base_model(model: str, models_dir: Path) -> Path:
    """The directory of a base model: a local path as it is, a hub id through the hub's cache, or `demo`, imported into `models_dir` once.

    The demo import takes most of a minute and 600 MB; processes that ask at the same time wait for one import. A hub model that is
    in the cache is taken from there without asking the network. Raises Broken with what to do.
    """
    if model == DEMO:
        return _demo_base(models_dir)
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        try:
            return Path(snapshot_download(model, allow_patterns=_HUB_FILES, local_files_only=True))
        except LocalEntryNotFoundError:
            return Path(snapshot_download(model, allow_patterns=_HUB_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise Broken(f"Base model {model!r} is neither a directory nor a hub model that can be fetched") from error


def digest(base: Path) -> str:
    """SHA-256 over names, types, shapes and bytes of all tensors of a base model, whatever files they are split into.

    Reading 13 GB takes half a minute, so the answer is kept beside the weights while no file's size or time changes.
    """
    files = sorted(base.glob("*.safetensors"))
    if not files:
        raise Broken(f"{base.name} holds no safetensors; other weight formats are not loaded")
    state = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    kept = base / _DIGEST_FILE
    try:
        known = json.loads(kept.read_text())
        if known["files"] == state:
            return str(known["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # never computed here, or written by something else: compute it
    value = _digest(files)
    try:
        partial = base / f".{_DIGEST_FILE}.{os.getpid()}"
        partial.write_text(json.dumps({"digest": value, "files": state}))
        partial.replace(kept)
    except OSError:
        pass  # a read-only model folder only costs time
    return value


def load(
    base: Path,
    adapter: Path | None,
    *,
    weights: str = "nf4+adapter",
    device: str = "auto",
    training: bool = False,
) -> tuple[Any, Any]:
    """Model and tokenizer, ready to serve or to train.

    `weights` is "nf4+adapter" (NF4, double quantisation, bfloat16 compute, the adapter beside it in fp32) or "bf16-merged" (NF4
    dequantised to bfloat16, then the adapter merged: what the adapter was trained against). `training` keeps the 4-bit weights in the
    layout that gradients, merging and export need. Raises Broken for anything that is not intact and of this base.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # a few seconds, in a process that writes logs
    verified = None if adapter is None else verify(adapter, digest(base))
    target = device if device != "auto" else ("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            base,
            quantization_config=BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=torch.bfloat16,
            ),
            dtype=torch.bfloat16,
            device_map={"": target},
            attn_implementation="sdpa",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        raise Broken(f"Base model {base.name} cannot be loaded: {type(error).__name__}") from error
    merged = weights == "bf16-merged"
    if training or merged:
        keep_unpacked(model)
    elif model.device.type == "cpu":
        keep_both(model)
    model.requires_grad_(False)
    _head_takes_contiguous_input(model)
    if merged:
        model = model.dequantize(dtype=torch.bfloat16)
    if verified is not None:
        model = attach(model, verified, trainable=training)
        if merged:
            model = model.merge_and_unload()
        elif not training and model.device.type == "cuda":
            lighten(model)
    return model.train(training), tokenizer


def keep_unpacked(model: Any) -> None:
    """Keep bitsandbytes from repacking NF4 weights in place at the first CPU forward.

    On CPUs with AVX512-BF16 the repacked layout decodes a fifth faster, so serving leaves it on; but gradients, `dequantize` and
    `merge_and_unload` silently give garbage on it. Call before the first forward of a model that is trained, merged or exported.
    """
    import bitsandbytes

    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a prompt, with the model's beginning token; `<eos>`, `<end_of_turn>` and the like inside `text` stay plain text."""
    return list(tokenizer(text, add_special_tokens=True, split_special_tokens=True)["input_ids"])


def end_tokens(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Ids that end a generation: the tokenizer's and those of the model's own generation settings. Raises Broken when there is none."""
    configured = model.generation_config.eos_token_id
    ids = {tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])} - {None}
    if not ids:
        raise Broken("The base model names no end-of-sequence token, so its drafts would never end")
    return tuple(sorted(ids))


def _head_takes_contiguous_input(model: Any) -> None:
    # Prefill hands the output layer the last position of each row, a strided view. With frozen weights torch's CPU matmul then
    # expands the vocabulary matrix once per row instead of folding the rows: 6 s instead of 0.3 s for 8 rows of Gemma-3-270M.
    def contiguous(_module: Any, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (args[0].clone(memory_format=torch.contiguous_format),)

    model.get_output_embeddings().register_forward_pre_hook(contiguous)


def _demo_base(models_dir: Path) -> Path:
    # everything the demo model needs is installed, so nothing may ask the hub
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from worker.engine.demo import import_demo

    target = models_dir / "base-demo"
    models_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(models_dir / ".base-demo.lock"):
        if not target.is_dir():
            partial = models_dir / ".base-demo.partial"
            shutil.rmtree(partial, ignore_errors=True)  # left by an import that was killed
            import_demo(partial)
            if digest(partial) != DEMO_DIGEST:
                shutil.rmtree(partial)
                raise Broken("The demo model's packages gave other weights than expected; run `make setup` again")
            partial.rename(target)
    if digest(target) != DEMO_DIGEST:
        raise Broken(f"The demo model in {target.name} has changed since its import; delete that folder to repeat it")
    return target


def _digest(files: list[Path]) -> str:
    total = hashlib.sha256()
    for name, tensor in sorted(_tensors(files), key=lambda item: item[0]):
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        if tensor.numel():
            total.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _tensors(files: list[Path]) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and tensor of everything in the files; the tensors are memory-mapped, so nothing is read until it is hashed."""
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - not a dict
                    yield name, opened.get_tensor(name)
        except SafetensorError as error:
            raise Broken(f"{file.name} is not a whole safetensors file") from error
