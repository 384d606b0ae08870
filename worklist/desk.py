"""What every handler of the worklist works with: settings, engine, keys, the watch, and who is asking.

Recognises the caller of a request and refuses forged ones (CSRF); what the caller may do is decided by `demand` and by core.requests.
"""

import asyncio
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, cast
from urllib.parse import urlsplit

import sqlalchemy as sa
from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from core import db
from core.errors import Forbidden, Retryable, Unauthenticated
from core.identity import Keyring
from core.settings import WorklistSettings
from worklist import access
from worklist.access import Caller, KnownKeys
from worklist.watch import Watch

COOKIE = "valuer_session"

ROLES: dict[str, frozenset[str]] = {
    "read": frozenset({"system", "viewer", "admin", "radiologist"}),
    "send": frozenset({"system", "admin"}),
    "cancel": frozenset({"system", "admin"}),
    "regenerate": frozenset({"system", "admin", "radiologist"}),
    "report": frozenset({"system", "admin", "radiologist"}),
    "sign": frozenset({"radiologist", "admin"}),
}
"""Which roles may do what at this door. Keys never sign, whatever their role: core.requests holds that for every door."""


class Line:
    """People who wait for something costly, in the order in which they came: `places` are served at once, and whoever finds `longest` waiting is
    sent away. It is waited without a thread or a database connection, so that strangers at the door hold up nobody inside."""

    def __init__(self, places: int = 2, longest: int = 40) -> None:
        self._served, self._waiting, self._longest = asyncio.Semaphore(places), 0, longest

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Raises Retryable when the line is too long."""
        if self._waiting >= self._longest:
            raise Retryable("Too many people are signing in at this moment.", retry_after=5, code="busy")
        self._waiting += 1
        try:
            await self._served.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._served.release()


@dataclass(frozen=True, slots=True)
class Desk:
    """The one value that `create_app` makes and every handler gets."""

    settings: WorklistSettings
    engine: sa.Engine
    keyring: Keyring
    watch: Watch
    known_keys: KnownKeys = field(default_factory=KnownKeys)
    sign_ins: Line = field(default_factory=Line)

    @property
    def session_lasts(self) -> timedelta:
        """How long a browser session lasts without use."""
        return timedelta(minutes=self.settings.session_minutes)


def desk_of(request: Request) -> Desk:
    """The desk of the application that serves this request."""
    return cast(Desk, request.app.state.desk)


async def the_desk(request: Request) -> Desk:
    """The same for handlers; a coroutine, since anything else waits for a thread of the pool."""
    return desk_of(request)


def address_of(request: Request) -> str:
    """The client's network address, as uvicorn tells it (a proxy on loopback is trusted to name its client)."""
    return request.client.host if request.client else "unknown"


def is_same_origin(request: Request, settings: WorklistSettings) -> bool:
    """Whether a browser sent this from one of our own pages. Programs that are no browser send neither header and pass here."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = request.headers.get("origin")
    if origin is None:
        return True
    ours = {request.headers.get("host", "").lower()}
    if settings.public_url:
        ours.add(urlsplit(settings.public_url).netloc.lower())
    return urlsplit(origin).netloc.lower() in ours - {""}


def check_forgery(request: Request, settings: WorklistSettings, caller: Caller, presented: str | None) -> None:
    """Refuses a change that a browser sent with our cookie but not from our page (CSRF): origin and the session's own token must fit."""
    if caller.means != "browser":
        return
    token_fits = caller.csrf is not None and hmac.compare_digest(
        caller.csrf.encode(), (presented or "").encode("utf-8", "surrogatepass")
    )
    if not token_fits or not is_same_origin(request, settings):
        raise Forbidden("This did not come from our own page; reload it and try again.", code="forged")


def _lasts(request: Request, desk: Desk) -> timedelta | None:
    """How much longer this makes a session last: nothing when the page fetches by itself, so that one left open is signed out in the end."""
    by_itself = request.method == "GET" and ("x-part" in request.headers or request.url.path == "/v1/worklist/stream")
    return None if by_itself else desk.session_lasts


def recognise(request: Request) -> Caller:
    """Who sent this: by `Authorization: Bearer vk_…` (a system's key) or `vt_…` (a person's token), else by the session cookie.

    Raises:
        Unauthenticated: nobody, or the credential is wrong, expired, revoked, or its person is disabled.
        Forbidden: a cookie came with a change that carries no valid `X-CSRF-Token`.
    """
    desk = desk_of(request)
    header = request.headers.get("authorization")
    cookie = request.cookies.get(COOKIE)
    if header is None and not cookie:
        raise Unauthenticated("Send `Authorization: Bearer` with an API key or a token, or sign in.")
    caller: Caller | None
    with db.transaction(desk.engine) as session:
        if header is not None:
            scheme, _, secret = header.partition(" ")
            secret = secret.strip() if scheme.lower() == "bearer" else ""
            if secret.startswith("vt_"):
                caller = access.by_token(session, secret)
            elif (caller := access.by_key(session, secret)) is not None:
                desk.known_keys.keep(header, caller)
        else:
            caller = access.by_session(session, cookie or "", _lasts(request, desk))
    if caller is None:
        raise Unauthenticated("This key, token or session is not valid, or no longer.")
    if request.method not in ("GET", "HEAD") and request.url.path.startswith("/v1/"):
        check_forgery(request, desk.settings, caller, request.headers.get("x-csrf-token"))
    return caller


async def the_caller(request: Request) -> Caller:
    """As `recognise`, without a look at the database for a key that was right within the last second."""
    header = request.headers.get("authorization")
    known = None if header is None else desk_of(request).known_keys.get(header)
    return await run_in_threadpool(recognise, request) if known is None else known


def demand(caller: Caller, deed: str) -> None:
    """Raises Forbidden unless the caller's role may do `deed` (a key of ROLES)."""
    if caller.actor.role not in ROLES[deed]:
        raise Forbidden(f"A {caller.actor.role} {caller.actor.kind} may not do this.", code="wrong_role")


def recognise_reader(request: Request) -> Caller:
    """The person whose browser session this is; keys and tokens have the API. Raises Unauthenticated."""
    desk = desk_of(request)
    with db.transaction(desk.engine) as session:
        caller = access.by_session(session, request.cookies.get(COOKIE, ""), _lasts(request, desk))
    if caller is None:
        raise Unauthenticated("Sign in first.")
    return caller


TheDesk = Annotated[Desk, Depends(the_desk)]
TheCaller = Annotated[Caller, Depends(the_caller)]
TheReader = Annotated[Caller, Depends(recognise_reader)]
