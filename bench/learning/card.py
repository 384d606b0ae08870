"""What a card could do at best, what the training asks of it, and what that makes of the paper's run. Counts; trains nothing."""

import time
from collections.abc import Sequence
from typing import Any

import torch

from training.packing import Example

PAPER_SAMPLES, PAPER_EPOCHS = 253_871, 3


def operations(model: Any, examples: Sequence[Example]) -> float:
    """Floating-point operations per token: 4 for each weight of the frozen layers (forward, and backward to their input), 6 for each of
    the adapter, whose own gradients come on top. The output layer counts for predicted tokens only, which alone go through it.

    Attention itself, some 2 % at these lengths, and unpacking 4 bits are left out, so the utilisation that follows is a little too low.
    """
    head = model.get_output_embeddings()
    frozen = sum(
        module.in_features * module.out_features
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head and "lora_" not in name
    )
    adapter = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    predicted = sum(len(example.answer) for example in examples) / sum(map(len, examples))
    return float(4 * (frozen + predicted * head.in_features * head.out_features) + 6 * adapter)


def peak(device: str) -> float:
    """Floating-point operations a second of a large bf16 product on this card, measured."""
    side, times = 8192, 20
    one, other = (torch.randn(side, side, dtype=torch.bfloat16, device=device) for _ in range(2))
    for _ in range(3):
        one @ other
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(times):
        one @ other
    torch.cuda.synchronize()
    return 2 * side**3 * times / (time.perf_counter() - began)


def projection(per_token: float, tokens_per_s: float, mean_tokens: float, device: str) -> dict[str, float]:
    """Model FLOP utilisation at this speed, and the hours that the paper's run would take: its samples at this mean length."""
    measured = peak(device)
    return {
        "peak_tflops": round(measured / 1e12, 1),
        "gflop_per_token": round(per_token / 1e9, 2),
        "mfu": round(tokens_per_s * per_token / measured, 3),
        "projected_hours": round(PAPER_SAMPLES * PAPER_EPOCHS * mean_tokens / tokens_per_s / 3600, 2),
    }
