"""Templates become pages: one Jinja environment that escapes everything and fails on unknown names, and static files named by content."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from worklist.words import NAMES, Words

HERE = Path(__file__).parent
STATIC = HERE / "static"

_TEMPLATES = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    auto_reload=False,  # templates belong to the code that renders them, also while an upgrade puts newer ones in their place
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@lru_cache
def static_url(name: str) -> str:
    """Address of a static file, with a digest of its content, so that browsers may keep it until it changes."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"


def render(
    request: Request,
    template: str,
    context: Mapping[str, Any],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> HTMLResponse:
    """A page or a part of one. Every template gets `words`, `static`, `now` and the address to come back to after a language switch."""
    query = f"?{request.url.query}" if request.url.query and request.url.path == "/" else ""
    common = {
        "words": Words.of(request),
        "names": NAMES,
        "static": static_url,
        "now": datetime.now(UTC),
        "here": request.url.path + query if request.method == "GET" else "/",
    }
    return HTMLResponse(_TEMPLATES.get_template(template).render(common | dict(context)), status, dict(headers or {}))
