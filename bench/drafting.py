"""Drafting, side by side in one run: `python bench/drafting.py [--quick] [--json] [--shape SHAPE] [--new-tokens N] …`.

For each form of the weights and each number of jobs in flight: one `generate` per task (what the paper did), padded batches (`generate`), continuous
batching (`cb`) and fixed places (`static`), the latter three being engines that serve. Without `--shape` the demo model drafts pretend findings and ends by
itself; with one, weights are random and every text is `--new-tokens` long. `floor_fraction` is tokens per second over what the device's
bandwidth would allow (`bench.serving.floor`); on a machine that does other work too, `impressions_per_cpu_s` is the steadier rate.

On a card: `python bench/drafting.py --shape llama-2-7b --json`. It imports `bench`, `clinical`, `core` and `worker` of this repository and needs torch,
transformers 5.23, peft, bitsandbytes, tokenizers, safetensors, httpx and pydantic-settings, no database and no network. Where one command may not take
long: one run for each of `--modes one-per-task --in-flight 1`, `--modes generate`, `--modes cb`, `--modes static`.
"""

import argparse
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # this file's own folder would hide packages behind its files

import torch  # noqa: E402

from bench.serving import floor, load, shapes  # noqa: E402
from bench.serving.ways import WAYS, fixed  # noqa: E402
from worker.engine.limits import Limits  # noqa: E402
from worker.engine.resident import Resident  # noqa: E402

WEIGHTS = ("nf4+adapter", "bf16-merged")
IN_FLIGHT = (1, 8, 32, 64)
ROOT = Path(__file__).parents[1]


def main() -> None:
    """Measures and prints one JSON object on the last line."""
    options = _options()
    device = "cuda:0" if torch.cuda.is_available() and options.device != "cpu" else "cpu"
    if options.threads:
        torch.set_num_threads(options.threads)
    bandwidth = floor.bandwidth(device)
    runs: list[dict[str, Any]] = []
    for weights in options.weights:
        model, tokenizer, prompts, base = _model(options, weights, device)
        under = floor.of(model, bandwidth)
        for mode in options.modes:
            for in_flight in options.in_flight:
                row = _run(options, mode, weights, in_flight, model, tokenizer, prompts, base, device, under)
                runs.append(row)
                if not options.json:
                    _show(row)
        del model
        if device != "cpu":
            torch.cuda.empty_cache()
    speedups = _speedups(runs)
    result = {
        "device": torch.cuda.get_device_name() if device != "cpu" else f"cpu, {torch.get_num_threads()} threads",
        "bandwidth_gb_per_s": round(bandwidth / 1e9, 1),
        "model": options.shape or "demo",
        "torch": torch.__version__,
        "speedup": speedups,
        "runs": runs,
    }
    if not options.json:
        for name, times in speedups.items():
            print(f"{name}: {times} times one-per-task")
    print(json.dumps(result))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Drafting: one generate per task, padded batches, continuous batching")
    parser.add_argument("--quick", action="store_true", help="1 and 8 in flight, NF4 only, without `static`")
    parser.add_argument("--json", action="store_true", help="only the JSON line")
    parser.add_argument(
        "--shape", choices=sorted(shapes.SHAPES), help="random weights of this shape instead of the demo model"
    )
    parser.add_argument(
        "--new-tokens", type=int, help="length of every text; default with a shape: 100; else texts end by themselves"
    )
    parser.add_argument("--prompt-tokens", type=int, default=512, help="length of every prompt, with a shape")
    parser.add_argument("--in-flight", type=int, nargs="+", default=None, help="default: 1 8 32 64")
    parser.add_argument("--weights", choices=WEIGHTS, nargs="+", default=None)
    parser.add_argument("--modes", choices=sorted(WAYS), nargs="+", default=None)
    parser.add_argument(
        "--rounds",
        type=int,
        default=2,
        help="how often a run drafts its prompts, as many as are in flight; one-per-task: once",
    )
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of torch; 0 leaves torch's own choice")
    options = parser.parse_args()
    options.in_flight = options.in_flight or ((1, 8) if options.quick else IN_FLIGHT)
    options.weights = options.weights or (WEIGHTS[:1] if options.quick else WEIGHTS)
    options.modes = options.modes or list(WAYS)[: 3 if options.quick else None]
    if options.shape and options.new_tokens is None:
        options.new_tokens = 100
    return options


