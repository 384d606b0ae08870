"""What the engines that hold the model in this process share: admission, loop stopping, drain, swap, and what follows a failure.

A subclass brings a backend that turns flights into tokens. The rules kept here: a prompt that does not fit is refused before the
backend sees it; a future is resolved exactly once, and always; nothing is lost when the adapter changes. When the memory does not suffice, the
jobs in flight begin again, half as many at once; after any other failure the engine is dead and its process must be replaced.
"""

import gc
import logging
import threading
from abc import ABC, abstractmethod
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from clinical.checks import looping
from core.errors import Broken, EngineRestarting, OutOfMemory
from worker.engine import book
from worker.engine.adapter import Adapter, attach, check_golden, detach, verify
from worker.engine.beside import lighten
from worker.engine.limits import Limits
from worker.engine.protocol import Finish, Generation, Health, Job
from worker.engine.weights import digest, encode, end_tokens, load

LOOK_EVERY = 8
"""New tokens between two looks at a streaming text for loops."""
SWAP_GRACE_S = 3.0
"""Seconds that jobs in flight get to end under the old adapter; the rest starts over under the new one."""
_LOGGER = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Flight(book.Flight):
    """`tokens` and `logprobs` grow as the backend streams; only the backend's own thread writes them. `shrunk`: the memory did not suffice
    for it once, and it has begun again with fewer beside it."""

    tokens: list[int] = field(default_factory=list)
    shrunk: bool = False


