"""The shipped demo adapter and its recipe: what it was trained on, what it is measured on, what lies in its folder."""

import json
from importlib.resources import files
from pathlib import Path

from admin import demo_adapter
from core import registry
from worker import prompt
from worker.engine.weights import DEMO_DIGEST

DEMO_LINEAR = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
FOLDER = Path(str(files("worker").joinpath("demo_adapter")))


def test_the_recipe_teaches_hospital_1_only_and_nothing_that_is_held_out() -> None:
    taught = demo_adapter.taught(150)
    tested = demo_adapter.held_out(5, taught)
    assert len(taught) == 150
    assert {case.input.institution for case in taught} == {"sandbox-1"}
    assert sorted({case.input.institution for case in tested}) == [f"sandbox-{house}" for house in range(1, 7)]
    assert not {case.input.findings for case in taught} & {case.input.findings for case in tested}
    assert {system for case in taught for system in case.input.systems} >= {
        "chest",
        "abdomen",
        "musculoskeletal",
        "head",
    }
    assert demo_adapter.taught(150) == taught


def test_the_shipped_adapter_is_small_whole_and_of_the_demo_base() -> None:
    manifest = registry.read_manifest(FOLDER)
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 4_000_000
    assert manifest["base"] == {"model": "demo", "digest": DEMO_DIGEST}
    assert manifest["sandbox_only"] is True
    assert set(manifest["dataset"]["institutions"]) == {"sandbox-1"}


def test_the_shipped_adapter_was_trained_with_todays_prompt_and_recipe() -> None:
    manifest = registry.read_manifest(FOLDER)
    recipe = demo_adapter.RECIPE
    assert manifest["prompt"] == {"template": recipe.template, "version": prompt.version(recipe.template)}
    assert manifest["adapter"] == {"r": recipe.rank, "alpha": recipe.alpha, "target_modules": DEMO_LINEAR}
    assert manifest["training"]["learning_rate"] == recipe.learning_rate
    assert manifest["dataset"]["reports"] == demo_adapter.REPORTS


def test_the_shipped_adapter_was_measured_good_beside_a_bare_base_measured_poor() -> None:
    metrics = registry.read_manifest(FOLDER)["metrics"]
    assert metrics["held_out"]["r1"] >= 0.6
    assert metrics["bare_base"]["r1"] <= 0.3
    assert set(metrics["held_out"]["by_institution"]) == {f"sandbox-{house}" for house in range(1, 7)}


def test_the_folder_carries_the_licence_of_the_base_model() -> None:
    notice = (FOLDER / "NOTICE").read_text("utf-8")
    assert notice.startswith(
        "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
    )
    assert "Section 3: DISTRIBUTION AND RESTRICTIONS" in (FOLDER / "GEMMA_TERMS.txt").read_text("utf-8")
    assert {"NOTICE", "GEMMA_TERMS.txt"} <= set(json.loads((FOLDER / "manifest.json").read_text("utf-8"))["files"])
