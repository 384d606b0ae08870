"""The overlap that every poll looks over again: what we hold is not read twice, and nothing that changed is missed."""

from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from core import db
from tests.ingest.hospital import IMPRESSION, NOON, Hospital


@pytest.fixture(params=["north", "south"])
def hospital(request: pytest.FixtureRequest) -> Hospital:
    """On PostgreSQL, and on MariaDB in GBK."""
    found: Hospital = request.getfixturevalue(request.param)
    return found


def settled(hospital: Hospital, *keys: int) -> None:
    """Rows that have been read, and looked over once."""
    for key in keys:
        hospital.write(key, at=NOON + timedelta(seconds=key))
    assert hospital.poll().stored == len(keys)
    assert hospital.poll().unchanged == len(keys)


def change(hospital: Hospital, statement: str) -> None:
    with hospital.connection.cursor() as cursor:
        cursor.execute(statement)


def read(hospital: Hospital) -> tuple[int, int, int]:
    result = hospital.poll()
    assert result.error is None, result.message
    return result.rows_read, result.stored, result.unchanged


def test_rows_that_we_hold_are_not_read_again(hospital: Hospital) -> None:
    settled(hospital, 1, 2, 3)
    assert read(hospital) == (0, 0, 0)
    hospital.write(4, at=NOON + timedelta(seconds=4))
    assert read(hospital) == (1, 1, 0)


def test_a_row_that_is_edited_without_a_new_time_says_what_the_source_says(hospital: Hospital) -> None:
    settled(hospital, 1, 2, 3)
    said = [f"左肺结节，第{number}稿。" for number in range(5)]
    for impression in (*said, IMPRESSION):
        change(hospital, f"UPDATE report SET zd = '{impression}' WHERE k = 2")
        assert read(hospital) == (1, 1, 0)
        assert hospital.report(2).impression_raw == impression
        assert read(hospital) == (0, 0, 0)
    # every version is kept; the one that came back is the one that it was
    assert {version.impression_raw for version in hospital.versions(2)} == {IMPRESSION, *said}
    assert hospital.report(2).version == 1


def test_a_mended_mapping_changes_what_every_row_of_the_overlap_says(hospital: Hospital) -> None:
    settled(hospital, *range(1, 13))
    path: Path = hospital.settings.institutions_dir / f"{hospital.code}.toml"
    path.write_text(path.read_text("utf-8").replace('CT = "CT"', 'CT = "MR"'), "utf-8")
    assert read(hospital) == (12, 12, 0)
    assert {report.modality for report in hospital.reports().values()} == {"MR"}
    assert read(hospital) == (0, 0, 0)


def test_two_rows_of_one_key_and_moment_do_not_take_turns(north: Hospital) -> None:
    change(north, "ALTER TABLE report DROP CONSTRAINT report_pkey")
    north.connection.execute(
        "INSERT INTO report SELECT 1, 'A-1', 'P-1', NULL, '1', '左肺下叶见斑片影。', '第'||n||'稿。', 'F', '50', 'CT', '胸部', %s"
        " FROM generate_series(1, 2) n",
        [NOON],
    )
    assert read(north)[:2] == (2, 1)
    stands = north.report(1).content_hash
    for _ in range(2):
        assert read(north)[:2] == (2, 0)
        assert north.report(1).content_hash == stands


def test_a_row_that_says_the_same_in_another_way_is_read_once(hospital: Hospital) -> None:
    settled(hospital, 1, 2, 3)
    change(hospital, "UPDATE report SET age = '061' WHERE k = 2")
    assert read(hospital) == (1, 0, 1)
    assert read(hospital) == (0, 0, 0)


def test_a_late_weaker_version_is_read_once(hospital: Hospital) -> None:
    settled(hospital, 1, 2)
    hospital.write(1, st="0", zd="", at=NOON - timedelta(minutes=1))
    assert read(hospital) == (1, 0, 1)
    assert hospital.report(1).status == "final"
    assert read(hospital) == (0, 0, 0)


def test_a_changed_mapping_makes_every_row_of_the_overlap_be_read(hospital: Hospital) -> None:
    settled(hospital, 1, 2)
    path: Path = hospital.settings.institutions_dir / f"{hospital.code}.toml"
    path.write_text(path.read_text("utf-8").replace('CT = "CT"', 'CT = "MR"'), "utf-8")
    assert read(hospital)[0] == 2
    assert read(hospital) == (0, 0, 0)


def test_what_lies_in_quarantine_is_looked_at_by_every_poll(hospital: Hospital) -> None:
    settled(hospital, 1, 2)
    hospital.write(3, sex="X", at=NOON)
    assert [hospital.poll().quarantined for _ in range(2)] == [1, 1]
    change(hospital, "UPDATE report SET sex = 'F' WHERE k = 3")
    assert read(hospital) == (1, 1, 0)
    assert not hospital.quarantined()


def test_a_row_that_is_committed_late_is_found_by_its_key_alone(north: Hospital) -> None:
    late = psycopg.connect(north.ours.url.set(drivername="postgresql").render_as_string(hide_password=False))
    late.execute(
        "INSERT INTO his.report VALUES (7, 'A-7', 'P-7', NULL, '1', '左肺下叶见斑片影。', '左肺下叶炎症。', 'F', '50', 'CT', '胸部', %s)",
        [NOON],
    )
    settled(north, 8, 9)
    late.commit()
    late.close()
    assert read(north) == (1, 1, 0)


def test_two_rows_of_one_key_are_both_read_every_time(north: Hospital) -> None:
    north.connection.execute("ALTER TABLE report DROP CONSTRAINT report_pkey")
    for zd in ("甲。", "乙。"):
        north.connection.execute(
            "INSERT INTO report VALUES (1, 'A-1', 'P-1', NULL, '1', '左肺下叶见斑片影。', %s, 'F', '50', 'CT', '胸部', %s)",
            [zd, NOON],
        )
    assert north.poll().rows_read == 2
    assert north.poll().rows_read == 2
    with db.transaction(north.ours) as session:
        assert session.execute(sa.text("SELECT count(*) FROM report_versions")).scalar_one() == 2
