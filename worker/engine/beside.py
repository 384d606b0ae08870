"""The adapter beside four-bit weights, computed with as few kernels as it takes: two per layer instead of eight.

PEFT computes it in fp32 with casts, a scaling and an addition of their own; on a card each is a kernel, and a 7B model has 224 such layers.
Here both matrices are in the type of the activations (bf16, in which the artefact stores them) and the second product adds itself,
scaled, to the layer's result. For what serves on a card; on a CPU it gained nothing (measured on the demo model), and training computes as
PEFT does. Its arithmetic is tested on a CPU; its gain on a card has not been measured yet.
"""

from typing import Any

import torch


def lighten(model: Any) -> Any:
    """The model, its plain LoRA layers computing so from now on; any other layer stays as it was. Taking the adapter out undoes it."""
    from peft.tuners.lora import LoraLayer

    for layer in model.modules():
        if isinstance(layer, LoraLayer) and _plain(layer):
            name = layer.active_adapters[0]
            layer.forward = _Beside(layer.get_base_layer(), layer.lora_A[name], layer.lora_B[name], layer.scaling[name])
    return model


def _plain(layer: Any) -> bool:
    if not isinstance(layer.get_base_layer(), torch.nn.Linear) or layer.merged or layer.disable_adapters:
        return False
    return len(layer.active_adapters) == 1 and not layer.lora_variant and not any(layer.lora_bias.values())


class _Beside:
    def __init__(self, base: Any, down: Any, up: Any, scale: float) -> None:
        self._base, self._down, self._up, self._scale = base, down, up, scale

    @torch.no_grad()
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[…, in] to [out], as `base(x) + scale * up(down(x))`."""
        result: torch.Tensor = self._base(x)
        for each in (self._down, self._up):
            if each.weight.dtype != result.dtype:
                each.weight.data = each.weight.data.to(result.dtype)  # once
        flat = x.reshape(-1, x.shape[-1]).to(result.dtype)
        result.view(-1, result.shape[-1]).addmm_(flat @ self._down.weight.T, self._up.weight.T, alpha=self._scale)
        return result
