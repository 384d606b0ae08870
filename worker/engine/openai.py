"""An engine on another server that speaks the OpenAI completions protocol: vLLM, SGLang, llama.cpp. The model is not in this process.

Prompts are tokenised here, by the base's own tokenizer, and sent as token ids: lengths are checked before the server sees a job, and control
tokens inside findings stay text. Answers are streamed, so that loops end early and a cancel closes the connection. The server is on loopback
or on a host that the settings list; no proxy and no redirect is followed. What it does not do: load an adapter. The server must offer each
version under the version's id, and its golden answer is compared before it serves.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from clinical.checks import looping
from core.errors import Broken, EngineRestarting, Retryable
from worker.engine import book
from worker.engine.adapter import Adapter, verify
from worker.engine.limits import Limits
from worker.engine.protocol import Finish, Generation, Health, Job, Options
from worker.engine.resident import LOOK_EVERY
from worker.engine.weights import digest, encode

LOOPBACK = ("127.0.0.1", "::1", "localhost")
CONNECT_S, SILENCE_S = 5.0, 60.0
"""Seconds for a connection, and seconds without a byte after which a stream is given up."""
FINISHES: dict[str, Finish] = {"stop": "stop", "eos": "stop", "length": "length"}
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Server:
    """Where the model is: the address before `/v1`, the name of the bare base there, the key it asks for, the hosts that may be asked."""

    url: str
    model: str
    key: str | None = None
    hosts: tuple[str, ...] = ()

    def require_allowed(self) -> None:
        """Raises Broken unless the host is loopback or listed: findings go nowhere else."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise Broken("VALUER_ENGINE_URL must be the http or https address of the model's server")
        if parts.hostname not in (*LOOPBACK, *self.hosts):
            raise Broken(f"Findings may not go to {parts.hostname}: VALUER_ENGINE_HOSTS does not list it")


@dataclass(slots=True, eq=False, kw_only=True)
class _Flight(book.Flight):
    """Only the event loop's thread writes what has arrived."""

    model: str
    adapter: str | None
    task: asyncio.Task[None] | None = None
    text: str = ""
    new_tokens: int | None = None


