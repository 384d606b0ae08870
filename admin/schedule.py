"""`valuer train schedule`: when to train again without being asked."""

from pathlib import Path
from typing import Annotated, Any

import typer

from admin import console

app = typer.Typer(no_args_is_help=True, help="Train again by the clock, after so many reports, or when drafts drift.")
Name = Annotated[str, typer.Argument(metavar="NAME")]


@app.command("set")
def put(
    name: Name,
    profile: Annotated[str, typer.Option("--profile", help="paper, recommended or smoke")] = "recommended",
    cron: Annotated[str | None, typer.Option(help='Five fields, UTC, such as "0 2 * * 6"')] = None,
    after: Annotated[int | None, typer.Option(help="So many reports newly signed since the last run", min=1)] = None,
    on_drift: Annotated[bool, typer.Option("--on-drift", help="When an institution's drafts drift")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what a run would find now; change nothing")] = False,
    json: console.Json = False,
) -> None:
    """Make or change a schedule. Each run starts afresh on all eligible data; nothing is promoted by it."""
    from core.db import transaction
    from core.tables import TrainingSchedule
    from training import runs, schedule
    from worker.engine import weights

    with console.opened() as here, transaction(here.engine) as session:
        if dry_run:
            settings = here.settings
            base = settings.models_dir / "base-demo" if settings.model == weights.DEMO else Path(settings.model)
            found = schedule.preview(session, profile, base, session.get(TrainingSchedule, name))
            hours = "unknown: no run of this profile yet" if found.hours is None else f"about {found.hours:.1f}"
            data: dict[str, Any] = {
                "new": found.new,
                "eligible": found.eligible,
                "hours": found.hours,
                "weights_bytes": found.weights_bytes,
                "blockers": list(found.blockers),
            }
            lines = [f"new: {group} {count}" for group, count in found.new.items()]
            memory = "unknown: the base is not on this machine yet"
            if found.weights_bytes is not None:
                memory = f"{found.weights_bytes / 1e9:.2f} GB for the base in 4 bits, and the adapter and activations beside it"
            lines += [f"eligible: {found.eligible} reports", f"hours: {hours}", f"memory: {memory}"]
            lines += [f"blocked: {sentence}" for sentence in found.blockers]
            console.answer(json, data, "\n".join(lines))
            return
        row = schedule.put(
            session, name, profile, runs.Options(), console.person(), cron=cron, after_reports=after, on_drift=on_drift
        )
        data = _data(row, None)
    console.answer(json, data, f"{name} trains {profile}: {_occasions(row)}.")


@app.command("list")
def listed(json: console.Json = False) -> None:
    """Every schedule, its occasions, its last run, and whether it is due."""
    from sqlmodel import col, select

    from core.db import transaction
    from core.tables import TrainingSchedule
    from training import schedule

    with console.opened() as here, transaction(here.engine) as session:
        rows = session.exec(select(TrainingSchedule).order_by(col(TrainingSchedule.name))).all()
        told = [_data(row, schedule.due(session, row)) for row in rows]
    console.answer(json, {"schedules": told}, console.table(told, "There is no schedule yet."))


@app.command()
def remove(name: Name, json: console.Json = False) -> None:
    """Forget a schedule; its runs stay."""
    from core.db import transaction
    from training import schedule

    with console.opened() as here, transaction(here.engine) as session:
        schedule.remove(session, name, console.person())
    console.answer(json, {"removed": name}, f"{name} is forgotten.")


def _data(row: Any, due: str | None) -> dict[str, Any]:
    return {
        "name": row.name,
        "profile": row.profile,
        "when": _occasions(row),
        "last_run": None if row.last_run is None else str(row.last_run),
        "last_run_at": row.last_run_at,
        "due": due,
    }


def _occasions(row: Any) -> str:
    told = []
    if row.cron:
        told.append(f"at {row.cron}")
    if row.after_reports:
        told.append(f"after {row.after_reports} newly signed reports")
    if row.on_drift:
        told.append("on drift")
    return ", ".join(told)
