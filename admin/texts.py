"""`valuer ingest duplicates`, `reclean` and `terms`: what becomes of the texts of reports that are stored."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from admin import console
from core.settings import IngestSettings


def duplicates(json: console.Json = False) -> None:
    """Find reports that repeat another one exactly or nearly, and keep them out of training. Looks only at what is new."""
    from ingest import duplicates as search

    with console.opened() as here, _progress("reports") as told:
        found = search.search(here.engine, told)
    data = {"examined": found.examined, "near_duplicates": found.near, "duplicates_changed": found.exact}
    words = f"{found.examined} reports looked at: {found.near} more are nearly equal to another; {found.exact} exact duplicates changed."
    console.answer(json, data, words)


def reclean(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]…", help="Institution codes; none: all")] = None,
    json: console.Json = False,
) -> None:
    """Make the cleaned texts anew where the rules have changed since, then look for duplicates. May be stopped and goes on."""
    from ingest import duplicates as search
    from ingest import reclean as again

    settings = console.read(IngestSettings)
    with console.opened(settings) as here:
        with _progress("reports") as told:
            done = again.reclean(here.engine, settings.home, names or None, lambda name, at, of: told(at, of))
        found = search.search(here.engine)
    rows: list[dict[str, Any]] = [
        {"name": each.institution, "recleaned": each.reports, "read_differently": each.changed} for each in done
    ]
    data = {"institutions": rows, "near_duplicates": found.near}
    console.answer(json, data, console.table(rows, "There is no institution yet."))


def terms(json: console.Json = False) -> None:
    """What cleaning took out of the stored reports, counted by statement and rule, with the reason for each."""
    from core import vocabulary
    from core.db import transaction
    from ingest.reclean import removals

    settings = console.read(IngestSettings)
    reasons = {
        text: why for each in vocabulary.load(settings.home).values() for text, why in each.phrases.reasons.items()
    }
    with console.opened(settings) as here, transaction(here.engine) as session:
        rows = [{**row, "reason": reasons.get(row["term"], "rule")} for row in removals(session)]
    console.answer(json, {"terms": rows}, console.table(rows, "Nothing has been taken out of any report."))


@contextmanager
def _progress(noun: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with rate and time left on standard error; gives what to tell it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console.aside(), transient=True) as bar:
        task = bar.add_task(noun, total=None, rate="")

        def told(done: int, of: int) -> None:
            speed = bar.tasks[0].speed
            bar.update(task, completed=done, total=of, rate=f"{speed:,.0f}/s" if speed else "")

        yield told
