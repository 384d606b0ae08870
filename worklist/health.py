"""For machines that look after this one: is the process up, can it work, how is it doing."""

import asyncio
import ipaddress
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.concurrency import run_in_threadpool

from core import processes, queue, schema
from core.db import transaction
from core.errors import ValuerError
from worklist.desk import Desk, TheDesk, address_of, demand, recognise
from worklist.shapes import failures

router = APIRouter()


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz", responses=failures(503))
async def readyz(desk: TheDesk) -> Response:
    """Database, schema and broker are there, and every worker that is ready consumes. 503 names what is missing; requests are still taken
    while only the broker or a worker is away."""
    missing = [
        name for name in await asyncio.gather(run_in_threadpool(_database, desk), run_in_threadpool(_broker)) if name
    ]
    if missing:
        return JSONResponse({"error": "not_ready", "detail": " ".join(missing)}, 503, {"Retry-After": "5"})
    return JSONResponse({"status": "ready"})


def _database(desk: Desk) -> str | None:
    try:
        schema.require(desk.engine)
        with transaction(desk.engine) as session:
            deaf = [each.name for each in processes.deaf(session)]
        if deaf:
            return f"No permit reaches {', '.join(deaf)}."
    except ValuerError as error:
        return error.message
    return None


def _broker() -> str | None:
    try:
        with queue.app.connection_for_write(connect_timeout=2) as connection:
            connection.ensure_connection(max_retries=1, timeout=2)
            connection.default_channel.close()
    except Exception:  # kombu's transports raise their own kinds; which one does not matter here
        return "The broker cannot be reached."
    return None


@router.get("/metrics", response_class=Response)
def metrics(request: Request) -> Response:
    """Prometheus metrics, for this machine itself, or for any key or person who may read."""
    if not _is_local(request):
        demand(recognise(request), "read")
    registry: Any = request.app.state.metrics.registry
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def _is_local(request: Request) -> bool:
    """Whether the client is this machine itself and not a proxy on it that speaks for somebody else."""
    if "forwarded" in request.headers or "x-forwarded-for" in request.headers:
        return False
    try:
        return ipaddress.ip_address(address_of(request)).is_loopback
    except ValueError:
        return False
