"""The book of jobs in flight: each is entered once and leaves it once, and whoever took it out resolves its future.

What every engine shares, whether the model is in this process or on a server. It starts, stops and judges nothing.
"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from core.errors import Conflict, EngineRestarting
from worker.engine.protocol import Finish, Generation, Job


def _under_way() -> Future[Generation]:
    future: Future[Generation] = Future()
    future.set_running_or_notify_cancel()  # only the engine's cancel() may end it early; Future.cancel() must not
    return future


@dataclass(slots=True, eq=False)
class Flight:
    """One job in flight, and the log-probabilities of its tokens so far."""

    job: Job
    prompt: list[int]
    future: Future[Generation] = field(default_factory=_under_way)
    since: float = field(default_factory=time.monotonic)
    logprobs: list[float] = field(default_factory=list)

    def land(self, text: str, finish: Finish, new_tokens: int, adapter: str | None) -> None:
        """Resolve the future of a flight that is out of the book."""
        logprobs = list(self.logprobs)  # whoever writes it may still be adding to it
        self.future.set_result(
            Generation(
                text=text,
                finish=finish,
                prompt_tokens=len(self.prompt),
                new_tokens=new_tokens,
                seconds=time.monotonic() - self.since,
                options=self.job.options,
                mean_logprob=sum(logprobs) / len(logprobs) if logprobs else None,
                adapter=adapter,
            )
        )


Entry = TypeVar("Entry", bound=Flight)


class Book(Generic[Entry]):
    """Flights by the id of their job. `changed` guards it, may be held by its owner for more than one step, and is notified when one leaves."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._flights: dict[str, Entry] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._flights)

    def __iter__(self) -> Iterator[Entry]:
        with self.changed:
            return iter(list(self._flights.values()))

    @property
    def closed(self) -> bool:
        """Whether it takes no more."""
        return self._closed

    def enter(self, flight: Entry) -> None:
        """Raises EngineRestarting when the book is closed, Conflict when the job is in it already."""
        with self.changed:
            if self._closed:
                raise EngineRestarting(f"Job {flight.job.id}: the engine is stopping")
            if flight.job.id in self._flights:
                raise Conflict(f"Job {flight.job.id} is already in flight")
            self._flights[flight.job.id] = flight

    def find(self, job_id: str) -> Entry | None:
        """The flight of a job; None when there is none in flight."""
        with self.changed:
            return self._flights.get(job_id)

    def remove(self, flight: Entry) -> bool:
        """Take a flight out; False when somebody else did: its future is theirs."""
        with self.changed:
            if self._flights.get(flight.job.id) is not flight:
                return False
            del self._flights[flight.job.id]
            self.changed.notify_all()
        return True

    def close(self) -> None:
        """Take no more."""
        with self.changed:
            self._closed = True

    def wait(self, flights: list[Entry], timeout_s: float) -> None:
        """Until all of these have left, for so long at most."""
        with self.changed:
            self.changed.wait_for(lambda: not any(self._flights.get(one.job.id) is one for one in flights), timeout_s)
