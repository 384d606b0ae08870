"""`valuer demo`: the whole loop on six pretend hospitals, on this machine, with the shipped demo model.

Builds the hospitals, runs every process, sends held-out reports through the HTTP door, signs some as a pretend radiologist on
the API and some in the pretend hospitals' own systems, and waits for the scores. A second run on the same home adds nothing
twice. Everything that it invents is of the sandbox; it touches no server that it was not given.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from admin import console, up
from core.errors import Broken
from core.settings import WorklistSettings

if TYPE_CHECKING:
    from admin.rounds import Rounds
    from admin.supervisor import Supervisor

READY_S = 600.0
"""Longest wait for one step; the slowest is thirty drafts with every retry on busy cores."""
Maria = Annotated[
    str | None,
    typer.Option("--mariadb", help="Put hospital 2 into this server: mysql://user:password@host; else files"),
]


def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the loop instead of leaving the page open")] = False,
    home: up.Home = None,
    port: up.Port = None,
    mariadb: Maria = None,
    bare: Annotated[bool, typer.Option("--bare", help="On a new home: serve the base without its adapter")] = False,
    json: console.Json = False,
) -> None:
    """Run the whole loop on six pretend hospitals, then leave the worklist open until Ctrl-C.

    Hospitals, ingest, requests, drafts, checks, signatures, scores: everything real but the patients.
    """
    from admin import supervisor
    from core import embedded

    settings = console.read(WorklistSettings, home=home, port=port)
    up.free(settings)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both ways to stop end every process in order
    began, looped = time.monotonic(), False
    try:
        with ExitStack() as stack:
            stack.enter_context(supervisor.only_one(settings.home))
            console.note("Starting the servers …")
            servers = stack.enter_context(embedded.running(settings))
            supervisor.prepare(settings, servers)
            rounds = _loop(stack, settings, servers, mariadb, bare)
            data = {**rounds.result(), "seconds": round(time.monotonic() - began, 1)}
            console.answer(json, data, _told(data))
            looped = True
            if not once:
                _stay(rounds, settings)
    except KeyboardInterrupt:
        console.note("Stopped.")
        if not looped:
            raise typer.Exit(1) from None


def _loop(stack: ExitStack, settings: WorklistSettings, servers: Any, mariadb: str | None, bare: bool) -> "Rounds":
    """Every step of the loop, each with the sentence of what it did."""
    from admin.rounds import Rounds
    from admin.supervisor import Supervisor

    rounds = stack.enter_context(Rounds(settings, servers, mariadb))
    console.note(rounds.build())
    rounds.install_model(bare=bare)
    running = Supervisor(settings, servers, settings.port, console.note)
    stack.enter_context(_supervised(running))
    for title, step in rounds.steps():
        console.note(f"{title} …")
        _until(step, running, title)
    return rounds


def _until(step: Callable[[], bool], running: "Supervisor", title: str) -> None:
    """Repeats a step until it says that it is done."""
    deadline = time.monotonic() + READY_S
    while not step():
        failing = running.failing()
        if failing:
            raise Broken(f"{failing} does not come up; its log in the home says why.")
        if time.monotonic() > deadline:
            raise Broken(f"{title}: not done after {READY_S:.0f} s; `valuer status` and the logs in the home say why.")
        time.sleep(0.2)


@contextmanager
def _supervised(running: "Supervisor") -> Iterator[None]:
    thread = threading.Thread(target=running.run, name="supervisor")
    thread.start()
    try:
        yield
    finally:
        console.note("Stopping every process …")
        running.stopping.set()
        thread.join()


def _stay(rounds: "Rounds", settings: WorklistSettings) -> None:
    from admin.rounds import EXAMPLE

    address = up.address(settings)
    link, key = rounds.way_in()
    console.note(
        f"""
The worklist is open. Sign in once as the pretend radiologist:
  {address}{link}

Send findings of your own, as a reporting system would (the key is of hospital 1):
  curl -s {address}/v1/requests -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '
{EXAMPLE}'

Ctrl-C stops every process. `make demo` again continues with the same data in {settings.home}."""
    )
    while True:
        time.sleep(3600)


def _told(data: dict[str, Any]) -> str:
    rouge = data["rouge"]
    return (
        f"{data['ingested']} reports of six hospitals ingested, {data['quarantined']} rows in quarantine.\n"
        f"{data['requests']} requests: {data['drafted']} drafted, {data['withheld']} withheld; "
        f"{data['signed']} signed, {data['scored']} of them scored.\n"
        f"Drafts against what was signed: ROUGE-1 {rouge['r1']:.2f}, ROUGE-2 {rouge['r2']:.2f}, "
        f"ROUGE-L {rouge['rl']:.2f}. {data['seconds']:.0f} s."
    )
