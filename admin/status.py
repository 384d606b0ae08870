"""`valuer status`: what runs, what waits, which model serves, how fresh each institution is."""

from typing import TYPE_CHECKING, Any

from admin import console
from core.settings import Settings

if TYPE_CHECKING:
    from sqlmodel import Session


def status(json: console.Json = False) -> None:
    """Show every process, the queue, the model that serves and the institutions."""
    from core import embedded
    from core.db import transaction

    settings = console.read(Settings)
    servers = embedded.status(settings.home) if settings.home.is_dir() else ()  # before we start them to look
    with console.opened(settings) as here, transaction(here.engine) as session:
        data: dict[str, Any] = {
            "processes": _processes(session, settings, servers),
            "queue": _queue(session),
            "model": _model(session),
            "institutions": _institutions(session),
        }
    if json:
        console.answer(True, data)
        return
    from rich.console import Group

    queue, model = data["queue"], data["model"]
    shown = (
        console.table(data["processes"], "No process runs; `valuer up` starts them all."),
        "",
        f"Requests: {queue['waiting']} waiting, {queue['running']} being drafted, {queue['needs_human']} need a human",
        f"Model: {model['version'] or 'none serves'}" + (f" on {model['base']}" if model["base"] else ""),
        "",
        console.table(
            data["institutions"], f"No institution yet; their files belong into {settings.institutions_dir}."
        ),
    )
    console.answer(False, data, Group(*shown))


def _processes(session: "Session", settings: Settings, servers: Any) -> list[dict[str, Any]]:
    """Those that announce themselves in the database, those that the supervisor waits with, and the embedded pair."""
    from socket import gethostname

    from admin import supervisor
    from core import processes
    from core.daemon import is_alive

    here = gethostname()
    deaf = {each.name for each in processes.deaf(session)}
    found = [
        {"name": each.kind, "state": "consumes nothing" if each.name in deaf else each.state, "pid": each.pid}
        for each in processes.alive(session)
        if each.host != here or is_alive(each.pid)  # what was killed is still heard of for some seconds
    ]
    known = {each["pid"] for each in found}
    for child in (supervisor.state(settings.home) or {"processes": []})["processes"]:
        if child["pid"] not in known or child["pid"] is None:
            state = "waiting to start again" if child["pid"] is None else "starting"
            found.append({"name": child["name"], "state": state, "pid": child["pid"]})
    configured = {"postgres": settings.database_url, "valkey": settings.broker_url}
    for server in servers:
        if configured[server.name] is None:
            found.append({"name": server.name, "state": "ready" if server.alive else "stopped", "pid": server.pid})
    return found


def _queue(session: "Session") -> dict[str, int]:
    import sqlalchemy as sa

    from core.states import RequestState
    from core.tables import DraftRequest

    table = DraftRequest.__table__  # type: ignore[attr-defined]  # set by SQLModel's metaclass
    names = {"waiting": RequestState.QUEUED, "running": RequestState.DRAFTING, "needs_human": RequestState.NEEDS_HUMAN}
    query = sa.select(table.c.state, sa.func.count()).where(table.c.state.in_(names.values())).group_by(table.c.state)
    counts: dict[Any, int] = {row[0]: row[1] for row in session.execute(query)}
    return {name: counts.get(state, 0) for name, state in names.items()}


def _model(session: "Session") -> dict[str, str | None]:
    from core import registry

    active = registry.active(session, registry.EVERYONE)
    if active is None:
        return {"version": None, "base": None}
    return {"version": active.id, "base": active.manifest["base"]["model"]}


def _institutions(session: "Session") -> list[dict[str, Any]]:
    """`stage` is live where a model may draft for the institution, else collect."""
    from core import registry
    from ingest import standing

    rows = []
    for each in standing.status(session):
        active = registry.active(session, each["name"])
        live = active is not None and (each["sandbox"] or not active.sandbox_only)
        rows.append({"name": each["name"], "stage": "live" if live else "collect", "fresh_s": each["fresh_s"]})
    return rows
