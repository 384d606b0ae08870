"""The outermost layer: security headers on every answer, the last resort for what nobody caught, a line in the log, counts for Prometheus.

Plain ASGI, so that streams pass through unbuffered. Logs and labels hold the route's pattern, never the address itself.
"""

import time
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core import logs
from worklist import failures
from worklist.metrics import Metrics

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
QUIET = ("/healthz", "/readyz", "/metrics", "/static")
"""Routes that are counted but not logged."""


class Guard:
    """Wraps the whole application."""

    def __init__(self, app: ASGIApp, metrics: Metrics, https: bool) -> None:
        self._app, self._metrics = app, metrics
        self._headers = HEADERS | ({"Strict-Transport-Security": "max-age=31536000"} if https else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
                self._count(scope, status, time.perf_counter() - began)
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            response = failures.unexpected(Request(scope), error)
            if not status:  # otherwise the answer has begun and can only break off
                await response(scope, receive, sending)
        route = _route(scope)
        if not route.startswith(QUIET):
            logs.event(
                "http",
                method=scope["method"],
                route=route,
                status=status,
                seconds=round(time.perf_counter() - began, 4),
            )

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route, method = _route(scope), scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.answers.labels(method, route, str(status)).inc()
        self._metrics.seconds.labels(method, route).observe(seconds)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _route(scope: Scope) -> str:
    """The pattern of the route that took the request, such as /v1/requests/{request_id}; "none" when none did."""
    route: Any = scope.get("route")
    pattern = getattr(route, "path", None)
    if pattern is None:
        return "/static" if scope["path"].startswith("/static/") else "none"
    return str(pattern)
