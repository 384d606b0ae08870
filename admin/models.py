"""`valuer models`: the versions that there are, and which one serves."""

from typing import Annotated, Any

import typer

from admin import console

app = typer.Typer(no_args_is_help=True, help="Model versions and which one serves.")
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
    """A version's manifest: base, adapter, prompt, training set, metrics, scope, file hashes."""
    from json import dumps

    from core import registry
    from core.db import transaction

    with console.opened() as here, transaction(here.engine) as session:
        manifest = registry.get(session, version).manifest
    console.answer(json, manifest, dumps(manifest, ensure_ascii=False, indent=2))


@app.command()
def promote(version: str, institution: Institution = "*", reason: Reason = None, json: console.Json = False) -> None:
    """Make a version serve. Running workers take it for their next claims, without a restart."""
    from core import registry
    from core.db import transaction

    with console.opened() as here, transaction(here.engine) as session:
        previous = registry.promote(session, version, console.person(), institution, reason=reason)
    data = {"version": version, "institution": institution, "previous": previous}
    console.answer(json, data, f"{version} serves {institution} now; before it was {previous or 'none'}.")


@app.command()
def rollback(institution: Institution = "*", reason: Reason = None, json: console.Json = False) -> None:
    """Go back to the version that served before the present one."""
    from core import registry
    from core.db import transaction

    with console.opened() as here, transaction(here.engine) as session:
        previous, version = registry.rollback(session, console.person(), institution, reason=reason)
    data = {"version": version, "institution": institution, "previous": previous}
    console.answer(json, data, f"{version} serves {institution} again, instead of {previous}.")
