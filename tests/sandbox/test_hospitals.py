"""The six pretend hospitals: real databases, each different, filled once however often they are built."""

import csv
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pymysql
import pytest
import sqlalchemy as sa

from core import institutions
from core.embedded import Servers
from sandbox import generator, hospitals
from sandbox.facts import PretendReport
from tests.ingest.hospital import MARIADB, drop_from_mariadb, mariadb_answers


@pytest.fixture(scope="module")
def reports() -> list[PretendReport]:
    return list(generator.generate("balanced", scale=0.0005, seed=3))


@pytest.fixture
def build(home: Path, servers: Servers) -> Iterator[Callable[..., list[hospitals.HospitalFile]]]:
    """Builds the hospitals of this test's home without a MariaDB, and takes them away again."""

    def build(reports: list[PretendReport], mariadb_url: str | None = None) -> list[hospitals.HospitalFile]:
        return hospitals.build(home, reports, postgres_url=servers.database_url, mariadb_url=mariadb_url)

    yield build
    name = (home / "sandbox" / "name").read_text().strip()
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        connection.execute(f"DROP ROLE {name}_reader")


Build = Callable[..., list[hospitals.HospitalFile]]


def reader(file: hospitals.HospitalFile) -> sa.URL:
    """Where the institution file says that its database is."""
    return sa.make_url(tomllib.loads(file.path.read_text("utf-8"))["source"]["url"])


def test_building_twice_adds_nothing_twice(build: Build, reports: list[PretendReport]) -> None:
    per_house = Counter(report.house for report in reports)
    first = build(reports)
    assert {file.code: file.reports for file in first} == {
        f"sandbox-{house}": per_house[house] for house in range(1, 7)
    }
    stamps = {file.path: file.path.stat().st_mtime_ns for file in first}
    second = build(reports)
    assert [file.reports for file in second] == [0] * 6
    assert {file.path: file.path.stat().st_mtime_ns for file in second} == stamps


def test_each_hospital_keeps_its_reports_in_its_own_way(build: Build, reports: list[PretendReport], home: Path) -> None:
    files = {file.code: file for file in build(reports)}
    assert [file.kind for file in files.values()] == [
        "postgresql",
        "files",
        "files",
        "postgresql",
        "postgresql",
        "postgresql",
    ]
    shapes = {}
    for house, table in ((1, "report"), (4, "report"), (5, "imaging_report"), (6, "v_ris_bg")):
        with psycopg.connect(reader(files[f"sandbox-{house}"]).render_as_string(hide_password=False)) as connection:
            cursor = connection.execute(f"SELECT * FROM his_{house}.{table} LIMIT 1")
            shapes[house] = {column.name for column in cursor.description or ()}
    for house, charset in ((2, "gbk"), (3, "gb18030")):
        (path,) = (home / "sandbox" / f"house-{house}").glob("*.csv")
        with path.open(encoding=charset, newline="") as file:
            shapes[house] = set(next(csv.reader(file)))
    for one in shapes:
        for other in shapes:
            assert one == other or len(shapes[one] & shapes[other]) < len(shapes[one]) / 2, (one, other)
    assert {"yxbx", "yxzd", "bgrq"} <= shapes[6]


def test_the_reader_may_read_its_view_and_nothing_else(build: Build, reports: list[PretendReport]) -> None:
    files = {file.code: file for file in build(reports)}
    with psycopg.connect(
        reader(files["sandbox-6"]).render_as_string(hide_password=False), autocommit=True
    ) as connection:
        assert connection.execute("SELECT count(*) FROM his_6.v_ris_bg").fetchone() != (0,)
        for statement in ("SELECT 1 FROM his_6.jcbg", "DELETE FROM his_1.report", "CREATE TABLE his_1.mine (x int)"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


def test_institution_files_are_valid_and_hold_no_password(build: Build, home: Path) -> None:
    build([])
    profiles = institutions.load_profiles(home / "institutions")
    assert sorted(profiles) == [f"sandbox-{house}" for house in range(1, 7)]
    assert all(profile.sandbox for profile in profiles.values())
    assert [code for code, profile in profiles.items() if profile.role == "train"] == ["sandbox-1"]
    for path in (home / "institutions").glob("*.toml"):
        assert "@" not in path.read_text("utf-8").replace("@/", "").replace("@127", "").replace("@localhost", "")


def test_a_pending_examination_is_signed_later_by_its_own_system(
    build: Build, reports: list[PretendReport], home: Path, servers: Servers
) -> None:
    files = {file.code: file for file in build([])}
    one = next(report for report in reports if report.house == 4 and report.status == "final" and report.impression)
    assert hospitals.pending(home, [one], postgres_url=servers.database_url) == 1
    assert hospitals.pending(home, [one], postgres_url=servers.database_url) == 0
    with psycopg.connect(
        reader(files["sandbox-4"]).render_as_string(hide_password=False), autocommit=True
    ) as connection:
        rows = "SELECT state, verified_by, (SELECT string_agg(content, '' ORDER BY line) FROM his_4.result WHERE section = 'I') FROM his_4.report"
        assert connection.execute(rows).fetchone() == ("P", None, None)
        signed = replace(one, impression="由己方系统签发的结论。")
        assert hospitals.finish(home, [signed], postgres_url=servers.database_url) == 1
        state, reviewer, impression = connection.execute(rows).fetchone() or ()
        assert (state, impression) == ("F", "由己方系统签发的结论。")
        assert reviewer == (one.reviewer.id if one.reviewer else None)
        assert connection.execute("SELECT now() - touched < interval '1 minute' FROM his_4.report").fetchone() == (
            True,
        )


def test_the_second_hospital_is_a_gbk_table_where_a_mariadb_answers(
    build: Build, reports: list[PretendReport], home: Path, servers_required: Callable[[str], None]
) -> None:
    mariadb_answers(servers_required)
    try:
        files = {file.code: file for file in build(reports, MARIADB)}
        assert files["sandbox-2"].kind == "mariadb"
        url = reader(files["sandbox-2"])
        with pymysql.connect(host=url.host, user=url.username, password="", database=url.database) as connection:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 影像所见, HEX(影像所见), 检查号 FROM 检查报告 ORDER BY 报告编号 LIMIT 1")
                text, stored, accession = cursor.fetchone() or ()
            report = next(each for each in reports if each.house == 2 and each.accession == accession)
            assert text == report.findings.encode("gbk", "replace").decode("gbk")
            assert bytes.fromhex(stored) == report.findings.encode("gbk", "replace")
            with connection.cursor() as cursor, pytest.raises(pymysql.err.OperationalError):
                cursor.execute("DELETE FROM 检查报告")
        assert build(reports, MARIADB)[1].reports == 0
    finally:
        drop_from_mariadb((home / "sandbox" / "name").read_text().strip())
