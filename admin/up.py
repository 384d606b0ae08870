"""`valuer up`, `down` and `migrate`: run the whole product on this machine, stop it, bring a database to this release."""

import os
import signal
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from admin import console
from core.errors import Broken, Refused
from core.settings import Settings, WorklistSettings

Home = Annotated[Path | None, typer.Option("--home", help="Data root; default: VALUER_HOME, else ./.valuer")]
Port = Annotated[
    int | None, typer.Option("--port", min=1, max=65535, help="Port of the worklist; default: VALUER_PORT")
]
STOP_S = 90.0


def up(home: Home = None, port: Port = None, json: console.Json = False) -> None:
    """Run every process in the foreground and start again what dies, until Ctrl-C.

    Starts an embedded PostgreSQL and Valkey unless VALUER_DATABASE_URL and VALUER_BROKER_URL name servers.
    """
    from admin import supervisor
    from core import embedded

    settings = console.read(WorklistSettings, home=home, port=port)
    free(settings)
    with supervisor.only_one(settings.home), embedded.running(settings) as servers:
        supervisor.prepare(settings, servers)
        running = supervisor.Supervisor(settings, servers, settings.port, console.note)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: running.stopping.set())
        console.note(f"Worklist: {address(settings)}   logs: {settings.home / 'log'}   Ctrl-C stops everything.")
        running.run()
        console.note("Every process has ended; stopping the servers.")
    console.answer(json, {"stopped": True}, "Stopped.")


def down(json: console.Json = False) -> None:
    """Stop what `valuer up` or `valuer demo` runs on this home, and the embedded servers."""
    from admin import supervisor
    from core import embedded

    settings = console.read(Settings)
    state = supervisor.state(settings.home)
    if state is not None and state["pid"] is not None:
        os.kill(state["pid"], signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        while supervisor.state(settings.home) is not None:
            if time.monotonic() > deadline:
                raise Broken(f"Process {state['pid']} does not stop.")
            time.sleep(0.2)
    servers = [each.name for each in embedded.status(settings.home) if each.alive]
    embedded.stop(settings.home)
    stopped = [*(["processes"] if state else []), *servers]
    console.answer(json, {"stopped": stopped}, f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running.")


def migrate(json: console.Json = False) -> None:
    """Bring the database to this release's schema and make what an installation needs: `up` does it by itself.

    Makes the master key if the database is new, and takes the institution files over.
    """
    from admin import supervisor
    from core import embedded, schema

    settings = console.read(Settings)
    with embedded.running(settings) as servers:
        changed = supervisor.prepare(settings, servers)
    data: dict[str, Any] = {"revision": schema.REVISION, "changed": changed}
    console.answer(json, data, f"The database is at revision {schema.REVISION}.")


def free(settings: WorklistSettings) -> None:
    """Refuses a port that somebody else has, before anything is started."""
    import socket

    with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise Refused(
                f"Port {settings.port} cannot be had ({error.strerror}): choose another with --port."
            ) from None


def address(settings: WorklistSettings) -> str:
    """Where a person reaches the worklist's page."""
    return settings.public_url or f"http://{settings.host}:{settings.port}"
