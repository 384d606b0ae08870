"""The artefact of a training, as the registry and the engine take it up."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core import registry
from core.errors import Broken
from training import artefact
from training.packing import Example
from training.profiles import Profile, profile
from training.qlora import add_lora, train
from worker import prompt
from worker.engine import weights
from worker.engine.adapter import check_golden, verify

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)  # peft asks transformers for it
RECIPE: Profile = profile("smoke", steps=4, batch=2, learning_rate=1e-2)


def trained(base: Path) -> tuple[Any, Any]:
    model, tokenizer = weights.load(base, None, device="cpu", training=True)
    model = add_lora(model, RECIPE)
    ids = tuple(weights.encode(tokenizer, "肝囊肿"))
    train(model, [Example(ids, (*ids[1:4], tokenizer.eos_token_id))] * 8, RECIPE)
    return model, tokenizer


def origin(base: Path) -> artefact.Origin:
    return artefact.Origin(
        "tiny", weights.digest(base), {"id": "d", "digest": "d", "reports": 8, "institutions": {}}, [], True
    )


def test_a_sealed_artefact_is_registered_loaded_and_answers_as_recorded(tiny_base: Path, tmp_path: Path) -> None:
    model, tokenizer = trained(tiny_base)
    staged = tmp_path / "staged"
    artefact.write_weights(model, staged, RECIPE, "tiny")
    answer = artefact.golden(model, weights.encode(tokenizer, "肝囊肿"), weights.end_tokens(model, tokenizer))
    artefact.seal(staged, "v1", RECIPE, origin(tiny_base), training={"steps": 4}, metrics={}, golden_answer=answer)
    folder = artefact.publish(staged, tmp_path / "models" / "v1")

    manifest = registry.read_manifest(folder)
    assert manifest["prompt"] == {"template": "brief", "version": prompt.version("brief")}
    assert manifest["training"] == {"profile": "smoke", "steps": 4}
    assert set(manifest["files"]) == {"adapter_config.json", "adapter_model.safetensors"}
    assert {tensor.dtype for tensor in load_file(folder / "adapter_model.safetensors").values()} == {torch.bfloat16}
    adapter = verify(folder, weights.digest(tiny_base))
    assert adapter.golden_first == tuple(answer["first_tokens"])
    served, _ = weights.load(tiny_base, folder, device="cpu")
    check_golden(served, adapter)


def test_an_artefact_without_a_manifest_is_nobodys_version(tiny_base: Path, tmp_path: Path) -> None:
    model, _ = trained(tiny_base)
    artefact.write_weights(model, tmp_path / "staged", RECIPE, "tiny")
    with pytest.raises(Broken):
        registry.read_manifest(tmp_path / "staged")
    with pytest.raises(Broken):
        verify(tmp_path / "staged", weights.digest(tiny_base))


def test_training_in_four_bits_leaves_the_base_as_it_was_and_moves_every_lora_tensor(tiny_base: Path) -> None:
    import bitsandbytes

    model, tokenizer = weights.load(tiny_base, None, device="cpu", training=True)
    model = add_lora(model, RECIPE)
    layers = [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    assert layers
    packed = [layer.weight.detach().clone() for layer in layers]
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    ids = tuple(weights.encode(tokenizer, "肝囊肿"))
    model.eval()
    with (
        torch.no_grad()
    ):  # what an evaluation in the middle of training does; it repacks the weights where nobody forbids it
        model(input_ids=torch.tensor([ids]))
    train(model, [Example(ids, (5, 6, tokenizer.eos_token_id))] * 8, RECIPE)
    assert all(torch.equal(old, layer.weight) for old, layer in zip(packed, layers, strict=True))
    assert {tensor.dtype for tensor in before.values()} == {torch.float32}
    assert all(not torch.equal(old, dict(model.named_parameters())[name]) for name, old in before.items())