class OpenAI:
    """See `protocol.Engine`. One thread runs an event loop that holds all streams, at most `limits.in_flight` of them open at once."""

    def __init__(self, server: Server, tokenizer: Any, limits: Limits, *, base: Path) -> None:
        server.require_allowed()
        self._server, self._tokenizer, self._limits, self._base = server, tokenizer, limits, base
        self._serving: tuple[str, Adapter | None] = (server.model, None)
        self._book: book.Book[_Flight] = book.Book()
        self._places = asyncio.Semaphore(limits.in_flight)
        self._client = httpx.AsyncClient(
            base_url=server.url,
            headers={} if server.key is None else {"Authorization": f"Bearer {server.key}"},
            timeout=httpx.Timeout(SILENCE_S, connect=CONNECT_S),
            limits=httpx.Limits(max_connections=limits.in_flight + 2),
            trust_env=False,
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine", daemon=True)
        self._thread.start()
        try:
            self._require_offered(server.model)
        except BaseException:
            self.drain(0)
            raise

    # the protocol

    @property
    def adapter(self) -> str | None:
        adapter = self._serving[1]
        return None if adapter is None else adapter.id

    def count(self, prompt: str) -> int:
        return len(encode(self._tokenizer, prompt))

    def submit(self, job: Job) -> Future[Generation]:
        prompt = encode(self._tokenizer, job.prompt)
        self._limits.require(job, len(prompt))
        model, adapter = self._serving
        flight = _Flight(job, prompt, model=model, adapter=None if adapter is None else adapter.id)
        self._book.enter(flight)
        self._loop.call_soon_threadsafe(self._begin, flight)
        return flight.future

    def cancel(self, job_id: str) -> None:
        flight = self._book.find(job_id)
        if flight is not None:
            self._land(flight, "cancelled")
            self._loop.call_soon_threadsafe(self._end, flight)

    def health(self) -> Health:
        """A server that is away makes jobs fail for now; it does not make this process worth replacing."""
        return Health(alive=not self._book.closed, fatal=None, in_flight=len(self._book))

    def drain(self, timeout_s: float) -> None:
        self._book.close()
        self._book.wait(list(self._book), timeout_s)
        for flight in self._book:
            self.cancel(flight.job.id)
        if self._thread.is_alive():
            self._wait(self._close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def swap(self, adapter: Path | None) -> None:
        """Jobs in flight end under the model that they were sent to; `Generation.adapter` says which it was."""
        verified = None if adapter is None else verify(adapter, digest(self._base))
        if verified is not None and verified.embeddings:
            raise Broken(
                f"Adapter {verified.id} brings embeddings, which a server does not take; serve its merged model there"
            )
        name = self._server.model if verified is None else verified.id
        self._require_offered(name)
        if verified is not None:
            self._require_golden(verified)
        self._serving = name, verified

    # the server

    def _require_offered(self, name: str) -> None:
        """Raises Broken when the server does not offer a model of this name, EngineRestarting when it is away."""
        answer = self._wait(self._asked("GET", "/v1/models"))
        if name not in [str(model.get("id")) for model in answer.get("data", ())]:
            raise Broken(f"The model's server does not offer {name}; start it with a model or an adapter of that name")

    def _require_golden(self, adapter: Adapter) -> None:
        """Raises Broken when the server answers the golden prompt with another text than recorded."""
        if not adapter.golden_prompt or not adapter.golden_first:
            return
        asked = {
            "model": adapter.id,
            "prompt": list(adapter.golden_prompt),
            "max_tokens": len(adapter.golden_first),
            "temperature": 0.0,
        }
        answer = self._wait(self._asked("POST", "/v1/completions", asked))
        text = str(answer["choices"][0]["text"])
        if text.strip() != self._tokenizer.decode(adapter.golden_first, skip_special_tokens=True).strip():
            raise Broken(f"Adapter {adapter.id} does not answer its golden prompt as recorded, on the model's server")

    async def _asked(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            answer = await self._client.request(method, path, json=body)
            answer.raise_for_status()
            return dict(answer.json())
        except (httpx.HTTPError, ValueError) as error:
            raise _away(error) from None  # the message of an error could hold what was sent

    async def _close(self) -> None:
        streams = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*streams, return_exceptions=True)  # cancelled, every one
        await self._client.aclose()

    def _begin(self, flight: _Flight) -> None:
        if flight.future.done():
            return  # cancelled before it began
        flight.task = self._loop.create_task(self._generate(flight))

    def _end(self, flight: _Flight) -> None:
        if flight.task is not None:
            flight.task.cancel()  # closes the stream, and the server gives the job up

    async def _generate(self, flight: _Flight) -> None:
        try:
            async with (
                self._places,
                self._client.stream("POST", "/v1/completions", json=_body(flight)) as response,
            ):
                response.raise_for_status()
                finish = await self._follow(flight, _events(response))
            self._land(flight, finish)
        except asyncio.CancelledError:
            pass  # landed by whoever cancelled it
        except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
            self._fail(flight, _away(error))
        except Retryable as error:
            self._fail(flight, error)

    async def _follow(self, flight: _Flight, events: AsyncIterator[dict[str, Any]]) -> Finish:
        """Take in a stream until it ends or loops."""
        finish: str | None = None
        chunks = 0
        async for event in events:
            if event.get("usage"):
                flight.new_tokens = int(event["usage"]["completion_tokens"])
            for choice in event.get("choices", ()):
                flight.text += choice.get("text") or ""
                flight.logprobs += [float(each) for each in (choice.get("logprobs") or {}).get("token_logprobs") or ()]
                finish = choice.get("finish_reason") or finish
            chunks += 1
            if finish is None and chunks % LOOK_EVERY == 0 and looping(flight.text):
                return "looped"
        if finish not in FINISHES:
            raise Retryable(f"Job {flight.job.id}: the model's server gave it up", code="engine_refused")
        return FINISHES[finish]

    # the book

    def _land(self, flight: _Flight, finish: Finish) -> None:
        """Resolve a flight with what it has, once; later calls do nothing."""
        if not self._book.remove(flight):
            return
        text, new_tokens = flight.text, flight.new_tokens
        if new_tokens is None:
            new_tokens = len(flight.logprobs) or len(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        flight.land(text, finish, new_tokens, flight.adapter)

    def _fail(self, flight: _Flight, error: Retryable) -> None:
        if self._book.remove(flight):
            flight.future.set_exception(error)

    def _wait(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _body(flight: _Flight) -> dict[str, Any]:
    options: Options = flight.job.options
    body = {
        "model": flight.model,
        "prompt": flight.prompt,
        "max_tokens": options.max_new_tokens,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "seed": options.seed & 0x7FFFFFFF,
        "logprobs": 1,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    # not OpenAI's, but all three servers know it; 0 is not "off" everywhere
    return {**body, "top_k": options.top_k} if options.top_k > 0 else body


async def _events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of a stream of server-sent events, up to its end mark."""
    async for line in response.aiter_lines():
        if line.startswith("data:"):
            data = line.removeprefix("data:").strip()
            if data == "[DONE]":
                return
            yield dict(json.loads(data))


def _away(error: Exception) -> Retryable:
    """What an exchange that failed means to a job: nothing of the error but its kind, since it may hold what was sent."""
    if isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500:
        refused = f"The model's server refused the job (HTTP {error.response.status_code})"
        return Retryable(refused, code="engine_refused")
    return EngineRestarting(f"The model's server does not answer ({type(error).__name__})")
