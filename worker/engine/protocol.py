"""What an engine is: prompts in, generations out, as values. No torch here, and no idea what a report is.

An engine holds one base model and at most one adapter, and serves many jobs at once. It neither retries nor judges: the ladder and
the checks are `worker.draft`'s, leases and deadlines the worker's.
"""

from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Finish = Literal["stop", "length", "looped", "cancelled"]
"""How a generation ended: end-of-sequence, the token cap, our loop stop, or a cancel."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to decode. `temperature` 0 means greedy; `top_k` 0 and `top_p` 1 mean off.

    The same seed, prompt and adapter on the same machine draw the same tokens, up to rounding between batch shapes.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int = 128
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """One prompt to complete, as text (special tokens inside it stay text). `id` is unique among the jobs in flight."""

    id: str
    prompt: str
    options: Options


@dataclass(frozen=True, slots=True)
class Generation:
    """What came out, from which adapter. `seconds` run from submit to finish, waiting included; `text` has no special tokens.

    `mean_logprob` is per new token, natural logarithm, by the model's own distribution (temperature 1, unfiltered).
    """

    text: str
    finish: Finish
    prompt_tokens: int
    new_tokens: int
    seconds: float
    options: Options
    mean_logprob: float | None
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """Whether jobs are accepted; `fatal` says why not, once the backend died (then the process should exit and be restarted)."""

    alive: bool
    fatal: str | None
    in_flight: int


class Engine(Protocol):
    """One model that completes prompts. Every method may be called from any thread."""

    def submit(self, job: Job) -> Future[Generation]:
        """Start a job. Raises `InputTooLong` before the backend sees it, `EngineRestarting` when stopping or dead.

        The future ends with a Generation, with `EngineRestarting` when the backend dies under it, or with `OutOfMemory` when the job was
        begun again with fewer beside it and the memory still was not enough.
        """
        ...

    def cancel(self, job_id: str) -> None:
        """Give a job up: its future resolves at once with finish "cancelled" and the text so far. Unknown or ended ids are no error."""
        ...

    def health(self) -> Health:
        """Cheap enough to be asked every second."""
        ...

    def drain(self, timeout_s: float) -> None:
        """Refuse new jobs, wait up to `timeout_s` for those in flight, cancel the rest, stop every thread. Idempotent."""
        ...

    def count(self, prompt: str) -> int:
        """Tokens of the prompt as it would be submitted, the beginning-of-sequence token included where the model has one."""
        ...

    def swap(self, adapter: Path | None) -> None:
        """Serve another adapter of the same base (None: the bare base). No draft mixes two: jobs in flight end under the old one
        within seconds or start over under the new one, and `Generation.adapter` says which it was.

        Verifies first: raises `Broken` for a corrupt, truncated or mismatched adapter, and goes on with the old one. Raises
        `EngineRestarting` when it is stopping, or died of the change.
        """
        ...

    @property
    def adapter(self) -> str | None:
        """Id of the adapter that serves, from its manifest; None for the bare base."""
        ...
