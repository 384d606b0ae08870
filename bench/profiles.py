"""What the profiles learn from the same reports: `python bench/profiles.py [--reports 400] [--tested 60] [--profile NAME …] [--json]`.

Each profile trains the demo base on the same generated reports of pretend hospital 1, through every step that it has, and the result drafts the
same held-out ones as it would serve. The paper's batch of 64 × 16 would be one update per epoch here, so `accumulation` is 1 for it. A small
base and few reports: it says which settings learn more from little, and nothing of a hospital's hundred thousand.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # this file's own folder would hide packages behind its files

import shutil  # noqa: E402 - the path comes first

import torch  # noqa: E402

from admin import demo_adapter  # noqa: E402
from core.settings import WorkerSettings  # noqa: E402
from training import artefact, dataset, evaluate, stages  # noqa: E402
from training.dataset import Case  # noqa: E402
from training.profiles import Profile, profile  # noqa: E402
from worker.engine import weights  # noqa: E402
from worker.engine.open import open_engine  # noqa: E402

CHANGES: dict[str, dict[str, object]] = {"paper": {"accumulation": 1, "merged": False, "selection_scored": 10}}
"""What is set otherwise than the profile says."""
NEW_TOKENS = 96
"""Of a draft; a base that has learned little rambles to the end of it."""
SHORT = 120
"""Characters of findings: two cores need minutes, not hours."""


def main() -> None:
    """Trains by each profile and prints what its drafts are worth."""
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    settings = WorkerSettings()
    base = weights.base_model(weights.DEMO, settings.models_dir)
    taught = _short(demo_adapter.taught(6 * options.reports))[: options.reports]
    tested = [one for one in _short(demo_adapter.held_out(200, taught)) if one.input.institution == "sandbox-1"]
    tested = tested[: options.tested]
    if len(taught) < options.reports or len(tested) < options.tested:
        raise SystemExit(f"There are {len(taught)} short reports to learn from and {len(tested)} to test on.")
    rows: dict[str, dict[str, Any]] = {}
    for name in options.profile:
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = _row(profile(name, **CHANGES.get(name, {})), base, taught, tested, settings, Path(folder))
        if not options.json:
            _show(name, rows[name])
    print(json.dumps({"reports": len(taught), "tested": len(tested), "changes": CHANGES, "profiles": rows}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Training profiles on the same reports")
    parser.add_argument("--reports", type=int, default=400, help="to learn from")
    parser.add_argument("--tested", type=int, default=60, help="held out, of the same hospital")
    parser.add_argument("--profile", nargs="+", default=["paper", "recommended"], help="in this order")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of torch; 0 leaves torch's own choice")
    parser.add_argument("--json", action="store_true", help="only the JSON line")
    return parser.parse_args()


def _short(cases: Sequence[Case]) -> list[Case]:
    return [one for one in cases if len(one.input.findings) <= SHORT]


def _row(
    recipe: Profile, base: Path, taught: Sequence[Case], tested: Sequence[Case], settings: WorkerSettings, folder: Path
) -> dict[str, Any]:
    """Trains by the recipe in `folder` and measures the adapter on `tested`."""
    began = time.monotonic()
    model, tokenizer = weights.load(base, None, device="cpu", training=True)
    house = demo_adapter.houses()
    learned = stages.follow(model, tokenizer, taught, recipe, folder / "run", max_new_tokens=NEW_TOKENS, house=house)
    assert learned is not None  # nothing stops it
    adapter, chosen = folder / "adapter", learned.recipe
    artefact.write_weights(learned.model, adapter, chosen, weights.DEMO)
    if learned.embeddings is not None:
        shutil.copy(learned.embeddings, adapter)
    answer = artefact.golden(learned.model, list(learned.fitting[0].prompt), weights.end_tokens(model, tokenizer))
    origin = artefact.Origin(
        base=weights.DEMO,
        base_digest=weights.digest(base),
        dataset={"id": "bench"},
        scope=dataset.scope(iter(taught)),
        sandbox_only=True,
    )
    artefact.seal(adapter, recipe.name, chosen, origin, training={}, metrics={}, golden_answer=answer)
    seconds = time.monotonic() - began
    losses = learned.trained.losses
    del model, learned.model
    engine = open_engine(settings, base, adapter)
    try:
        result = evaluate.evaluate(
            engine,
            tested,
            template=chosen.template,
            max_new_tokens=NEW_TOKENS,
            in_flight=settings.in_flight,
            house=house,
        ).as_json()
    finally:
        engine.drain(1.0)
    return {
        "template": chosen.template,
        "updates": learned.trained.steps,
        "first_loss": round(losses[0], 3),
        "last_loss": round(losses[-1], 3),
        "training_s": round(seconds, 1),
        **{name: result[name] for name in ("r1", "r2", "rl", "fact_f1", "outcomes")},
    }


def _show(name: str, row: dict[str, Any]) -> None:
    print(
        f"{name:12s} {row['updates']:4d} updates, loss {row['first_loss']:.3f} -> {row['last_loss']:.3f}, "
        f"ROUGE-1 {row['r1']:.3f}, fact F1 {row['fact_f1']:.3f}, {row['outcomes']}, {row['training_s']:.0f} s of training",
        flush=True,
    )


if __name__ == "__main__":
    main()
