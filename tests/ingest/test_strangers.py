"""Sources as strangers have them: `valuer ingest init` writes a file that loads, `ingest run` takes the right rows under it, and every other row waits
with a reason that a person understands."""

import csv
import io
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
import sqlalchemy as sa
import xlsxwriter
from sqlmodel import col, select
from typer.testing import CliRunner

from admin.main import app
from core import db
from core.errors import Refused
from core.identity import Keyring
from core.settings import IngestSettings
from core.tables import Report
from ingest import mapping, quarantine, service
from ingest.reasons import Reason
from ingest.rejections import WHY
from tests.ingest import exports
from tests.ingest.hospital import MARIADB, drop_from_mariadb

BEGAN = datetime(2026, 1, 2, 8, 5)  # noqa: DTZ001 - the hospital's own time
MODALITIES = ("CT", "MR", "DR")


def rows(count: int = 60) -> list[dict[str, Any]]:
    """Pretend reports; `at` is when each was signed and `n` its number."""
    made = exports.reports(count)
    return [
        {**row, "n": n, "at": BEGAN + timedelta(hours=7 * n), "mod": MODALITIES[n % 3]} for n, row in enumerate(made)
    ]


def table(
    path: Path, made: list[dict[str, Any]], charset: str, *, delimiter: str = ",", above: str = "", below: str = ""
) -> Path:
    """A text file with these rows, between other lines."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(made[0])
    writer.writerows(row.values() for row in made)
    path.write_bytes((above + text.getvalue() + below).encode(charset))
    return path


# --- files --------------------------------------------------------------------------------------------------------------------


def pinyin(folder: Path) -> Path:
    made = [
        {
            "yljgdm": "420100", "jch": f"CT{row['n']:06d}", "brid": f"P{row['n']}", "brxm": row["姓名"], "brxb": row["性别"], "nl": row["年龄"],
            "jclx": row["mod"], "jcbw": row["检查部位"], "yxbx": f"{row['影像所见']}面积约3.2cm²。", "yxzd": row["影像诊断"],
            "bgrq": row["at"].strftime("%Y%m%d"), "bgsj": row["at"].strftime("%H:%M:%S"), "shrxm": "李主任", "xgbz": "1" if row["n"] % 9 == 0 else "0",
        }
        for row in rows()
    ]  # fmt: skip
    return table(folder / "a.csv", made, "gb18030")


def chinese_dates(folder: Path) -> Path:
    made = [
        {
            "报告单号": f"B{row['n']}", "影像号": f"X{row['n']}", "患者姓名": row["姓名"], "性别代码": 1 + row["n"] % 2,
            "年龄": f"{20 + row['n']:03d}Y",
            "设备": {"CT": "CT机", "MR": "核磁共振", "DR": "X线"}[row["mod"]], "部位": row["检查部位"],
            "检查所见": row["影像所见"], "诊断意见": row["影像诊断"],
            "报告日期": f"{row['at'].year}年{row['at'].month}月{row['at'].day}日", "审核标志": "是" if row["n"] % 10 else "否",
        }
        for row in rows()
    ]  # fmt: skip
    return table(folder / "a.tsv", made, "utf-8", delimiter="\t")


def odd_ages(folder: Path) -> Path:
    ages = ("45岁", "3月", "12天", "67", "0.5", "8个月", "45.0", "成人", "", "1岁3月")
    states = ("已审核", "已打印", "已发布", "审核中", "已作废", "未写报告")
    made = [
        {
            "序号": row["n"] + 1, "检查编号": f"D{row['n']:05d}", "姓名": row["姓名"], "性别": ("男", "女", "未知", "")[row["n"] % 4],
            "年龄": ages[row["n"] % 10],
            "检查类别": ("CT", "MRI", "DX", "CR", "MG", "超声")[row["n"] % 6], "检查项目": row["检查项目"], "影像学表现": row["影像所见"],
            "影像学诊断": row["影像诊断"], "报告时间": f"{row['at']:%Y}/{row['at'].month}/{row['at'].day} {row['at'].hour}:{row['at']:%M}",
            "状态": states[row["n"] % 6],
        }
        for row in rows()
    ]  # fmt: skip
    return exports.xls(folder / "a.xls", made)


def merged_patients(folder: Path) -> Path:
    """Titles above the header, each patient's cells merged over two examinations, dates as serial numbers, a line of totals."""
    path = folder / "a.xlsx"
    with xlsxwriter.Workbook(path) as book:
        sheet = book.add_worksheet("报告")
        sheet.merge_range(0, 0, 0, 8, "影像诊断报告导出")
        sheet.write(1, 0, "导出人：张三")
        sheet.write_row(
            2, 0, ("姓名", "性别", "年龄", "检查号", "检查时间", "检查部位", "影像所见", "影像诊断", "报告状态")
        )
        made = rows()
        for n in range(0, len(made), 2):
            for column, value in enumerate((made[n]["姓名"], "男", 50)):
                sheet.merge_range(3 + n, column, 4 + n, column, value)
            for row in made[n : n + 2]:
                cells = (
                    row["检查号"],
                    46024.25 + row["n"],
                    row["检查部位"],
                    row["影像所见"],
                    row["影像诊断"],
                    "审核完成",
                )
                sheet.write_row(3 + row["n"], 3, cells)
        sheet.write_row(63, 0, ("合计", "", "", "60例"))
    return path


