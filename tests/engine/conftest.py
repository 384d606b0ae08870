"""Two models for the engine's tests: a random Llama of 64 columns in fp32, where equal means equal, and the real 4-bit demo model."""

import hashlib
import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from worker import prompt
from worker.engine.batched import Batched
from worker.engine.cb import ContinuousBatching
from worker.engine.limits import Limits
from worker.engine.resident import Resident
from worker.engine.static import Static
from worker.engine.weights import digest

LETTERS = "右左肺上下叶段结节影积液长径边界清纵隔淋巴未见肿大心包骨折肝脾胰肾囊性低密度增强扫描颈椎间盘突出0123456789.,、。;:mC/"
BEGIN, END, UNKNOWN, TURN = "<bos>", "<eos>", "<unk>", "<end_of_turn>"
LIMITS = Limits(prompt_tokens=64, total_tokens=128, in_flight=4)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small models are quicker without threads that wait for each other, above all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny_tokenizer() -> Any:
    """One token per character, and three special ones; the beginning token comes by itself, as Gemma's and Llama's does."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: number for number, token in enumerate([BEGIN, END, UNKNOWN, TURN, *dict.fromkeys(LETTERS)])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    inner.decoder = decoders.Fuse()
    inner.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[(BEGIN, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token=BEGIN,
        eos_token=END,
        unk_token=UNKNOWN,
        pad_token=END,
        additional_special_tokens=[TURN],
    )


def tiny_llama(vocabulary: int, positions: int = 128) -> Any:
    """A new model, with the same weights every time."""
    return deepcopy(_tiny_llama(vocabulary, positions))


@cache
def _tiny_llama(vocabulary: int, positions: int) -> Any:
    # Once, and before any engine starts: a starting continuous batch seeds torch's generator anew, from a thread of its own.
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(11)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    model = LlamaForCausalLM(config).requires_grad_(False).eval()
    model.lm_head.weight.mul_(20)  # a random head is too flat for the arg max to be any token's in particular
    return model


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a base directory."""
    folder = tmp_path_factory.mktemp("tiny") / "base"
    tokenizer = tiny_tokenizer()
    tiny_llama(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(params=[Batched, ContinuousBatching, Static], ids=["generate", "cb", "static"])
def tiny_engine(request: pytest.FixtureRequest, tiny_base: Path) -> Iterator[Resident]:
    """Each engine in turn on the tiny model."""
    tokenizer = tiny_tokenizer()
    engine = request.param(tiny_llama(len(tokenizer)), tokenizer, LIMITS, base=tiny_base)
    yield engine
    engine.drain(5)


AdapterMaker = Callable[..., Path]


@pytest.fixture
def make_adapter(tmp_path: Path) -> AdapterMaker:
    """Writes an adapter directory with random weights for a base: `make_adapter(base, name, seed=…, rank=…, golden=…)`."""

    def make(
        base: Path, name: str, *, seed: int = 0, rank: int = 4, golden: dict[str, list[int]] | None = None
    ) -> Path:
        from safetensors.torch import save_file
        from transformers import AutoConfig, AutoModelForCausalLM

        with torch.device("meta"):  # only the shapes of the base are needed
            bare = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base))
        draw = torch.Generator().manual_seed(seed)
        state = {}
        for module, linear in bare.named_modules():
            if module.endswith(("q_proj", "v_proj")):
                key = f"base_model.model.{module}"
                state[f"{key}.lora_A.weight"] = torch.randn(rank, linear.in_features, generator=draw) * 0.2
                state[f"{key}.lora_B.weight"] = torch.randn(linear.out_features, rank, generator=draw) * 0.2
        folder = tmp_path / name
        folder.mkdir()
        save_file(state, folder / "adapter_model.safetensors")
        settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank}
        config = {**settings, "target_modules": ["q_proj", "v_proj"]}
        (folder / "adapter_config.json").write_text(json.dumps(config), "utf-8")
        seal(folder, base, name, golden)
        return folder

    return make


def seal(folder: Path, base: Path, name: str, golden: dict[str, list[int]] | None = None) -> None:
    """Write the manifest of an adapter directory as it is now, with all that a registered version needs."""
    settings = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    files = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name in ("adapter_config.json", "adapter_model.safetensors")
    }
    manifest = {
        "id": name,
        "base": {"model": base.name, "digest": digest(base)},
        "adapter": {"r": settings.get("r"), "alpha": settings.get("lora_alpha")},
        "weights": "nf4+adapter",
        "prompt": {"template": "brief", "version": prompt.version("brief")},
        "training": {},
        "scope": [],
        "sandbox_only": False,
        "files": files,
        "golden": golden or {},
        "created_at": "2026-01-01T00:00:00Z",
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
