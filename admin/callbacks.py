"""`valuer callbacks`: notices to reporting systems that could not be delivered."""

from typing import Annotated, Any
from uuid import UUID

import typer

from admin import console

app = typer.Typer(no_args_is_help=True, help="Notices to reporting systems that could not be delivered.")


@app.command("list")
def show(json: console.Json = False) -> None:
    """Every notice that was given up after its last try: where it should have gone and what went wrong."""
    from core import callbacks
    from core.db import transaction

    with console.opened() as here, transaction(here.engine) as session:
        rows: list[dict[str, Any]] = [
            {
                "id": str(each.id),
                "request": str(each.request_id),
                "state": each.request_state,
                "url": each.url,
                "tries": each.tries,
                "error": each.last_error,
                "since": each.created_at,
            }
            for each in callbacks.dead(session)
        ]
    console.answer(json, {"callbacks": rows}, console.table(rows, "No notice was given up."))


@app.command()
def retry(
    ids: Annotated[
        list[UUID] | None, typer.Argument(metavar="[ID]…", help="Notices; none: all that were given up")
    ] = None,
    json: console.Json = False,
) -> None:
    """Send notices again that were given up, each as often as a new one."""
    from core import callbacks
    from core.db import transaction

    with console.opened() as here, transaction(here.engine) as session:
        count = callbacks.again(session, console.person(), ids)
    console.answer(json, {"waiting": count}, f"{count} notices will be sent again; the clerk does it.")
