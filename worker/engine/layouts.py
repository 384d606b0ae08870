"""Four-bit weights on a CPU in both layouts: bitsandbytes' packed one for single tokens, the ordinary one for prompts.

On CPUs with AVX512-BF16 bitsandbytes repacks NF4 weights for a kernel that decodes while it multiplies. That is eight times faster than decoding first
for one row and six times slower for 512 (measured, 2048 x 640, one thread), so long inputs are multiplied with weights decoded once for all their rows.
It costs the memory of a second packed copy, half a byte a weight. For serving only: training, merging and export keep the ordinary layout alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch

SHORT = 24
"""Rows up to which the packed layout is the faster one (measured: even at 8 to 32)."""


def keep_both(model: Any) -> None:
    """Let every 4-bit layer that will be repacked keep its ordinary layout too. Call before the first forward."""
    import bitsandbytes

    for layer in model.modules():
        if isinstance(layer, bitsandbytes.nn.Linear4bit) and layer.support_avx512bf16_for_cpu:
            layer.forward = _Both(layer)


@contextmanager
def packed_only(model: Any) -> Iterator[None]:
    """The model as bitsandbytes alone would run it, for comparison."""
    both = [(layer, layer.forward) for layer in model.modules() if isinstance(layer.__dict__.get("forward"), _Both)]
    for layer, _ in both:
        del layer.forward
    try:
        yield
    finally:
        for layer, forward in both:
            layer.forward = forward


class _Both:
    def __init__(self, layer: Any) -> None:
        self._packed, self._layer = layer.forward, layer
        self._data, self._state = layer.weight.data, deepcopy(layer.weight.quant_state)  # repacking changes it in place

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[…, in] to [out], by the layout that suits the number of rows."""
        from bitsandbytes.functional import dequantize_4bit

        if x.numel() <= SHORT * x.shape[-1]:
            return self._packed(x)  # type: ignore[no-any-return]
        wide = self._layer.compute_dtype or x.dtype
        bias = None if self._layer.bias is None else self._layer.bias.to(wide)
        weight = dequantize_4bit(self._data, self._state).to(wide)
        return torch.nn.functional.linear(x.to(wide), weight, bias).to(x.dtype)
