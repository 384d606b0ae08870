"""What the engines that hold the model in this process share: admission, the book of jobs in flight, loop stopping, drain and swap.

A subclass brings a backend that turns flights into tokens. The rules kept here: a prompt that does not fit is refused before the
backend sees it; a future is resolved exactly once, and always; nothing is lost when the adapter changes.
"""

import threading
import time
from abc import ABC, abstractmethod
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clinical.checks import looping
from core.errors import Broken, Conflict, EngineRestarting, InputTooLong
from worker.engine.adapter import Adapter, attach, check_golden, detach, verify
from worker.engine.protocol import Finish, Generation, Health, Job
from worker.engine.weights import digest, encode, end_tokens, load

LOOK_EVERY = 8
"""New tokens between two looks at a streaming text for loops."""
SWAP_GRACE_S = 3.0
"""Seconds that jobs in flight get to end under the old adapter; the rest starts over under the new one."""


@dataclass(slots=True)
class Flight:
    """One job in flight. `tokens` and `logprobs` grow as the backend streams; only the backend's own thread writes them."""

    job: Job
    prompt: list[int]
    future: Future[Generation] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the engine takes: tokens of a prompt, tokens of a prompt and its answer together, and jobs at once."""

    prompt_tokens: int
    total_tokens: int
    in_flight: int


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
        self._ends = frozenset(end_tokens(model, tokenizer))
        self._book: dict[str, Flight] = {}
        self._changed = threading.Condition()  # guards the book and the four flags below; notified when a flight ends
        self._closed = False
        self._holding = False
        self._fatal: str | None = None
        self._swapping = threading.Lock()  # held while the backend is stopped or replaced
        self._start_backend()
        self._running = True

    # what a backend brings

    @abstractmethod
    def _start_backend(self) -> None:
        """Begin to work with `self._model`; called at construction and after a swap."""

    @abstractmethod
    def _stop_backend(self) -> None:
        """Stop working on every flight, resolving none, and end all threads. Flights still in the book are started again later."""

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
        wanted = len(flight.prompt) + job.options.max_new_tokens
        if len(flight.prompt) > self._limits.prompt_tokens or wanted > self._limits.total_tokens:
            raise InputTooLong(
                f"Job {job.id}: {len(flight.prompt)} prompt tokens and {job.options.max_new_tokens} new ones; this engine takes "
                f"{self._limits.prompt_tokens} and {self._limits.total_tokens} together"
            )
        flight.future.set_running_or_notify_cancel()  # only cancel() may end it early; Future.cancel() must not
        with self._changed:
            if self._closed or self._fatal is not None:
                raise EngineRestarting(f"Job {job.id}: the engine is stopping")
            if job.id in self._book:
                raise Conflict(f"Job {job.id} is already in flight")
            self._book[job.id] = flight
            if not self._holding:
                self._start(flight)
        return flight.future

    def cancel(self, job_id: str) -> None:
        with self._changed:
            flight = self._book.get(job_id)
        if flight is not None:
            self._land(flight, "cancelled")

    def health(self) -> Health:
        with self._changed:
            return Health(alive=not self._closed and self._fatal is None, fatal=self._fatal, in_flight=len(self._book))

    def drain(self, timeout_s: float) -> None:
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._book, timeout_s)
            left = list(self._book.values())
        for flight in left:
            self._land(flight, "cancelled")
        with self._swapping:
            if self._running:
                self._running = False
                self._stop_backend()

    def swap(self, adapter: Path | None) -> None:
        with self._swapping:
            verified = None if adapter is None else verify(adapter, digest(self._base))
            with self._changed:
                if self._closed or self._fatal is not None:
                    raise EngineRestarting("The engine is stopping")
                self._holding = True  # new jobs wait in the book
                before = set(self._book)
                self._changed.wait_for(lambda: before.isdisjoint(self._book), SWAP_GRACE_S)
            try:
                self._stop_backend()
                self._exchange(verified)
            finally:
                try:
                    self._start_backend()
                except Exception as error:
                    self._die(error)
                    raise
                with self._changed:
                    self._holding = False
                    for flight in self._book.values():
                        flight.tokens, flight.logprobs = [], []
                        self._start(flight)

    # for backends

    def _land(self, flight: Flight, finish: Finish) -> None:
        """Resolve a flight with what it has, once; later calls do nothing."""
        if not self._remove(flight):
            return
        self._withdraw(flight)
        tokens, logprobs = list(flight.tokens), list(flight.logprobs)  # the backend may still be adding to them
        written = tokens[:-1] if tokens and tokens[-1] in self._ends else tokens
        flight.future.set_result(
            Generation(
                text=self._text(written),
                finish=finish,
                prompt_tokens=len(flight.prompt),
                new_tokens=len(tokens),
                seconds=time.monotonic() - flight.since,
                options=flight.job.options,
                mean_logprob=sum(logprobs) / len(logprobs) if logprobs else None,
                adapter=self.adapter,
            )
        )

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

    def _die(self, error: BaseException) -> None:
        """The backend is gone: every future fails with EngineRestarting, and no more jobs are taken."""
        with self._changed:
            self._fatal = type(error).__name__
            left = list(self._book.values())
        for flight in left:
            if self._remove(flight):
                flight.future.set_exception(EngineRestarting(f"Job {flight.job.id}: the engine died ({self._fatal})"))

    def _remove(self, flight: Flight) -> bool:
        with self._changed:
            if self._book.get(flight.job.id) is not flight:
                return False
            del self._book[flight.job.id]
            self._changed.notify_all()
        return True

    def _exchange(self, adapter: Adapter | None) -> None:
        """Put another adapter into the model; the old one again when the new one does not fit or answers wrongly."""
        if self._weights == "bf16-merged":
            path = None if adapter is None else adapter.path
            model, _ = load(self._base, path, weights=self._weights, device=str(self._model.device))
            if adapter is not None:
                check_golden(model, adapter)
            self._model, self._adapter = model, adapter
            return
        bare = detach(self._model)
        try:
            self._model = bare if adapter is None else _attached(bare, adapter)
            self._adapter = adapter
        except Broken:
            self._model = bare if self._adapter is None else attach(bare, self._adapter).eval()
            raise


def _attached(bare: Any, adapter: Adapter) -> Any:
    model = attach(bare, adapter).eval()
    try:
        check_golden(model, adapter)
    except Broken:
        detach(model)
        raise
    return model
