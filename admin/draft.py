"""`valuer draft`: one request through the reporting system's door, and its draft."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from admin import console
from core.settings import QueueSettings

LOOK_S = 0.3


def draft(
    source: Annotated[Path, typer.Argument(metavar="FILE.json", help="The body of POST /v1/requests, in UTF-8")],
    wait: Annotated[float, typer.Option(help="Seconds to wait for the draft", min=0, max=3600)] = 120.0,
    json: console.Json = False,
) -> None:
    """Send one request in and print its draft. `valuer up` has to run, or nobody writes one."""
    from starlette.datastructures import Headers

    from core import answers, queue, requests
    from core.db import transaction
    from core.errors import NotFound
    from core.identity import Keyring
    from core.states import SETTLED, RequestState
    from worklist import bodies

    if not source.is_file():
        raise NotFound(f"There is no file {source}.", code="no_file")
    body = requests.parse(bodies.decode_json(source.read_bytes(), Headers()))
    settings = console.read(QueueSettings)
    actor = requests.Actor("process", "cli", "system")
    with console.opened(settings) as here:
        keyring = Keyring.load(settings.master_key_file)
        queue.configure(here.broker_url)
        with transaction(here.engine) as session:
            accepted = requests.accept(session, keyring, body, actor, door="cli", queue=settings)
        requests.ring(accepted)
        console.note(f"Request {accepted.id}")
        deadline = time.monotonic() + wait
        while True:
            with transaction(here.engine) as session:
                row = requests.get(session, accepted.id, actor)
                view = answers.view(session, row)
            if row.state not in (RequestState.QUEUED, RequestState.DRAFTING) or time.monotonic() > deadline:
                break
            time.sleep(LOOK_S)
    console.answer(json, view, _shown(view, row.state in SETTLED))


def _shown(view: dict[str, Any], settled: bool) -> str:
    if "draft" not in view:
        if not settled:
            return f"The request is {view['state']}; it stays so until a worker runs (`valuer up`)."
        from core.states import Reason

        sentences = {reason.value: reason.sentence for reason in Reason}
        return f"No draft ({view['state']}). {sentences.get(view.get('reason', ''), '')}"
    draft = view["draft"]
    issues = [f"  {issue['severity']}: {issue['message']}" for issue in draft["issues"]]
    return "\n".join([draft["label"], "", draft["impression"], *(["", *issues] if issues else []), "", draft["model"]])
