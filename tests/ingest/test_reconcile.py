"""The daily comparison: what was missed is fetched, what was changed in silence is seen, what is gone is excluded after a second look."""

from collections import Counter
from datetime import date, timedelta

import pytest
from sqlmodel import select

from core import db
from core.tables import Absence, AuditEvent, Report
from ingest import duplicates, mapping, service, standing
from ingest.child import Child, Job
from ingest.days import DaySource, DaySum
from ingest.poll import PollResult
from tests.ingest.hospital import FINDINGS, NOON, Hospital
from training import eligible
from training.policy import Policy

DAY = date(2025, 6, 1)


def compared(hospital: Hospital, *days: date) -> PollResult:
    """These days compared in a child, as the process does it."""
    child = Child(service.place(hospital.ours, hospital.settings), hospital.code)
    file = hospital.settings.institutions_dir / f"{hospital.code}.toml"
    try:
        return child.work(Job(file, 60, "reconcile", days=days or (DAY,)))
    finally:
        child.close()


def found(result: PollResult) -> tuple[int, int, int, int, str | None]:
    """Days compared, days that differed, rows fetched, reports absent, error."""
    seen = result.resume
    return seen["compared"], seen["differing"], result.stored, seen["absent"], result.error


@pytest.fixture(params=["north", "south"])
def hospital(request: pytest.FixtureRequest) -> Hospital:
    """Each on a database of its own kind."""
    found: Hospital = request.getfixturevalue(request.param)
    return found


def remove(hospital: Hospital, key: int) -> None:
    with hospital.connection.cursor() as cursor:
        cursor.execute("DELETE FROM report WHERE k = %s", [key])


def test_what_no_poll_has_seen_is_found_and_fetched(hospital: Hospital) -> None:
    for key in range(5):
        hospital.write(key)
    hospital.poll()
    hospital.write(70, at=NOON - timedelta(days=20))  # dated far behind the position and its overlap
    hospital.write(6, at=NOON + timedelta(days=30))
    hospital.poll()
    hospital.write(71, at=NOON - timedelta(days=20))
    assert hospital.poll().stored == 0
    missed = DAY - timedelta(days=20)
    assert found(compared(hospital, missed, DAY)) == (2, 1, 2, 0, None)
    assert hospital.report(71).status == "final"
    assert found(compared(hospital, missed, DAY)) == (2, 0, 0, 0, None)


def test_an_edit_that_left_the_time_alone_is_found(hospital: Hospital) -> None:
    hospital.write(1)
    hospital.write(2)
    hospital.poll()
    compared(hospital)
    hospital.write(3, at=NOON + timedelta(days=30))
    hospital.poll()
    hospital.write(1, zd="左肺上叶实性小结节。")
    result = compared(hospital)
    assert found(result) == (1, 1, result.stored, 0, None)
    versions = {version.impression_raw for version in hospital.versions(1)} | {hospital.report(1).impression_raw}
    assert "左肺上叶实性小结节。" in versions
    assert found(compared(hospital)) == (1, 0, 0, 0, None)


def test_a_report_that_is_gone_is_excluded_after_the_second_look_and_comes_back_with_its_row(
    hospital: Hospital,
) -> None:
    for key in range(4):
        hospital.write(key)
    hospital.poll()
    assert found(compared(hospital)) == (1, 0, 0, 0, None)
    remove(hospital, 2)
    assert found(compared(hospital))[3] == 1
    assert hospital.report(2).excluded is None
    assert found(compared(hospital))[3] == 1
    assert hospital.report(2).excluded == "absent"
    with db.transaction(hospital.ours) as session:
        assert session.exec(select(Absence)).one().times == 2
        assert session.exec(select(AuditEvent.action).where(AuditEvent.action == "report.absent")).one()
        (row,) = (each for each in standing.status(session) if each["name"] == hospital.code)
    assert row["reconciled"]["absent"] == 1
    hospital.write(2)
    assert found(compared(hospital)) == (1, 1, 0, 0, None)
    assert hospital.report(2).excluded is None
    with db.transaction(hospital.ours) as session:
        assert session.exec(select(Absence)).first() is None


def learnt_from(hospital: Hospital) -> tuple[int, dict[str, int]]:
    """How many reports train or are tested on, and how many are kept out for which reason."""
    with db.transaction(hospital.ours) as session:
        rows = [row for row in standing.stats(session) if row["institution"] == hospital.code]
    kept_out: Counter[str] = sum((row["kept_out"] for row in rows), Counter())
    return sum(row["reports"] for row in rows), dict(kept_out)


def in_a_set(hospital: Hospital) -> tuple[int, int]:
    """How many reports a training set of this moment would train and be tested on."""
    with db.transaction(hospital.ours) as session:
        made = eligible.plan(session, hospital.settings.home, Policy())
    return len(made.train), len(made.test)


