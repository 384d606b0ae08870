"""Bases of several architectures, tiny and random in fp32, through the engines; and what the engines take from transformers' inside."""

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from core.settings import WorkerSettings
from tests.engine.conftest import LIMITS, tiny_tokenizer
from worker.engine.architectures import adapter_targets, batches_continuously
from worker.engine.attention import one_by_one
from worker.engine.batched import Batched
from worker.engine.cb import ContinuousBatching
from worker.engine.open import open_engine
from worker.engine.protocol import Job, Options
from worker.engine.resident import Resident
from worker.engine.static import Static

PROMPTS = ["右肺上叶结节影，长径12mm，边界清", "左肺下叶未见积液、心包积液。", "脾", "颈椎C4/5椎间盘突出"]
WAIT = 120
LENGTH = 10
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
SWIGLU = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
FALCON = ["dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value"]
ATTENTION = ["dense", "k_proj", "o_proj", "q_proj", "query_key_value", "v_proj"]
FUSED = ["down_proj", "gate_up_proj", "k_proj", "o_proj", "q_proj", "v_proj"]


def llama(vocabulary: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **SIZES))


def falcon(vocabulary: int) -> Any:
    from transformers import FalconConfig, FalconForCausalLM

    sizes = {name: value for name, value in SIZES.items() if name not in ("num_key_value_heads", "intermediate_size")}
    return FalconForCausalLM(FalconConfig(vocab_size=vocabulary, **sizes))


def glm(vocabulary: int) -> Any:
    from transformers import GlmConfig, GlmForCausalLM

    return GlmForCausalLM(GlmConfig(vocab_size=vocabulary, head_dim=16, **SIZES))


def qwen2(vocabulary: int) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(Qwen2Config(vocab_size=vocabulary, **SIZES))


def qwen3(vocabulary: int) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(Qwen3Config(vocab_size=vocabulary, head_dim=16, **SIZES))


