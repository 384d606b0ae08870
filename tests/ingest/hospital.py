"""One small hospital that a test fills row by row, on a real PostgreSQL or MariaDB."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pymysql
import sqlalchemy as sa
from sqlmodel import Session, col, select

from core import db
from core.identity import Keyring
from core.settings import IngestSettings
from core.tables import Quarantine, Report, ReportVersion
from ingest import service
from ingest.poll import PollResult

MARIADB = "mariadb://root@127.0.0.1:3306/"
FINDINGS = "右肺上叶见实性小结节影，长径约6mm。左侧胸腔未见积液。"
IMPRESSION = "右肺上叶实性小结节，建议年度复查。"
NOON = datetime(2025, 6, 1, 12, 0, tzinfo=UTC)
COLUMNS = "k, acc, pid, name, st, yx, zd, sex, age, dev, part, changed"

FILE = """
[institution]
code = "{code}"
name = "{code} hospital"
sandbox = true

[source]
kind = "sql"
{connection}
timezone = "Asia/Shanghai"
settle_s = 0
{extra}
sql = '''
SELECT k AS source_id, acc AS accession, pid AS patient, name AS known_name, st AS status, {findings} AS findings, zd AS impression,
  sex, age, dev AS modality, part, changed AS modified_at
FROM report
'''

[codes.status]
"0" = "preliminary"
"1" = "final"
"2" = "amended"
"9" = "retracted"

