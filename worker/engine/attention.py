"""Attention of a continuous batch, each request over its own keys and values only.

transformers lays all requests of a batch in one row and, without flash kernels, lets every query see every key through a mask of all
tokens times all tokens, which costs in_flight times the work that is needed. This knows where each request begins and needs no mask. On
a card it is torch's variable-length flash attention (guarded: not run on a card yet), elsewhere one request after the other.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch

NAME = "valuer_varlen"
"""What a model's attention is set to while a continuous batch runs on it."""


def install() -> None:
    """Make NAME known to transformers in this process. Idempotent."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _attention)


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers calls it: query [1, heads, tokens, head size], output [1, tokens, heads, head size]."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    cache = kwargs.get("cache")
    if cache is None:  # a plain forward pass of one row, as the golden check's
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)  # type: ignore[no-any-return]
    key, value = cache.update(key_states=key, value_states=value, layer_idx=module.layer_idx, kwargs=kwargs)
    window, scale = kwargs.get("sliding_window"), kwargs.get("scaling")
    flash = _flash() if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) else None
    if flash is not None:
        attended = flash(
            *(part[0].transpose(0, 1) for part in (query, key, value)),
            kwargs["cu_seq_lens_q"],
            kwargs["cu_seq_lens_k"],
            kwargs["max_length_q"],
            kwargs["max_length_k"],
            scale=scale,
            window_size=(-1 if window is None else window - 1, 0),
            **({} if query.shape[1] == key.shape[1] else {"enable_gqa": True}),
        )
        return attended[None], None
    return one_by_one(query, key, value, kwargs["cu_seq_lens_q"], kwargs["cu_seq_lens_k"], window, scale), None


def one_by_one(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    starts_q: torch.Tensor,
    starts_k: torch.Tensor,
    window: int | None,
    scale: float | None,
) -> torch.Tensor:
    """Causal attention [1, tokens, heads, head size] of each request in its turn; its last query sees its last key.

    `starts_q` and `starts_k` [requests + 1] are where the requests begin among the queries [1, heads, tokens, head size] and keys;
    with a `window`, a query sees as many keys, its own included.
    """
    queries, keys = starts_q.tolist(), starts_k.tolist()
    (_, heads, _, size), shared = query.shape, key.shape[1]
    group = heads // shared
    output = torch.empty_like(query)
    for number in range(len(queries) - 1):
        asked, seen = slice(queries[number], queries[number + 1]), slice(keys[number], keys[number + 1])
        tokens = asked.stop - asked.start
        # The query heads that share a key head are laid out as more queries of it: for one token, 12 times faster than enable_gqa.
        attended = torch.nn.functional.scaled_dot_product_attention(
            query[:, :, asked].reshape(1, shared, group * tokens, size),
            key[:, :, seen],
            value[:, :, seen],
            attn_mask=_mask(tokens, seen.stop - seen.start, window, group, query),
            scale=scale,
        )
        output[:, :, asked] = attended.reshape(1, heads, tokens, size)
    return output.transpose(1, 2).contiguous()


def _mask(tokens: int, seen: int, window: int | None, group: int, like: torch.Tensor) -> torch.Tensor | None:
    """What `tokens` queries may see of `seen` keys [group * tokens, seen]; None where one query sees them all."""
    if tokens == 1 and (window is None or seen <= window):
        return None
    allowed = torch.ones(tokens, seen, dtype=torch.bool, device=like.device).tril(seen - tokens)
    if window is not None:
        allowed = allowed.triu(seen - tokens - window + 1)
    blocked = torch.zeros(tokens, seen, dtype=like.dtype, device=like.device).masked_fill(~allowed, -torch.inf)
    return blocked.repeat(group, 1)


def _flash() -> Callable[..., torch.Tensor] | None:
    """torch's variable-length attention, from the release on that takes windows; None before."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn if "window_size" in inspect.signature(varlen_attn).parameters else None  # type: ignore[return-value]