def three_rooms(folder: Path) -> Path:
    """A sheet for each room, each with its own names below a line that groups them, and a sheet of instructions."""
    headers = {
        "CT室": ("检查号", "患者姓名", "性别", "年龄", "检查部位", "CT所见", "CT诊断", "审核日期"),
        "核磁": ("检查编号", "姓名", "性别", "年龄(岁)", "部位", "MR表现", "诊断印象", "审核时间"),
        "普放": ("影像号", "姓名", "性别", "年龄", "检查部位", "X线所见", "X线诊断", "报告日期"),
    }
    path = folder / "a.xlsx"
    with xlsxwriter.Workbook(path) as book:
        form = book.add_format({"num_format": "yyyy/m/d h:mm"})
        for room, (name, header) in enumerate(headers.items()):
            sheet = book.add_worksheet(name)
            sheet.merge_range(0, 1, 0, 3, "患者信息")
            sheet.merge_range(0, 4, 0, 7, "报告")
            sheet.write_row(1, 0, header)
            for line, row in enumerate(rows()[20 * room : 20 * room + 20], 2):
                sheet.write_row(
                    line,
                    0,
                    (
                        f"{name}{line:04d}",
                        row["姓名"],
                        row["性别"],
                        40,
                        row["检查部位"],
                        row["影像所见"],
                        row["影像诊断"],
                    ),
                )
                sheet.write_datetime(line, 7, row["at"], form)
        book.add_worksheet("使用说明").write(0, 0, "请勿修改表头")
    return path


def dates_as_numbers(folder: Path) -> Path:
    names = {name: name for name in ("报告号", "检查号", "检查类型", "检查部位", "影像所见", "影像诊断", "报告状态")}
    made = [
        {
            **each,
            "审核日期": int(row["at"].strftime("%Y%m%d")),
            "检查日期": float(row["at"].strftime("%Y%m%d")),
            "年龄": 45.0,
        }
        for each, row in zip(exports.renamed(rows(), names), rows(), strict=True)
    ]
    return exports.xlsx(folder / "a.xlsx", {"S": made})


def nested(folder: Path) -> Path:
    made = [
        {
            "id": f"r{row['n']}",
            "patient": {"id": f"P{row['n']}", "name": row["姓名"], "gender": "M" if row["n"] % 2 else "F", "age": "45 years"},
            "exam": {"accessionNo": row["检查号"], "modality": row["mod"], "bodyPart": row["检查部位"], "studyTime": row["at"].isoformat()},
            "report": {"findings": row["影像所见"], "impression": row["影像诊断"], "status": "final" if row["n"] % 7 else "preliminary"},
        }
        for row in rows()
    ]  # fmt: skip
    path = folder / "a.jsonl"
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made) + '{"id": 1, "report": ["?"]}\n', "utf-8"
    )
    return path


def one_field(folder: Path) -> Path:
    made = [
        {
            "报告ID": row["n"], "检查号": row["检查号"], "患者性别": "M" if row["n"] % 2 else "F", "患者年龄": "45", "检查名称": row["检查项目"],
            "报告内容": f"【影像所见】\n{row['影像所见']}\n【影像诊断】\n{row['影像诊断']}" if row["n"] else row["影像所见"],
            "报告状态": "F", "报告时间": row["at"].isoformat(),
        }
        for row in rows()
    ]  # fmt: skip
    return table(folder / "a.csv", made, "utf-8-sig")