def gemma3(vocabulary: int, window: int = 4) -> Any:
    """One layer that sees everything and one that sees four tokens."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    layers = ["sliding_attention", "full_attention"]
    return Gemma3ForCausalLM(
        Gemma3TextConfig(vocab_size=vocabulary, head_dim=16, sliding_window=window, layer_types=layers, **SIZES)
    )


Maker = Callable[[int], Any]


def made(maker: Maker) -> Any:
    torch.manual_seed(3)
    model = maker(len(tiny_tokenizer())).requires_grad_(False).eval()
    head = model.get_output_embeddings()
    if head.weight is not model.get_input_embeddings().weight:
        head.weight.mul_(20)  # a random head is too flat for the arg max to be any token's in particular
    return model


def reference(model: Any, prompt: str) -> list[int]:
    """Greedy continuation, one full forward pass per token."""
    tokens = [0, *tiny_tokenizer().convert_tokens_to_ids(list(prompt))]
    start = len(tokens)
    with torch.no_grad():
        while len(tokens) < start + LENGTH and (len(tokens) == start or tokens[-1] != 1):
            tokens.append(int(model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax()))
    return tokens[start:]


@pytest.mark.parametrize(
    ("maker", "targets", "kinds"),
    [
        (llama, SWIGLU, (Batched, ContinuousBatching, Static)),
        (qwen2, SWIGLU, (Batched, ContinuousBatching, Static)),
        (qwen3, SWIGLU, (Batched, ContinuousBatching, Static)),
        (gemma3, SWIGLU, (Batched, ContinuousBatching, Static)),
        (glm, FUSED, (Batched, ContinuousBatching, Static)),
        (falcon, FALCON, (Batched,)),
    ],
)
def test_a_base_writes_what_it_writes_alone_and_names_the_layers_of_its_adapter(
    maker: Maker, targets: list[str], kinds: tuple[type[Resident], ...]
) -> None:
    tokenizer = tiny_tokenizer()
    expected = [reference(made(maker), prompt) for prompt in PROMPTS]
    assert adapter_targets(made(maker)) == targets
    assert adapter_targets(made(maker), attention_only=True) == [name for name in targets if name in ATTENTION]
    assert batches_continuously(made(maker)) == (ContinuousBatching in kinds)
    for kind in kinds:
        engine = kind(made(maker), tokenizer, LIMITS, base=Path())
        jobs = [Job(str(number), prompt, Options(max_new_tokens=LENGTH)) for number, prompt in enumerate(PROMPTS)]
        got = [future.result(WAIT) for future in [engine.submit(job) for job in jobs]]
        engine.drain(5)
        texts = [tokenizer.decode(tokens, skip_special_tokens=True) for tokens in expected]
        assert [one.text for one in got if one.finish != "looped"] == [
            text for one, text in zip(got, texts, strict=True) if one.finish != "looped"
        ]
        assert any(one.finish != "looped" for one in got)


def test_a_base_that_cannot_batch_continuously_is_opened_in_plain_batches(tmp_path: Path, home: Path) -> None:
    base = tmp_path / "falcon"
    made(falcon).save_pretrained(base)
    tiny_tokenizer().save_pretrained(base)
    settings = WorkerSettings(home=home, device="cpu", max_input_tokens=64, max_new_tokens=8)
    engine = open_engine(settings, base, None)
    assert settings.engine == "cb"
    assert isinstance(engine, Batched)
    assert engine.submit(Job("one", PROMPTS[0], Options(max_new_tokens=2))).result(WAIT).new_tokens <= 2
    engine.drain(1)


def test_what_a_sliding_window_hides_is_hidden() -> None:
    wide, narrow = (reference(made(partial(gemma3, window=window)), PROMPTS[0]) for window in (64, 2))
    assert wide != narrow  # else the test above would not see the window


def test_attention_over_each_requests_own_keys_is_attention_under_a_mask() -> None:
    draw = torch.Generator().manual_seed(1)
    lengths = [(5, 5), (1, 9), (3, 8), (1, 1)]  # a prompt, a next token, the rest of a long prompt, a first token
    queries = torch.tensor([0, *(asked for asked, _ in lengths)]).cumsum(0)
    keys = torch.tensor([0, *(seen for _, seen in lengths)]).cumsum(0)
    query = torch.randn(1, 6, int(queries[-1]), 16, generator=draw)
    key, value = (torch.randn(1, 2, int(keys[-1]), 16, generator=draw) for _ in range(2))
    for window in (None, 3):
        allowed = torch.zeros(int(queries[-1]), int(keys[-1]), dtype=torch.bool)
        for number, (asked, seen) in enumerate(lengths):
            for row in range(asked):
                last = seen - asked + row
                first = 0 if window is None else max(0, last - window + 1)
                allowed[queries[number] + row, keys[number] + first : keys[number] + last + 1] = True
        expected = torch.nn.functional.scaled_dot_product_attention(
            query, key.repeat_interleave(3, 1), value.repeat_interleave(3, 1), attn_mask=allowed, scale=0.3
        )
        actual = one_by_one(query, key, value, queries, keys, window, 0.3)
        assert torch.allclose(actual, expected.transpose(1, 2), atol=1e-5)


def test_transformers_still_has_what_continuous_batching_takes_from_its_inside() -> None:
    """Names that no documentation promises: a release that moves one of them is not to be installed before `cb` follows."""
    import transformers
    from transformers.generation.continuous_batching import cache, continuous_api, requests

    assert transformers.__version__ == "5.23.0"
    manager = continuous_api.ContinuousBatchingManager
    assert {"stop", "destroy", "start", "is_running", "get_result", "cancel_request"} <= set(dir(manager))
    asked = inspect.signature(manager.add_request).parameters
    assert {"input_ids", "request_id", "max_new_tokens", "streaming", "eos_token_id"} <= set(asked)
    assert asked[next(reversed(asked))].kind is inspect.Parameter.VAR_KEYWORD  # our sampling arguments
    assert list(inspect.signature(cache.PagedAttentionCache.update).parameters)[1:] == [
        "key_states",
        "value_states",
        "layer_idx",
        "kwargs",
    ]
    assert {"position_offset", "logit_processor_kwargs"} <= set(requests.RequestState.__dataclass_fields__)
