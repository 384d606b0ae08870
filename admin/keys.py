"""`valuer keys`: the API keys of reporting systems."""

from typing import Annotated, Any

import typer

from admin import console

app = typer.Typer(no_args_is_help=True, help="API keys of reporting systems.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is, for the list")],
    institution: Annotated[
        str | None, typer.Option(help="Code of the institution; only an admin key needs none")
    ] = None,
    role: Annotated[str, typer.Option(help="system, viewer or admin")] = "system",
    json: console.Json = False,
) -> None:
    """Make a key. It is shown this once and stored as a hash only."""
    from core.db import transaction
    from worklist import access

    with console.opened() as here, transaction(here.engine) as session:
        key = access.create_key(session, name, role, institution, by=console.person())
    data = {"id": key.split("_")[1], "key": key, "name": name, "role": role, "institution": institution}
    console.answer(json, data, f"{key}\nThis is the only time that it is shown.")


@app.command("list")
def show(json: console.Json = False) -> None:
    """Every key, revoked ones too, without its secret."""
    from core.db import transaction
    from worklist import access

    with console.opened() as here, transaction(here.engine) as session:
        rows: list[dict[str, Any]] = [
            {
                "id": key.id,
                "name": key.name,
                "role": key.role,
                "institution": key.institution,
                "created_at": key.created_at,
                "used_at": key.used_at,
                "revoked_at": key.revoked_at,
            }
            for key in access.list_keys(session)
        ]
    console.answer(json, {"keys": rows}, console.table(rows, "There is no key yet."))


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID")], json: console.Json = False) -> None:
    """End a key at once."""
    from core.db import transaction
    from worklist import access

    with console.opened() as here, transaction(here.engine) as session:
        access.revoke_key(session, key_id, by=console.person())
    console.answer(json, {"revoked": key_id}, f"Key {key_id} is revoked.")


@app.command("callback-secret")
def callback_secret(
    institution: Annotated[str, typer.Argument(metavar="INSTITUTION")], json: console.Json = False
) -> None:
    """Show the secret that an institution's callbacks are signed with. It is the same as long as the key file is."""
    from core import audit, callbacks, institutions
    from core.db import transaction
    from core.identity import Keyring

    with console.opened() as here, transaction(here.engine) as session:
        institutions.profile(session, institution)
        secret = callbacks.secret(Keyring.load(here.settings.master_key_file), institution)
        audit.record(
            session, console.person(), "callback_secret.shown", f"institution:{institution}", institution=institution
        )
    console.answer(json, {"institution": institution, "secret": secret}, secret)
