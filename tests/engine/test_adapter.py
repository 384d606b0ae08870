"""An adapter is verified before a byte of it is loaded, and fits the base or is refused with the base left clean."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.errors import Broken
from tests.engine.conftest import AdapterMaker, seal, tiny_llama, tiny_tokenizer
from worker.engine.adapter import Adapter, attach, check_golden, detach, verify
from worker.engine.weights import digest

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PROMPT = [0, 5, 6, 7, 8]
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"  # peft asks transformers for it
)


@pytest.fixture
def adapter(tiny_base: Path, make_adapter: AdapterMaker) -> Path:
    return make_adapter(tiny_base, "a-1")


@pytest.fixture
def model() -> Any:
    return tiny_llama(len(tiny_tokenizer()))


def answer(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([PROMPT])).logits
    assert isinstance(logits, torch.Tensor)
    return logits


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")


def test_an_intact_adapter_is_verified_and_changes_the_answer(adapter: Path, tiny_base: Path, model: Any) -> None:
    verified = verify(adapter, digest(tiny_base))
    assert verified == Adapter("a-1", adapter, (), ())
    bare = answer(model)
    wrapped = attach(model, verified)
    assert not torch.allclose(answer(wrapped), bare, atol=1e-2)
    assert torch.equal(answer(detach(wrapped)), bare)


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_a_truncated_file_is_refused_by_its_hash(adapter: Path, tiny_base: Path, name: str) -> None:
    with (adapter / name).open("r+b") as file:
        file.truncate((adapter / name).stat().st_size - 1)
    with pytest.raises(Broken, match=f"{name} is truncated"):
        verify(adapter, digest(tiny_base))


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_a_missing_file_is_refused(adapter: Path, tiny_base: Path, name: str) -> None:
    (adapter / name).unlink()
    with pytest.raises(Broken, match=f"{name} is missing"):
        verify(adapter, digest(tiny_base))


def test_an_adapter_of_another_base_is_refused(adapter: Path) -> None:
    with pytest.raises(Broken, match="another base model"):
        verify(adapter, "0" * 64)


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {}},
        {"files": {WEIGHTS: "0" * 64}},
        {"files": {WEIGHTS: "0" * 64, CONFIG: "0" * 64}},
        {"files": {WEIGHTS: "", CONFIG: "", "../outside": ""}},
        {"files": 7},
        {"base": None},
        {"golden": {"prompt_tokens": "右"}},
    ],
)
def test_a_manifest_that_does_not_hold_together_is_refused(
    adapter: Path, tiny_base: Path, changes: dict[str, Any]
) -> None:
    edit(adapter, **changes)
    with pytest.raises(Broken, match="dapter a-1"):
        verify(adapter, digest(tiny_base))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"id": 1}'])
def test_a_directory_without_a_manifest_is_nobodys(adapter: Path, tiny_base: Path, text: str) -> None:
    (adapter / "manifest.json").write_text(text, "utf-8")
    with pytest.raises(Broken, match=r"no readable manifest\.json"):
        verify(adapter, digest(tiny_base))
    (adapter / "manifest.json").unlink()
    with pytest.raises(Broken, match=r"no readable manifest\.json"):
        verify(adapter, digest(tiny_base))


def test_a_pickle_beside_the_weights_is_never_a_substitute_for_them(adapter: Path, tiny_base: Path) -> None:
    torch.save(load_file(adapter / WEIGHTS), adapter / "adapter_model.bin")
    (adapter / WEIGHTS).unlink()
    seal(adapter, tiny_base, "a-1")
    with pytest.raises(Broken, match=f"does not list {WEIGHTS}"):
        verify(adapter, digest(tiny_base))


def test_another_kind_of_adapter_is_refused(adapter: Path, tiny_base: Path) -> None:
    (adapter / CONFIG).write_text(json.dumps({"peft_type": "XLORA"}), "utf-8")
    seal(adapter, tiny_base, "a-1")
    with pytest.raises(Broken, match="not a LoRA"):
        verify(adapter, digest(tiny_base))


def _halve_a_matrix(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    name = sorted(state)[0]
    save_file({**state, name: state[name][:, :32].clone()}, folder / WEIGHTS)


def _leave_a_matrix_out(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    del state[sorted(state)[0]]
    save_file(state, folder / WEIGHTS)


def _add_a_matrix(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    extra = {name.replace("layers.0", "layers.9"): tensor.clone() for name, tensor in state.items()}
    save_file({**state, **extra}, folder / WEIGHTS)


def _name_layers_that_are_not_there(folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text("utf-8"))
    (folder / CONFIG).write_text(json.dumps({**config, "target_modules": ["nothing_like_it"]}), "utf-8")


def _give_another_rank(folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text("utf-8"))
    (folder / CONFIG).write_text(json.dumps({**config, "r": 2}), "utf-8")


@pytest.mark.filterwarnings("ignore:Found missing adapter keys:UserWarning")
@pytest.mark.parametrize(
    "harm", [_halve_a_matrix, _leave_a_matrix_out, _add_a_matrix, _name_layers_that_are_not_there, _give_another_rank]
)
def test_an_adapter_that_does_not_fit_leaves_the_base_as_it_was(
    adapter: Path, tiny_base: Path, model: Any, harm: Any
) -> None:
    fitting = adapter.with_name("fitting")
    shutil.copytree(adapter, fitting)
    harm(adapter)
    seal(adapter, tiny_base, "a-1")
    before, bare = answer(model), list(model.state_dict())
    with pytest.raises(Broken, match="does not fit the base model"):
        attach(model, verify(adapter, digest(tiny_base)))
    assert torch.equal(answer(model), before)
    assert list(model.state_dict()) == bare
    attach(model, verify(fitting, digest(tiny_base)))


def test_the_golden_answer_is_checked(adapter: Path, tiny_base: Path, model: Any) -> None:
    verified = verify(adapter, digest(tiny_base))
    wrapped = attach(model, verified)
    first: list[int] = []
    with torch.no_grad():
        for _ in range(4):
            first.append(int(wrapped(input_ids=torch.tensor([PROMPT + first])).logits[0, -1].argmax()))
    check_golden(wrapped, Adapter("a-1", adapter, tuple(PROMPT), tuple(first)))
    worst = int(answer(wrapped)[0, -1].argmin())
    for wrong in ((worst, *first[1:]), (*first[:3], worst)):
        with pytest.raises(Broken, match="golden prompt"):
            check_golden(wrapped, Adapter("a-1", adapter, tuple(PROMPT), wrong))
