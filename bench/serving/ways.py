"""The ways to generate that are compared: the engines that serve, and one `generate` per task, which is what the paper did.

`fixed` makes an engine write every job to its cap, whatever it writes: with random weights a text neither ends nor means anything.
"""

from concurrent.futures import ThreadPoolExecutor

import torch

from clinical.checks import looping
from worker.engine.batched import Batched
from worker.engine.cb import ContinuousBatching
from worker.engine.layouts import packed_only
from worker.engine.resident import LOOK_EVERY, Flight, Resident
from worker.engine.static import Static

NEVER = 1 << 30
"""A token that no model writes."""


class OnePerTask(Resident):
    """transformers' `generate` for one job after the other, as it comes: no padding, no company, our layout of the weights taken away."""

    def _start_backend(self) -> None:
        self._pool = ThreadPoolExecutor(1)

    def _stop_backend(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _start(self, flight: Flight) -> None:
        self._pool.submit(self._generate, flight)

    def _withdraw(self, flight: Flight) -> None:
        pass

    def _generate(self, flight: Flight) -> None:
        try:
            ids = torch.tensor([flight.prompt], device=self._model.device)
            with torch.no_grad(), packed_only(self._model):
                whole = self._model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=False,
                    max_new_tokens=flight.job.options.max_new_tokens,
                    eos_token_id=sorted(self._ends),
                    pad_token_id=self._tokenizer.pad_token_id,
                )
            flight.tokens = whole[0, len(flight.prompt) :].tolist()
            self._land(flight, "stop" if flight.tokens[-1] in self._ends else "length")
        except Exception as error:  # a bench that waits for ever says less than one that stops
            self._die(error)


WAYS: dict[str, type[Resident]] = {
    "one-per-task": OnePerTask,
    "generate": Batched,
    "cb": ContinuousBatching,
    "static": Static,
}


def fixed(way: type[Resident]) -> type[Resident]:
    """The same engine without an end of sequence and without the stop of loops, which are looked for all the same."""

    class Fixed(way):  # type: ignore[valid-type,misc]
        def _start_backend(self) -> None:
            self._ends = frozenset({NEVER})
            super()._start_backend()

        def _progressed(self, flight: Flight) -> bool:
            if len(flight.tokens) % LOOK_EVERY == 0:
                looping(self._text(flight.tokens))
            if len(flight.tokens) < flight.job.options.max_new_tokens:
                return flight.future.done()
            self._land(flight, "length")
            return True

    return Fixed
