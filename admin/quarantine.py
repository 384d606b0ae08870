"""`valuer ingest quarantine`: the rows that could not be taken, and trying them again."""

from typing import Annotated
from uuid import UUID

import typer

from admin import console

app = typer.Typer(no_args_is_help=True, help="Rows that could not be taken, with the reason.")


@app.command("list")
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


@app.command()
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


@app.command()
def counts(
    institution: Annotated[str | None, typer.Option(help="Only this one")] = None, json: console.Json = False
) -> None:
    """How many rows wait and why, and since when: where to begin."""
    from core.db import transaction
    from ingest import quarantine as kept

    with console.opened() as here, transaction(here.engine) as session:
        rows = kept.counts(session, institution)
    console.answer(json, {"reasons": rows}, console.table(rows, "Nothing is in quarantine."))


@app.command()
def replay(
    rows: Annotated[list[UUID] | None, typer.Argument(metavar="[ID]…")] = None,
    institution: Annotated[str | None, typer.Option(help="Only this one")] = None,
    reason: Annotated[str | None, typer.Option(help="Only this reason")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would become of them")] = False,
    json: console.Json = False,
) -> None:
    """Try rows again with the mappings as they are now; none named: all. Show one, mend the institution file, replay."""
    from core import queue
    from core.errors import Refused
    from core.identity import Keyring
    from ingest import mapping
    from ingest import quarantine as kept

    with console.opened() as here:
        files = mapping.with_source(here.settings.institutions_dir)
        if institution is not None and institution not in files:
            raise Refused(f"No institution file with a source has the code {institution}.", code="institution")
        chosen = {code: file for code, file in files.items() if institution in (None, code)}
        mappings = {code: mapping.load(file, here.settings.home) for code, file in chosen.items()}
        keyring = Keyring.load(here.settings.master_key_file)
        done = kept.replay(here.engine, keyring, mappings, rows or None, reason=reason, dry_run=dry_run)
        if not dry_run:
            queue.configure(here.broker_url)
            for sign_off in done.sign_offs:
                queue.ring_score(sign_off)
    data = {"taken": done.taken, "left": done.left, "reasons": done.reasons, "dry_run": dry_run}
    would = "would be taken" if dry_run else "taken"
    left = "".join(f"\n  {count} {why}" for why, count in done.reasons.items())
    console.answer(json, data, f"{done.taken} rows {would}, {done.left} left.{left}")
