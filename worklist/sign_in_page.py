"""Signing in with a password or a one-time link, signing out, and the language switch."""

import hmac
import secrets
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from core import db
from core.errors import Forbidden
from worklist import access, desk, words
from worklist.bodies import Form, one
from worklist.desk import Desk, TheDesk, TheReader, address_of, check_forgery, is_same_origin
from worklist.rendering import render
from worklist.words import Words

FORM_COOKIE = "valuer_form"
"""Ties the sign-in form to the browser that asked for it: there is no session yet whose token could."""

router = APIRouter()


def _way(path: str) -> str:
    """`path` when it is one of ours, the worklist otherwise: nobody is sent elsewhere by a link to us."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() else "/"


def _keep(response: Response, settings: Desk, name: str, value: str, lasts: timedelta) -> None:
    secure = settings.settings.cookie_secure
    response.set_cookie(
        name, value, max_age=int(lasts.total_seconds()), httponly=True, secure=secure, samesite="lax", path="/"
    )


def _form(request: Request, the: Desk, way: str, message: str | None = None, status: int = 200) -> Response:
    token = secrets.token_urlsafe(24)
    page = render(
        request, "sign_in.html", {"caller": None, "token": token, "next": way, "message": message}, status=status
    )
    _keep(page, the, FORM_COOKIE, token, timedelta(hours=1))
    return page


def _welcome(the: Desk, secret: str, way: str) -> Response:
    """The cookie lasts as long as a session can; whether it still does is the database's to say."""
    response = RedirectResponse(way, 303)
    _keep(response, the, desk.COOKIE, secret, access.LONGEST_SESSION)
    response.delete_cookie(FORM_COOKIE, path="/")
    return response


@router.get("/sign-in")
def form(request: Request, the: TheDesk, next: Annotated[str, Query(max_length=400)] = "/") -> Response:
    """The form."""
    return _form(request, the, _way(next))


@router.post("/sign-in")
async def sign_in(request: Request, the: TheDesk, fields: Form) -> Response:
    """Tries a password, when it is this one's turn; a failure is answered with the form again."""
    cookie = request.cookies.get(FORM_COOKIE, "").encode("utf-8", "surrogatepass")
    if (
        not cookie
        or not hmac.compare_digest(cookie, one(fields, "csrf").encode())
        or not is_same_origin(request, the.settings)
    ):
        raise Forbidden("This did not come from our own page; reload it and try again.", code="forged")
    said, way = Words.of(request), _way(one(fields, "next"))
    async with the.sign_ins.turn():
        tried = await run_in_threadpool(
            _try, the, one(fields, "login").strip().lower(), one(fields, "password"), address_of(request)
        )
    if tried.secret is not None:
        return _welcome(the, tried.secret, way)
    if tried.wait is not None:
        response = _form(request, the, way, said("sign_in.wait"), 429)
        response.headers["Retry-After"] = str(int(tried.wait.total_seconds()))
        return response
    return _form(request, the, way, said("sign_in.wrong"), 401)


def _try(the: Desk, login: str, password: str, address: str) -> access.SignIn:
    with db.transaction(the.engine) as session:
        return access.sign_in(session, login, password, address, the.session_lasts)


@router.get("/enter")
def enter(request: Request, the: TheDesk, link: Annotated[str, Query(max_length=200)]) -> Response:
    """Spends a one-time link. A browser that only looks ahead does not spend it."""
    if "prefetch" in request.headers.get("sec-purpose", request.headers.get("purpose", "")):
        return Response(status_code=204)
    with db.transaction(the.engine) as session:
        secret = access.enter(session, link, the.session_lasts)
    if secret is None:
        return _form(request, the, "/", Words.of(request)("sign_in.spent"), 401)
    return _welcome(the, secret, "/")


@router.post("/sign-out")
def sign_out(request: Request, the: TheDesk, caller: TheReader, fields: Form) -> Response:
    """Ends the session."""
    check_forgery(request, the.settings, caller, one(fields, "csrf"))
    with db.transaction(the.engine) as session:
        access.sign_out(session, caller)
    response = RedirectResponse("/sign-in", 303)
    response.delete_cookie(desk.COOKIE, path="/")
    return response


@router.get("/language")
def language(
    the: TheDesk, to: Annotated[words.Language, Query()], next: Annotated[str, Query(max_length=400)] = "/"
) -> Response:
    """Remembers the page's language in this browser."""
    response = RedirectResponse(_way(next), 303)
    _keep(response, the, words.COOKIE, to, timedelta(days=365))
    return response