def test_what_is_gone_twice_in_a_row_neither_trains_nor_is_tested_on_until_it_is_back(north: Hospital) -> None:
    path = north.settings.institutions_dir / "north.toml"
    path.write_text(path.read_text("utf-8").replace("sandbox = true", 'sandbox = true\nrole = "train"'), "utf-8")
    for key in range(40):  # on both sides of the split
        north.write(key)
    north.poll()
    compared(north)
    assert learnt_from(north) == (40, {})
    whole = in_a_set(north)
    assert sum(whole) == 40
    assert min(whole) > 0
    for key in range(20):
        remove(north, key)
    compared(north)
    north.write(19)  # it was missed once, and is no longer
    compared(north)
    assert learnt_from(north) == (21, {"absent": 19})
    assert all(now < before for now, before in zip(in_a_set(north), whole, strict=True))
    assert sum(in_a_set(north)) == 21
    remove(north, 19)
    compared(north)
    assert learnt_from(north) == (21, {"absent": 19})  # missed again, for the first time in a row
    for key in range(20):
        north.write(key)
    compared(north)
    assert learnt_from(north) == (40, {})
    assert in_a_set(north) == whole


def test_the_copy_of_a_report_that_is_gone_stays_and_they_change_places_when_it_is_back(north: Hospital) -> None:
    for key in (1, 2):
        north.write(key, yx=FINDINGS, at=NOON + timedelta(seconds=key))
    north.poll()
    assert (north.report(1).excluded, north.report(2).excluded) == (None, "duplicate")
    remove(north, 1)
    for _ in range(2):
        compared(north)
    duplicates.search(north.ours)
    assert (north.report(1).excluded, north.report(2).excluded) == ("absent", None)
    remove(north, 2)
    for _ in range(2):
        compared(north)
    for key in (1, 2):
        north.write(key, yx=FINDINGS, at=NOON + timedelta(seconds=key))
    compared(north)
    duplicates.search(north.ours)
    assert sorted(str(north.report(key).excluded) for key in (1, 2)) == ["None", "duplicate"]


def test_a_row_that_moved_to_another_day_is_not_gone(north: Hospital) -> None:
    north.write(1)
    north.write(2)
    north.poll()
    compared(north)
    north.write(1, at=NOON + timedelta(days=9))
    assert found(compared(north)) == (1, 1, 0, 0, None)


def test_a_view_that_shows_less_than_before_excludes_nobody(north: Hospital) -> None:
    for key in range(120):
        north.write(key)
    north.poll()
    north.connection.execute("DELETE FROM report WHERE k >= 20")
    for _ in range(3):
        assert compared(north).error == "too_many_absent"
    with db.transaction(north.ours) as session:
        assert session.exec(select(Report.id).where(Report.excluded == "absent")).first() is None


def test_a_row_in_quarantine_is_not_fetched_again_and_again(north: Hospital) -> None:
    north.write(1)
    north.write(2, st="7")
    north.poll()
    assert found(compared(north)) == (1, 0, 0, 0, None)
    assert found(compared(north)) == (1, 0, 0, 0, None)
    (row,) = north.quarantined()
    assert row.times == 1


class Plain(DaySource):
    """A database of a kind whose rows we cannot have hashed."""

    def _row_hash(self) -> None:
        return None


def test_a_database_that_cannot_hash_is_summed_by_time_and_key(hospital: Hospital) -> None:
    def summed(kind: type[DaySource]) -> DaySum:
        source = kind(mapping.load(hospital.settings.institutions_dir / f"{hospital.code}.toml"), deadline_s=60)
        try:
            return source.summed(DAY)
        finally:
            source.close()

    sums: list[tuple[DaySum, DaySum]] = []
    for step in (
        {"key": 1},
        {"key": 2},
        {"key": 2, "zd": "左肺上叶结节。"},
        {"key": 2, "at": NOON + timedelta(hours=1)},
    ):
        hospital.write(**step)
        sums.append((summed(Plain), summed(DaySource)))
    plain, whole = zip(*sums, strict=True)
    assert [each.rows for each in plain] == [each.rows for each in whole] == [1, 2, 2, 2]
    assert plain[1] == plain[2] != plain[3]
    assert len({each.hash for each in whole}) == 4


def test_a_folder_of_files_has_no_days_to_compare(north: Hospital) -> None:
    file = north.settings.institutions_dir / "north.toml"
    head, _, tail = file.read_text("utf-8").partition("[source]")
    codes = tail[tail.index("[codes.status]") :]
    columns = '[source.columns]\nsource_id = "a"\nstatus = "b"\nfindings = "c"\nimpression = "d"\n'
    (north.settings.institutions_dir / "drop").mkdir()
    file.write_text(f'{head}[source]\nkind = "files"\nformat = "csv"\npath = "drop"\n{columns}{codes}', "utf-8")
    result = compared(north)
    assert (result.error, str(result.message)[:26]) == ("no_days", "north is a folder of files")
