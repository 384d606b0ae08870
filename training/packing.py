"""Training examples as token ids, laid end to end in rows without padding. Pure: knows no model and no report.

A row is several examples with positions that begin again at 0 for each, which transformers turns into a block-diagonal mask: packed
examples do not see each other. Only the answer and its end-of-sequence token are predicted; no prompt token is in the loss.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt and the answer to it, as token ids; the answer ends with the end-of-sequence token. `weight` is its tokens' in the loss."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    weight: float = 1.0

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True, slots=True)
class Row:
    """One micro-batch. `input_ids`, `position_ids`: (1, tokens); `predicts`: (1, tokens), True where the next token is in the loss;
    `targets`: (predicted,), those next tokens in order; `weights`: (predicted,), each one's weight in the loss."""

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    predicts: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor


def row(examples: Sequence[Example]) -> Row:
    """The examples end to end."""
    ids: list[int] = []
    positions: list[int] = []
    predicts: list[bool] = []
    targets: list[int] = []
    weights: list[float] = []
    for example in examples:
        ids += [*example.prompt, *example.answer]
        positions += range(len(example))
        predicts += [False] * (len(example.prompt) - 1) + [True] * len(example.answer) + [False]
        targets += example.answer
        weights += [example.weight] * len(example.answer)
    return Row(
        torch.tensor([ids]),
        torch.tensor([positions]),
        torch.tensor([predicts]),
        torch.tensor(targets),
        torch.tensor(weights),
    )


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices in rows of at most `capacity` tokens, first-fit decreasing; an example longer than that has a row to itself."""
    rows: list[list[int]] = []
    free: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        place = next((i for i, left in enumerate(free) if left >= lengths[index]), None)
        if place is None:
            place = len(rows)
            rows.append([])
            free.append(capacity)
        rows[place].append(index)
        free[place] -= lengths[index]
    return rows


def steps_of_epoch(examples: int, batch: int, seed: int, epoch: int) -> list[list[int]]:
    """Every optimizer step of an epoch as indices of its examples: shuffled, `batch` of them a step.

    The same arguments give the same plan, so that a resumed run goes on where it stopped.
    """
    order = list(range(examples))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return [order[start : start + batch] for start in range(0, len(order), batch)]
