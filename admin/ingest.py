"""`valuer ingest`: what is read from the institutions' databases. Each larger noun has a file of its own and is added here."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from admin import acceptance, console, lanes, onboard, quarantine, stats, texts
from core.settings import IngestSettings

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer(no_args_is_help=True, help="The institutions' databases.")
app.add_typer(quarantine.app, name="quarantine")
app.command()(onboard.init)
app.command()(acceptance.doctor)
app.command()(stats.stats)
app.command()(lanes.reconcile)
app.command()(lanes.backfill)
for command in (texts.duplicates, texts.reclean, texts.terms):
    app.command()(command)
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
    """When each institution was last read, how far its clock is off, why it failed, and when duplicates were last looked for."""
    from core.db import transaction
    from ingest import standing

    with console.opened() as here, transaction(here.engine) as session:
        rows, searched = standing.status(session), standing.searched(session)
    console.answer(json, {"institutions": rows, "duplicates": searched}, _page(rows, searched))


def _page(rows: list[dict[str, Any]], searched: dict[str, Any] | None) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    failing = [row for row in rows if row["failing_since"]]
    wrong = [
        Text(f"{row['name']}, since {row['failing_since'][:16]}: {row['message'] or row['failure']}") for row in failing
    ]
    table = console.table([_line(row) for row in rows], "There is no institution yet.")
    return Group(table, Text(""), *wrong, Text(_searched(searched)))


def _searched(run: dict[str, Any] | None) -> str:
    """The newest search for duplicates in a sentence."""
    if run is None:
        return "Duplicates have not been looked for yet."
    rest = "" if run["ended_at"] else f" of {run['waiting']}; the next search goes on"
    return (
        f"Duplicates, last looked for at {run['began_at'][:16]}: {run['examined']} reports{rest}; "
        f"{run['near']} more are nearly equal to another, {run['exact']} exact duplicates changed."
    )


def _line(row: dict[str, Any]) -> dict[str, Any]:
    """An institution's standing in few columns; --json has them all."""
    backfill, reconciled = row["backfill"], row["reconciled"]
    return {
        "name": row["name"],
        "polled": _ago(row["fresh_s"]),
        "newest": _ago(row["lag_s"]),
        "reports": row["reports"],
        "waiting": row["quarantined"],
        "backfill": f"{backfill['done']}/{backfill['days']} days" if backfill else "",
        "reconciled": reconciled["at"][:10] if reconciled else "",
        "failing": "yes" if row["failing_since"] else "",
    }


def _ago(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"
