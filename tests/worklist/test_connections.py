"""Who sends byte by byte, or nothing at all, holds up nobody: on a real server and real sockets."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx
import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from worklist import connections
from worklist.connections import Connection

PART = b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "
BODY = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the whole body, then answers."""
    while scope["method"] == "POST":
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        if not message.get("more_body"):
            break
    await PlainTextResponse("here")(scope, receive, send)


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """A server that waits a second for a whole request, and for at most five at a time."""
    monkeypatch.setattr(connections, "WHOLE_REQUEST_S", 1.0)
    monkeypatch.setattr(connections, "MOST_UNFINISHED", 5)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(100)
        server = uvicorn.Server(uvicorn.Config(_echo, http=Connection, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield listening.getsockname()
        server.should_exit = True
        thread.join(timeout=10)
        assert not thread.is_alive()


def _opened(address: tuple[str, int], first: bytes) -> socket.socket:
    made = socket.create_connection(address, timeout=10)
    made.sendall(first)
    return made


def _is_open(connection: socket.socket) -> bool:
    connection.settimeout(0.05)
    with suppress(TimeoutError):
        try:
            return connection.recv(1) != b""
        except ConnectionResetError:
            return False
    return True


@pytest.mark.parametrize("first", [b"", PART, BODY], ids=["nothing", "part of a head", "part of a body"])
def test_a_connection_that_brings_no_whole_request_in_time_is_closed(address: tuple[str, int], first: bytes) -> None:
    began = time.monotonic()
    with _opened(address, first) as slow:
        while _is_open(slow):
            assert time.monotonic() - began < 8.0
            with suppress(OSError):
                slow.send(b"a" if first else b"")  # each byte alone is in time
    assert time.monotonic() - began > 0.8


def test_of_too_many_that_bring_no_whole_request_the_oldest_goes_and_others_are_served(
    address: tuple[str, int],
) -> None:
    with ExitStack() as all_of_them:
        held = []
        for number in range(40):
            held.append(all_of_them.enter_context(_opened(address, (b"", PART, BODY)[number % 3])))
            if number % 10 == 9:
                assert httpx.get(f"http://127.0.0.1:{address[1]}/", timeout=10).text == "here"
        assert not any(_is_open(each) for each in held[:30])


def test_a_whole_request_is_not_timed_while_it_is_answered_or_between_two(address: tuple[str, int]) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{address[1]}", timeout=10) as client:
        for _ in range(3):
            assert client.post("/", content=b"a" * 1000).text == "here"
            time.sleep(0.6)  # one connection, longer than one request may take
        (connection,) = client._transport._pool.connections  # type: ignore[attr-defined]
        assert connection.info().endswith("Request Count: 3")
