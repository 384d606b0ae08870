"""Reading a hospital's database: what is found, what is found again, and what an interrupted or hanging poll leaves behind."""

import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import psycopg
import pymysql
import pytest
import sqlalchemy as sa

from core import db, institutions
from core.tables import Cursor
from ingest import child, mapping, poll, service, standing
from ingest.poll import PollResult
from ingest.sources import BATCH
from ingest.sql import SqlSource
from tests.ingest.hospital import COLUMNS, IMPRESSION, NOON, Hospital


def counts(result: PollResult) -> tuple[int, int, int, str | None]:
    return result.stored, result.unchanged, result.quarantined, result.error


def test_a_second_poll_stores_nothing_twice(north: Hospital) -> None:
    for key in range(5):
        north.write(key)
    assert counts(north.poll()) == (5, 0, 0, None)
    assert counts(north.poll()) == (0, 5, 0, None)
    assert len(north.reports()) == 5
    assert all(len(north.versions(key)) == 1 for key in range(5))


def test_a_report_is_stored_in_our_words(north: Hospital) -> None:
    north.write(1, at=datetime(2025, 6, 1, 4, 30, tzinfo=UTC), dev="DR", age="8月", sex="M")
    north.poll()
    report = north.report(1)
    assert (report.modality, report.age, report.sex, report.systems, report.status) == (
        "XR",
        0,
        "M",
        ["chest"],
        "final",
    )
    assert (report.impression, report.version, report.excluded) == (IMPRESSION, 1, None)
    assert report.modified_at == datetime(2025, 6, 1, 4, 30, tzinfo=UTC)
    assert report.split in ("train", "test")


def test_no_character_of_a_text_is_lost_or_changed_on_the_way(north: Hospital) -> None:
    odd = "左\t肺\\N见\r\n\\结节，5×4㎜²，“𠮷”\u200b\u00a0\\.\n\\."
    north.write(1, yx=odd, zd=f" {odd} ")
    assert counts(north.poll()) == (1, 0, 0, None)
    assert (north.report(1).findings_raw, north.report(1).impression_raw) == (odd, f" {odd} ")


def test_more_rows_of_one_moment_than_a_batch_holds_all_arrive(north: Hospital) -> None:
    rows = 2 * BATCH + 7
    north.connection.execute(
        "INSERT INTO report SELECT n, 'A-'||n, 'P-'||n, NULL, '1', '右肺上叶见结节影，编号'||n||'。', '右肺上叶结节。', 'F', '50', 'CT', '胸部', %s"
        " FROM generate_series(1, %s) n",
        [NOON, rows],
    )
    assert counts(north.poll()) == (rows, 0, 0, None)


def test_a_row_that_was_committed_late_is_found_by_the_next_poll(north: Hospital) -> None:
    late = psycopg.connect(north.ours.url.set(drivername="postgresql").render_as_string(hide_password=False))
    late.execute(
        "INSERT INTO his.report VALUES (7, 'A-7', 'P-7', NULL, '1', '左肺下叶见斑片影。', '左肺下叶炎症。', 'F', '50', 'CT', '胸部', %s)",
        [NOON],
    )
    north.write(8, at=NOON + timedelta(minutes=5))
    assert counts(north.poll()) == (1, 0, 0, None)
    late.commit()
    late.close()
    assert counts(north.poll()) == (1, 1, 0, None)


def test_rows_without_a_usable_time_are_not_left_behind(north: Hospital) -> None:
    north.write(1)
    north.poll()
    north.write(2, at=None)
    north.write(3, at=datetime(1899, 1, 1, tzinfo=UTC))
    north.write(4, at=datetime(2999, 1, 1, tzinfo=UTC))
    assert counts(north.poll())[0] == 3
    with db.transaction(north.ours) as session:
        position = session.get(Cursor, ("north", "reports"))
        assert position is not None
        assert position.position_at == NOON


def test_a_row_younger_than_the_settling_time_waits(north: Hospital) -> None:
    path = north.settings.institutions_dir / "north.toml"
    path.write_text(path.read_text("utf-8").replace("settle_s = 0", "settle_s = 30"), "utf-8")
    north.write(1, at=datetime.now(UTC) - timedelta(seconds=60))
    north.write(2, at=datetime.now(UTC) - timedelta(seconds=2))
    assert counts(north.poll()) == (1, 0, 0, None)


