"""Reading what was sent: size, charset and form, before anything looks at the content.

Says no in sentences that name the fault and never the text. UTF-8 or GB18030, decoded strictly: a replaced character in a report is worse
than a refused request.
"""

import asyncio
import json
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import Depends, Request
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from core.errors import Invalid, Refused

LARGEST_BODY = 1 << 20
"""Bytes; 8,000 characters of findings fit eightfold, even as \\u escapes."""

SLOWEST_BODY_S = 30.0

_CODECS = {"utf-8": "utf-8-sig", "utf8": "utf-8-sig", "gb18030": "gb18030", "gbk": "gb18030", "gb2312": "gb18030"}


class Malformed(Refused):
    """The body is no JSON at all, or no text in its charset."""

    code = "malformed"
    status = 400


class TooLarge(Refused):
    """The body is larger than any request can be."""

    code = "too_large"
    status = 413


class TooSlow(Refused):
    """The body did not arrive in time; whoever sends it byte by byte holds a connection for nothing."""

    code = "too_slow"
    status = 408


class WrongMedia(Refused):
    """The body's type or charset is not one that we read."""

    code = "unsupported_media_type"
    status = 415


async def read_body(request: Request) -> bytes:
    """The body, up to LARGEST_BODY; what is larger is refused without being read to its end."""
    too_large = TooLarge(f"The body is larger than {LARGEST_BODY:,} bytes.")
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > LARGEST_BODY:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(SLOWEST_BODY_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > LARGEST_BODY:
                    raise too_large
    except TimeoutError:
        raise TooSlow(f"The body did not arrive within {SLOWEST_BODY_S:.0f} seconds.") from None
    except ClientDisconnect:
        raise Malformed("The sender went away in the middle of the body.") from None
    return bytes(body)


def _media(headers: Headers) -> tuple[str, str]:
    """Media type and charset of a Content-Type header, both in lower case, by default JSON in UTF-8."""
    media, *parameters = (part.strip() for part in headers.get("content-type", "application/json").lower().split(";"))
    named = dict(part.split("=", 1) for part in parameters if "=" in part)
    return media, named.get("charset", "utf-8").strip("\"' ")


def decode_json(body: bytes, headers: Headers) -> Any:
    """The JSON value of a body.

    Raises:
        WrongMedia: the type is not JSON, or the charset neither UTF-8 nor GB18030.
        Malformed: the bytes are not text in that charset, or the text is not JSON.
    """
    media, charset = _media(headers)
    if media != "application/json" and not media.endswith("+json"):
        raise WrongMedia("Send Content-Type: application/json.")
    if charset not in _CODECS:
        raise WrongMedia("The charset must be utf-8 or gb18030.", code="unsupported_charset")
    try:
        text = body.decode(_CODECS[charset])
    except UnicodeDecodeError as error:
        raise Malformed(f"The body is not {charset} at byte {error.start}.", code="wrong_charset") from None
    try:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_once_each)
    except json.JSONDecodeError as error:
        raise Malformed(f"The body is not JSON at line {error.lineno}, column {error.colno}.") from None
    except _Twice:
        raise Malformed("The body names a field twice; which of the two is meant nobody can know.") from None
    except (ValueError, RecursionError):
        raise Malformed("The body holds a number or a nesting that no request needs.") from None


def _no_constant(name: str) -> Any:
    raise ValueError(name)


class _Twice(Exception):
    """An object has two values under one name. Of two findings the last would win, unseen."""


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Twice
    return found


async def _payload(request: Request) -> Any:
    return decode_json(await read_body(request), request.headers)


async def _form(request: Request) -> dict[str, list[str]]:
    media, _ = _media(request.headers)
    if media != "application/x-www-form-urlencoded":
        raise WrongMedia("Send this form from its page.")
    try:
        pairs = parse_qsl(
            (await read_body(request)).decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=200
        )
    except (UnicodeDecodeError, ValueError):
        raise Malformed("The form could not be read.") from None
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return fields


def one(fields: dict[str, list[str]], name: str) -> str:
    """The only value of a form's field; empty when it is absent. Raises Invalid when it came twice."""
    values = fields.get(name, [""])
    if len(values) > 1:
        raise Invalid(f"The form holds {name} more than once.")
    return values[0]


Payload = Annotated[Any, Depends(_payload)]
Form = Annotated[dict[str, list[str]], Depends(_form)]