def english(folder: Path) -> Path:
    made = [
        {
            "Accession Number": row["检查号"], "MRN": f"M{row['n']}", "Gender": ("Male", "Female", "Unknown")[row["n"] % 3],
            "Patient Age": f"{30 + row['n']} years",
            "Modality": row["mod"], "Procedure": "CT CHEST", "Findings": row["影像所见"], "Impression": row["影像诊断"],
            "Report Status": ("Final", "Preliminary", "Addendum")[row["n"] % 3], "Report Date": row["at"].strftime("%d/%m/%Y %H:%M"),
        }
        for row in rows()
    ]  # fmt: skip
    return table(folder / "a.csv", made, "utf-8-sig", delimiter=";")


def totals(folder: Path) -> Path:
    made = [
        {
            "检查流水号": f"L{row['n']}", "姓名": row["姓名"], "检查类型": row["mod"], "部位": row["检查部位"], "所见": row["影像所见"],
            "结论": row["影像诊断"], "审核时间": row["at"].strftime("%Y.%m.%d %H:%M:%S"), "审核状态": "2", "": "",
        }
        for row in rows()
    ]  # fmt: skip
    return table(folder / "a.csv", made, "gbk", above="放射科报告\r\n\r\n", below="\r\n合计：60\r\n")


def big5(folder: Path) -> Path:
    made = [
        {
            "檢查單號": f"TW{row['n']}", "病歷號": f"{10000 + row['n']}", "性別": "男", "年齡": "45歲", "檢查部位": "胸部", "檢查類別": "CT",
            "影像所見": f"右肺上葉見結節影，邊界清楚，長徑約{row['n']}mm。", "影像診斷": "右肺上葉結節。",
            "報告日期": f"115/{row['at']:%m/%d}", "報告狀態": "已審核",
        }
        for row in rows()
    ]  # fmt: skip
    return table(folder / "a.csv", made, "big5")


def nameless(folder: Path) -> Path:
    made = [
        {"字段1": f"A{row['n']}", "字段2": row["性别"], "字段3": row["mod"], "字段4": row["影像所见"], "字段5": row["影像诊断"], "字段6": row["检查部位"]}
        for row in rows()
    ]  # fmt: skip
    return table(folder / "a.csv", made, "utf-8")


def age_and_unit(folder: Path) -> Path:
    made = [
        {
            "报告编号": f"R{row['n']}", "检查号": row["检查号"], "性别": row["性别"], "年龄": "45", "年龄单位": ("岁", "月", "天")[row["n"] % 3],
            "检查设备": row["mod"], "检查部位": row["检查部位"], "影像所见": row["影像所见"], "影像诊断": row["影像诊断"], "状态": "审核",
            "最后修改时间": row["at"].strftime("%Y-%m-%d %H:%M:%S.000"),
        }
        for row in rows()
    ]  # fmt: skip
    return table(folder / "a.txt", made, "utf-16", delimiter="\t")


def cut_off(folder: Path) -> Path:
    made = [
        {
            "检查号": row["检查号"], "性别": row["性别"], "类型": row["mod"], "部位": row["检查部位"],
            "所见": (f"编号{row['n']}。" + row["影像所见"] * (20 if row["n"] % 2 else 1)).encode("gbk")[:512].decode("gbk", "ignore"),
            "诊断": row["影像诊断"], "报告时间": row["at"].strftime("%Y-%m-%d %H:%M"), "状态": "已审核",
        }
        for row in rows()
    ]  # fmt: skip
    return table(folder / "a.csv", made, "gbk")


def broken_lines(folder: Path) -> Path:
    """GB18030 with one line in UTF-8 and a byte that is none, numbers as Excel is told to keep them, a mark of reports that were taken back."""
    made = [
        {
            "检查号": f'="{row["n"]:06d}"', "性别": "男", "类型": row["mod"], "部位": "胸部", "所见": row["影像所见"], "诊断": row["影像诊断"],
            "状态": "已审核", "作废标志": "0", "报告时间": row["at"].strftime("%Y-%m-%d"),
        }
        for row in rows()
    ]  # fmt: skip
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_NONE, escapechar="\x00", quotechar=None)
    writer.writerow(made[0])
    writer.writerows(row.values() for row in made)
    lines = text.getvalue().encode("gb18030").split(b"\r\n")
    lines[7] = lines[7].decode("gb18030").encode()
    lines[9] = lines[9].replace("。,".encode("gb18030"), b"\xff,", 1)
    path = folder / "a.csv"
    path.write_bytes(b"\r\n".join(lines))
    return path


