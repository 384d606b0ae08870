"""The six pretend hospitals through ingest: each report ends as what it is, in our words, whatever its hospital calls it."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from core import db, institutions, requests
from core.embedded import Servers
from core.identity import Keyring
from core.requests import Actor
from core.settings import IngestSettings, QueueSettings
from core.tables import DraftRequest, Quarantine, Report, SignOff
from ingest import service, standing
from sandbox import generator, hospitals
from sandbox.facts import PretendReport
from tests.ingest.hospital import drop_from_mariadb, mariadb

STATUS = {"preliminary": "preliminary", "final": "final", "addendum": "amended", "retracted": "retracted"}


@dataclass(frozen=True)
class Town:
    """Six hospitals, built once for this module, and what they hold."""

    home: Path
    reports: list[PretendReport]
    postgres_url: str
    mariadb_url: str | None


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> Iterator[Town]:
    """With a MariaDB where one answers, and without where none does: then the second hospital drops files."""
    home, url = tmp_path_factory.mktemp("town"), mariadb()
    reports = list(generator.generate("balanced", scale=0.001, seed=11))
    hospitals.build(home, reports, postgres_url=servers.database_url, mariadb_url=url)
    yield Town(home, reports, servers.database_url, url)
    demolish(home, servers)
    if url is not None:
        drop_from_mariadb((home / "sandbox" / "name").read_text().strip())


def demolish(home: Path, servers: Servers) -> None:
    """Takes away what the sandbox made on the PostgreSQL server."""
    name = (home / "sandbox" / "name").read_text().strip()
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        connection.execute(f"DROP ROLE {name}_reader")


@pytest.fixture
def settled(town: Town, settings: IngestSettings) -> IngestSettings:
    """Settings whose institutions are those of the town."""
    shutil.rmtree(settings.institutions_dir)
    shutil.copytree(town.home / "institutions", settings.institutions_dir)
    return settings


def test_every_report_of_six_hospitals_is_either_stored_or_quarantined(
    town: Town, settled: IngestSettings, database: sa.Engine, keyring: Keyring
) -> None:
    results = service.run_once(database, settled, keyring)
    assert {code: result.error for code, result in results.items()} == dict.fromkeys(results)
    for result in results.values():
        assert result.rows_read == result.stored + result.quarantined
    with db.transaction(database) as session:
        stored = {(row.institution, row.accession): row for row in session.exec(select(Report))}
        reasons = set(session.exec(select(Quarantine.reason)))
    assert reasons <= {"empty_impression"}
    missing = 0
    for report in town.reports:
        code = f"sandbox-{report.house}"
        row = stored.pop((code, keyring.pseudonym(code, "accession", report.accession)), None)
        if row is None:
            missing += 1
            assert report.impression == ""
            continue
        assert (row.status, row.sex, row.age, row.modality) == (
            STATUS[report.status],
            report.sex,
            report.age,
            report.modality,
        )
        assert set(row.systems) == set(report.systems), report.accession
        assert (row.exam_title, row.patient_class, row.language) == (
            report.exam_title,
            report.patient_class,
            report.language,
        )
        assert row.author_grade == report.author.grade
        if report.house not in (2, 3):  # GBK loses what it lacks; house 3 keeps both texts in one field
            assert row.findings_raw == report.findings
            assert row.impression_raw == report.impression
        if report.house == 3 and report.status in ("final", "addendum"):
            assert row.impression_raw == report.impression.strip().removeprefix("结论：").strip()
        expected = report.signed_at if report.status != "preliminary" else None
        assert row.signed_at == (
            None
            if expected is None
            else expected.replace(microsecond=row.signed_at.microsecond if row.signed_at else 0)
        )
    assert not stored
    assert missing == sum(result.quarantined for result in results.values())

    again = service.run_once(database, settled, keyring)
    assert sum(result.stored for result in again.values()) == 0
    with db.transaction(database) as session:
        table = standing.stats(session)
        rows = standing.status(session)
    usable = sum(line["reports"] + sum(line["kept_out"].values()) for line in table)
    assert usable == len(town.reports) - missing == sum(row["reports"] for row in rows)
    assert {line["institution"] for line in table} == set(results)
    assert all(row["fresh_s"] < 60 and row["failure"] is None for row in rows)


@pytest.mark.parametrize("house", [1, 2, 3, 6])
def test_a_report_that_the_hospital_signs_closes_its_request(
    town: Town, settled: IngestSettings, database: sa.Engine, keyring: Keyring, house: int
) -> None:
    code = f"sandbox-{house}"
    original = next(
        r for r in town.reports if r.house == house and r.status == "final" and r.impression and not r.duplicate_of
    )
    report = replace(original, accession=f"{original.accession}-P")
    where = {"postgres_url": town.postgres_url, "mariadb_url": town.mariadb_url}
    hospitals.pending(town.home, [report], **where)
    service.run_once(database, settled, keyring, [code])
    body = {
        "institution": code,
        "accession": report.accession,
        "modality": report.modality,
        "patient": {"id": report.person.id, "sex": report.sex, "age": report.age},
        "findings": report.findings,
        "priority": "routine",
    }
    with db.transaction(database) as session:
        system = Actor("key", "ris", "system", code)
        accepted = requests.accept(session, keyring, requests.parse(body), system, door="http", queue=QueueSettings())
    assert service.run_once(database, settled, keyring, [code])[code].sign_offs == ()

    hospitals.finish(town.home, [replace(report, impression="由医院自己的系统签发。")], **where)
    result = service.run_once(database, settled, keyring, [code])[code]
    assert result.stored == 1
    with db.transaction(database) as session:
        (sign_off,) = session.exec(select(SignOff).where(SignOff.request_id == accepted.id)).all()
        state = session.exec(select(DraftRequest.state).where(col(DraftRequest.id) == accepted.id)).one()
    assert result.sign_offs == (sign_off.id,)
    assert (state, sign_off.place, sign_off.impression) == ("signed", "ris", "由医院自己的系统签发。")
    assert service.run_once(database, settled, keyring, [code])[code].sign_offs == ()


def test_no_name_or_number_of_a_patient_stands_where_a_model_reads(
    town: Town, settled: IngestSettings, database: sa.Engine, keyring: Keyring
) -> None:
    service.run_once(database, settled, keyring, ["sandbox-1", "sandbox-6"])
    names = {report.person.name for report in town.reports if report.house in (1, 6)}
    with db.transaction(database) as session:
        institutions_seen = set(session.exec(select(Report.institution)))
        texts = [f"{row.findings}\n{row.impression}\n{row.history}" for row in session.exec(select(Report))]
        raw = [row.findings_raw for row in session.exec(select(Report))]
    assert institutions_seen == {"sandbox-1", "sandbox-6"}
    assert any(name in text for text in raw for name in names), "the houses print names, or this test shows nothing"
    numbers = {report.accession for report in town.reports} | {report.person.id_card for report in town.reports} - {
        None
    }
    for text in texts:
        assert not any(secret in text for secret in numbers)
    leaked = [name for text in texts for name in names if name in text]
    assert leaked == []


def test_without_a_mariadb_the_second_hospital_is_read_from_its_files(
    settings: IngestSettings, servers: Servers, database: sa.Engine, keyring: Keyring
) -> None:
    reports = [
        report for report in generator.generate("balanced", scale=0.002, seed=5, houses=(2,)) if not report.duplicate_of
    ]
    hospitals.build(settings.home, reports, postgres_url=servers.database_url)
    try:
        result = service.run_once(database, settings, keyring, ["sandbox-2"])["sandbox-2"]
    finally:
        demolish(settings.home, servers)
    assert (result.rows_read, result.error) == (len(reports), None)
    with db.transaction(database) as session:
        stored = {row.accession: row for row in session.exec(select(Report))}
    for report in reports:
        row = stored.get(keyring.pseudonym("sandbox-2", "accession", report.accession))
        if row is not None:
            assert (row.sex, row.age, row.modality) == (report.sex, report.age, report.modality)
            assert row.findings_raw == report.findings.encode("gbk", "replace").decode("gbk")
    assert len(stored) == result.stored >= len(reports) * 0.95


def test_profiles_are_copied_before_anything_is_read(
    town: Town, settled: IngestSettings, database: sa.Engine, keyring: Keyring
) -> None:
    service.run_once(database, settled, keyring, ["sandbox-3"])
    with db.transaction(database) as session:
        assert institutions.profile(session, "sandbox-5").language == "zh-Hant"
