"""How every command talks: one JSON object on the last line for programs, words for people, errors as one sentence.

Exit status 0 done, 2 refused, 1 broken. Imports nothing heavy, since `valuer --help` imports it.
"""

import json
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from core.errors import Refused
from core.settings import Settings

if TYPE_CHECKING:
    import sqlalchemy as sa
    from rich.console import Console, RenderableType

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on the last line.")]
AnySettings = TypeVar("AnySettings", bound=Settings)


@dataclass(frozen=True, slots=True)
class Opened:
    """A running installation: its settings, its migrated database, and the address of its doorbell."""

    settings: Settings
    engine: "sa.Engine"
    broker_url: str


def read(kind: type[AnySettings], **given: Any) -> AnySettings:
    """The settings of a process; what the command line gives wins over the environment.

    Raises:
        Refused: a variable does not fit; the sentence names it.
    """
    from pydantic import ValidationError

    try:
        return kind(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        faults = [f"VALUER_{str(fault['loc'][0]).upper()}: {fault['msg']}" for fault in error.errors()]
        raise Refused(f"The settings do not fit: {'; '.join(faults)}.", code="settings") from None


@contextmanager
def opened(settings: Settings | None = None) -> Iterator[Opened]:
    """The installation that the settings name, its servers started for as long as they are needed.

    Raises:
        Refused: there is none.
        Broken: its database is of another release.
    """
    from core import db, embedded, schema

    settings = settings or read(Settings)
    if not (settings.database_url and settings.broker_url) and not settings.home.is_dir():
        raise Refused(
            f"There is no installation at {settings.home}: start one with `valuer up`, or name it by VALUER_HOME.",
            code="no_home",
        )
    with embedded.running(settings) as servers:
        engine = db.connect(servers.database_url, pool_size=4, application="admin")
        try:
            schema.require(engine)
            yield Opened(settings, engine, servers.broker_url)
        finally:
            engine.dispose()


def answer(as_json: bool, data: dict[str, Any], words: "RenderableType | None" = None) -> None:
    """The result of a command: `data` as the last line, or what a person reads; without words for it, the data's items."""
    if as_json:
        typer.echo(json.dumps(data, ensure_ascii=False, default=str))
        return
    from rich.console import Console
    from rich.text import Text

    words = _listed(data) if words is None else words
    Console(highlight=False, soft_wrap=True).print(Text(words) if isinstance(words, str) else words)


def table(rows: list[dict[str, Any]], empty: str) -> "RenderableType":
    """Rows as a table for a person; `empty` is the sentence for none."""
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return empty
    made = Table(*rows[0], box=None, pad_edge=False, header_style="bold")
    for row in rows:
        made.add_row(*(Text(shown(value)) for value in row.values()))
    return made


def aside() -> "Console":
    """Where progress is drawn: standard error, so that it never stands in data."""
    from rich.console import Console

    return Console(stderr=True)


def person() -> str:
    """Who works at this terminal, as the audit names them."""
    return f"process:cli:{pwd.getpwuid(os.getuid()).pw_name}"


def note(sentence: str) -> None:
    """A sentence for the person in front of it, on standard error."""
    typer.echo(sentence, err=True)


def shown(value: Any) -> str:
    """A value as a person reads it: local time, lists without brackets, nothing for none."""
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M")
    if isinstance(value, dict):
        return " ".join(f"{name} {shown(each)}" for name, each in value.items() if each is not None)
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return "" if value is None else str(value)


def _listed(data: dict[str, Any]) -> str:
    return "\n".join(f"{name}: {shown(value)}" for name, value in data.items())