@dataclass(frozen=True)
class Expected:
    """What is taken, what waits and why, what never trains; the number of row 3's report, some of its values, and part of a doubt."""

    key: str
    values: dict[str, Any]
    taken: int = 60
    waits: dict[str, int] = field(default_factory=dict)
    doubt: str = ""
    never: dict[str, int] = field(default_factory=dict)


FILES: dict[str, tuple[Callable[[Path], Path], Expected]] = {
    "pinyin initials, date and time apart": (
        pinyin,
        Expected(
            "CT000003",
            {"modality": "CT", "age": 33, "systems": ["chest"], "status": "final"},
            53,
            {"unknown_status": 7},
            "bgsj: times of day",
        ),
    ),
    "2026年1月2日, sex 1 and 2, 045Y, 是 and 否": (
        chinese_dates,
        Expected("X3", {"modality": "CT", "age": 23, "sex": "F"}, doubt="否 is taken for preliminary"),
    ),
    "an .xls with ages of all kinds": (
        odd_ages,
        Expected("D00003", {"age": 67, "sex": "U", "status": "preliminary"}, 54, {"bad_age": 6}),
    ),
    "merged patients and serial dates": (
        merged_patients,
        Expected(
            "CT2025000003",
            {"age": 50, "sex": "M", "modality": "OT"},
            60,
            {"unknown_status": 1},
            "every report counts as OT",
        ),
    ),
    "a sheet for each room": (
        three_rooms,
        Expected("CT室0005", {"modality": "CT", "age": 40}, doubt="the name of the sheet, for CT室, 核磁, 普放"),
    ),
    "days as the number 20260102": (
        dates_as_numbers,
        Expected("CT2025000003", {"signed_at": datetime(2026, 1, 2, 16, tzinfo=UTC), "age": 45}),
    ),
    "nested JSON lines": (
        nested,
        Expected(
            "CT2025000003", {"sex": "M", "age": 45, "modality": "CT", "systems": ["chest"]}, 60, {"unknown_status": 1}
        ),
    ),
    "one field, once without a heading": (
        one_field,
        Expected("CT2025000003", {"sex": "M", "systems": ["chest"]}, 59, {"no_border": 1}),
    ),
    "English names, dd/mm/yyyy, semicolons": (
        english,
        Expected(
            "CT2025000003",
            {"sex": "M", "age": 33, "status": "final"},
            doubt="day and month of Report Date may be the other way round",
        ),
    ),
    "lines above and a total below": (totals, Expected("L3", {"modality": "CT"}, 60, {"bad_row": 1})),
    "Big5 with years of the Republic": (
        big5,
        Expected(
            "TW3", {"sex": "M", "age": 45}, doubt="報告日期 is called so, and its values are in no form that we know"
        ),
    ),
    "columns without telling names": (
        nameless,
        Expected("A3", {"modality": "CT", "sex": "M"}, doubt="impression: 字段5"),
    ),
    "ages in years, months and days, the unit apart": (
        age_and_unit,
        Expected("CT2025000003", {"age": None, "sex": "M"}, doubt="年龄单位 says what"),
    ),
    'a broken byte, a line in another charset, ="000003"': (
        broken_lines,
        Expected(
            "000003",
            {"modality": "CT"},
            58,
            {"undecodable": 1, "mojibake": 1},
            "作废标志 seems to mark reports that were taken back",
        ),
    ),
    "texts cut off at 512 bytes": (
        cut_off,
        Expected(
            "CT2025000003",
            {"excluded": "possibly_truncated"},
            doubt="seem to be cut off",
            never={"possibly_truncated": 30},
        ),
    ),
}


