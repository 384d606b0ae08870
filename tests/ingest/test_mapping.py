"""An institution file that is wrong is refused when it is loaded, with the file, the line and what to change."""

from datetime import UTC, datetime, time
from pathlib import Path

import pytest

from core.errors import Invalid
from ingest import mapping

GOOD = """[institution]
code = "north"
name = "North"

[source]
kind = "sql"
url = "postgresql://reader@his.example/ris"
timezone = "Asia/Shanghai"
sql = '''
SELECT id AS source_id, state AS status FROM v
'''

[codes.status]
F = "final"
P = "preliminary"

[codes.sex]
1 = "M"

[[system_rules]]
field = "part"
pattern = '胸'
systems = ["chest"]

[[system_rules]]
field = "part"
pattern = '腹'
systems = ["abdomen"]
"""


def load(tmp_path: Path, text: str) -> mapping.Mapping:
    path = tmp_path / "north.toml"
    path.write_text(text, "utf-8")
    return mapping.load(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('kind = "sql"', 'kind = "sequel"', "north.toml:5: source: "),
        ('"Asia/Shanghai"', '"Asia/Shangrila"', "north.toml:8: source.timezone: Asia/Shangrila is no time zone"),
        ("reader@his", "reader:secret@his", "north.toml:7: source.url: a password may not stand here"),
        (
            "postgresql://reader@his.example/ris",
            "sybase://reader@his/ris",
            "north.toml:7: source.url: sybase is not read; postgresql, ",
        ),
        ("AS source_id", "AS number", "north.toml:9: source.sql: no column is named source_id"),
        ("SELECT id", "DELETE FROM x; SELECT id", "north.toml:9: source.sql: this must be one SELECT"),
        ('F = "final"', 'F = "finished"', "north.toml:14: codes.status.F: "),
        ('F = "final"\n', "", "north.toml:13: codes.status: no status means final"),
        ('1 = "M"', '1 = "X"', "north.toml:18: codes.sex.1: "),
        ("pattern = '腹'", "pattern = '腹('", "north.toml:27: system_rules.1.pattern: this is no regular expression"),
        ('systems = ["abdomen"]', 'systems = ["tummy"]', "north.toml:28: system_rules.1.systems.0: "),
        (
            "[codes.sex]",
            "[codes.gender]",
            "north.toml:17: codes.gender: there is no such setting; there are status, sex, ",
        ),
        (
            "timezone =",
            "time_zone =",
            "north.toml:8: source.time_zone: there is no such setting; did you mean timezone?",
        ),
        (
            'url = "postgresql://reader@his.example/ris"\n',
            "",
            "north.toml:5: source: [source] needs either url or url_env",
        ),
        ("[codes.status]", "[codes.status", "north.toml: "),
        (
            '"Asia/Shanghai"\n',
            '"Asia/Shanghai"\ntime_format = "yyyymmdd"\n',
            "north.toml:9: source.time_format: yyyymmdd is no strptime format",
        ),
        (
            "[codes.status]",
            '[source.decode]\nfinding = "gb18030"\n[codes.status]',
            "north.toml:13: source.decode: we have no word finding; did you mean findings?",
        ),
        (
            "[codes.status]",
            '[source.decode]\nfindings = "gb2312"\n[codes.status]',
            "north.toml:14: source.decode.findings: ",
        ),
        (
            "[codes.status]",
            '[backfill]\nhours = "22-6"\n[codes.status]',
            "north.toml:14: backfill.hours: 22-6 is no daily window such as 22:00-06:00",
        ),
        ("[codes.status]", "[backfill]\nrows_per_s = 0\n[codes.status]", "north.toml:14: backfill.rows_per_s: "),
        (
            "[codes.status]",
            "[backfill]\nhour = '1:00-2:00'\n[codes.status]",
            "north.toml:14: backfill.hour: there is no such setting; did you mean hours?",
        ),
        (
            "[codes.status]",
            "[backfil]\n[codes.status]",
            "north.toml:13: backfil: there is no such setting; did you mean backfill?",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    load(tmp_path, GOOD)
    assert old in GOOD
    with pytest.raises(Invalid) as refused:
        load(tmp_path, GOOD.replace(old, new))
    assert refused.value.message.startswith(message), refused.value.message


def test_a_file_that_maps_an_unknown_word_is_refused(tmp_path: Path) -> None:
    files = "[source]\nkind = 'files'\nformat = 'csv'\npath = '.'\n[source.columns]\nsource_id = 'a'\nstatus = 'b'\npatient_name = 'c'\n"
    with pytest.raises(Invalid, match=r"^north\.toml:5: source\.columns: we have no word patient_name"):
        load(tmp_path, files + "[codes.status]\n1 = 'final'\n")


def test_passwords_come_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("from file\n")
    by_file = load(tmp_path, GOOD.replace("[source]\n", "[source]\npassword_file = 'secret'\n"))
    assert by_file.address().password == "from file"
    by_name = load(tmp_path, GOOD.replace("[source]\n", "[source]\npassword_env = 'HIS_PASSWORD'\n"))
    with pytest.raises(Invalid, match="the environment variable HIS_PASSWORD is not set"):
        by_name.address()
    monkeypatch.setenv("HIS_PASSWORD", "from environment")
    assert by_name.address().password == "from environment"


def test_a_changed_file_is_another_version(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD).version != load(tmp_path, GOOD + "# a note\n").version


FILES = """[source]
kind = "files"
format = "excel"
path = "."
[source.columns]
source_id = ["报告号", "报告编号"]
findings = "所见"
modality = "@sheet"
[source.constants]
status = "1"
[codes.status]
1 = "final"
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('status = "1"', "", "north.toml:1: source: no column is mapped to status"),
        (
            'status = "1"',
            'status = "1"\nfindings = "x"',
            "north.toml:1: source: findings is both a column and a constant",
        ),
        ('path = "."', 'path = "."\noptional = ["sex"]', "north.toml:1: source: sex cannot be optional"),
        ('path = "."', 'path = "."\noptional = ["source_id"]', "north.toml:1: source: source_id cannot be optional"),
        ('"excel"', '"csv"', "north.toml:1: source: only excel files have sheets"),
        ('["报告号", "报告编号"]', "[]", "north.toml:5: source.columns: no column is named for source_id"),
        (
            "[source.constants]",
            "[source.constant]",
            "north.toml:9: source.constant: there is no such setting; did you mean constants?",
        ),
    ],
)
def test_what_files_are_called_and_lack_is_checked_too(tmp_path: Path, old: str, new: str, message: str) -> None:
    load(tmp_path, FILES)
    assert old in FILES
    with pytest.raises(Invalid) as refused:
        load(tmp_path, FILES.replace(old, new))
    assert refused.value.message.startswith(message), refused.value.message


@pytest.mark.parametrize(
    ("hours", "at", "is_open"),
    [
        ("22:00-06:00", time(23, 0), True),
        ("22:00-06:00", time(5, 59), True),
        ("22:00-06:00", time(6, 0), False),
        ("1:00-5:00", time(0, 59), False),
        ("1:00-5:00", time(1, 0), True),
        (None, time(12, 0), True),
    ],
)
def test_a_backfill_window_runs_over_midnight(hours: str | None, at: time, is_open: bool) -> None:
    assert mapping.BackfillConfig(hours=hours).open_at(at) is is_open


def test_times_may_be_written_in_several_ways(tmp_path: Path) -> None:
    formats = 'time_format = ["%Y%m%d%H%M%S", "%Y/%m/%d"]\n'
    source = load(tmp_path, GOOD.replace("timezone =", f"{formats}timezone =")).source
    assert source.moment("20250601200000") == datetime(2025, 6, 1, 12, tzinfo=UTC)
    assert source.moment("2025/6/1") == datetime(2025, 5, 31, 16, tzinfo=UTC)
    assert source.written(datetime(2025, 6, 1, 12, tzinfo=UTC)) == "20250601200000"


def test_a_password_joins_an_odbc_connection_string(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIS_PASSWORD", "p;}w")
    text = GOOD.replace('"postgresql://reader@his.example/ris"', '"odbc://?odbc_connect=DSN%3DHIS%3BUID%3Dreader"')
    of = load(tmp_path, text.replace("[source]\n", "[source]\npassword_env = 'HIS_PASSWORD'\n"))
    assert of.address().query["odbc_connect"] == "DSN=HIS;UID=reader;PWD={p;}}w}"
