"""Errors become answers: JSON `{"error","detail"}` for programs, a small page for a browser. Nothing else of an error leaves the process.

`detail` is a sentence of ours; what a validator or a driver would say is left out, since it may quote the content.
"""

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from core import logs
from core.errors import Refused, Retryable, ValuerError
from worklist.rendering import render
from worklist.words import Words

_SENTENCES = {
    404: ("not_found", "There is nothing at this address."),
    405: ("method_not_allowed", "This address does not take that method."),
}


def answer(request: Request, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """The answer to a request that failed: a page when a browser asked for one, JSON otherwise."""
    wants_page = "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/v1/")
    if wants_page and status == HTTPStatus.UNAUTHORIZED and request.method == "GET":
        return RedirectResponse(f"/sign-in?next={quote(request.url.path)}", 303)
    if wants_page:
        words = Words.of(request)
        shown = words.get(f"error.{code}") or words.get(f"error.{status}") or detail
        return render(
            request,
            "error.html",
            {"title": words("error.title"), "message": shown, "caller": None},
            status=status,
            headers=headers,
        )
    return JSONResponse({"error": code, "detail": detail}, status, dict(headers or {}))


def _ours(request: Request, error: ValuerError) -> Response:
    if isinstance(error, Retryable):
        return answer(
            request, error.status, error.code, error.message, {"Retry-After": str(math.ceil(error.retry_after))}
        )
    if isinstance(error, Refused):
        headers = {"WWW-Authenticate": "Bearer"} if error.status == HTTPStatus.UNAUTHORIZED else None
        return answer(request, error.status, error.code, error.message, headers)
    logs.event("broken", level=logging.ERROR, error=error)
    return answer(request, 500, error.code, "Something of ours is broken; an operator has to look.")


def _http(request: Request, error: HTTPException) -> Response:
    code, detail = _SENTENCES.get(
        error.status_code,
        (HTTPStatus(error.status_code).name.lower(), HTTPStatus(error.status_code).description or "Refused."),
    )
    return answer(request, error.status_code, code, detail, error.headers)


def _invalid(request: Request, error: RequestValidationError) -> Response:
    place = error.errors()[0]["loc"]
    if place[0] == "path":  # an id that cannot be one is an id that does not exist
        return answer(request, 404, *_SENTENCES[404])
    return answer(
        request,
        422,
        "invalid",
        f"{'.'.join(str(part) for part in place[1:]) or 'The request'} is missing or does not fit.",
    )


def _busy(request: Request, error: PoolTimeout) -> Response:
    return answer(request, 503, "busy", "Every database connection is in use.", {"Retry-After": "2"})


def unexpected(request: Request, error: Exception) -> Response:
    """The answer to what should never happen: logged as type and place only."""
    logs.event("unexpected", level=logging.ERROR, error=error)
    return answer(request, 500, "internal", "Something went wrong on our side; nothing of it was kept.")


def install(app: FastAPI) -> None:
    """Registers the handlers. Exceptions that none of them takes reach worklist.guard, which calls `unexpected`."""
    handlers: dict[Any, Any] = {
        ValuerError: _ours,
        HTTPException: _http,
        RequestValidationError: _invalid,
        PoolTimeout: _busy,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
