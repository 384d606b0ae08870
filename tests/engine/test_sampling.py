"""The next token: greedy is the arg max, sampling follows the filtered distribution, and a seed fixes the draw."""

import math

import torch

from worker.engine.sampling import CANDIDATES, choose, impose, row_seed

DRAWS = 20_000


def shares(logits: list[float], *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> torch.Tensor:
    """How often each token is drawn."""
    rows = torch.tensor([logits]).repeat(DRAWS, 1)
    seeds = torch.tensor([row_seed(7, position) for position in range(DRAWS)])
    tokens = choose(
        rows, torch.full((DRAWS,), temperature), torch.full((DRAWS,), top_k), torch.full((DRAWS,), top_p), seeds
    )
    return torch.bincount(tokens, minlength=len(logits)) / DRAWS


def close(actual: torch.Tensor, expected: torch.Tensor) -> bool:
    """Within four standard deviations of a fair draw."""
    return bool(((actual - expected).abs() <= 4 * (expected * (1 - expected) / DRAWS).sqrt()).all())


LOGITS = [2.0, 1.0, 0.5, 0.0, -1.0]


def test_draws_follow_the_distribution() -> None:
    assert close(shares(LOGITS), torch.tensor(LOGITS).softmax(-1))
    assert close(shares(LOGITS, temperature=0.5), (torch.tensor(LOGITS) / 0.5).softmax(-1))


def test_top_k_and_top_p_cut_the_tail_in_that_order() -> None:
    three = torch.cat([torch.tensor(LOGITS[:3]).softmax(-1), torch.zeros(2)])
    assert close(shares(LOGITS, top_k=3), three)
    # of the three, 0.63 + 0.23 reach 0.8; without top-k it would take 0.56 + 0.21 + 0.13
    two = torch.cat([torch.tensor(LOGITS[:2]).softmax(-1), torch.zeros(3)])
    assert close(shares(LOGITS, top_k=3, top_p=0.8), two)
    assert close(shares(LOGITS, top_p=0.8), three)
    assert shares(LOGITS, top_p=0.01)[0] == 1.0
    assert shares(LOGITS, top_k=1)[0] == 1.0


def test_temperature_zero_is_the_arg_max_beside_rows_that_sample() -> None:
    logits = torch.randn(64, 5000, generator=torch.Generator().manual_seed(3))
    temperature = torch.tensor([0.0, 5.0] * 32)
    seeds = torch.tensor([row_seed(row, 1) for row in range(64)])
    tokens = choose(logits, temperature, torch.zeros(64, dtype=torch.int64), torch.ones(64), seeds)
    assert torch.equal(tokens[::2], logits[::2].argmax(-1))
    assert not torch.equal(tokens[1::2], logits[1::2].argmax(-1))


def test_the_same_seed_draws_the_same_token_whatever_else_is_in_the_batch() -> None:
    logits = torch.randn(8, 3000, generator=torch.Generator().manual_seed(4))
    arguments = [torch.full((8,), 1.0), torch.full((8,), 50), torch.full((8,), 0.95)]
    seeds = torch.tensor([row_seed(11, position) for position in range(8)])
    together = choose(logits, *arguments, seeds)
    alone = [choose(logits[row : row + 1], *(a[:1] for a in arguments), seeds[row : row + 1]) for row in range(8)]
    assert torch.equal(together, torch.cat(alone))
    other = torch.tensor([row_seed(12, position) for position in range(8)])
    assert not torch.equal(together, choose(logits, *arguments, other))


def test_seeds_differ_between_neighbours_and_fit_32_bits() -> None:
    seeds = {row_seed(seed, position) for seed in (0, 1, 2, 10**12) for position in range(1000)}
    assert len(seeds) > 3990
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_an_imposed_token_wins_with_its_own_probability_and_other_rows_stay() -> None:
    logits = torch.randn(6, CANDIDATES * 2, generator=torch.Generator().manual_seed(5)) * 3
    tokens = logits.topk(9, dim=-1).indices[:, 8]
    sampled = torch.tensor([True, False] * 3)
    scores = impose(logits, tokens, sampled)
    assert torch.equal(scores[::2].argmax(-1), tokens[::2])
    assert torch.equal(scores[1::2], logits[1::2])
    imposed = scores.log_softmax(-1).gather(1, tokens[:, None])
    own = logits.log_softmax(-1).gather(1, tokens[:, None])
    assert all(math.isclose(a, b, abs_tol=1e-3) for a, b in zip(imposed[::2, 0], own[::2, 0], strict=True))