def test_a_text_cursor_in_local_time_moves_like_a_real_one(north: Hospital) -> None:
    north.connection.execute("ALTER TABLE report ADD COLUMN xgsj varchar(14)")
    path = north.settings.institutions_dir / "north.toml"
    text = path.read_text("utf-8").replace("changed AS modified_at", "xgsj AS modified_at")
    path.write_text(text.replace("settle_s = 0", 'settle_s = 0\ntime_format = "%Y%m%d%H%M%S"'), "utf-8")
    north.write(1)
    north.write(2)
    north.connection.execute("UPDATE report SET xgsj = '20250601200000' WHERE k = 1")
    north.connection.execute("UPDATE report SET xgsj = '00000000000000' WHERE k = 2")
    assert counts(north.poll()) == (2, 0, 0, None)
    assert north.report(1).modified_at == NOON
    north.write(3, xgsj="20250601200001")
    assert counts(north.poll())[0] == 1


def test_a_read_column_that_is_no_word_of_ours_stops_the_poll_with_a_sentence(north: Hospital) -> None:
    path = north.settings.institutions_dir / "north.toml"
    path.write_text(path.read_text("utf-8").replace("part, changed", "part, name, changed"), "utf-8")
    result = north.poll()
    assert result.error == "unknown_column"
    assert result.message == "north.toml: the SELECT yields name, which is no word of ours."


def test_the_hospital_is_only_ever_read(north: Hospital) -> None:
    north.connection.execute(
        "CREATE FUNCTION tamper() RETURNS text LANGUAGE sql AS $$ DELETE FROM report RETURNING 'x' $$"
    )
    path = north.settings.institutions_dir / "north.toml"
    path.write_text(path.read_text("utf-8").replace("part, changed", "tamper() AS part, changed"), "utf-8")
    north.write(1)
    assert north.poll().error in ("source_failed", "source_away")
    assert north.connection.execute("SELECT count(*) FROM report").fetchone() == (1,)


def test_a_database_that_hangs_ends_at_the_deadline_and_stops_nobody_else(north: Hospital, black_hole: int) -> None:
    hanging = Hospital(
        "hanging", None, f'url = "mariadb://a@127.0.0.1:{black_hole}/x"', north.ours, north.settings, north.keyring
    )
    hanging.describe()
    north.write(1)
    north.poll()  # the processes that polls are forked from are up now
    north.write(2)
    quick = north.settings.model_copy(update={"poll_deadline_s": 8.0})
    began = time.monotonic()
    results = service.run_once(north.ours, quick, north.keyring)
    assert time.monotonic() - began < 20  # the driver alone hangs for longer than 25 s
    assert results["hanging"].error == "deadline"
    assert results["north"].stored == 1
    with db.transaction(north.ours) as session:
        failures = {row["name"]: row["failure"] for row in standing.status(session)}
    assert failures == {"hanging": "deadline", "north": None}


def test_one_poll_of_an_institution_at_a_time(north: Hospital) -> None:
    north.write(1)
    with north.ours.connect() as connection:
        connection.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": child.lock_of("north")})
        assert north.poll().error == "busy"
    north.ours.dispose()
    assert north.poll().stored == 1


def test_a_poll_that_runs_out_of_time_keeps_what_it_stored_and_goes_on(north: Hospital) -> None:
    rows = 2 * BATCH + 7
    north.connection.execute(
        "INSERT INTO report SELECT n, 'A-'||n, 'P-'||n, NULL, '1', '右肺上叶见结节影，编号'||n||'。', '右肺上叶结节。', 'F', '50', 'CT', '胸部', %s"
        " FROM generate_series(1, %s) n",
        [NOON, rows],
    )
    north.write(rows + 1, at=None)
    with db.transaction(north.ours) as session:
        institutions.sync(session, institutions.load_profiles(north.settings.institutions_dir))
    of = mapping.load(north.settings.institutions_dir / "north.toml")
    parts: list[PollResult] = []
    while not parts or parts[-1].more:
        source = SqlSource(of, deadline_s=60)
        resume = parts[-1].resume if parts else {}
        parts.append(poll.poll(north.ours, source, of, north.keyring, budget_s=0, resume=resume, told=lambda _: None))
        source.close()
    assert [part.stored for part in parts] == [BATCH, BATCH, 7, 1, 0]
    assert len(north.reports()) == rows + 1