@pytest.fixture
def at_home(settings: IngestSettings, keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> IngestSettings:
    monkeypatch.setenv("VALUER_HOME", str(settings.home))
    return settings


def proposed(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["ingest", "init", "north", *arguments, "--json"])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(database: sa.Engine, settings: IngestSettings, keyring: Keyring, found: dict[str, Any]) -> dict[str, Report]:
    """What `ingest run` makes of the proposed file is what `init` said; every row that waits has its sentence."""
    result = service.run_once(database, settings, keyring, ["north"])["north"]
    assert result.error is None, result.message
    with db.transaction(database) as session:
        waiting = quarantine.counts(session, "north")
        reports = session.exec(select(Report).order_by(col(Report.source_id))).all()
    assert {row["reason"]: row["rows"] for row in waiting} == found["quarantined"]
    assert all(row["why"] == found["why"][row["reason"]] for row in waiting)
    assert len(reports) == found["accepted"] - found["same_key"]
    return {report.accession or report.source_id: report for report in reports}


@pytest.mark.parametrize("name", FILES)
def test_an_export_of_a_stranger_is_read_rightly_and_what_is_wrong_waits_with_a_reason(
    name: str, tmp_path: Path, at_home: IngestSettings, database: sa.Engine, keyring: Keyring
) -> None:
    make, expected = FILES[name]
    folder = tmp_path / "drop"
    folder.mkdir()
    path = make(folder)
    long_ago = time.time() - 3600
    os.utime(path, (long_ago, long_ago))
    found = proposed("--file", str(path))
    assert (found["accepted"], found["quarantined"]) == (expected.taken, expected.waits)
    assert any(expected.doubt in doubt for doubt in [*found["doubts"], ""]), found["doubts"]
    reports = run(database, at_home, keyring, found)
    report = reports[
        keyring.pseudonym(
            "north",
            "accession" if any(each["word"] == "accession" for each in found["guesses"]) else "source_id",
            expected.key,
        )
    ]
    assert {word: getattr(report, word) for word in expected.values} == expected.values
    kept_out = Counter(str(each.excluded) for each in reports.values() if each.excluded not in (None, "duplicate"))
    assert kept_out == expected.never


def test_an_export_in_which_no_column_tells_reports_apart_is_refused(tmp_path: Path, at_home: IngestSettings) -> None:
    made = [
        {"姓名": row["姓名"], "检查日期": "2026-01-02", "影像所见": row["影像所见"], "影像诊断": row["影像诊断"]}
        for row in rows()
    ]
    with pytest.raises(Refused, match="tells one report from another"):
        proposed("--file", str(table(tmp_path / "a.csv", made, "utf-8")))


def test_a_file_without_a_line_of_headers_is_refused_and_none_of_its_texts_is_shown(
    tmp_path: Path, at_home: IngestSettings
) -> None:
    made = [
        {str(n): cell for n, cell in enumerate((row["检查号"], row["姓名"], row["影像所见"], row["影像诊断"]))}
        for row in rows()
    ]
    path = table(tmp_path / "a.csv", made, "utf-8")
    path.write_text(path.read_text("utf-8").partition("\n")[2], "utf-8")
    with pytest.raises(Refused, match="needs a line of headers") as refused:
        proposed("--file", str(path))
    assert "结节" not in str(refused.value)


def test_one_json_array_is_refused_with_what_to_do(tmp_path: Path, at_home: IngestSettings) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"id": 1, "findings": "右肺结节。"}]), "utf-8")
    with pytest.raises(Refused, match="one object a line"):
        proposed("--file", str(path))


def test_every_reason_has_its_sentence() -> None:
    assert set(WHY) == set(Reason)
    assert all(sentence.endswith(".") for sentence in WHY.values())


