"""The paper's Algorithm 2 in small: on the tiny 4-bit base, from embeddings over five templates to LoRA, and what becomes of the result."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from clinical.case import ClinicalInput, Modality, Sex, System
from core.errors import Broken
from tests.training.tiny import some_examples
from training import artefact, embeddings, merge, stages
from training.dataset import Case
from training.profiles import PAPER, SILENT, SMOKE, Profile, profile
from training.prompts import Score, best
from training.qlora import trainable
from worker.engine import rows, weights
from worker.engine.adapter import attach, detach, verify
from worker.prompt import TEMPLATES

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)  # peft asks transformers for it
RECIPE: Profile = profile(
    "paper",
    rank=8,
    learning_rate=1e-2,
    batch=2,
    accumulation=2,
    epochs=1,
    max_tokens=1500,
    embedding_examples=4,
    selection_examples=3,
    selection_scored=2,
)


def some(count: int) -> list[Case]:
    return [
        Case(
            f"case-{number}",
            ClinicalInput(
                "north", f"肝S{number}见囊性灶。", Modality("CT"), (System("abdomen"),), sex=Sex("F"), age=50
            ),
            f"肝S{number}囊肿。",
        )
        for number in range(count)
    ]


def follow(base: Path, folder: Path, recipe: Profile = RECIPE, **more: Any) -> Any:
    model, tokenizer = weights.load(base, None, device="cpu", training=True)
    torch.set_num_threads(1)
    return stages.follow(model, tokenizer, some(40), recipe, folder, max_new_tokens=4, **more)


def test_every_case_is_in_one_part_and_the_same_one_every_time() -> None:
    cases = some(40)
    divided = stages.parts(cases, RECIPE)
    assert [len(part) for part in (divided.embedding, divided.selection, divided.scored, divided.rest)] == [4, 3, 2, 31]
    together = [
        case.id for part in (divided.embedding, divided.selection, divided.scored, divided.rest) for case in part
    ]
    assert sorted(together) == sorted(case.id for case in cases)
    assert stages.parts(cases[::-1], RECIPE) == divided
    assert stages.parts(cases, SMOKE).rest == tuple(cases)
    many = stages.parts(cases, replace(RECIPE, embedding_examples=1000, selection_examples=1000))
    assert (len(many.embedding), len(many.selection)) == (4, 4)


def test_the_highest_rouge_chooses_the_template_and_of_equal_ones_the_lowest_loss() -> None:
    assert best({"brief": Score(0.4, 1.0, 9), "house": Score(0.5, 2.0, 9)}) == "house"
    assert best({"brief": Score(0.4, 1.1, 9), "house": Score(0.4, 1.0, 9)}) == "house"


def test_the_papers_profile_asks_for_every_step_and_says_where_the_paper_is_silent() -> None:
    assert PAPER.embedding_examples
    assert PAPER.selection_examples
    assert PAPER.selection_scored
    assert PAPER.merged
    assert (PAPER.rank, PAPER.alpha, PAPER.learning_rate, PAPER.epochs, PAPER.max_tokens) == (64, 16, 1.41e-5, 3, 512)
    told = (Path(__file__).parents[2] / "docs" / "training.md").read_text("utf-8")
    assert all(f"- {sentence}\n" in told for sentence in SILENT.values())
    assert SILENT.keys() >= {"accumulation", "targets", "embedding_examples", "selection_examples", "schedule"}


@pytest.fixture(scope="module")
def learned(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An uninterrupted course, and the phases that it told of in order."""
    phases: list[str] = []
    result = follow(tiny_base, tmp_path_factory.mktemp("course"), tell=lambda phase, _: phases.append(phase))
    return result, list(dict.fromkeys(phases))


def test_embeddings_learn_first_then_each_template_then_lora_on_the_rest(learned: Any) -> None:
    result, phases = learned
    assert phases == ["embeddings", *(f"prompt {template}" for template in TEMPLATES), "train"]
    selection = result.told["selection"]
    assert (
        selection["template"] == result.recipe.template == best({k: Score(**v) for k, v in selection["scores"].items()})
    )
    assert all(score["reports"] == 2 for score in selection["scores"].values())
    assert (result.told["examples"], result.told["too_long"]) == (31, 0)
    assert result.trained.steps == 8
    assert result.told["embeddings"]["rows"] > 0


def test_only_rows_of_the_embedding_change_in_step_one(learned: Any, tiny_base: Path) -> None:
    result, _ = learned
    [file] = tiny_base.glob("*.safetensors")
    bare = load_file(file)["model.embed_tokens.weight"]
    now = result.model.get_input_embeddings().weight
    assert now.dtype is torch.bfloat16
    assert not now.requires_grad
    stored = load_file(result.embeddings)
    changed = (bare != now).any(dim=1).nonzero()[:, 0]
    assert torch.equal(changed, stored["ids"])
    assert torch.equal(now[changed], stored["rows"])
    assert 0 < len(changed) < len(bare)  # tokens that no example has stay as they were
    assert all("lora_" in name for name in trainable(result.model))


