"""`valuer ingest doctor` on real databases: it finds what was planted, writes nothing there, and proves that it could not."""

import json
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from admin.main import app
from core.errors import Broken, Refused
from ingest import doctor, mapping
from ingest.looks import Finding
from tests.ingest import exports
from tests.ingest.hospital import FINDINGS, NOON, Hospital


def examined(hospital: Hospital) -> dict[str, Finding]:
    of = mapping.load(hospital.settings.institutions_dir / f"{hospital.code}.toml")
    return {each.name: each for each in doctor.examine(of, deadline_s=20)}


def test_a_healthy_postgresql_is_found_healthy(north: Hospital) -> None:
    north.connection.execute("CREATE INDEX ON report (changed, k)")
    for number in range(20):
        north.write(number, at=NOON + timedelta(minutes=number))
    found = examined(north)
    assert {name for name, each in found.items() if each.level != "ok"} == {
        "account"
    }  # the tests' login owns the table
    assert {
        "latency",
        "clock",
        "characters",
        "index",
        "rows",
        "no time",
        "ties",
        "key",
        "read-only",
        "schema",
        "trial",
        "proof",
    } <= found.keys()
    assert found["rows"].value == 20


def test_a_healthy_mariadb_refuses_a_write_and_an_index_is_seen(south: Hospital) -> None:
    with south.connection.cursor() as cursor:
        cursor.execute("CREATE INDEX cursor_index ON report (changed, k)")
    for number in range(20):
        south.write(number, at=NOON + timedelta(minutes=number))
    found = examined(south)
    assert [found[name].level for name in ("read-only", "index", "characters", "clock", "key", "trial")] == ["ok"] * 6
    assert "all privileges" in found["account"].says


@pytest.mark.parametrize("kind", ["north", "south"])
def test_what_is_planted_is_found(kind: str, request: pytest.FixtureRequest) -> None:
    hospital: Hospital = request.getfixturevalue(kind)
    for number in range(10):
        hospital.write(number, at=None if number < 2 else NOON, st="7" if number == 3 else "1")
    found = examined(hospital)
    assert (found["no time"].level, found["no time"].value) == ("look", 0.2)
    assert found["ties"].value == pytest.approx(7 / 8)
    assert found["index"].level == "look"
    assert "7 (1)" in found["codes status"].says
    assert "1 unknown_status" in found["trial"].says


def test_a_key_that_is_not_unique_is_wrong(north: Hospital) -> None:
    for number in range(4):
        north.write(number, acc="A-1", at=NOON + timedelta(minutes=number))
    path = north.settings.institutions_dir / "north.toml"
    path.write_text(path.read_text("utf-8").replace("SELECT k AS source_id", "SELECT acc AS source_id"), "utf-8")
    assert examined(north)["key"].level == "wrong"


def test_texts_at_the_width_of_their_column_are_suspected_to_be_cut(north: Hospital, south: Hospital) -> None:
    north.connection.execute("ALTER TABLE report ALTER yx TYPE varchar(40)")
    with south.connection.cursor() as cursor:
        cursor.execute("ALTER TABLE report MODIFY yx varchar(40)")
    for hospital in (north, south):
        hospital.write(1, yx=(FINDINGS * 2)[:40])
        found = examined(hospital)["length findings"]
        assert (found.level, found.value) == ("look", 40)
        assert "the column holds 40" in found.says


def test_gbk_that_the_database_takes_for_latin1_is_wrong_until_it_is_decoded(south: Hospital) -> None:
    south.write(1)
    with south.connection.cursor() as cursor:
        cursor.execute("UPDATE report SET latin = %s", [FINDINGS.encode("gbk")])
    south.describe(findings="latin")
    assert examined(south)["charset findings"].level == "wrong"
    path = south.settings.institutions_dir / "south.toml"
    path.write_text(
        path.read_text("utf-8").replace("[codes.status]", '[source.decode]\nfindings = "gb18030"\n\n[codes.status]', 1),
        "utf-8",
    )
    found = examined(south)
    assert "charset findings" not in found
    assert found["trial"].level == "ok"
    assert south.poll().stored == 1
    assert south.report(1).findings_raw == FINDINGS


def test_times_that_are_text_and_do_not_sort_are_wrong(north: Hospital) -> None:
    north.connection.execute("ALTER TABLE report ALTER changed TYPE text USING to_char(changed, 'DD/MM/YYYY HH24:MI')")
    north.write(1, at=None, changed="02/01/2025 10:00")
    north.write(2, at=None, changed="01/12/2025 10:00")
    north.describe(extra='time_format = "%d/%m/%Y %H:%M"')
    assert examined(north)["text times"].level == "wrong"


