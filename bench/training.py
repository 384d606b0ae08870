"""Training speed in real tokens per second, padding not counted: ours, TRL's SFTTrainer as the paper's settings ask, and TRL at its best.

The same base, examples, order, steps and rate for all, one after the other in one run, each on a fresh model; then the loss of each on the
same held-out examples, which should differ by rounding only. The first step warms up and is not timed. bench/learning/trainers.py says what
each does, and why TRL takes so long on a CPU. `--shape llama-2-7b` is for a card: random weights in the paper's shape, samples as long as
`--mean-tokens` says, model FLOP utilisation and the projected hours of the paper's run.
Run it as `python bench/training.py [--quick] [--json]`; the last line is one JSON object. `--quick` has 4 steps of 4 examples.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # this file's own folder would hide packages behind its files

import torch  # noqa: E402 - the path comes first

from bench.learning import card, material, trainers  # noqa: E402 - the path comes first
from bench.serving import shapes  # noqa: E402
from training.packing import Example  # noqa: E402
from training.profiles import Profile  # noqa: E402
from training.qlora import mean_loss  # noqa: E402

WAYS = ("ours", "trl_padded", "trl_best")


def main() -> None:
    """Trains with each and prints what it took."""
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = "cuda:0" if torch.cuda.is_available() and options.device == "auto" else "cpu"
    recipe = material.recipe_of(options.shape, options.steps, options.batch, options.row_tokens, options.max_tokens)
    model, tokenizer = material.model_of(options.shape, recipe, device)
    examples, held_out = _examples(options, recipe, tokenizer)
    before = mean_loss(model, held_out, recipe.row_tokens)
    per_token = card.operations(model, examples)
    mean_tokens = sum(map(len, examples)) / len(examples)
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device != "cpu" else f"cpu, {torch.get_num_threads()} threads",
        "model": options.shape or "demo",
        "examples": len(examples),
        "steps": recipe.steps,
        "mean_tokens": round(mean_tokens, 1),
        "histogram": material.histogram(examples),
        "loss_before": round(before, 4),
    }
    for way in WAYS if not options.ours else WAYS[:1]:
        del model  # the next one is fresh, and a card has room for one
        model, _ = material.model_of(options.shape, recipe, device)
        got = _run(way, model, tokenizer, examples, held_out, recipe)
        result |= {
            f"{way}_tokens_per_s": round(got.tokens_per_s, 1),
            f"{way}_tokens_per_cpu_s": round(got.tokens_per_cpu_s, 1),
            f"{way}_loss": round(got.loss, 4),
            **({f"{way}_peak_mb": got.peak_mb} if device != "cpu" else {}),
        }
        if not options.json:
            print(
                f"{way:11s} {got.tokens_per_s:9.1f} real tokens/s, {got.tokens_per_cpu_s:9.1f} per CPU second, "
                f"loss {before:.4f} -> {got.loss:.4f} on {len(held_out)} held-out examples",
                flush=True,
            )
    if not options.ours:
        for way in WAYS[1:]:
            result[f"times_{way}"] = {
                "wall": round(result["ours_tokens_per_s"] / result[f"{way}_tokens_per_s"], 2),
                "cpu": round(result["ours_tokens_per_cpu_s"] / result[f"{way}_tokens_per_cpu_s"], 2),
            }
    if device != "cpu":
        result |= card.projection(per_token, result["ours_tokens_per_s"], mean_tokens, device)
    if not options.json:
        print(f"examples by tokens: {result['histogram']}")
    print(json.dumps(result))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Training: ours, TRL padded, TRL at its best")
    parser.add_argument("--quick", action="store_true", help="4 steps of 4 examples; with a shape 4 steps")
    parser.add_argument("--json", action="store_true", help="only the JSON line")
    parser.add_argument("--shape", choices=sorted(shapes.SHAPES), help="random weights of this shape, not the demo")
    parser.add_argument("--mean-tokens", type=float, default=414.0, help="with a shape: tokens of a sample, on average")
    parser.add_argument("--max-tokens", type=int, default=512, help="longest example")
    parser.add_argument("--row-tokens", type=int, help="tokens of a packed row; default 512, with a shape 4096")
    parser.add_argument("--batch", type=int, help="examples of a step; default 8, quick 4, with a shape 64")
    parser.add_argument("--steps", type=int, help="at least 2; default 12, quick 4")
    parser.add_argument("--ours", action="store_true", help="without TRL")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of torch; 0 leaves torch's own choice")
    options = parser.parse_args()
    options.steps = options.steps or (4 if options.quick else 12)
    if options.steps < 2:
        parser.error("--steps must be at least 2: the first step is not timed")
    options.batch = options.batch or (64 if options.shape else 4 if options.quick else 8)
    options.row_tokens = options.row_tokens or (512 if options.shape is None else 4096)
    return options


def _examples(options: argparse.Namespace, recipe: Profile, tokenizer: Any) -> tuple[list[Example], list[Example]]:
    """What is trained on, and the held-out batch."""
    count = options.batch * options.steps
    if options.shape is None:
        examples, held_out = material.reports(tokenizer, recipe, count)
    else:
        lengths = material.lengths(200)
        drawn = material.drawn(
            lengths, options.mean_tokens, options.max_tokens, len(tokenizer), count + material.HELD_OUT
        )
        examples, held_out = drawn[material.HELD_OUT :], drawn[: material.HELD_OUT]
    if len(examples) < count:
        raise SystemExit(f"Only {len(examples)} examples fit {options.max_tokens} tokens; {count} are needed.")
    return examples[:count], held_out


def _run(
    way: str,
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    recipe: Profile,
) -> trainers.Outcome:
    if way == "ours":
        return trainers.ours(model, examples, held_out, recipe)
    return trainers.trl(model, tokenizer, examples, held_out, recipe, best=way == "trl_best")


if __name__ == "__main__":
    main()
