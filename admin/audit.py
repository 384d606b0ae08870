"""`valuer audit`: who did what, and whether anybody has changed the record since."""

from pathlib import Path
from typing import Annotated

import typer

from admin import console

app = typer.Typer(no_args_is_help=True, help="The hash-chained record of who did what.")


@app.command()
def verify(json: console.Json = False) -> None:
    """Recompute every hash of the chain. Compare the head with a copy that was kept elsewhere."""
    from core import audit
    from core.db import transaction
    from core.errors import Broken

    with console.opened() as here, transaction(here.engine) as session:
        found = audit.verify(session)
    data = {"events": found.events, "unsealed": found.unsealed, "head": found.head, "broken_at": found.broken_at}
    console.answer(json, data)
    if found.broken_at is not None:
        raise Broken(f"The chain is broken at event {found.broken_at}: it was changed after it was sealed.")


@app.command()
def export(
    target: Annotated[Path, typer.Argument(metavar="OUT.jsonl", help="One event a line, in the order of the chain")],
    json: console.Json = False,
) -> None:
    """Write every sealed event to a file, to be kept away from this machine."""
    from json import dumps

    from sqlmodel import col, select

    from core.db import transaction
    from core.tables import AuditEvent

    count, head = 0, None
    query = select(AuditEvent).where(col(AuditEvent.seq).is_not(None)).order_by(col(AuditEvent.seq))
    with console.opened() as here, transaction(here.engine) as session, target.open("w", encoding="utf-8") as output:
        for event in session.exec(query.execution_options(yield_per=1000)):
            output.write(dumps(event.model_dump(mode="json"), ensure_ascii=False) + "\n")
            count, head = count + 1, event.hash
    console.answer(json, {"events": count, "head": head}, f"Wrote {count} events; the head of the chain is {head}.")
