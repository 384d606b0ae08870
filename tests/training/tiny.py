"""A tiny random Llama in fp32 and examples for it; as a program, `python -m tests.training.tiny CHECKPOINT`, a run in a process of its own."""

import random
import sys
import warnings
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from training.packing import Example
from training.profiles import Profile, profile
from training.qlora import add_lora, train
from training.ranks import joined

EOS = 2


def tiny() -> LlamaForCausalLM:
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        eos_token_id=EOS,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config).requires_grad_(False)
    model.lm_head.weight.mul_(20)  # random heads are too flat for any hidden state to be sure of a token
    return model


def some_examples(count: int, seed: int = 1) -> list[Example]:
    """Prompts whose answer is their own first tokens, then the end."""
    draw = random.Random(seed)
    examples = []
    for _ in range(count):
        prompt = [draw.randrange(3, 96) for _ in range(draw.randrange(6, 30))]
        examples.append(Example(tuple(prompt), (*prompt[: draw.randrange(2, 6)], EOS)))
    return examples


def quick(**changes: object) -> Profile:
    small = {"batch": 6, "row_tokens": 96, "epochs": 2, "steps": None, "learning_rate": 1e-2}
    return profile("smoke", **{**small, **changes})


def main() -> None:
    """Trains with a checkpoint after every step and says each step; with a launcher's environment, as one of several processes."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    settings = quick()
    train(
        add_lora(tiny(), settings),
        some_examples(40),
        settings,
        checkpoint=Path(sys.argv[1]),
        every_s=0.0,
        on_step=lambda progress: print(progress.step, flush=True),  # noqa: T201 - read by the one that kills it
        ranks=joined(cpu=True),
    )


if __name__ == "__main__":
    main()