class Resident(ABC):
    """An engine whose model lives in this process; see `protocol.Engine` for what its methods promise."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        limits: Limits,
        *,
        base: Path,
        weights: str = "nf4+adapter",
        adapter: Adapter | None = None,
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._base, self._weights = base, weights
        self._adapter = adapter
        context = int(model.config.get_text_config().max_position_embeddings)
        self._limits = Limits(limits.prompt_tokens, min(limits.total_tokens, context), limits.in_flight)
        self._at_most = limits.in_flight  # the limit that memory has not lowered
        self._ends = frozenset(end_tokens(model, tokenizer))
        self._book: book.Book[Flight] = book.Book()
        self._holding = False  # new jobs wait in the book; like the book, guarded by its condition
        self._fatal: str | None = None
        self._swapping = threading.Lock()  # held while the backend is stopped or replaced
        self._running = False
        self._begun = 0
        self._begin()

    # what a backend brings

    @abstractmethod
    def _start_backend(self) -> None:
        """Begin to work with `self._model` and `self._limits`; called at construction and after each stop."""

    @abstractmethod
    def _stop_backend(self) -> None:
        """Stop working on every flight, resolving none, end all threads and free the caches. Flights still in the book are started again later."""

    @abstractmethod
    def _start(self, flight: Flight) -> None:
        """Hand a flight to the backend."""

    @abstractmethod
    def _withdraw(self, flight: Flight) -> None:
        """The flight is over: the backend need not produce more of it."""

    # the protocol

    @property
    def adapter(self) -> str | None:
        return None if self._adapter is None else self._adapter.id

    def count(self, prompt: str) -> int:
        return len(encode(self._tokenizer, prompt))

    def submit(self, job: Job) -> Future[Generation]:
        flight = Flight(job, encode(self._tokenizer, job.prompt))
        self._limits.require(job, len(flight.prompt))
        with self._book.changed:
            self._book.enter(flight)
            if not self._holding:
                self._start(flight)
        return flight.future

    def cancel(self, job_id: str) -> None:
        flight = self._book.find(job_id)
        if flight is not None:
            self._land(flight, "cancelled")

    def health(self) -> Health:
        return Health(alive=not self._book.closed, fatal=self._fatal, in_flight=len(self._book))

    def drain(self, timeout_s: float) -> None:
        self._book.close()
        self._book.wait(list(self._book), timeout_s)
        for flight in self._book:
            self._land(flight, "cancelled")
        with self._swapping:
            self._end()

    def swap(self, adapter: Path | None) -> None:
        with self._swapping:
            verified = None if adapter is None else verify(adapter, digest(self._base))
            with self._book.changed:
                if self._book.closed:
                    raise EngineRestarting("The engine is stopping")
                self._holding = True
            self._book.wait(list(self._book), SWAP_GRACE_S)
            self._limits = replace(self._limits, in_flight=self._at_most)
            try:
                self._end()
                self._exchange(verified)
            except Broken:
                raise
            except Exception as error:
                self._die(error)
                raise EngineRestarting("The engine died while its adapter was changed") from error
            finally:
                if self._fatal is None:
                    self._begin()

    # for backends

    def _land(self, flight: Flight, finish: Finish) -> None:
        """Resolve a flight with what it has, once; later calls do nothing."""
        if not self._book.remove(flight):
            return
        self._withdraw(flight)
        tokens = list(flight.tokens)  # the backend may still be adding to them
        written = tokens[:-1] if tokens and tokens[-1] in self._ends else tokens
        flight.land(self._text(written), finish, len(tokens), self.adapter)

    def _progressed(self, flight: Flight) -> bool:
        """Look at a flight that has a new token: land it when it has ended or loops. True when it is over."""
        if flight.tokens[-1] in self._ends:
            self._land(flight, "stop")
        elif len(flight.tokens) % LOOK_EVERY == 0 and looping(self._text(flight.tokens)):
            self._land(flight, "looped")
        elif len(flight.tokens) >= flight.job.options.max_new_tokens:
            self._land(flight, "length")
        else:
            return flight.future.done()
        return True

    def _text(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))

    def _stopped_by(self, error: Exception) -> None:
        """The backend has stopped working, on its own thread and for good. Futures do not hang for it."""
        if not isinstance(error, torch.OutOfMemoryError):
            self._die(error)
            return
        error.__traceback__ = None  # its frames hold the tensors that the memory is needed for
        begun = self._begun
        threading.Thread(target=self._begin_smaller, args=(begun,), name="smaller", daemon=True).start()

    # beginnings and ends

    def _begin(self) -> None:
        """Start the backend, and in it every flight in the book from its first token."""
        try:
            self._start_backend()
        except Exception as error:
            self._die(error)
            raise
        self._running = True
        with self._book.changed:
            self._begun += 1
            self._holding = False
            for flight in self._book:
                flight.tokens, flight.logprobs = [], []
                self._start(flight)

    def _end(self) -> None:
        if self._running:
            self._running = False
            self._stop_backend()
            if self._model.device.type == "cuda":
                gc.collect()
                torch.cuda.empty_cache()

    def _begin_smaller(self, begun: int) -> None:
        """After the memory did not suffice: half as many jobs at once. Each job gets this once; the second time it goes back to whoever sent it."""
        with self._swapping:
            if begun != self._begun or not self._running or self._fatal is not None:
                return  # swapped, drained or dead meanwhile
            with self._book.changed:
                self._holding = True
            try:
                self._end()
                for flight in self._book:
                    if flight.shrunk and self._book.remove(flight):
                        flight.future.set_exception(OutOfMemory(f"Job {flight.job.id}: the memory does not suffice"))
                    flight.shrunk = True
                self._limits = replace(self._limits, in_flight=max(1, self._limits.in_flight // 2))
                _LOGGER.warning("out of memory: the jobs in flight begin again, half as many at once")
                self._begin()
            except Exception as error:
                self._die(error)

    def _die(self, error: BaseException) -> None:
        """The engine is gone: every future fails with EngineRestarting, and no more jobs are taken."""
        with self._book.changed:
            self._fatal = self._fatal or type(error).__name__
            self._book.close()
        for flight in self._book:
            if self._book.remove(flight):
                flight.future.set_exception(EngineRestarting(f"Job {flight.job.id}: the engine died ({self._fatal})"))

    def _exchange(self, adapter: Adapter | None) -> None:
        """Put another adapter into the model; the old one again when the new one does not fit or answers wrongly."""
        if self._weights == "bf16-merged":
            self._model, self._adapter = self._merged(adapter), adapter
            return
        bare = detach(self._model)
        try:
            self._model = bare if adapter is None else _attached(bare, adapter)
            self._adapter = adapter
        except Broken:
            self._model = bare if self._adapter is None else _attached(bare, self._adapter)
            raise

    def _merged(self, adapter: Adapter | None) -> Any:
        """A second model beside the one that serves, which goes on when the new one does not load or answers wrongly."""
        path = None if adapter is None else adapter.path
        try:
            model, _ = load(self._base, path, weights=self._weights, device=str(self._model.device))
            if adapter is not None:
                check_golden(model, adapter)
        except torch.OutOfMemoryError:
            raise Broken(
                "Two merged models do not fit the memory at once; start the worker again to load the new one"
            ) from None
        return model


def _attached(bare: Any, adapter: Adapter) -> Any:
    model = attach(bare, adapter).eval()
    if model.device.type == "cuda":
        lighten(model)
    try:
        check_golden(model, adapter)
    except Broken:
        detach(model)
        raise
    return model
