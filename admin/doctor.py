"""`valuer doctor`: looks whether this installation can work, and says what to do where it cannot."""

import shutil
from collections.abc import Callable
from typing import Any

from admin import console
from core.errors import Broken, ValuerError
from core.settings import Settings

FREE_GB = 2.0


def doctor(json: console.Json = False) -> None:
    """Look at disk, keys, institution files, servers, schema and processes; exit status 1 if something is wrong."""
    settings = console.read(Settings)
    checks = [_checked(name, look, settings) for name, look in LOOKS]
    shown = "\n".join(f"{'  ok' if each['ok'] else 'STOP'} {each['name']}: {each['says']}" for each in checks)
    console.answer(json, {"checks": checks}, shown)
    wrong = [each["name"] for each in checks if not each["ok"]]
    if wrong:
        raise Broken(f"Something is wrong with {', '.join(wrong)}.")


def _checked(name: str, look: Callable[[Settings], str], settings: Settings) -> dict[str, Any]:
    try:
        return {"name": name, "ok": True, "says": look(settings)}
    except ValuerError as error:
        return {"name": name, "ok": False, "says": error.message}


def _disk(settings: Settings) -> str:
    folder = next(each for each in (settings.home, *settings.home.parents) if each.exists())
    free = shutil.disk_usage(folder).free / 1e9
    if free < FREE_GB:
        raise Broken(f"only {free:.1f} GB are free at {folder}; make room for at least {FREE_GB:.0f} GB.")
    return f"{free:.0f} GB are free at {folder}."


def _keys(settings: Settings) -> str:
    from core.identity import Keyring

    return (
        f"{settings.master_key_file} holds key {Keyring.load(settings.master_key_file).key_id}; keep a copy elsewhere."
    )


def _institutions(settings: Settings) -> str:
    from core.institutions import load_profiles
    from ingest import mapping

    profiles = load_profiles(settings.institutions_dir)
    sources = mapping.with_source(settings.institutions_dir)
    for file in sources.values():
        mapping.load(file)
    return f"{len(profiles)} in {settings.institutions_dir}, {len(sources)} of them with a source."


def _vocabulary(settings: Settings) -> str:
    from core import vocabulary
    from core.institutions import load_profiles

    every = vocabulary.load(settings.home)
    strangers = sorted(every.keys() - load_profiles(settings.institutions_dir).keys() - {""})
    if strangers:
        raise Broken(
            f"{settings.home / vocabulary.FOLDER / strangers[0]} is named like no institution, so nobody reads it."
        )
    own = {code or "all institutions": len(each.words) for code, each in every.items() if each.words}
    return f"Own words: {', '.join(f'{count} rows for {code}' for code, count in own.items()) or 'none'}."


def _database(settings: Settings) -> str:
    import sqlalchemy as sa

    from core.db import transaction

    with console.opened(settings) as here, transaction(here.engine) as session:
        version = session.execute(sa.text("SHOW server_version")).scalar_one()
        if int(str(version).split(".")[0]) < 15:
            raise Broken(f"PostgreSQL {version} is too old; 15 is the floor.")
    return f"PostgreSQL {version} at this release's schema."


def _broker(settings: Settings) -> str:
    from core import queue

    with console.opened(settings) as here, queue.configure(here.broker_url).connection() as connection:
        try:
            connection.ensure_connection(max_retries=1, timeout=5)
        except Exception as error:  # each transport has its own; the class name says what to look for
            raise Broken(f"The doorbell does not answer ({type(error).__name__}).") from None
        return f"{connection.transport.driver_type} answers."


def _processes(settings: Settings) -> str:
    from core import processes
    from core.db import transaction

    with console.opened(settings) as here, transaction(here.engine) as session:
        kinds = {each.kind for each in processes.alive(session)}
    missing = {"worklist", "worker", "score", "clerk", "ingest"} - kinds
    if missing:
        raise Broken(f"{', '.join(sorted(missing))} not running; `valuer up` starts them.")
    return f"{', '.join(sorted(kinds))} are running."


LOOKS: tuple[tuple[str, Callable[[Settings], str]], ...] = (
    ("disk", _disk),
    ("keys", _keys),
    ("institutions", _institutions),
    ("vocabulary", _vocabulary),
    ("database", _database),
    ("broker", _broker),
    ("processes", _processes),
)
