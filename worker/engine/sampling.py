"""Choosing the next token, the same in every engine: greedy or sampled, per row, reproducible from the row's own seed.

Both engines run their backend greedily and let it take the largest score; this module decides which score is largest. So a first
pass is exactly greedy, rows with different options share a batch, and the log-probability that the backend reports is the model's
own (at temperature 1, unfiltered), not the sampler's.
"""

import torch

CANDIDATES = 1024
"""A token is sampled from this many likeliest ones at most; beyond them a report's vocabulary holds nothing worth drawing."""

_MASK = 0xFFFFFFFF


def row_seed(seed: int, position: int) -> int:
    """One 31-bit number per (generation, absolute token position): the randomness of one draw."""
    mixed = (seed * 0x9E3779B1 + position * 0x85EBCA6B + 0x27D4EB2F) & _MASK
    mixed = ((mixed ^ (mixed >> 16)) * 0x7FEB352D) & _MASK
    return (mixed ^ (mixed >> 15)) & 0x7FFFFFFF


def choose(
    logits: torch.Tensor, temperature: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor, seeds: torch.Tensor
) -> torch.Tensor:
    """Tokens [rows] drawn from `logits` [rows, vocabulary] (fp32); the other arguments are [rows], `seeds` from `row_seed`.

    Temperature, then top-k, then top-p, as transformers orders them; temperature 0 takes the likeliest token. Sampling is the
    Gumbel-max trick with counter-based noise: only tensor operations, so it can be captured in a CUDA graph.
    """
    values, tokens = logits.topk(min(CANDIDATES, logits.shape[-1]), dim=-1)
    rank = torch.arange(values.shape[-1], device=values.device)
    scaled = values / temperature.clamp_min(1e-4)[:, None]
    limit = top_k.masked_fill(top_k <= 0, values.shape[-1])[:, None]
    scaled = scaled.masked_fill(rank >= limit, -torch.inf)
    probabilities = scaled.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    scaled = scaled.masked_fill((before >= top_p[:, None]) & (rank > 0), -torch.inf)
    drawn = (scaled + _gumbel(seeds, rank)).argmax(dim=-1)
    drawn = drawn.masked_fill(temperature <= 0, 0)
    return tokens.gather(1, drawn[:, None])[:, 0]


def impose(logits: torch.Tensor, tokens: torch.Tensor, sampled: torch.Tensor) -> torch.Tensor:
    """Scores [rows, vocabulary] whose largest is `tokens` in the rows marked `sampled`, with the model's own probability of it.

    Softmax of such a row gives the chosen token the probability it has in `logits`; the rest is spread evenly, so it stays the largest.
    """
    vocabulary = logits.shape[-1]
    own = logits.log_softmax(dim=-1).gather(1, tokens[:, None]).exp()
    own = own.clamp(2.0 / vocabulary, 1.0 - 1e-6)
    scores = ((1.0 - own) / (vocabulary - 1)).log().expand_as(logits).scatter(1, tokens[:, None], own.log())
    return torch.where(sampled[:, None], scores, logits)


def _gumbel(seeds: torch.Tensor, rank: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel noise [rows, ranks] by hashing (seed, rank): 32-bit multiply-xorshift (lowbias32), in 64-bit integers."""
    x = (seeds.to(torch.int64)[:, None] + (rank + 1) * 0x9E3779B1) & _MASK
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _MASK
    x = x ^ (x >> 16)
    uniform = (x.to(torch.float64) + 0.5) / 2.0**32
    return (-(-uniform.log()).log()).to(torch.float32)
