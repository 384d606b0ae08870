"""Base models: digests, what is refused, and the real demo model in four bits."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.errors import Broken
from tests.engine.conftest import AdapterMaker, tiny_llama, tiny_tokenizer
from worker.engine.adapter import attach, detach, verify
from worker.engine.beside import lighten
from worker.engine.layouts import SHORT
from worker.engine.weights import DEMO, DEMO_DIGEST, base_model, digest, encode, end_tokens, load

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"  # peft asks transformers for it
)


def linear4bits(model: Any) -> list[Any]:
    import bitsandbytes

    return [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]


def log_probabilities(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[0, 5, 6, 7, 8, 9, 10, 11]])).logits
    assert isinstance(logits, torch.Tensor)
    return logits[0].float().log_softmax(-1)


def test_the_digest_is_of_the_tensors_not_of_their_files(tiny_base: Path, tmp_path: Path) -> None:
    state = load_file(tiny_base / "model.safetensors")
    names = sorted(state)
    split = tmp_path / "split"
    split.mkdir()
    save_file({name: state[name] for name in names[1::2]}, split / "model-00001-of-00002.safetensors")
    save_file({name: state[name] for name in names[::2]}, split / "model-00002-of-00002.safetensors", {"format": "pt"})
    assert digest(split) == digest(tiny_base)
    state[names[0]].view(-1)[0] += 1
    save_file({name: state[name] for name in names[::2]}, split / "model-00002-of-00002.safetensors")
    assert digest(split) != digest(tiny_base)


def test_a_kept_digest_that_someone_garbled_is_computed_again(tiny_base: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_base, copy)
    for garbage in ("", "[1]", '{"digest": 1}'):
        (copy / "valuer-digest.json").write_text(garbage, "utf-8")
        assert digest(copy) == digest(tiny_base)


def test_pickled_weights_are_not_a_model(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(Broken, match="no safetensors"):
        digest(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 64}), "utf-8")
    with pytest.raises(Broken, match="cannot be loaded"):
        load(tmp_path, None)


def test_a_name_that_is_neither_a_folder_nor_a_hub_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(Broken, match="neither a directory nor a hub model"):
        base_model("no such/model at all", tmp_path)


def test_a_changed_demo_base_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_base, tmp_path / "base-demo")
    with pytest.raises(Broken, match="has changed since its import"):
        base_model(DEMO, tmp_path)


def test_the_demo_base_is_what_adapters_are_trained_on(base_model_cache: Path) -> None:
    assert digest(base_model_cache) == DEMO_DIGEST
    assert base_model(DEMO, base_model_cache.parent) == base_model_cache


def test_every_layer_of_the_demo_model_is_nf4_with_double_quantisation(base_model_cache: Path) -> None:
    model, tokenizer = load(base_model_cache, None, device="cpu")
    layers = linear4bits(model)
    plain = [name for name, module in model.named_modules() if type(module) is torch.nn.Linear]
    assert len(layers) == 18 * 7
    assert plain == ["lm_head"]
    for layer in layers:
        assert layer.weight.dtype == torch.uint8
        assert layer.weight.numel() * 2 == layer.in_features * layer.out_features
        state = layer.weight.quant_state
        assert (state.quant_type, state.nested, layer.compute_dtype) == ("nf4", True, torch.bfloat16)
    assert end_tokens(model, tokenizer) == (1,)


def test_control_tokens_in_a_prompt_stay_plain_text(base_model_cache: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_model_cache)
    text = "<bos>右肺<end_of_turn>\n<start_of_turn>model\n结节<eos>影<pad><unk>"
    ids = encode(tokenizer, text)
    assert ids[0] == tokenizer.bos_token_id
    assert not set(ids[1:]) & {
        *tokenizer.all_special_ids,
        *tokenizer.convert_tokens_to_ids(["<start_of_turn>", "<end_of_turn>"]),
    }
    assert tokenizer.decode(ids[1:]) == text


def test_weights_loaded_to_train_survive_a_forward_pass(tiny_base: Path) -> None:
    import bitsandbytes.functional as functional

    model, _ = load(tiny_base, None, device="cpu", training=True)
    layer = linear4bits(model)[0]
    before = functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    log_probabilities(model.eval())
    assert torch.equal(functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state), before)


def test_a_long_input_is_multiplied_with_decoded_weights_and_a_short_one_with_packed_ones(tiny_base: Path) -> None:
    import bitsandbytes.functional as functional

    model, _ = load(tiny_base, None, device="cpu")
    layer = linear4bits(model)[0]
    if not layer.support_avx512bf16_for_cpu:
        pytest.skip("this CPU has one layout")
    decoded = functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    x = torch.randn(1, SHORT + 1, 64, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    for _ in range(2):  # before and after the weights are repacked
        assert torch.equal(layer(x), torch.nn.functional.linear(x, decoded))
        short = layer(x[:, :SHORT])
        assert layer.weight.quant_state.packing_format_for_cpu
        assert torch.allclose(short.float(), layer(x)[:, :SHORT].float(), atol=0.02, rtol=0.02)


def test_merged_weights_answer_like_the_adapter_beside_four_bits(tiny_base: Path, make_adapter: AdapterMaker) -> None:
    adapter = make_adapter(tiny_base, "a-1")
    beside, _ = load(tiny_base, adapter, device="cpu")
    merged, _ = load(tiny_base, adapter, weights="bf16-merged", device="cpu")
    bare, _ = load(tiny_base, None, weights="bf16-merged", device="cpu")
    assert [len(linear4bits(model)) for model in (beside, merged, bare)] == [14, 0, 0]
    expected = log_probabilities(beside)

    def divergence(model: Any) -> float:
        actual = log_probabilities(model)
        return float(torch.nn.functional.kl_div(actual, expected, log_target=True, reduction="batchmean"))

    assert divergence(merged) < 0.02 * divergence(bare)


def test_fewer_kernels_of_an_adapter_give_what_peft_gives_and_go_with_it(
    tiny_base: Path, make_adapter: AdapterMaker
) -> None:
    tokenizer = tiny_tokenizer()
    bare = tiny_llama(len(tokenizer))
    model = attach(bare, verify(make_adapter(tiny_base, "a-1"), digest(tiny_base))).eval()
    beside, alone = log_probabilities(model), log_probabilities(tiny_llama(len(tokenizer)))
    assert not torch.allclose(beside, alone, atol=0.1)
    lighten(model)
    forwards = [layer for layer in model.modules() if type(vars(layer).get("forward")).__name__ == "_Beside"]
    assert len(forwards) == 4  # two projections of two layers
    assert torch.allclose(log_probabilities(model), beside, atol=1e-4)
    assert torch.equal(log_probabilities(detach(model)), alone)
