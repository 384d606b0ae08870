"""`valuer ingest init` on exports of many shapes and on real databases: what it guesses is right or marked, and nothing is stored."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
from typer.testing import CliRunner

from admin.main import app
from core import institutions, stages
from core.errors import Refused
from ingest import guess, mapping, meanings, writing
from ingest.writing import Column
from tests.ingest import exports
from tests.ingest.exports import ENGLISH, PINYIN, renamed
from tests.ingest.hospital import MARIADB, drop_from_mariadb

ALL = {
    "source_id": "报告号", "accession": "检查号", "patient": "病人ID", "status": "报告状态", "findings": "影像所见", "impression": "影像诊断", "sex": "性别",
    "age": "年龄", "modality": "检查类型", "part": "检查部位", "exam_title": "检查项目", "signed_at": "审核时间", "author": "报告医师", "reviewer": "审核医师",
    "known_name": "姓名", "known_phone": "联系电话",
}  # fmt: skip


@pytest.fixture
def propose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Runs the command in a home of its own and gives what it printed as JSON."""
    monkeypatch.setenv("VALUER_HOME", str(tmp_path / "home"))

    def run(*arguments: str) -> dict[str, Any]:
        done = CliRunner().invoke(app, ["ingest", "init", *arguments, "--json"])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    return run


def _columns(found: dict[str, Any]) -> dict[str, str]:
    return {each["word"]: each["column"] for each in found["guesses"]}


def _one_field(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "ID": number,
            "检查号": row["检查号"],
            "xb": 1 if row["性别"] == "男" else 2,
            "报告内容": f"检查所见：\n{row['影像所见']}\n诊断意见：\n{row['影像诊断']}",
            "检查项目": row["检查项目"],
            "bgrq": row["审核时间"].strftime("%Y/%m/%d %H:%M"),
        }
        for number, row in enumerate(rows)
    ]


