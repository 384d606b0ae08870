"""`valuer ingest`: what is read from the institutions' databases, and what could not be taken."""

from typing import Annotated, Any
from uuid import UUID

import typer

from admin import console
from core.settings import IngestSettings

app = typer.Typer(no_args_is_help=True, help="The institutions' databases.")
quarantine = typer.Typer(no_args_is_help=True, help="Rows that could not be taken, with the reason.")
app.add_typer(quarantine, name="quarantine")
Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]…", help="Institution codes; none: all")]


@app.command()
def run(names: Names = None, json: console.Json = False) -> None:
    """Poll once, until nothing new is left. The service that `valuer up` runs does this by itself."""
    from core import queue
    from core.errors import Broken
    from core.identity import Keyring
    from ingest import service

    settings = console.read(IngestSettings)
    with console.opened(settings) as here:
        results = service.run_once(here.engine, settings, Keyring.load(settings.master_key_file), names or None)
        queue.configure(here.broker_url)
        for sign_off in [each for result in results.values() for each in result.sign_offs]:
            queue.ring_score(sign_off)
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "rows_read": result.rows_read,
            "stored": result.stored,
            "unchanged": result.unchanged,
            "quarantined": result.quarantined,
            "seconds": round(result.seconds, 2),
            "error": result.error,
        }
        for name, result in results.items()
    ]
    console.answer(json, {"institutions": rows}, console.table(rows, "No institution file describes a source."))
    failed = [result for result in results.values() if result.error]
    if failed:
        raise Broken(" ".join(f"{each.institution}: {each.message or each.error}" for each in failed))


@app.command()
def status(json: console.Json = False) -> None:
    """When each institution was last read, how far its clock is off, and why it failed."""
    from core.db import transaction
    from ingest import service

    with console.opened() as here, transaction(here.engine) as session:
        rows = service.status(session)
    console.answer(json, {"institutions": rows}, console.table(rows, "There is no institution yet."))


@app.command()
def stats(json: console.Json = False) -> None:
    """What there is to learn from, counted like the paper's Table 1, and what is kept out and why."""
    from core.db import transaction
    from ingest import service

    with console.opened() as here, transaction(here.engine) as session:
        rows = service.stats(session)
    console.answer(json, {"institutions": rows}, console.table(rows, "There is no report yet."))


@quarantine.command("list")
def listed(
    institution: Annotated[str | None, typer.Option(help="Only this one")] = None,
    reason: Annotated[str | None, typer.Option(help="Only this reason")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 100,
    json: console.Json = False,
) -> None:
    """What waits, newest first: ids and reasons, never content."""
    from core.db import transaction
    from ingest import quarantine as kept

    with console.opened() as here, transaction(here.engine) as session:
        rows = kept.list_open(session, institution, reason, limit)
    console.answer(json, {"rows": rows}, console.table(rows, "Nothing is in quarantine."))


@quarantine.command()
def show(row: Annotated[UUID, typer.Argument(metavar="ID")], json: console.Json = False) -> None:
    """One row as it came, with its content: for whoever mends the mapping."""
    from core import audit
    from core.db import transaction
    from core.identity import Keyring
    from ingest import quarantine as kept

    with console.opened() as here, transaction(here.engine) as session:
        found = kept.show(session, Keyring.load(here.settings.master_key_file), row)
        audit.record(session, console.person(), "quarantine.shown", f"quarantine:{row}")
    console.answer(json, found)


@quarantine.command()
def replay(
    rows: Annotated[list[UUID] | None, typer.Argument(metavar="[ID]…")] = None, json: console.Json = False
) -> None:
    """Try rows again with the mappings as they are now; none named: all."""
    from core import queue
    from core.identity import Keyring
    from ingest import mapping
    from ingest import quarantine as kept

    with console.opened() as here:
        mappings = {
            code: mapping.load(file) for code, file in mapping.with_source(here.settings.institutions_dir).items()
        }
        done = kept.replay(here.engine, Keyring.load(here.settings.master_key_file), mappings, rows or None)
        queue.configure(here.broker_url)
        for sign_off in done.sign_offs:
            queue.ring_score(sign_off)
    data = {"taken": done.taken, "left": done.left}
    console.answer(json, data, f"{done.taken} rows taken, {done.left} left.")