def test_an_account_that_may_only_read_is_told_from_one_that_may_write(north: Hospital) -> None:
    north.write(1)
    north.connection.execute("DROP ROLE IF EXISTS doctor_reader")
    north.connection.execute("CREATE ROLE doctor_reader LOGIN")
    north.connection.execute("GRANT USAGE ON SCHEMA his TO doctor_reader")
    north.connection.execute("GRANT SELECT ON his.report TO doctor_reader")
    assert "insert" in examined(north)["account"].says
    path = north.settings.institutions_dir / "north.toml"
    path.write_text(path.read_text("utf-8").replace("postgresql://valuer@", "postgresql://doctor_reader@"), "utf-8")
    assert examined(north)["account"].level == "ok"
    north.connection.execute("DROP OWNED BY doctor_reader")
    north.connection.execute("DROP ROLE doctor_reader")


def test_a_database_that_is_away_is_one_finding(north: Hospital) -> None:
    path = north.settings.institutions_dir / "north.toml"
    path.write_text(
        path.read_text("utf-8").replace(north.address, 'url = "postgresql://nobody@127.0.0.1:1/none"'), "utf-8"
    )
    found = examined(north)
    assert [(name, each.level) for name, each in found.items()] == [("connection", "wrong")]


def test_a_folder_is_examined_too(tmp_path: Path) -> None:
    exports.text(tmp_path / "a.csv", exports.reports(8), "gb18030")
    text = """
[institution]
code = "west"
name = "West"
[institution.stages]
"*" = "collect"
"CT/chest" = "shadow"
[source]
kind = "files"
format = "csv"
path = "."
pattern = "*.csv"
charset = "utf-8"
[source.columns]
source_id = "报告号"
status = "报告状态"
findings = "影像所见"
impression = "影像诊断"
[codes.status]
"已审核" = "final"
"草稿" = "preliminary"
"""
    (tmp_path / "west.toml").write_text(text, "utf-8")
    found = {each.name: each for each in doctor.examine(mapping.load(tmp_path / "west.toml"))}
    assert (found["charset"].level, found["trial"].level) == ("look", "wrong")
    (tmp_path / "west.toml").write_text(text.replace('"utf-8"', '"gb18030"'), "utf-8")
    found = {each.name: each for each in doctor.examine(mapping.load(tmp_path / "west.toml"))}
    assert {each.level for each in found.values()} == {"ok"}
    assert found["stage"].says.startswith("* collect, CT/chest shadow (")
    (tmp_path / "west.toml").write_text(
        text.replace('"*" = "collect"', "").replace('"CT/chest" = "shadow"', ""), "utf-8"
    )
    found = {each.name: each for each in doctor.examine(mapping.load(tmp_path / "west.toml"))}
    assert (found["stage"].level, "everything is live" in found["stage"].says) == ("look", True)


def test_the_command_keeps_a_record_and_its_status_says_how_it_is(
    north: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VALUER_HOME", str(north.settings.home))
    north.write(1)
    done = CliRunner().invoke(app, ["ingest", "doctor", "north", "--json"], catch_exceptions=False)
    data = json.loads(done.stdout.splitlines()[-1])
    assert done.exit_code == 0
    kept = Path(data["record"])
    assert json.loads(kept.read_text("utf-8"))["findings"] == data["findings"]
    assert kept.stat().st_mode & 0o077 == 0
    assert "吴桐桐" not in kept.read_text("utf-8")
    north.connection.execute("DELETE FROM report")
    with pytest.raises(Broken, match="STOP"):
        CliRunner().invoke(app, ["ingest", "doctor", "north"], catch_exceptions=False)
    with pytest.raises(Refused, match="there are: north"):
        CliRunner().invoke(app, ["ingest", "doctor", "east"], catch_exceptions=False)


def test_a_look_leaves_the_source_as_it_was(north: Hospital) -> None:
    north.write(1)
    before = _everything(north.connection)
    examined(north)
    assert _everything(north.connection) == before


def _everything(connection: psycopg.Connection[tuple[object, ...]]) -> list[tuple[object, ...]]:
    tables = connection.execute("SELECT relname FROM pg_class ORDER BY 1").fetchall()
    return [*tables, *connection.execute("SELECT * FROM report").fetchall()]
