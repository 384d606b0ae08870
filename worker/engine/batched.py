"""The plain engine: waiting jobs go through transformers' `generate` together, as one left-padded batch.

A row ends on its own (end of sequence, cap, loop, cancel) and its future resolves then; but no job joins a batch that has begun, so
the next ones wait for its longest row. The fallback where continuous batching does not run, and the reference it is tested against.
"""

import time
from typing import Any

import torch

from worker.engine.resident import Flight
from worker.engine.sampling import choose, impose, row_seed
from worker.engine.turns import Turns

GATHER_S = 0.02
"""Seconds to wait for company after the first job of a batch: submitters wake up together and differ by milliseconds."""


class Batched(Turns):
    """Batches of up to `limits.in_flight` jobs, whatever their options, one batch after the other."""

    def _turn(self) -> None:
        if batch := self._gather():
            self._generate(batch)

    def _gather(self) -> list[Flight]:
        """The next batch; empty when the engine stops, or when nobody wants any more what was waiting."""
        with self._work:
            self._work.wait_for(lambda: self._waiting or self._stopping)
            until = time.monotonic() + GATHER_S
            self._work.wait_for(
                lambda: len(self._waiting) >= self._limits.in_flight or self._stopping, until - time.monotonic()
            )
            if self._stopping:
                return []
            batch, self._waiting = self._waiting[: self._limits.in_flight], self._waiting[self._limits.in_flight :]
            return batch

    def _generate(self, batch: list[Flight]) -> None:
        from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

        longest = max(len(flight.prompt) for flight in batch)
        ends = sorted(self._ends)
        pad = self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else ends[0]
        ids = torch.tensor([[pad] * (longest - len(flight.prompt)) + flight.prompt for flight in batch])
        mask = torch.tensor([[0] * (longest - len(flight.prompt)) + [1] * len(flight.prompt) for flight in batch])
        rows = _Rows(self, batch, longest)
        self._model.generate(
            input_ids=ids.to(self._model.device),
            attention_mask=mask.to(self._model.device),
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=max(flight.job.options.max_new_tokens for flight in batch),
                eos_token_id=ends,
                pad_token_id=pad,
            ),
            logits_processor=LogitsProcessorList([rows.scores]),
            stopping_criteria=StoppingCriteriaList([rows.over]),
        )


class _Rows:
    """The rows of one batch, as `generate` calls back: it chooses their tokens and says which rows are over."""

    def __init__(self, engine: Batched, batch: list[Flight], longest: int) -> None:
        self._engine, self._batch = engine, batch
        # from a column of the padded batch to a token's position in its own row
        self._offsets = [len(flight.prompt) - longest for flight in batch]
        options = [flight.job.options for flight in batch]
        device = engine._model.device
        self._temperature = torch.tensor([o.temperature for o in options], device=device)
        self._top_k = torch.tensor([o.top_k for o in options], device=device)
        self._top_p = torch.tensor([o.top_p for o in options], device=device)
        self._sampling = any(o.temperature > 0 for o in options)
        self._logprobs: list[float] = []

    def scores(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores [rows, vocabulary] whose largest is the token to take."""
        scores = scores.float()
        if self._sampling:
            seeds = [
                row_seed(flight.job.options.seed, input_ids.shape[1] + offset)
                for flight, offset in zip(self._batch, self._offsets, strict=True)
            ]
            draws = torch.tensor(seeds, device=scores.device)
            tokens = choose(scores, self._temperature, self._top_k, self._top_p, draws)
            scores = impose(scores, tokens, self._temperature > 0)
        self._logprobs = (scores.amax(dim=-1) - scores.logsumexp(dim=-1)).tolist()
        return scores

    def over(self, input_ids: torch.Tensor, _scores: Any) -> torch.Tensor:
        """Take in the newest column; which rows [rows] are over."""
        over = []
        for flight, token, logprob in zip(self._batch, input_ids[:, -1].tolist(), self._logprobs, strict=True):
            if not flight.future.done():
                flight.tokens.append(token)
                flight.logprobs.append(logprob)
                over.append(self._engine._stopping or self._engine._progressed(flight))
            else:
                over.append(True)
        return torch.tensor(over, device=input_ids.device)