def test_an_embedding_in_half_precision_learns_with_the_output_layer_that_is_tied_to_it(tmp_path: Path) -> None:
    torch.manual_seed(7)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=96, tie_word_embeddings=True, **shape)
    model = LlamaForCausalLM(config).to(torch.bfloat16).requires_grad_(False)
    before = model.get_input_embeddings().weight.clone()

    assert embeddings.learn(model, some_examples(8), RECIPE, tmp_path).finished

    now = model.get_input_embeddings().weight
    assert model.lm_head.weight is now
    assert now.dtype is torch.bfloat16
    assert not torch.equal(now, before)
    assert embeddings.moved(tmp_path / rows.FILE) > 0


def test_a_course_that_was_stopped_twice_ends_with_the_weights_of_an_uninterrupted_one(
    learned: Any, tiny_base: Path, tmp_path: Path
) -> None:
    whole, _ = learned
    for breaking_point in ("prompt cautious", "train"):
        seen: list[str] = []
        stopped = follow(
            tiny_base,
            tmp_path,
            tell=lambda phase, _, seen=seen: seen.append(phase),
            stop=lambda seen=seen, at=breaking_point: at in seen,
        )
        assert stopped is None
        assert "embeddings" in seen or breaking_point == "train"
    again = follow(tiny_base, tmp_path)
    assert again.trained.losses == pytest.approx(whole.trained.losses, abs=1e-6)
    assert again.told == whole.told
    for name, parameter in trainable(again.model).items():
        assert torch.allclose(parameter, trainable(whole.model)[name], atol=1e-6), name


def publish(result: Any, base: Path, tmp_path: Path) -> Path:
    """The result as a sealed version."""
    staged = tmp_path / "staged"
    artefact.write_weights(result.model, staged, result.recipe, "tiny")
    (staged / rows.FILE).write_bytes(result.embeddings.read_bytes())
    data = {"id": "d", "digest": "d", "reports": 40, "institutions": {}}
    origin = artefact.Origin("tiny", weights.digest(base), data, [], True)
    answer = artefact.golden(result.model, list(result.fitting[0].prompt), (2,))
    artefact.seal(staged, "v1", result.recipe, origin, training={}, metrics={}, golden_answer=answer)
    return artefact.publish(staged, tmp_path / "v1")


def test_trained_embeddings_travel_with_the_adapter_and_leave_with_it(
    learned: Any, tiny_base: Path, tmp_path: Path
) -> None:
    result, _ = learned
    folder = publish(result, tiny_base, tmp_path)
    adapter = verify(folder, weights.digest(tiny_base))
    assert adapter.embeddings
    bare, _ = weights.load(tiny_base, None, device="cpu")
    before = bare.get_input_embeddings().weight.clone()
    served = attach(bare, adapter)
    assert torch.equal(served.get_input_embeddings().weight, result.model.get_input_embeddings().weight)
    assert torch.equal(detach(served).get_input_embeddings().weight, before)


def test_trained_embeddings_make_a_base_digest_of_their_own_and_a_changed_file_is_refused(
    learned: Any, tiny_base: Path, tmp_path: Path
) -> None:
    import json

    folder = publish(learned[0], tiny_base, tmp_path)
    base = json.loads((folder / "manifest.json").read_text("utf-8"))["base"]
    assert base["digest"] == weights.digest(tiny_base)
    assert base["with_embeddings"] not in ("", base["digest"])
    stored = load_file(folder / rows.FILE)
    rows.write(torch.zeros_like(stored["rows"]), stored["rows"], folder / rows.FILE)
    with pytest.raises(Broken, match="truncated or changed"):
        verify(folder, weights.digest(tiny_base))


def test_the_merged_model_is_full_precision_and_answers_as_base_embeddings_and_adapter_do(
    learned: Any, tiny_base: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    result, _ = learned
    folder = publish(result, tiny_base, tmp_path)
    told = merge.merge(tiny_base, folder, tmp_path / "merged")
    assert (told["version"], told["weights"]) == ("v1", "bf16-merged")
    assert told["digest"] == weights.digest(tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.bfloat16).eval()
    assert not any("lora" in name or "absmax" in name for name, _ in merged.named_parameters())
    beside, _ = weights.load(tiny_base, folder, device="cpu")
    ids = torch.tensor([result.fitting[0].prompt])
    with torch.no_grad():
        ours, theirs = (model(input_ids=ids).logits.float().log_softmax(-1) for model in (merged, beside))
    assert torch.nn.functional.kl_div(ours, theirs, log_target=True, reduction="none").sum(-1).mean() < 1e-3
    with pytest.raises(Broken, match="is there already"):
        merge.merge(tiny_base, folder, tmp_path / "merged")
