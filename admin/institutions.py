"""`valuer institutions`: which institutions there are, and how far a model may go with their examinations.

The institution's file stays the one truth: `stage` changes one line of it, as a person with an editor would, and tells the database at once.
"""

from typing import Annotated, Any

import typer

from admin import console

app = typer.Typer(no_args_is_help=True, help="Institutions and their stages.")


@app.command("list")
def show(json: console.Json = False) -> None:
    """Every institution with the stages that its file names; what it does not name is live."""
    from core import institutions
    from core.settings import Settings

    found, faults = institutions.look(console.read(Settings).institutions_dir)
    rows: list[dict[str, Any]] = [
        {"code": each.code, "name": each.name, "stages": each.stages or {"*": "live"}, "file": path.name}
        for path, each in found.items()
    ]
    for fault in faults.values():
        console.note(fault.message)
    console.answer(json, {"institutions": rows}, console.table(rows, "There is no institution yet."))


@app.command()
def stage(
    code: Annotated[str, typer.Argument(help="Code of the institution")],
    examinations: Annotated[str, typer.Argument(help='"CT/chest", "CT", "*/head" or "*" for all')],
    to: Annotated[str, typer.Argument(help="collect, shadow or live")],
    json: console.Json = False,
) -> None:
    """Set how far a model may go with these examinations. From collect it goes to shadow first: nobody has seen there what its drafts are worth."""
    from core import institutions
    from core.db import transaction

    with console.opened() as here:
        before, profile = institutions.set_stage(here.settings.institutions_dir, code, examinations, to)
        with transaction(here.engine) as session:
            institutions.sync(session, {code: profile}, by=console.person())
    data = {"institution": code, "examinations": examinations, "before": before, "stage": to}
    console.answer(json, data, f"{code} {examinations}: {before} → {to}")
