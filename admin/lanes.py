"""`valuer ingest reconcile` and `backfill`: what is compared with, or fetched from, an institution's database beside the polls."""

import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from admin import console
from core.settings import IngestSettings

if TYPE_CHECKING:
    from rich.progress import Progress

    from ingest.poll import PollResult

Name = Annotated[str, typer.Argument(metavar="NAME", help="Institution code")]
Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"])]


def reconcile(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]…", help="Institution codes; none: all")] = None,
    days: Annotated[int, typer.Option(min=1, max=3660, help="How many days before today")] = 30,
    json: console.Json = False,
) -> None:
    """Compare the last days of each database with what is held, and fetch what was missed or changed. The service does this daily."""
    from core.errors import Broken
    from ingest import mapping, service
    from ingest.origin import FileConfig

    settings = console.read(IngestSettings)
    rows: list[dict[str, Any]] = []
    failed: list[str] = []
    with console.opened(settings) as here:
        files = _files(settings, names)
        _ready(here.engine, settings)
        for name, file in files.items():
            if not names and isinstance(mapping.load(file).source, FileConfig):
                continue  # its files are read whole whenever they change
            with _bar() as bar:
                task = bar.add_task(f"{name}: days", total=days)
                result = service.reconcile_now(
                    here.engine,
                    settings,
                    file,
                    days,
                    lambda part, task=task, bar=bar: bar.update(task, completed=part.resume["compared"]),  # type: ignore[misc]
                )
            _ring(here.broker_url, result)
            seen = {"compared": 0, "differing": 0, "absent": 0} | result.resume
            rows.append(
                {
                    "name": name,
                    **seen,
                    "fetched": result.stored,
                    "seconds": round(result.seconds, 2),
                    "error": result.error,
                }
            )
            if result.error:
                failed.append(f"{name}: {result.message or result.error}")
    console.answer(json, {"institutions": rows}, console.table(rows, "No institution file describes a database."))
    if failed:
        raise Broken(" ".join(failed))


def backfill(
    name: Name,
    first: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First day; none: the source's first")
    ] = None,
    last: Annotated[
        datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day; none: yesterday")
    ] = None,
    now: Annotated[bool, typer.Option("--now", help="Also outside the hours that the institution file names")] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Take the days that are not done off the list")] = False,
    json: console.Json = False,
) -> None:
    """Fetch the past of an institution, day by day beside the polls. Stop it with Ctrl-C; the same command goes on where it stopped."""
    from core.db import transaction
    from core.errors import Broken, Refused
    from ingest import backfill as past
    from ingest import mapping

    settings = console.read(IngestSettings)
    with console.opened(settings) as here:
        file = _files(settings, [name])[name]
        of = mapping.load(file)
        _ready(here.engine, settings)
        if forget:
            with transaction(here.engine) as session:
                gone = past.forget(session, name)
            console.answer(json, {"name": name, "forgotten": gone}, f"{gone} days are no longer asked for.")
            return
        with transaction(here.engine) as session:
            known = past.progress(session, name)
        if first is not None or last is not None or known.days == known.done:
            start, end = _span(here.engine, settings, of, file, first, last)
            if start > end:
                raise Refused(f"There is no day from {start} to {end}.", code="no_days")
            with transaction(here.engine) as session:
                past.ask(session, name, start, end)
        waits = not now and not past.may_run(of, datetime.now(UTC))
        result = None if waits else _fetched(here.engine, settings, file, name)
        with transaction(here.engine) as session:
            stands = past.progress(session, name)
        if result is not None:
            _ring(here.broker_url, result)
    left = stands.days - stands.done
    data = {
        "name": name,
        "days": stands.days,
        "done": stands.done,
        "left": left,
        "rows_read": stands.rows_read,
        "stored": stands.stored,
        "quarantined": stands.quarantined,
    }
    words = f"{stands.done} of {stands.days} days of {name} are done: {stands.rows_read} rows read, {stands.stored} stored, {stands.quarantined} in quarantine."
    if left and of.backfill.hours:
        words += f" The ingest process goes on with {left} days at {of.backfill.hours}; `--now` does not wait for that."
    elif left:
        words += f" {left} days are left: `valuer ingest backfill {name}` goes on, `--forget` gives them up."
    console.answer(json, data, words)
    if result is not None and result.error:
        raise Broken(f"{name}: {result.message or result.error}")


def _fetched(engine: Any, settings: IngestSettings, file: Path, name: str) -> "PollResult | None":
    """What became of the days that wait; None when a person stopped it."""
    from core.db import transaction
    from ingest import backfill as past
    from ingest import service

    with transaction(engine) as session:
        before = past.progress(session, name)
    with _bar("rows", "rows_per_s") as bar:
        task = bar.add_task(f"{name}: days", total=before.days, completed=before.done, rows=0, rows_per_s=0)
        began = time.monotonic()

        def told(result: "PollResult") -> None:
            with transaction(engine) as session:
                done = past.progress(session, name).done
            bar.update(task, completed=done, **_rate(result.rows_read, time.monotonic() - began))

        try:
            return service.backfill_now(engine, settings, file, told)
        except KeyboardInterrupt:
            console.note("Stopped; what is done stays done.")
            return None


def _rate(rows: int, seconds: float) -> dict[str, Any]:
    return {"rows": rows, "rows_per_s": round(rows / max(seconds, 1e-3))}


def _span(
    engine: Any, settings: IngestSettings, of: Any, file: Path, first: datetime | None, last: datetime | None
) -> tuple[date, date]:
    from core.errors import Broken, Refused
    from ingest import service

    today = datetime.now(of.source.zone).date()
    end = last.date() if last is not None else today - timedelta(days=1)
    if first is not None:
        return first.date(), end
    found = service.oldest_day(engine, settings, file)
    if found.error is not None:
        kind = Refused if found.error == "no_days" else Broken
        raise kind(found.message or found.error, code=found.error)
    oldest = found.resume["oldest"]
    return (oldest or today), end


def _files(settings: IngestSettings, names: list[str] | None) -> dict[str, Path]:
    """The files of the named institutions, or of all that have a source. Raises NotFound for a name that has none."""
    from core.errors import NotFound
    from ingest import mapping

    files = mapping.with_source(settings.institutions_dir)
    for name in names or ():
        if name not in files:
            raise NotFound(f"No institution file in {settings.institutions_dir} describes a source for {name}.")
    return {name: files[name] for name in names or files}


def _ready(engine: Any, settings: IngestSettings) -> None:
    """The key is there, and the database knows the institutions."""
    from core.identity import Keyring
    from ingest import service

    Keyring.load(settings.master_key_file)
    service.look(engine, settings)


def _ring(broker_url: str, result: "PollResult") -> None:
    from core import queue

    queue.configure(broker_url)
    for sign_off in result.sign_offs:
        queue.ring_score(sign_off)


def _bar(*fields: str) -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.fields[" + each + "]} " + each) for each in fields]
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *columns,
        TimeRemainingColumn(),
        console=console.aside(),
    )
