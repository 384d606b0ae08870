"""What is known of base models by their architecture: which engine runs them, and which of their layers an adapter may sit beside.

Read from the model itself, so that a base that nobody thought of is judged by what it is and not by its name.
"""

from typing import Any

import torch


def batches_continuously(model: Any) -> bool:
    """Whether its attention takes a paged cache: transformers' own sign is that its implementation can be set (Falcon's cannot)."""
    return bool(model._can_set_attn_implementation())


def adapter_targets(model: Any, *, attention_only: bool = False) -> list[str]:
    """Names of all linear layers but the output layer, without their paths, as PEFT's `target_modules` take them.

    `attention_only`: only those inside of an attention block, which every architecture calls by some such name.
    """
    head = model.get_output_embeddings()
    return sorted(
        {
            path.rpartition(".")[2]
            for path, module in model.named_modules()
            if isinstance(module, torch.nn.Linear)
            and module is not head
            and (not attention_only or any(name in path.rpartition(".")[0] for name in ("attn", "attention")))
        }
    )