SHAPES: dict[str, tuple[Callable[[Path], Path], dict[str, str]]] = {
    "Chinese headers below three title lines": (
        lambda folder: exports.xlsx(folder / "a.xlsx", {"Sheet1": exports.reports()}, above=3),
        ALL,
    ),
    "English headers, dates as serial numbers": (
        lambda folder: exports.xlsx(folder / "a.xlsx", {"Reports": renamed(exports.reports(), ENGLISH)}, dates=None),
        {
            "findings": "Findings",
            "signed_at": "Sign Time",
            "known_name": "Patient Name",
            "part": "Body Part",
            "source_id": "ReportID",
        },
    ),
    "pinyin initials in GBK, times as digits": (
        lambda folder: exports.text(
            folder / "a.csv", renamed(exports.reports(), PINYIN), "gbk", moments="%Y%m%d%H%M%S"
        ),
        {
            "findings": "yxbx",
            "impression": "yxzd",
            "reported_at": "bgsj",
            "known_name": "brxm",
            "part": "jcbw",
            "source_id": "jch",
        },
    ),
    "one field for findings and impression, sex as 1 and 2": (
        lambda folder: exports.xlsx(folder / "a.xlsx", {"S": _one_field(exports.reports())}),
        {"report_text": "报告内容", "sex": "xb", "reported_at": "bgrq", "modality": "检查项目"},
    ),
    "Excel of the years before 2007": (lambda folder: exports.xls(folder / "a.xls", exports.reports()), ALL),
    "tabs in UTF-16": (lambda folder: exports.text(folder / "a.txt", exports.reports(), "utf-16", delimiter="\t"), ALL),
    "JSON lines": (lambda folder: exports.jsonl(folder / "a.jsonl", exports.reports()), ALL),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_an_export_is_understood_and_every_row_of_it_would_be_accepted(
    shape: str, tmp_path: Path, propose: Callable[..., dict[str, Any]]
) -> None:
    make, expected = SHAPES[shape]
    found = propose("north", "--file", str(make(tmp_path)))
    assert _columns(found) == {**_columns(found), **expected}
    assert (found["read"], found["accepted"], found["quarantined"]) == (60, 60, {})
    assert {each["system"] for each in found["training"]} == {"chest", "head", "abdomen"}
    assert {each["modality"] for each in found["training"]} == {"CT"}
    assert all(each["have"] + each["missing"] == found["needed"] for each in found["training"])
    of = mapping.load(Path(found["file"]))
    assert of.source.moment(datetime(2025, 6, 1)).year == 2025  # noqa: DTZ001
    shown = Path(found["file"]).read_text("utf-8") + json.dumps(found, ensure_ascii=False)
    for secret in ("吴桐桐", "CT2025000001", "P000001", "13800000001", "某市某路"):
        assert secret not in shown
    assert len(found["preview"]) == 20
    assert found["preview"][0]["accession"] == "○○"
    assert "address" not in shown.lower()


def test_sheets_with_different_headers_become_one_file_and_others_are_named(
    tmp_path: Path, propose: Callable[..., dict[str, Any]]
) -> None:
    rows = exports.reports()
    ct = renamed(rows[:30], {name: name for name in ALL.values() if name not in ("检查类型", "联系电话")})
    names = {
        "报告号": "报告编号",
        "检查号": "检查编号",
        "检查部位": "部位",
        "影像所见": "MR所见",
        "影像诊断": "诊断意见",
        "报告状态": "状态",
    }
    mr = [{**row, "报告编号": f"M{row['报告编号']}"} for row in renamed(rows[30:], names)]
    export = exports.xlsx(tmp_path / "a.xlsx", {"CT": ct, "MR": mr, "说明": [{"说明": "由信息科导出"}]})
    found = propose("north", "--file", str(export))
    assert (found["accepted"], found["quarantined"]) == (60, {})
    assert {each["modality"] for each in found["training"]} == {"CT", "MR"}
    assert any("说明" in doubt for doubt in found["doubts"])
    only = propose("north", "--file", str(export), "--sheet", "MR", "--dry-run")
    assert only["accepted"] == 30


def test_what_is_not_known_is_marked_and_counted_as_quarantine(
    tmp_path: Path, propose: Callable[..., dict[str, Any]]
) -> None:
    rows = exports.reports()
    for number, row in enumerate(rows):
        row["报告状态"] = "7" if number % 10 else "5"
    found = propose("north", "--file", str(exports.xlsx(tmp_path / "a.xlsx", {"S": rows})))
    assert found["quarantined"] == {"unknown_status": 6}
    assert any("nobody knows what 5 means" in doubt for doubt in found["doubts"])
    text = Path(found["file"]).read_text("utf-8")
    assert '"7" = "final"  # ? 54 rows' in text
    assert '# "5" = ""  # ? 6 rows' in text


def test_a_new_institution_begins_by_collecting(tmp_path: Path, propose: Callable[..., dict[str, Any]]) -> None:
    found = propose("north", "--file", str(exports.xls(tmp_path / "a.xls", exports.reports(4))))
    profile = institutions.load_profiles(Path(found["file"]).parent)["north"]
    assert stages.stage(profile.stages, "CT", ["chest"]) is stages.Stage.COLLECT
    assert '"CT/chest" = "live"' in Path(found["file"]).read_text("utf-8")


def test_a_file_that_is_there_is_not_written_over_and_a_dry_run_writes_nothing(
    tmp_path: Path, propose: Callable[..., dict[str, Any]]
) -> None:
    export = str(exports.xls(tmp_path / "a.xls", exports.reports(4)))
    looked = propose("north", "--file", export, "--dry-run")
    assert not looked["written"]
    assert not Path(looked["file"]).exists()
    propose("north", "--file", export)
    with pytest.raises(Refused, match="--force writes over it"):
        propose("north", "--file", export)
    assert propose("north", "--file", export, "--force")["written"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["north"], "Say where the reports are"),
        (["North!", "--file", "x"], "lower-case letters"),
        (["north", "--url", "postgresql://a:secret@host/b"], "seen by everybody"),
        (["north", "--url", "postgresql://a@host/b", "--password-env", "NOT_SET"], "NOT_SET is not set"),
        (["north", "--file", "/nowhere/a.xlsx"], "cannot be read"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_sentence(
    arguments: list[str], sentence: str, propose: Callable[..., dict[str, Any]]
) -> None:
    with pytest.raises(Refused, match=sentence):
        propose(*arguments)


# --- databases ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def gbk_view(mariadb_url: str) -> Iterator[str]:
    """A regional upload view in pinyin initials, GBK text in latin1 columns, a key of two columns, a time of change that is often empty."""
    name = "init_test"
    drop_from_mariadb(name)
    connection = pymysql.connect(host="127.0.0.1", user="root", password="", charset="utf8mb4", autocommit=True)
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} CHARACTER SET gbk")
        connection.select_db(name)
        cursor.execute(
            "CREATE TABLE ris_report (yljgdm varchar(10), jch varchar(40), brxm varchar(40), brxb char(1), nl varchar(8), jclx varchar(8), jcbw varchar(40),"
            " yxbx varchar(512) CHARACTER SET latin1, yxzd varchar(512) CHARACTER SET latin1, bgzt varchar(10), bgrq varchar(8), bgsj datetime, gxsj datetime,"
            " PRIMARY KEY (yljgdm, jch))"
        )
        for number, row in enumerate(exports.reports()):
            values = [
                "H1",
                row["检查号"],
                row["姓名"],
                "12"[number % 2],
                row["年龄"],
                "CT",
                row["检查部位"],
                row["影像所见"].encode("gbk"),
            ]
            moment = row["审核时间"]
            values += [
                row["影像诊断"].encode("gbk"),
                row["报告状态"],
                moment.strftime("%Y%m%d"),
                moment,
                moment if number % 2 else None,
            ]
            cursor.execute(f"INSERT INTO ris_report VALUES ({', '.join(['%s'] * len(values))})", values)
    yield f"{MARIADB}{name}"
    connection.close()
    drop_from_mariadb(name)


def test_a_mariadb_table_with_gbk_in_latin1_is_proposed_so_that_it_reads_right(
    gbk_view: str, propose: Callable[..., dict[str, Any]]
) -> None:
    found = propose("south", "--url", gbk_view)
    assert (found["table"], found["accepted"], found["quarantined"]) == ("ris_report", 60, {})
    assert found["preview"][0]["findings"].startswith("右肺上叶见实性小结节影")
    text = Path(found["file"]).read_text("utf-8")
    assert 'findings = "gb18030"' in text
    assert "[source.widths]" in text
    assert mapping.load(Path(found["file"])).source.widths == {"findings": 512, "impression": 512}
    assert "CONCAT(r.yljgdm, '|', r.jch) AS source_id" in text
    assert "COALESCE(r.gxsj, r.bgsj) AS modified_at" in text


def test_a_postgresql_table_in_another_schema_with_capitals_is_found(
    database_url: str, propose: Callable[..., dict[str, Any]]
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA ris")
        connection.execute(
            'CREATE TABLE ris."Report" ("ReportID" bigint PRIMARY KEY, "AccessionNo" text, "PatientName" text, sex text, age int, modality text,'
            ' "ExamItem" text, findings text, impression text, status text, "UpdateTime" timestamptz)'
        )
        for number, row in enumerate(exports.reports()):
            values = [
                number,
                row["检查号"],
                row["姓名"],
                "F",
                40,
                "CT",
                row["检查项目"],
                row["影像所见"],
                row["影像诊断"],
            ]
            values += ["作废" if number % 10 == 0 else "审核", row["审核时间"]]
            connection.execute(f'INSERT INTO ris."Report" VALUES ({", ".join(["%s"] * len(values))})', values)
    found = propose("north", "--url", database_url, "--table", "ris.Report")
    assert (found["accepted"], found["quarantined"], found["excluded"]) == (60, {}, {"retracted": 6})
    assert _columns(found)["source_id"] == "ReportID"
    unnamed = propose("north", "--url", database_url, "--dry-run")
    assert "ris.Report" in [unnamed["table"], *unnamed["others"]]
    with pytest.raises(Refused, match=r"no table or view ris\.Other"):
        propose("north", "--url", database_url, "--table", "ris.Other", "--dry-run")


# --- guesses ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "formats"),
    [
        (["2025-06-01 12:00:00", "2025-06-01"], ()),
        (["20250601", "20251231"], ("%Y%m%d",)),
        (["20250601120000"], ("%Y%m%d%H%M%S",)),
        (["2025/6/1 8:05", "2025/12/31 23:59"], ("%Y/%m/%d %H:%M",)),
        (["2025年6月1日", "2025年12月31日"], ("%Y年%m月%d日",)),
        (["20250601", "2025/6/1"], ("%Y%m%d", "%Y/%m/%d")),
        (["25.6.1", "gestern"], None),
    ],
)
def test_the_writing_of_times_is_recognised(texts: list[str], formats: tuple[str, ...] | None) -> None:
    assert writing.time_formats(Column("bgrq", tuple(texts))) == formats


def test_traditional_headers_and_brackets_are_no_obstacle() -> None:
    columns = [
        Column("檢查號", ("A1", "A2")),
        Column("影像所見(文本)", ("右肺見結節影。",)),
        Column("【影像診斷】", ("右肺結節。",)),
        Column("性別", ("男",)),
    ]
    found = {each.word: each.column for each in guess.words(columns)}
    assert (found["findings"], found["impression"], found["sex"]) == ("影像所見(文本)", "【影像診斷】", "性別")


def test_text_columns_without_a_telling_name_are_found_by_their_length_and_marked() -> None:
    columns = [
        Column("f1", tuple(f"A{number}" for number in range(9))),
        Column("f2", ("右肺上叶见实性小结节影，长径约六毫米。左侧胸腔未见积液。",) * 9),
        Column("f3", ("右肺上叶实性小结节，建议年度复查观察。",) * 9),
    ]
    found = {each.word: each for each in guess.words(columns)}
    assert [(found[word].column, found[word].sure) for word in ("findings", "impression")] == [
        ("f2", False),
        ("f3", False),
    ]


def test_a_column_of_body_systems_is_taken_for_what_it_says_and_a_column_of_software_systems_is_not() -> None:
    told = guess.words([Column("系统", ("胸部", "腹部", "chest") * 3)])
    assert [(each.word, each.column) for each in told] == [("system", "系统")]
    assert [each.means for each in meanings.system_meanings(Counter({"胸部": 2, "chest": 1, "RIS 2.0": 1}))] == [
        "chest",
        "chest",
        None,
    ]
    assert not [each for each in guess.words([Column("系统", ("RIS", "PACS") * 5)]) if each.word == "system"]


@pytest.mark.parametrize(
    ("value", "means"),
    [
        ("已审核", "final"), ("审核", "final"), ("终审", "final"), ("已打印", "final"), ("报告完成", "final"), ("F", "final"), ("Final", "final"),
        ("审核中", "preliminary"), ("待审核", "preliminary"), ("未审核", "preliminary"), ("初审", "preliminary"), ("检查完成", "preliminary"),
        ("已登记", "preliminary"), ("驳回", "preliminary"), ("In progress", "preliminary"), ("取消审核", "unsigned"), ("撤销签发", "unsigned"),
        ("作废", "retracted"), ("Cancelled", "retracted"), ("补充报告", "amended"), ("Addendum", "amended"), ("阳性", None),
    ],
)  # fmt: skip
def test_what_is_not_signed_yet_is_never_taken_for_final(value: str, means: str | None) -> None:
    assert meanings.status_of(value)[0] == means


def test_big5_is_told_from_gb18030_though_both_read_it() -> None:
    text = "影像所見：右肺上葉見結節影，邊界清楚。影像診斷：右肺上葉結節，建議追蹤。"
    assert writing.charset_of(text.encode("big5")) == "big5"
    assert (
        writing.charset_of("影像所见：右肺上叶见结节影，边界清楚。影像诊断：右肺上叶结节。".encode("gbk")) == "gb18030"
    )
    assert writing.charset_of(b"\xff\xff\xff") is None


def test_numbers_that_are_days_are_read_in_a_sheet_and_told_in_a_database() -> None:
    days = (20260102, 20260103, None)
    assert writing.time_formats(Column("bgrq", days)) == ("%Y%m%d",)
    stored = Column("bgrq", days, type="INTEGER")
    assert writing.time_formats(stored) is None
    assert not writing.is_time(Column("bgrq", (46024, 46025), type="INTEGER"))
    assert [(each.word, each.column) for each in guess.unfit([stored], guess.words([stored]))] == [
        ("reported_at", "bgrq")
    ]