# --- databases ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def joined_view(mariadb_url: str) -> Iterator[str]:
    """A view over two tables of a GBK database: pinyin initials, dates as eight digits, ages beside their unit, findings cut at 512 bytes."""
    name = "stranger_test"
    drop_from_mariadb(name)
    connection = pymysql.connect(host="127.0.0.1", user="root", password="", charset="utf8mb4", autocommit=True)
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} CHARACTER SET gbk")
        connection.select_db(name)
        cursor.execute(
            "CREATE TABLE brxx (jzlsh varchar(20) PRIMARY KEY, brxm varchar(40), brxb char(2), nl int, nldw char(2), csrq varchar(8))"
        )
        cursor.execute(
            "CREATE TABLE bg (jch varchar(20) PRIMARY KEY, jzlsh varchar(20), jclx varchar(8), jcbw varchar(40), yxbx varchar(256), yxzd varchar(256),"
            " bgrq varchar(8), shrxm varchar(20), shrq varchar(14), bgzt varchar(10))"
        )
        cursor.execute(
            "CREATE VIEW ris_report_v AS SELECT bg.*, brxm, brxb, nl, nldw, csrq FROM bg JOIN brxx USING (jzlsh)"
        )
        for row in rows():
            person = (f"J{row['n']}", row["姓名"], row["性别"], 8, ("岁", "月", "天")[row["n"] % 3], "19800101")
            cursor.execute("INSERT INTO brxx VALUES (%s, %s, %s, %s, %s, %s)", person)
            findings = (row["影像所见"] * 20)[:256] if row["n"] == 9 else row["影像所见"]
            report = (
                row["检查号"],
                f"J{row['n']}",
                row["mod"],
                row["检查部位"],
                findings,
                row["影像诊断"],
                row["at"].strftime("%Y%m%d"),
            )
            report += ("李主任", row["at"].strftime("%Y%m%d%H%M%S"), "已审核" if row["n"] % 12 else "3")
            cursor.execute(f"INSERT INTO bg VALUES ({', '.join(['%s'] * len(report))})", report)
    yield f"{MARIADB}{name}"
    connection.close()
    drop_from_mariadb(name)


def test_a_view_over_two_tables_in_gbk_is_read_rightly(
    joined_view: str, at_home: IngestSettings, database: sa.Engine, keyring: Keyring
) -> None:
    found = proposed("--url", joined_view, "--table", "ris_report_v")
    assert (found["accepted"], found["quarantined"]) == (55, {"unknown_status": 5})
    text = Path(found["file"]).read_text("utf-8")
    assert "CONCAT(r.nl, r.nldw) AS age" in text
    assert "csrq" not in text
    reports = run(database, at_home, keyring, found)

    def of(n: int) -> Report:
        return reports[keyring.pseudonym("north", "accession", f"CT2025{n:06d}")]

    assert [(of(n).age, of(n).modality, of(n).excluded) for n in (3, 1, 2)] == [
        (8, "CT", None),
        (0, "MR", None),
        (0, "XR", None),
    ]
    assert of(9).excluded == "possibly_truncated"
    assert str(of(3).signed_at) == "2026-01-02 21:05:00+00:00"


def test_a_table_with_numbers_for_everything_and_times_as_digits_is_read_once_somebody_said_what_they_mean(
    database_url: str, at_home: IngestSettings, database: sa.Engine, keyring: Keyring
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            'CREATE TABLE "RptMain" ("RptID" int PRIMARY KEY, "StudyNo" text, "PatID" text, "Sex" int, "Age" text, "DeviceType" text, "ExamItem" text,'
            ' "ReportDesc" text, "ReportDiagnose" text, "State" int, "AuditTime" text)'
        )
        for row in rows():
            values = (
                row["n"],
                row["检查号"],
                row["病人ID"],
                1 + row["n"] % 2,
                f"0{row['n'] + 18}Y",
                row["mod"],
                row["检查项目"],
            )
            values += (row["影像所见"], row["影像诊断"], 40 if row["n"] % 6 else 10, row["at"].strftime("%Y%m%d%H%M%S"))
            connection.execute(f'INSERT INTO "RptMain" VALUES ({", ".join(["%s"] * len(values))})', values)
    found = proposed("--url", database_url, "--table", "RptMain")
    assert found["quarantined"] == {"unknown_status": 10}
    assert any("40 is taken for final" in doubt for doubt in found["doubts"])
    reports = run(database, at_home, keyring, found)
    report = reports[keyring.pseudonym("north", "accession", "CT2025000003")]
    assert (report.sex, report.age, str(report.signed_at)) == ("F", 21, "2026-01-02 21:05:00+00:00")
    path = Path(found["file"])
    path.write_text(path.read_text("utf-8").replace('# "10" = ""', '"10" = "preliminary"'), "utf-8")
    done = quarantine.replay(database, keyring, {"north": mapping.load(path, at_home.home)})
    assert (done.taken, done.left) == (10, 0)
    with db.transaction(database) as session:
        assert quarantine.counts(session, "north") == []
