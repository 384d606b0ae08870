"""`valuer models`: the versions that there are, and which one serves."""

from pathlib import Path
from typing import Annotated, Any

import typer

from admin import console, tokens

app = typer.Typer(no_args_is_help=True, help="Model versions and which one serves.")
app.command()(tokens.tokens)
Institution = Annotated[str, typer.Option(help="Code of an institution; * is everybody without their own")]
Reason = Annotated[str | None, typer.Option(help="Why, for the record")]


@app.command("list")
def listed(json: console.Json = False) -> None:
    """Every version, newest first, and whom it serves."""
    from sqlmodel import col, select

    from core import registry
    from core.db import transaction
    from core.tables import ModelVersion

    with console.opened() as here, transaction(here.engine) as session:
        serving = {name: active.id for name, active in registry.pointers(session).items()}
        rows: list[dict[str, Any]] = [
            {
                "version": row.id,
                "base": row.base,
                "serves": sorted(name for name, version in serving.items() if version == row.id),
                "sandbox_only": row.manifest["sandbox_only"],
                "created_at": row.created_at,
            }
            for row in session.exec(select(ModelVersion).order_by(col(ModelVersion.created_at).desc()))
        ]
    console.answer(json, {"models": rows}, console.table(rows, "There is no model version yet."))


@app.command()
def show(version: str, json: console.Json = False) -> None:
    """A version's manifest: base, adapter, prompt, training set, metrics, scope, file hashes; and what it was evaluated as, with the figures."""
    from json import dumps

    from core import registry, serving
    from core.db import transaction

    with console.opened() as here, transaction(here.engine) as session:
        told = {
            **registry.get(session, version).manifest,
            "evaluations": [{"dataset": row.dataset, **row.result} for row in serving.evaluations(session, version)],
        }
    console.answer(json, told, dumps(told, ensure_ascii=False, indent=2))


@app.command()
def promote(
    version: str,
    institution: Institution = "*",
    reason: Reason = None,
    force: Annotated[bool, typer.Option("--force", help="Promote what the gate holds; needs a --reason")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what the gate says")] = False,
    json: console.Json = False,
) -> None:
    """Make a version serve, if the gate lets it. Running workers take it for their next claims, without a restart."""
    from core.db import transaction
    from core.errors import Refused
    from core.serving import Serving
    from core.settings import WorkerSettings
    from training import promotion

    settings = console.read(WorkerSettings)
    serving = Serving.of(settings)
    previous = None
    with console.opened(settings) as here, transaction(here.engine) as session:
        if dry_run:
            verdict = promotion.ask(session, version, institution, serving, reason=reason)
        else:
            verdict, previous = promotion.promote(
                session, version, institution, serving, console.person(), reason=reason, force=force
            )
    promoted = not dry_run and (verdict.passed or force)
    data = {
        "version": version,
        "institution": institution,
        "promoted": promoted,
        "previous": previous,
        **verdict.as_json(),
    }
    lines = [f"{'yes' if finding.passed else 'NO '}  {finding.rule}: {finding.says}" for finding in verdict.findings]
    if promoted:
        lines.append(f"{version} serves {institution} now; before it was {previous or 'none'}.")
    console.answer(json, data, "\n".join(lines))
    if not verdict.passed and not force:
        rules = sorted({finding.rule for finding in verdict.held_by})
        raise Refused(f"The gate holds {version} ({', '.join(rules)}); nothing was changed.", code="held")


@app.command()
def merge(
    version: str,
    folder: Annotated[Path, typer.Argument(help="Where the merged model goes; it must not be there yet")],
    json: console.Json = False,
) -> None:
    """Write a version merged into its base in full precision, for a server of one's own. The version itself stays as it is."""
    from core import registry
    from core.db import transaction
    from training import merge as merging
    from worker.engine import weights

    with console.opened() as here:
        with transaction(here.engine) as session:
            path = Path(registry.get(session, version).path)
        told = merging.merge(weights.base_model(here.settings.model, here.settings.models_dir), path, folder)
    console.answer(json, told, f"{version} is merged in {folder}; serve it in bf16 and never quantise it again.")


@app.command()
def rollback(institution: Institution = "*", reason: Reason = None, json: console.Json = False) -> None:
    """Go back to the version that served before the present one."""
    from core import registry
    from core.db import transaction

    with console.opened() as here, transaction(here.engine) as session:
        previous, version = registry.rollback(session, console.person(), institution, reason=reason)
    data = {"version": version, "institution": institution, "previous": previous}
    console.answer(json, data, f"{version} serves {institution} again, instead of {previous}.")


@app.command()
def gc(
    yes: Annotated[bool, typer.Option("--yes", help="Remove them; without it they are only named")] = False,
    json: console.Json = False,
) -> None:
    """Remove the files of versions and ended runs that nothing refers to. What serves, served lately or is new stays, and so does every row."""
    from core.db import transaction
    from training import collection

    with console.opened() as here:
        with transaction(here.engine) as session:
            found = collection.rubbish(session, here.settings.home)
        size = found.size()
        if yes:
            with transaction(here.engine) as session:
                found = collection.collect(session, found, console.person())
            found.remove()
    data = {
        "versions": sorted(found.versions),
        "runs": [each.name for each in found.folders],
        "bytes": size,
        "removed": yes,
    }
    what = f"{len(found.versions)} versions and {len(found.folders)} folders that were left over, {size / 1e6:.1f} MB"
    console.answer(json, data, f"Removed {what}." if yes else f"Nothing refers to {what}; `--yes` removes them.")
