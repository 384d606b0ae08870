"""What is sent to each kind of database. PostgreSQL, MariaDB and ODBC are read live; SQL Server and Oracle, of which there is no server here, are
heard by a driver's connection that records each statement and answers what the server's manual says it would.
"""

import json
import re
import urllib.parse
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from admin.main import app
from core.errors import Broken, Invalid, Refused
from ingest import doctor, mapping
from ingest.dialects import DIALECTS
from ingest.sql import STREAM, SqlSource
from tests.ingest.hospital import FINDINGS, NOON, Hospital

FILE = """
[institution]
code = "east"
name = "East"
[source]
kind = "sql"
url_env = "EAST_URL"
timezone = "Asia/Shanghai"
sql = '''
{sql}
'''
{extra}
[codes.status]
"1" = "final"
"""
SELECT = "SELECT jch AS source_id, zt AS status, yxbx AS findings, yxzd AS impression, gxsj AS modified_at FROM ris.bg WHERE lx <> 'a:b'"
LOCAL_NOON = datetime(2025, 6, 1, 20, 0)  # noqa: DTZ001 - 12:00 UTC as a hospital in China writes it
ROWS = [("1", "1", FINDINGS, "右肺结节。", LOCAL_NOON), ("2", "1", FINDINGS, "右肺结节。", LOCAL_NOON)]


