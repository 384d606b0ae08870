"""How long a connection may take to bring a whole request, and how many may be about it: who sends byte by byte, or nothing at all, holds up nobody.

uvicorn waits for a first request for ever, and every open connection takes a file descriptor. What one address may cost besides, by connections
or by whole requests, is the reverse proxy's to bound (docs/operations.md).
"""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

WHOLE_REQUEST_S = 40.0
"""A little longer than a body may take, so that a slow sender is told so first (worklist.bodies)."""
MOST_UNFINISHED = 256
"""Connections that bring no whole request yet. When one more comes, the one that has been about it the longest goes: an honest request is whole
within milliseconds."""


class Connection(H11Protocol):
    """uvicorn's connection, with these two bounds."""

    _since = 0.0
    _until: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._look()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        self._done()
        super().connection_lost(exc)

    def _look(self) -> None:
        if self.transport.is_closing() or self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._done()
        elif self._until is None:
            self._since = self.loop.time()
            self._until = self.loop.call_later(WHOLE_REQUEST_S, self.transport.abort)
            everybody: Any = self.connections
            unfinished = [each for each in everybody if isinstance(each, Connection) and each._until is not None]
            if len(unfinished) > MOST_UNFINISHED:
                oldest = min(unfinished, key=lambda each: each._since)
                oldest._done()  # asyncio says that it is lost only after all who wait at the door by now
                oldest.transport.abort()

    def _done(self) -> None:
        if self._until is not None:
            self._until.cancel()
            self._until = None