def test_a_source_clock_that_jumps_is_not_trusted_for_one_poll(north: Hospital) -> None:
    north.write(1)
    north.poll()
    with db.transaction(north.ours) as session:
        session.execute(sa.text("UPDATE cursors SET skew_ms = 3600000 WHERE stream = '*'"))
    north.write(2)
    assert north.poll().error == "clock_jump"
    assert counts(north.poll()) == (1, 1, 0, None)


class Wrong(SqlSource):
    """A source whose clock is off."""

    off = timedelta()

    def clock(self) -> datetime:
        return super().clock() + self.off


def poll_at(hospital: Hospital, off: timedelta) -> PollResult:
    """A poll of a source whose clock is off by that much."""
    with db.transaction(hospital.ours) as session:
        institutions.sync(session, institutions.load_profiles(hospital.settings.institutions_dir))
    of = mapping.load(hospital.settings.institutions_dir / f"{hospital.code}.toml")
    source = Wrong(of, deadline_s=60)
    source.off = off
    with closing(source):
        return poll.poll(hospital.ours, source, of, hospital.keyring, budget_s=60, resume={}, told=lambda _: None)


def position_of(hospital: Hospital) -> datetime | None:
    with db.transaction(hospital.ours) as session:
        row = session.get(Cursor, (hospital.code, "reports"))
        return None if row is None else row.position_at


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_clock_that_jumps_stops_the_cursor_once_and_is_followed_when_it_stays(north: Hospital, hours: int) -> None:
    now, off = datetime.now(UTC), timedelta(hours=hours)
    north.write(1, at=now - timedelta(hours=5))
    assert poll_at(north, timedelta()).error is None
    before = position_of(north)
    north.write(2, at=now + off - timedelta(minutes=1))
    jumped = poll_at(north, off)
    assert (jumped.error, jumped.rows_read, position_of(north)) == ("clock_jump", 0, before)
    assert counts(poll_at(north, off))[0] == 1
    assert poll_at(north, timedelta()).error == "clock_jump"
    north.write(3, at=now)
    assert counts(poll_at(north, timedelta()))[0] == 1


def test_what_is_written_after_a_clock_was_set_back_by_days_is_found(north: Hospital) -> None:
    now = datetime.now(UTC)
    ahead = timedelta(days=10)
    north.write(1, at=now + ahead - timedelta(minutes=1))
    assert counts(poll_at(north, ahead))[0] == 1
    assert poll_at(north, timedelta()).error == "clock_jump"
    north.write(2, at=now - timedelta(minutes=1))  # far behind the position
    assert counts(poll_at(north, timedelta()))[0] == 1


def test_without_an_overlap_the_last_moment_is_still_read_again(north: Hospital) -> None:
    path = north.settings.institutions_dir / "north.toml"
    path.write_text(path.read_text("utf-8").replace("settle_s = 0", "settle_s = 0\noverlap_s = 0"), "utf-8")
    north.write(5)
    north.poll()
    north.write(3)  # same moment, smaller key
    north.write(9)
    assert counts(north.poll())[0] == 2


def test_a_row_that_mariadb_committed_late_is_found_by_the_next_poll(south: Hospital) -> None:
    late = pymysql.connect(host="127.0.0.1", user="root", password="", charset="utf8mb4", autocommit=False)
    with south.connection.cursor() as cursor:
        cursor.execute("SELECT database()")
        late.select_db(cursor.fetchone()[0])
    with late.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(
            f"INSERT INTO report ({COLUMNS}) VALUES (7, 'A-7', 'P-7', NULL, '1', '左肺下叶见斑片影。', '左肺下叶炎症。', 'F', '50', 'CT',"
            " '胸部', '2025-06-01 20:00:00')"
        )
    south.write(8, at=NOON + timedelta(minutes=5))
    assert counts(south.poll())[0] == 1
    late.commit()
    late.close()
    assert counts(south.poll())[0] == 1
    assert south.report(7).modified_at == NOON


def test_many_rows_of_one_second_in_mariadb_all_arrive(south: Hospital) -> None:
    rows = BATCH + 7
    with south.connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO report ({COLUMNS}) SELECT seq, concat('A-', seq), concat('P-', seq), NULL, '1', concat('右肺上叶见结节影，编号', seq, '。'),"
            f" '右肺上叶结节。', 'F', '50', 'CT', '胸部', '2025-06-01 20:00:00' FROM seq_1_to_{rows}"
        )
    assert counts(south.poll()) == (rows, 0, 0, None)