[codes.modality]
CT = "CT"
DR = "XR"
"""


VERSIONED = ("version", "status", "content_hash", "findings_raw", "impression_raw", "author", "reviewer", "modified_at")


@dataclass
class Hospital:
    """A hospital, our database, and how to read the one into the other."""

    code: str
    connection: Any
    address: str
    ours: sa.Engine
    settings: IngestSettings
    keyring: Keyring

    @classmethod
    def postgres(cls, code: str, ours: sa.Engine, settings: IngestSettings, keyring: Keyring) -> "Hospital":
        """An empty table `report` in a schema `his` on the server of our own database."""
        url = ours.url.set(drivername="postgresql")
        connection = psycopg.connect(url.render_as_string(hide_password=False), autocommit=True)
        connection.execute("DROP SCHEMA IF EXISTS his CASCADE")
        connection.execute("CREATE SCHEMA his")
        connection.execute("SET search_path = his")
        connection.execute(
            "CREATE TABLE report (k bigint PRIMARY KEY, acc text, pid text, name text, st text, yx text, zd text, sex text, age text, dev text,"
            " part text, changed timestamptz)"
        )
        address = url.update_query_dict({"options": "-csearch_path=his"}).render_as_string(hide_password=False)
        hospital = cls(code, connection, f'url = "{address}"', ours, settings, keyring)
        hospital.describe()
        return hospital

    @classmethod
    def mariadb(
        cls, code: str, database: str, ours: sa.Engine, settings: IngestSettings, keyring: Keyring
    ) -> "Hospital":
        """An empty GBK table `report` in MariaDB; `latin` is a column for GBK bytes that the server takes for Latin-1."""
        connection = pymysql.connect(host="127.0.0.1", user="root", password="", charset="utf8mb4", autocommit=True)
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE `{database}` CHARACTER SET gbk")
            connection.select_db(database)
            cursor.execute(
                "CREATE TABLE report (k INT PRIMARY KEY, acc VARCHAR(40), pid VARCHAR(40), name VARCHAR(40), st VARCHAR(2), yx TEXT, zd TEXT,"
                " sex VARCHAR(2), age VARCHAR(8), dev VARCHAR(8), part VARCHAR(40), changed DATETIME, latin TEXT CHARACTER SET latin1)"
            )
        hospital = cls(code, connection, f'url = "{MARIADB}{database}"', ours, settings, keyring)
        hospital.describe()
        return hospital

    def describe(self, *, findings: str = "yx", extra: str = "", **codes: str) -> None:
        """Writes the institution file; `codes` are more status codes."""
        text = FILE.format(code=self.code, connection=self.address, findings=findings, extra=extra)
        more = "".join(f'"{theirs}" = "{ours}"\n' for theirs, ours in codes.items())
        path = self.settings.institutions_dir / f"{self.code}.toml"
        path.write_text(text.replace("[codes.status]\n", f"[codes.status]\n{more}"), "utf-8")

    def write(self, key: int, *, at: datetime | None = NOON, **changes: Any) -> None:
        """Inserts or replaces one row."""
        row = {
            "k": key,
            "acc": f"A-{key}",
            "pid": f"P-{key:05d}",
            "name": "吴桐桐",
            "st": "1",
            "yx": f"{FINDINGS}第{key}例。",
            "zd": IMPRESSION,
            "sex": "F",
            "age": "61",
            "dev": "CT",
            "part": "胸部",
            "changed": at,
            **changes,
        }
        names, places = ", ".join(row), ", ".join(["%s"] * len(row))
        if isinstance(self.connection, psycopg.Connection):
            updates = ", ".join(f"{name} = EXCLUDED.{name}" for name in row)
            self.connection.execute(
                f"INSERT INTO report ({names}) VALUES ({places}) ON CONFLICT (k) DO UPDATE SET {updates}",
                list(row.values()),
            )
            return
        if at is not None:
            row["changed"] = (at + timedelta(hours=8)).replace(tzinfo=None)
        with self.connection.cursor() as cursor:
            cursor.execute(f"REPLACE INTO report ({names}) VALUES ({places})", list(row.values()))

    def poll(self) -> PollResult:
        """One poll, in its own child process."""
        return service.run_once(self.ours, self.settings, self.keyring, [self.code])[self.code]

    def reports(self) -> dict[str, Report]:
        """What we hold, by the accession's pseudonym."""
        with db.transaction(self.ours) as session:
            return {
                str(row.accession): row for row in session.exec(select(Report).where(Report.institution == self.code))
            }

    def report(self, key: int) -> Report:
        """What we hold of one row."""
        return self.reports()[self.keyring.pseudonym(self.code, "accession", f"A-{key}")]

    def versions(self, key: int) -> list[ReportVersion]:
        """Every version of one row that arrived."""
        with db.transaction(self.ours) as session:
            return versions_of(session, self.report(key))

    def quarantined(self) -> list[Quarantine]:
        """What lies open in quarantine."""
        with db.transaction(self.ours) as session:
            query = select(Quarantine).where(Quarantine.institution == self.code, col(Quarantine.resolved_at).is_(None))
            return list(session.exec(query))

    def close(self) -> None:
        """Lets go of the hospital's database."""
        self.connection.close()


def versions_of(session: Session, report: Report) -> list[ReportVersion]:
    """The versions of a report, in order of arrival; the only one of a report stands in `reports` alone."""
    query = select(ReportVersion).where(ReportVersion.report_id == report.id).order_by(col(ReportVersion.version))
    kept = list(session.exec(query))
    return kept or [ReportVersion(report_id=report.id, **{name: getattr(report, name) for name in VERSIONED})]


def mariadb() -> str | None:
    """Address of the MariaDB of this machine, if one answers."""
    try:
        pymysql.connect(host="127.0.0.1", user="root", password="", connect_timeout=2).close()
    except pymysql.err.OperationalError:
        return None
    return MARIADB


def mariadb_answers(servers_required: Callable[[str], None]) -> str:
    """Address of the MariaDB of this machine; says so where there is none."""
    if mariadb() is None:
        servers_required("no MariaDB answers at 127.0.0.1:3306 for root without a password")
    return MARIADB


def drop_from_mariadb(database: str) -> None:
    """Removes a database and the sandbox's reader of it."""
    with pymysql.connect(host="127.0.0.1", user="root", password="") as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_notes = 0")
        cursor.execute(f"DROP DATABASE IF EXISTS `{database}`")
        cursor.execute(f"DROP USER IF EXISTS '{database}_reader'@'%'")