def _model(options: argparse.Namespace, weights: str, device: str) -> tuple[Any, Any, list[str], Path]:
    """Model, tokenizer, prompts and the base's folder."""
    if options.shape:
        model, tokenizer = shapes.build(options.shape, weights, device)
        draw = random.Random(5)
        letters = [chr(shapes.FIRST_CHARACTER + number) for number in range(3, len(tokenizer))]
        prompts = ["".join(draw.choices(letters, k=options.prompt_tokens - 1)) for _ in range(64)]
        return model, tokenizer, prompts, Path()
    from core.settings import Settings
    from worker.engine.weights import DEMO, base_model, load

    base = base_model(DEMO, Settings().models_dir)
    model, tokenizer = load(base, ROOT / "worker" / "demo_adapter", weights=weights, device=device)
    return model, tokenizer, list(_findings(64)), base


def _findings(count: int) -> Iterator[str]:
    """Prompts as the demo's worker renders them, of pretend hospital 1, of the texts that no training saw."""
    from itertools import islice

    from clinical.case import ClinicalInput, Modality, Sex, System
    from sandbox.generator import generate
    from worker.prompt import render

    for report in islice(generate("balanced", scale=0.01, seed=7, houses=(1,), wording="unseen"), count):
        case = ClinicalInput(
            institution="sandbox-1",
            findings=report.findings,
            modality=Modality(report.modality),
            systems=tuple(System(system) for system in report.systems),
            exam_title=report.exam_title,
            sex=Sex(report.sex),
            age=report.age,
        )
        yield render("brief", case).text


def _run(
    options: argparse.Namespace,
    mode: str,
    weights: str,
    in_flight: int,
    model: Any,
    tokenizer: Any,
    prompts: list[str],
    base: Path,
    device: str,
    under: floor.Floor,
) -> dict[str, Any]:
    way = WAYS[mode] if options.new_tokens is None else fixed(WAYS[mode])
    cap = options.new_tokens or 128
    longest = max(len(tokenizer(prompt)["input_ids"]) for prompt in prompts)
    engine: Resident = way(model, tokenizer, Limits(longest, longest + cap, in_flight), base=base)
    try:
        load.run(engine, prompts, min(in_flight, 4), in_flight, 2, device)  # first passes lay out weights and caches
        same = prompts[: max(4, in_flight)]  # every mode drafts the same prompts, equally often
        rounds = 1 if mode == "one-per-task" else options.rounds  # its rate is the same however long it goes on
        got = load.run(engine, same, rounds * len(same), in_flight, cap, device)
    finally:
        engine.drain(0)
    allowed = under.tokens_per_s(1 if mode == "one-per-task" else in_flight, got.prompt_tokens + got.new_tokens / 2)
    return {
        "mode": mode,
        "weights": weights,
        "in_flight": in_flight,
        "impressions_per_s": round(got.impressions_per_s, 3),
        "p50_s": round(got.p50_s, 3),
        "p95_s": round(got.p95_s, 3),
        "tokens_per_s": round(got.tokens_per_s, 1),
        "floor_tokens_per_s": round(allowed, 1),
        "floor_fraction": round(got.tokens_per_s / allowed, 4),
        "impressions_per_cpu_s": round(got.jobs / got.cpu_seconds, 3),
        "prompt_tokens": round(got.prompt_tokens, 1),
        "new_tokens": round(got.new_tokens, 1),
        "jobs": got.jobs,
        "peak_memory_mb": round(got.peak_memory_mb),
    }


def _speedups(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """By weights, mode and jobs in flight: impressions over those of one-per-task, by wall clock and by CPU time."""
    alone = {(row["weights"], row["in_flight"]): row for row in runs if row["mode"] == "one-per-task"}
    made = {}
    for row in runs:
        other = alone.get((row["weights"], row["in_flight"]))
        if other is not None and row is not other:
            made[f"{row['mode']} {row['weights']} at {row['in_flight']}"] = {
                name: round(row[key] / other[key], 2)
                for name, key in (("wall", "impressions_per_s"), ("cpu", "impressions_per_cpu_s"))
            }
    return made


def _show(row: dict[str, Any]) -> None:
    print(
        f"{row['mode']:13s} {row['weights']:12s} {row['in_flight']:3d} in flight: {row['impressions_per_s']:8.3f} impressions/s "
        f"(p50 {row['p50_s']:.2f} s, p95 {row['p95_s']:.2f} s), {row['tokens_per_s']:8.1f} tokens/s, "
        f"{100 * row['floor_fraction']:.1f} % of the floor, {row['peak_memory_mb']} MB",
        flush=True,
    )


if __name__ == "__main__":
    main()
