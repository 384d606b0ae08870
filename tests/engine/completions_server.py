"""A model's server as vLLM and its like present it, on loopback, around the tiny model: streamed completions of token ids, greedy or seeded.

Slow and small on purpose: one full forward pass per token. `Behaviour` lets a test make it fail as real servers do.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from tests.engine.conftest import tiny_llama, tiny_tokenizer
from worker.engine.sampling import choose, row_seed


@dataclass
class Behaviour:
    """What the server offers and how it fails; `seen` are the bodies it was sent, `gave_up` the jobs whose reader went away."""

    models: list[str] = field(default_factory=lambda: ["base"])
    key: str | None = None
    status: int = 200
    cut_after: int | None = None
    loop: str | None = None
    finish: str | None = None
    pause_s: float = 0.0
    ends: tuple[int, ...] = (1,)
    seen: list[dict[str, Any]] = field(default_factory=list)
    gave_up: threading.Event = field(default_factory=threading.Event)


class _Handler(BaseHTTPRequestHandler):
    behaviour: Behaviour
    model: Any
    tokenizer: Any

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self._allowed():
            self._answer(200, {"data": [{"id": name} for name in self.behaviour.models]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.behaviour.seen.append(body)
        if not self._allowed():
            return
        if self.behaviour.status != 200:
            self._answer(self.behaviour.status, {"error": {"message": "what was sent, in full"}})
        elif body["model"] not in self.behaviour.models:
            self._answer(404, {"error": {}})
        elif body.get("stream"):
            self._stream(body)
        else:
            written = [token for token, _ in self._tokens(body)]
            text = self.tokenizer.decode(written, skip_special_tokens=True)
            self._answer(200, {"choices": [{"text": text, "finish_reason": "length"}]})

    def _allowed(self) -> bool:
        if self.behaviour.key is None or self.headers.get("Authorization") == f"Bearer {self.behaviour.key}":
            return True
        self._answer(401, {"error": {}})
        return False

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()  # no length: the connection's end is the stream's
        self.close_connection = True
        count, finish = 0, "length"
        try:
            for token, logprob in self._tokens(body):
                if count == self.behaviour.cut_after:
                    return
                count += 1
                text = self.behaviour.loop or self.tokenizer.decode([token], skip_special_tokens=True)
                choice = {"text": text, "logprobs": {"token_logprobs": [logprob]}, "finish_reason": None}
                self._event({"choices": [choice]})
                if token in self.behaviour.ends:
                    finish = "stop"
                time.sleep(self.behaviour.pause_s)
            self._event({"choices": [{"text": "", "finish_reason": self.behaviour.finish or finish}]})
            self._event({"choices": [], "usage": {"completion_tokens": count}})
            self.wfile.write(b"data: [DONE]\n\n")
        except (BrokenPipeError, ConnectionResetError):
            self.behaviour.gave_up.set()

    def _event(self, event: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        self.wfile.flush()

    @torch.no_grad()
    def _tokens(self, body: dict[str, Any]) -> Iterator[tuple[int, float]]:
        tokens = list(body["prompt"])
        arguments = [[body.get("temperature", 0.0)], [body.get("top_k", 0)], [body.get("top_p", 1.0)]]
        for _ in range(body["max_tokens"]):
            logits = self.model(input_ids=torch.tensor([tokens]), use_cache=False).logits[:, -1].float()
            seeds = torch.tensor([row_seed(body.get("seed", 0), len(tokens))])
            token = int(choose(logits, *(torch.tensor(argument) for argument in arguments), seeds))
            tokens.append(token)
            yield token, float(logits.log_softmax(-1)[0, token])
            if token in self.behaviour.ends:
                return


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[str]:
    """The server's address, while it runs."""
    tokenizer = tiny_tokenizer()
    attributes = {"behaviour": behaviour, "model": tiny_llama(len(tokenizer)), "tokenizer": tokenizer}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), attributes))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
