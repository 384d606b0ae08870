"""The past of an institution: fetched by days, in nobody's way, and the same in the end however often it was killed."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta

import psutil
import pytest
import sqlalchemy as sa

from core import db
from ingest import backfill, mapping, service, standing
from ingest.child import Child, Job, lock_of
from ingest.poll import PollResult
from tests.ingest.hospital import NOON, Hospital

FIRST, DAYS, A_DAY = date(2025, 1, 1), 12, 150


def past(hospital: Hospital, days: int = DAYS, a_day: int = A_DAY) -> None:
    """So many days with so many reports each."""
    hospital.connection.execute(
        "INSERT INTO report SELECT n, 'A-'||n, 'P-'||n, NULL, CASE n % 50 WHEN 7 THEN '7' ELSE '1' END, '右肺上叶见结节影，编号'||n||'。',"
        " '右肺上叶结节，编号'||n||'。', 'F', '50', 'CT', '胸部', %s + n %% %s * interval '1 day' + n * interval '1 second'"
        " FROM generate_series(1, %s) n".replace("n % 50", "n %% 50"),
        [datetime(2025, 1, 1, 1, tzinfo=UTC), days, days * a_day],
    )


def live_from(hospital: Hospital, day: str, more: str = "") -> None:
    path = hospital.settings.institutions_dir / f"{hospital.code}.toml"
    text = path.read_text("utf-8").replace("settle_s = 0", f"settle_s = 0\nlive_from = {day}")
    path.write_text(text + more, "utf-8")


def asked(hospital: Hospital, first: date = FIRST, days: int = DAYS) -> None:
    service.look(hospital.ours, hospital.settings)
    with db.transaction(hospital.ours) as session:
        backfill.ask(session, hospital.code, first, first + timedelta(days=days - 1))


def fetched(hospital: Hospital) -> PollResult:
    file = hospital.settings.institutions_dir / f"{hospital.code}.toml"
    return service.backfill_now(hospital.ours, hospital.settings, file, lambda _: None)


def state(hospital: Hospital) -> tuple[str, backfill.Progress]:
    """A hash over everything that a report is, and the ledger."""
    with db.transaction(hospital.ours) as session:
        rows = session.execute(
            sa.text(
                "SELECT source_id, status, version, content_hash, findings, impression, modified_at, excluded, split FROM reports ORDER BY source_id"
            )
        ).all()
        held = session.execute(sa.text("SELECT raw_hash, reason FROM quarantine ORDER BY raw_hash")).all()
        return hashlib.sha256(repr([rows, held]).encode()).hexdigest(), backfill.progress(session, hospital.code)


def test_polls_start_at_the_first_live_day_and_the_past_comes_by_days(north: Hospital) -> None:
    past(north)
    live_from(north, "2025-01-10")
    assert north.poll().rows_read == 3 * A_DAY
    asked(north)
    result = fetched(north)
    assert (result.error, result.rows_read, len(north.reports())) == (None, DAYS * A_DAY, DAYS * A_DAY * 49 // 50)
    with db.transaction(north.ours) as session:
        (row,) = standing.status(session)
        assert backfill.waiting(session, "north") == []
    assert row["backfill"] == {"days": DAYS, "done": DAYS}
    assert row["position_at"].startswith("2025-01-12")


def test_days_that_are_done_are_not_read_again(north: Hospital) -> None:
    past(north, days=2)
    asked(north, days=2)
    fetched(north)
    asked(north, days=3)
    with db.transaction(north.ours) as session:
        assert backfill.waiting(session, "north") == [FIRST + timedelta(days=2)]
    assert fetched(north).rows_read == 0


RUN = """
import sys
from ingest.child import Child
from core import db
from core.settings import IngestSettings
from ingest import service
settings = IngestSettings()
file = settings.institutions_dir / "north.toml"
result = service.backfill_now(db.connect(settings.database_url.get_secret_value()), settings, file, lambda part: print(part.rows_read, flush=True))
sys.exit(0 if result.error is None else 3)
"""


def test_a_backfill_that_is_killed_at_random_ends_like_one_that_is_not(north: Hospital) -> None:
    past(north)
    asked(north)
    assert fetched(north).error is None
    whole, ledger = state(north)
    assert ledger.done == DAYS
    with db.transaction(north.ours) as session:
        session.execute(sa.text("TRUNCATE reports, quarantine, backfill_days, cursors CASCADE"))
    asked(north)
    url = north.ours.url.set(drivername="postgresql").render_as_string(hide_password=False)
    environment = {**os.environ, "VALUER_HOME": str(north.settings.home), "VALUER_DATABASE_URL": url}
    chance = random.Random(7)
    for killed in (*[True] * 4, False):
        with subprocess.Popen([sys.executable, "-c", RUN], env=environment, stdout=subprocess.PIPE, text=True) as run:
            assert run.stdout is not None
            run.stdout.readline()  # something is stored
            if not killed:
                run.stdout.read()
                assert run.wait(120) == 0
                break
            time.sleep(chance.uniform(0, 0.15))
            family = psutil.Process(run.pid).children(recursive=True)
            for process in chance.sample([run.pid, *(each.pid for each in family)], 2):  # two of them, as it comes
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            run.kill()
            psutil.wait_procs(family, 20)
    assert state(north)[0] == whole
    assert state(north)[1].done == DAYS


def test_a_poll_does_not_wait_for_a_backfill(north: Hospital) -> None:
    past(north, days=2)
    live_from(north, "2025-02-01", "\n[backfill]\nrows_per_s = 50\n")
    asked(north, days=2)
    north.write(9000, at=NOON)
    child = Child(service.place(north.ours, north.settings), "north")
    file = north.settings.institutions_dir / "north.toml"
    heard: list[PollResult] = []
    polls = 0
    try:
        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(child.work, Job(file, 60, "backfill", days=(FIRST,)), heard.append)
            while not heard and not slow.done():
                polled, polls = north.poll(), polls + 1
                assert (polled.error, polled.rows_read) == (None, 1)
                with north.ours.connect() as connection:
                    free = connection.execute(
                        sa.text("SELECT pg_try_advisory_lock(:key)"), {"key": lock_of("north", "backfill")}
                    ).scalar_one()
                    connection.execute(sa.text("SELECT pg_advisory_unlock_all()"))
                if not free:
                    break
            result = slow.result()
    finally:
        child.close()
    assert (result.error, result.rows_read) == (None, A_DAY)
    assert result.seconds >= A_DAY / 50
    assert polls


def test_a_backfill_only_reads(north: Hospital) -> None:
    north.connection.execute(
        "CREATE FUNCTION tamper() RETURNS text LANGUAGE sql AS $$ DELETE FROM report RETURNING 'x' $$"
    )
    past(north, days=1, a_day=3)
    path = north.settings.institutions_dir / "north.toml"
    path.write_text(path.read_text("utf-8").replace("part, changed", "tamper() AS part, changed"), "utf-8")
    asked(north, days=1)
    assert fetched(north).error in ("source_failed", "source_away")
    assert north.connection.execute("SELECT count(*) FROM report").fetchone() == (3,)
    with db.transaction(north.ours) as session:
        assert backfill.waiting(session, "north") == [FIRST]


def test_the_hours_of_a_backfill_are_the_hospitals(north: Hospital) -> None:
    live_from(north, "2025-01-10", '\n[backfill]\nhours = "22:00-06:00"\n')
    of = mapping.load(north.settings.institutions_dir / "north.toml")
    at = {hour: backfill.may_run(of, datetime(2025, 1, 1, hour, tzinfo=UTC)) for hour in (13, 14, 21, 22)}
    assert at == {13: False, 14: True, 21: True, 22: False}  # 22:00 in Shanghai is 14:00 UTC


@pytest.mark.parametrize("server", ["north", "south"])
def test_the_first_day_is_asked_of_the_source(server: str, request: pytest.FixtureRequest) -> None:
    hospital: Hospital = request.getfixturevalue(server)
    hospital.write(1, at=NOON)
    hospital.write(2, at=datetime(2024, 12, 31, 20, tzinfo=UTC))
    hospital.write(3, at=None)
    found = service.oldest_day(
        hospital.ours, hospital.settings, hospital.settings.institutions_dir / f"{hospital.code}.toml"
    )
    assert (found.error, found.resume) == (None, {"oldest": FIRST})


def test_a_backfill_of_mariadb_takes_every_row_of_its_days(south: Hospital) -> None:
    for key in range(30):
        south.write(key, at=NOON + timedelta(hours=key))
    live_from(south, "2026-01-01")
    assert south.poll().rows_read == 0
    asked(south, date(2025, 6, 1), 3)
    assert (fetched(south).rows_read, len(south.reports())) == (30, 30)
