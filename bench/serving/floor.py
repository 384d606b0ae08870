"""The floor under a generation: every token needs all weights once per step and each job's own keys and values, over the device's bandwidth.

Prefill, which is arithmetic and not bandwidth, is left out: a real impression cannot reach the floor, and how far it is from it is what
the fraction says. The bandwidth is measured on this device by copying a tensor, bytes read and written both counted.
"""

import time
from dataclasses import dataclass
from typing import Any

import torch

COPIES = 7


@dataclass(frozen=True, slots=True)
class Floor:
    """Bytes that a step reads for the weights, bytes of a token's keys and values, and bytes per second of the device."""

    weight_bytes: int
    token_bytes: int
    bandwidth: float

    def tokens_per_s(self, in_flight: int, context: float) -> float:
        """Tokens per second of `in_flight` jobs with `context` tokens each, if nothing but the bandwidth held them."""
        return in_flight * self.bandwidth / (self.weight_bytes + in_flight * context * self.token_bytes)


def of(model: Any, bandwidth: float) -> Floor:
    """The floor of a model as it lies in memory: packed weights and their scales, adapter, head; embeddings only where they are the head."""
    config = model.config.get_text_config()
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return Floor(
        _weight_bytes(model), 2 * config.num_hidden_layers * heads * head_size * torch.bfloat16.itemsize, bandwidth
    )


def _weight_bytes(model: Any) -> int:
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    total = 0
    for name, parameter in model.named_parameters():
        if "embed" in name and not tied:
            continue
        total += parameter.numel() * parameter.itemsize
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            total += state.absmax.numel() * state.absmax.itemsize
    return total


def bandwidth(device: str) -> float:
    """Bytes per second of the best of a few copies: 2 GB on a card, 256 MB on a CPU (of all its cores)."""
    size = (1 << 31) if device.startswith("cuda") else (1 << 28)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(COPIES):
        _settle(device)
        began = time.perf_counter()
        target.copy_(source)
        _settle(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size / best


def _settle(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