class Recorder:
    """A driver's connection and cursor in one: keeps what it is told, answers by a table of patterns."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers, self.sent, self.rows = answers, list[tuple[str, Any]](), list[Any]()
        self.description: Any = None
        self.rowcount = self.arraysize = self.autocommit = self.outputtypehandler = -1
        self.version, self.max_identifier_length = "19.3.0.0.0", 128
        self.encoding = self.nencoding = "UTF-8"

    def cursor(self, *_: Any, **__: Any) -> "Recorder":
        return self

    def execute(self, statement: str, parameters: Any = None) -> None:
        self.sent.append((re.sub(r"\s+", " ", statement).strip(), parameters))
        for pattern, (names, rows) in self.answers.items():
            if re.search(pattern, self.sent[-1][0]):
                self.description = [(name, None, None, None, None, None, None) for name in names]
                self.rows = list(rows)
                return
        is_query = self.sent[-1][0].upper().startswith("SELECT")
        self.description = [("X", None, None, None, None, None, None)] if is_query else None
        self.rows = [("X",)] if is_query else []

    def fetchone(self) -> Any:
        return self.rows.pop(0) if self.rows else None

    def fetchmany(self, size: int = 1) -> list[Any]:
        taken, self.rows = self.rows[:size], self.rows[size:]
        return taken

    def fetchall(self) -> list[Any]:
        taken, self.rows = self.rows, []
        return taken

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None: ...
    def var(self, *_: Any, **__: Any) -> "Recorder":
        return self

    def getvalue(self, *_: Any) -> str:
        return "0.1"

    def setinputsizes(self, *_: Any, **__: Any) -> None: ...
    def commit(self) -> None: ...
    def rollback(self) -> None: ...
    def close(self) -> None: ...


WORDS = ["source_id", "status", "findings", "impression", "modified_at"]
HEARD = {
    "mssql": {
        "@@version": (["v"], [("Microsoft SQL Server 2019 - 15.0.2000.5",)]),
        "transaction_isolation_level|isolation": (["l"], [("READ COMMITTED",)]),
        "schema_name": (["s"], [("dbo",)]),
        "SYSUTCDATETIME": (["now"], [(NOON.replace(tzinfo=None),)]),
        "1 = 0": (WORDS, []),
        "TOP 1|TOP .*1": (["modified_at"], [(LOCAL_NOON,)]),
        "IS NULL": (WORDS, []),
        "ORDER BY": (WORDS, ROWS),
    },
    "oracle": {
        "SYSTIMESTAMP": (["NOW"], [(NOON.replace(tzinfo=None),)]),
        "1 = 0": ([word.upper() for word in WORDS], []),
        "ROWNUM|FETCH FIRST": (["MODIFIED_AT"], [(LOCAL_NOON,)]),
        "IS NULL": ([word.upper() for word in WORDS], []),
        "ORDER BY": ([word.upper() for word in WORDS], ROWS),
        "FROM DUAL|FROM dual": (["X"], [("AL32UTF8",)]),
    },
}
URLS = {"mssql": "mssql://reader:pw@ris.example/ris", "oracle": "oracle://reader:pw@ris.example:1521/?service_name=ris"}


@pytest.fixture
def describe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., mapping.Mapping]:
    """Writes an institution file for an address and loads it."""

    def write(url: str, sql: str = SELECT, extra: str = "") -> mapping.Mapping:
        monkeypatch.setenv("EAST_URL", url)
        (tmp_path / "east.toml").write_text(FILE.format(sql=sql, extra=extra), "utf-8")
        return mapping.load(tmp_path / "east.toml")

    return write


@pytest.fixture
def heard(request: pytest.FixtureRequest) -> Iterator[Recorder]:
    """Stands where the driver would connect."""
    recorder = Recorder(HEARD[request.param])

    def connect(*_: Any) -> Recorder:
        return recorder

    sa.event.listen(sa.Engine, "do_connect", connect)
    yield recorder
    sa.event.remove(sa.Engine, "do_connect", connect)


def _sent(heard: Recorder, part: str) -> tuple[str, Any]:
    return next(each for each in heard.sent if part in each[0])


@pytest.mark.parametrize("heard", ["mssql"], indirect=True)
def test_sql_server_is_sent_its_own_sql(heard: Recorder, describe: Callable[..., mapping.Mapping]) -> None:
    of = describe(URLS["mssql"], extra='[source.decode]\nfindings = "gb18030"')
    source = SqlSource(of, deadline_s=30)
    assert source.clock() == NOON
    batches = list(source.batches({}, NOON, {}))
    source.close()
    assert [len(batch.rows) for batch in batches] == [2]
    sent = [statement for statement, _ in heard.sent]
    for statement in (
        "SET LOCK_TIMEOUT 10000",
        "SET DEADLOCK_PRIORITY LOW",
        "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
    ):
        assert statement in sent
    assert not any("NOLOCK" in statement for statement in sent)
    window, bounds = _sent(heard, "ORDER BY source_rows.modified_at, source_rows.source_id")
    assert "CAST(source_rows.findings AS varbinary(max)) AS findings" in window
    assert f"FROM ({SELECT}) AS source_rows WHERE source_rows.modified_at >= " in window
    assert "LIMIT" not in window
    assert (LOCAL_NOON - timedelta(seconds=60)) in (bounds.values() if isinstance(bounds, dict) else bounds)


@pytest.mark.parametrize("heard", ["oracle"], indirect=True)
def test_oracle_is_sent_its_own_sql(heard: Recorder, describe: Callable[..., mapping.Mapping]) -> None:
    of = describe(URLS["oracle"], extra='[source.decode]\nfindings = "gb18030"')
    source = SqlSource(of, deadline_s=30)
    assert source.clock() == NOON
    (batch,) = list(source.batches({}, NOON, {}))
    source.close()
    assert batch.columns == tuple(WORDS)
    assert batch.position is not None
    assert batch.position.at == NOON
    sent = [statement for statement, _ in heard.sent]
    begins = [
        sent.index(each)
        for each in (
            "ALTER SESSION SET TIME_ZONE = '+08:00'",
            "ALTER SESSION SET NLS_SORT = BINARY NLS_COMP = BINARY",
            "SET TRANSACTION READ ONLY",
        )
    ]
    assert begins == sorted(begins)
    window, _ = _sent(heard, "ORDER BY source_rows.modified_at, source_rows.source_id")
    assert "UTL_RAW.CAST_TO_RAW(source_rows.findings) AS findings" in window
    assert f"FROM ({SELECT}) source_rows WHERE source_rows.modified_at >= :" in window


@pytest.mark.parametrize("heard", ["mssql", "oracle"], indirect=True)
def test_a_poll_that_goes_on_asks_for_what_follows_the_last_row(
    heard: Recorder, describe: Callable[..., mapping.Mapping], request: pytest.FixtureRequest
) -> None:
    kind = next(name for name, answers in HEARD.items() if answers is heard.answers)
    source = SqlSource(describe(URLS[kind]), deadline_s=30)
    list(source.batches({}, NOON, {STREAM: (LOCAL_NOON, "1")}))
    source.close()
    window, _ = _sent(heard, "ORDER BY source_rows.modified_at, source_rows.source_id")
    assert re.search(
        r"source_rows\.modified_at >= \S+ AND .* AND \(source_rows\.modified_at > \S+ OR source_rows\.source_id > \S+\)",
        window,
    )


@pytest.mark.parametrize("kind", ["mssql", "oracle", "odbc"])
def test_a_missing_driver_is_told_with_the_name_of_the_extra(
    kind: str, describe: Callable[..., mapping.Mapping], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = {"mssql": "pymssql", "oracle": "oracledb", "odbc": "pyodbc"}[kind]
    monkeypatch.setitem(__import__("sys").modules, module, None)  # how Python itself says that a module is not there
    of = describe(URLS.get(kind, "odbc://reader@HIS"))
    with pytest.raises(Broken, match=rf"chatradio-valuer\[{kind}\]"):
        SqlSource(of, deadline_s=5)


def test_a_with_that_sql_server_cannot_nest_is_refused_when_the_file_is_loaded(tmp_path: Path) -> None:
    text = FILE.format(sql=f"WITH x AS ({SELECT}) SELECT * FROM x", extra="")
    (tmp_path / "east.toml").write_text(text.replace('url_env = "EAST_URL"', 'url = "mssql://reader@h/ris"'), "utf-8")
    with pytest.raises(Invalid, match="SQL Server nests no WITH"):
        mapping.load(tmp_path / "east.toml")
    (tmp_path / "east.toml").write_text(text.replace('url_env = "EAST_URL"', 'url = "oracle://reader@h/ris"'), "utf-8")
    assert mapping.load(tmp_path / "east.toml").dialect().title == "Oracle"


def test_what_no_live_server_has_proved_says_so() -> None:
    assert {name: each.live for name, each in DIALECTS.items()} == {
        "postgresql": True,
        "postgres": True,
        "mysql": True,
        "mariadb": True,
        "mssql": False,
        "oracle": False,
        "odbc": False,
    }
    assert all("not run against a live server" in each.proof for each in DIALECTS.values() if not each.live)


def _driver(name: str) -> None:
    """Skips where the system lacks unixODBC or a driver: neither is a server, and neither comes with Python packages."""
    try:
        import pyodbc
    except ImportError:
        pytest.skip("unixODBC is not installed")
    if name not in pyodbc.drivers():
        pytest.skip(f"the ODBC driver {name} is not installed")


@pytest.mark.parametrize("kind", ["north", "south"])
def test_any_database_is_read_through_its_odbc_driver(
    kind: str,
    request: pytest.FixtureRequest,
    describe: Callable[..., mapping.Mapping],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _driver({"north": "PostgreSQL Unicode", "south": "MariaDB Unicode"}[kind])
    hospital: Hospital = request.getfixturevalue(kind)
    for number in range(3):
        hospital.write(number, at=NOON + timedelta(minutes=number), yx=f"弢東區：右肺上叶见结节影，5mm×{number}mm。")
    if kind == "north":
        ours = hospital.ours.url
        given = f"DRIVER=PostgreSQL Unicode;SERVER={ours.query['host']};PORT=5432;UID={ours.username};DATABASE={ours.database}"
        table = "his.report"
    else:
        table = "report"
        database = hospital.address.rstrip('"').rpartition("/")[2]
        given = f"DRIVER=MariaDB Unicode;SERVER=127.0.0.1;UID=root;DATABASE={database}"
    sql = f"SELECT k AS source_id, st AS status, yx AS findings, zd AS impression, changed AS modified_at FROM {table}"
    of = describe(f"odbc://?odbc_connect={urllib.parse.quote_plus(given)}", sql)
    source = SqlSource(of, deadline_s=20)
    found = [row for batch in source.batches({}, source.clock(), {}) for row in batch.rows]
    again = [
        row for batch in source.batches({}, source.clock(), {STREAM: (found[0][4], found[0][0])}) for row in batch.rows
    ]
    source.close()
    assert [row[2] for row in found] == [f"弢東區：右肺上叶见结节影，5mm×{number}mm。" for number in range(3)]
    assert again == found[1:]
    monkeypatch.setenv("VALUER_HOME", str(hospital.settings.home))
    url = f"odbc://?odbc_connect={urllib.parse.quote_plus(given)}"
    arguments = ["ingest", "init", "odbc", "--url", url, "--dry-run", "--json"]
    with pytest.raises(Refused, match="--table"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    proposed = json.loads(CliRunner().invoke(app, [*arguments, "--table", table], catch_exceptions=False).stdout)
    assert (proposed["accepted"], proposed["quarantined"]) == (3, {})
    levels = {each.name: each.level for each in doctor.examine(of)}
    assert (levels["characters"], levels["key"], levels["trial"], levels["proof"]) == ("ok", "ok", "ok", "look")


@pytest.mark.parametrize("kind", ["north", "south"])
def test_a_column_that_is_gone_stops_the_source_with_its_name(kind: str, request: pytest.FixtureRequest) -> None:
    hospital: Hospital = request.getfixturevalue(kind)
    hospital.write(1)
    assert hospital.poll().stored == 1
    statement = "ALTER TABLE report DROP COLUMN zd"
    if kind == "north":
        hospital.connection.execute(statement)
    else:
        with hospital.connection.cursor() as cursor:
            cursor.execute(statement)
    result = hospital.poll()
    assert result.error == "select_refused"
    assert "zd" in str(result.message)
