"""`valuer users`: the people who sign in."""

from pathlib import Path
from typing import Annotated, Any

import typer

from admin import console, up
from core.settings import WorklistSettings

app = typer.Typer(no_args_is_help=True, help="People who sign in to the worklist.")
Login = Annotated[str, typer.Argument(help="2 to 64 lower-case letters, digits, dots, hyphens, underscores or @")]


@app.command()
def create(
    login: Login,
    name: Annotated[str, typer.Option(help="Name that the page shows")],
    role: Annotated[str, typer.Option(help="radiologist or admin")] = "radiologist",
    grade: Annotated[str | None, typer.Option(help="junior, intermediate or senior")] = None,
    institution: Annotated[str | None, typer.Option(help="Code of their institution; without one they see all")] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="File with a first password; without it, links only")
    ] = None,
    json: console.Json = False,
) -> None:
    """Add a person; prints a link that signs them in once."""
    from core.db import transaction
    from core.errors import NotFound
    from worklist import access

    if password_file is not None and not password_file.is_file():
        raise NotFound(f"There is no file {password_file}.", code="no_file")
    password = None if password_file is None else password_file.read_text("utf-8").rstrip("\r\n")
    by = console.person()
    with console.opened() as here, transaction(here.engine) as session:
        user = access.create_user(
            session, login, name, by=by, role=role, grade=grade, institution=institution, password=password
        )
        url = up.address(console.read(WorklistSettings)) + access.create_link(session, user, by=by)
    console.answer(
        json, {"id": str(user.id), "login": login, "link": url}, f"{login} signs in once, within a day, at\n{url}"
    )


@app.command()
def link(login: Login, json: console.Json = False) -> None:
    """Print another link that signs a person in once."""
    from core.db import transaction
    from worklist import access

    with console.opened() as here, transaction(here.engine) as session:
        path = access.create_link(session, access.find_user(session, login), by=console.person())
    url = up.address(console.read(WorklistSettings)) + path
    console.answer(json, {"login": login, "link": url}, url)


@app.command()
def token(login: Login, json: console.Json = False) -> None:
    """Print a token with which a script acts as this person for 30 days; disabling them ends it."""
    from core.db import transaction
    from worklist import access

    with console.opened() as here, transaction(here.engine) as session:
        made = access.create_token(session, access.find_user(session, login), by=console.person())
    console.answer(json, {"login": login, "token": made}, f"{made}\nThis is the only time that it is shown.")


@app.command("list")
def show(json: console.Json = False) -> None:
    """Everybody, disabled people too."""
    from core.db import transaction
    from worklist import access

    with console.opened() as here, transaction(here.engine) as session:
        rows: list[dict[str, Any]] = [
            {
                "login": user.login,
                "name": user.display_name,
                "role": user.role,
                "grade": user.grade,
                "institution": user.institution,
                "created_at": user.created_at,
                "disabled_at": user.disabled_at,
            }
            for user in access.list_users(session)
        ]
    console.answer(json, {"users": rows}, console.table(rows, "There is nobody yet."))


@app.command()
def disable(login: Login, json: console.Json = False) -> None:
    """Shut a person out at once: sessions, links and tokens end. What they signed stays."""
    from core.db import transaction
    from worklist import access

    with console.opened() as here, transaction(here.engine) as session:
        access.disable_user(session, login, by=console.person())
    console.answer(json, {"disabled": login}, f"{login} is shut out.")
