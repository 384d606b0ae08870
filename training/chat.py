"""An engine for rows of the model pool that only a chat server offers (`/v1/chat/completions`): no tokenizer and no weights of it are here.

For evaluation alone, never for serving: from this machine no prompt is sent in which the rules still find an identity. No proxy and no redirect is
followed, and no error repeats what was sent.
"""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from clinical.deidentify import identifiers
from core.errors import Broken, EngineRestarting, InputTooLong
from worker.engine.protocol import Finish, Generation, Health, Job

TIMEOUT_S = 120.0
MOST_CHARACTERS = 8000
"""Longest prompt that is sent; findings longer than the doors accept never come here."""


class Chat:
    """See `worker.engine.protocol.Engine`. One thread a job in flight; a cancelled job's answer is thrown away when it comes."""

    def __init__(self, url: str, model: str, *, key: str | None, in_flight: int, leaves: bool) -> None:
        self._model = model
        self._leaves = leaves  # the server is not on this machine
        self._client = httpx.Client(
            base_url=url,
            headers={} if key is None else {"Authorization": f"Bearer {key}"},
            timeout=TIMEOUT_S,
            trust_env=False,
        )
        self._pool = ThreadPoolExecutor(in_flight, thread_name_prefix="chat")
        self._book: dict[str, tuple[Job, Future[Generation]]] = {}
        self._lock = threading.Lock()

    @property
    def adapter(self) -> str | None:
        return None

    def swap(self, adapter: Path | None) -> None:
        """There is nothing to swap on somebody else's server. Raises Broken for an adapter."""
        if adapter is not None:
            raise Broken("A chat server of the model pool takes no adapter.")

    def count(self, prompt: str) -> int:
        """Characters: whose tokens they are is not known here."""
        return len(prompt)

    def submit(self, job: Job) -> Future[Generation]:
        if len(job.prompt) > MOST_CHARACTERS:
            raise InputTooLong(f"Job {job.id} has {len(job.prompt)} characters; at most {MOST_CHARACTERS} are sent.")
        if self._leaves and holds_identity(job.prompt):
            raise Broken(f"Job {job.id} may hold an identity and is not sent.")
        future: Future[Generation] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            self._book[job.id] = (job, future)
        self._pool.submit(self._ask, job, time.monotonic())
        return future

    def cancel(self, job_id: str) -> None:
        with self._lock:
            found = self._book.pop(job_id, None)
        if found is not None:
            job, future = found
            future.set_result(Generation("", "cancelled", len(job.prompt), 0, 0.0, job.options, None))

    def health(self) -> Health:
        with self._lock:
            return Health(True, None, len(self._book))

    def drain(self, timeout_s: float) -> None:
        for job_id in list(self._book):
            self.cancel(job_id)
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._client.close()

    def _ask(self, job: Job, since: float) -> None:
        try:
            text, finish, tokens = self._answer(job)
        except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
            self._land(job, error=EngineRestarting(f"The model's server does not answer ({type(error).__name__})"))
            return
        seconds = time.monotonic() - since
        self._land(job, Generation(text, finish, len(job.prompt), tokens, seconds, job.options, None))

    def _answer(self, job: Job) -> tuple[str, Finish, int]:
        options = job.options
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": "user", "content": job.prompt}],
            "max_tokens": options.max_new_tokens,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "seed": options.seed,
        }
        response = self._client.post("/v1/chat/completions", json=body)
        response.raise_for_status()
        answer = response.json()
        choice = answer["choices"][0]
        finish: Finish = "length" if choice.get("finish_reason") == "length" else "stop"
        return str(choice["message"]["content"] or ""), finish, int(answer.get("usage", {}).get("completion_tokens", 0))

    def _land(self, job: Job, generation: Generation | None = None, error: Exception | None = None) -> None:
        with self._lock:
            found = self._book.pop(job.id, None)
        if found is None:
            return
        if generation is not None:
            found[1].set_result(generation)
        else:
            found[1].set_exception(error)


def holds_identity(text: str) -> bool:
    """Whether the rules of de-identification find anything of a person in a text that is about to leave."""
    return any(True for _ in identifiers(text))
