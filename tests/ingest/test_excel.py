"""Excel files as hospitals save them: titles above the header, merged and blank cells, serial numbers for dates, sheets that do not fit."""

import os
import time
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
import xlsxwriter
from sqlmodel import col, select

from core import db
from core.identity import Keyring
from core.settings import IngestSettings
from core.tables import Cursor, Report
from ingest import quarantine, service
from ingest.poll import PollResult
from tests.ingest import exports
from tests.ingest.exports import NOON

FILE = """
[institution]
code = "west"
name = "West"

[source]
kind = "files"
format = "excel"
path = "../drop"
settle_s = 0
skip_sheets = ["说明"]
{extra}

[source.columns]
source_id = ["报告号", "报告编号"]
accession = "检查号"
status = "报告状态"
findings = ["影像所见", "MR所见"]
impression = "影像诊断"
signed_at = "审核时间"
modality = ["检查类型", "@sheet"]
age = "年龄"

[codes.status]
"已审核" = "final"
"草稿" = "preliminary"
"""


class Drop:
    """A folder of one institution."""

    def __init__(self, database: sa.Engine, settings: IngestSettings, keyring: Keyring) -> None:
        self.database, self.settings, self.keyring = database, settings, keyring
        self.folder = settings.home / "drop"
        self.folder.mkdir()
        self.describe()

    def describe(self, extra: str = "") -> None:
        (self.settings.institutions_dir / "west.toml").write_text(FILE.format(extra=extra), "utf-8")

    def poll(self) -> PollResult:
        for path in (path for path in self.folder.iterdir() if path.stat().st_mtime > time.time() - 4):
            os.utime(path, (time.time() - 5, time.time() - 5))
        return service.run_once(self.database, self.settings, self.keyring)["west"]

    def reports(self) -> list[Report]:
        with db.transaction(self.database) as session:
            return list(session.exec(select(Report).order_by(col(Report.signed_at), col(Report.findings_raw))))

    def quarantined(self) -> list[dict[str, object]]:
        with db.transaction(self.database) as session:
            return quarantine.list_open(session)


@pytest.fixture
def drop(database: sa.Engine, settings: IngestSettings, keyring: Keyring) -> Drop:
    return Drop(database, settings, keyring)


@pytest.mark.parametrize("dates", ["yyyy-mm-dd hh:mm", None])
def test_titles_above_the_header_are_passed_over_and_dates_arrive_with_and_without_their_format(
    drop: Drop, dates: str | None
) -> None:
    exports.xlsx(drop.folder / "a.xlsx", {"CT": exports.reports(6)}, above=3, dates=dates)
    assert drop.poll().stored == 6
    first = drop.reports()[0]
    assert first.signed_at == NOON.replace(tzinfo=ZoneInfo("Asia/Shanghai"))
    assert (first.modality, first.age) == ("CT", 30)


def test_a_file_of_the_years_before_2007_is_read(drop: Drop) -> None:
    exports.xls(drop.folder / "a.xls", exports.reports(5))
    assert drop.poll().stored == 5
    assert drop.reports()[4].signed_at == datetime(2025, 6, 1, 12, 4, tzinfo=ZoneInfo("Asia/Shanghai"))


def test_each_sheet_is_a_stream_and_one_whose_header_does_not_fit_is_told_and_not_dropped(drop: Drop) -> None:
    good = exports.reports(4)
    other = [{"甲": "1", "影像所见": "肝右叶囊肿。"}, {"甲": "2", "影像所见": "胆囊不大。"}]
    sheets = {"CT": good, "另一": other, "说明": [{"说明": "由信息科导出"}], "空": []}
    exports.xlsx(drop.folder / "a.xlsx", sheets)
    result = drop.poll()
    assert (result.stored, result.quarantined, result.error) == (4, 1, None)
    (told,) = drop.quarantined()
    assert told["reason"] == "bad_sheet"
    assert isinstance(told["context"], dict)
    assert (told["context"]["sheet"], told["context"]["rows"]) == ("另一", 3)
    assert "source_id" in told["context"]["missing"]
    with db.transaction(drop.database) as session:
        streams = set(session.exec(select(Cursor.stream)))
    assert {"file:a.xlsx", "file:a.xlsx#CT"} <= streams
    assert drop.poll().rows_read == 0


def test_sheets_with_different_headers_and_without_a_modality_column_are_read_together(drop: Drop) -> None:
    rows = exports.reports(4)
    mr = exports.renamed(
        rows,
        {
            "报告号": "报告编号",
            "检查号": "检查号",
            "报告状态": "报告状态",
            "影像所见": "MR所见",
            "影像诊断": "影像诊断",
        },
    )
    mr = [{**row, "报告编号": f"M{row['报告编号']}"} for row in mr]
    drop.describe('optional = ["signed_at", "age"]')
    exports.xlsx(drop.folder / "a.xlsx", {"CT": rows, "MR": mr})
    assert drop.poll().stored == 8
    assert sorted(report.modality for report in drop.reports()) == ["CT"] * 4 + ["MR"] * 4


def test_merged_cells_count_in_every_row_they_cover_and_blank_rows_are_no_rows(drop: Drop) -> None:
    with xlsxwriter.Workbook(drop.folder / "a.xlsx") as book:
        sheet = book.add_worksheet("CT")
        names = ["报告号", "检查号", "报告状态", "影像所见", "影像诊断", "审核时间", "年龄"]
        sheet.write_row(0, 0, names)
        sheet.write_row(1, 0, ["R1", "", "", "右肺上叶结节。", "右肺结节。", "2025-06-01 12:00:00", 61])
        sheet.write_row(2, 0, ["R2", "", "", "肝右叶囊肿。", "肝囊肿。", "2025-06-01 12:01:00", 61])
        sheet.merge_range(1, 1, 2, 1, "A-1")
        sheet.merge_range(1, 2, 2, 2, "已审核")
        sheet.write_row(5, 0, ["R3", "A-2", "已审核", "脑室不大。", "未见异常。", "2025-06-01 12:02:00", 20])
    result = drop.poll()
    assert (result.rows_read, result.stored) == (3, 3)
    a, b, c = drop.reports()
    assert a.accession == b.accession != c.accession


def test_a_number_whose_last_digits_excel_has_lost_is_no_key(drop: Drop) -> None:
    rows = exports.reports(3)
    rows[1]["检查号"] = 202510030001234567
    exports.xlsx(drop.folder / "a.xlsx", {"CT": rows})
    result = drop.poll()
    assert (result.stored, result.quarantined) == (2, 1)
    context = drop.quarantined()[0]["context"]
    assert isinstance(context, dict)
    assert (context["column"], context["digits"]) == ("accession", "lost")


def test_what_is_no_excel_file_stops_with_a_sentence(drop: Drop) -> None:
    (drop.folder / "a.xlsx").write_bytes(b"PK\x03\x04 this is no workbook")
    result = drop.poll()
    assert (result.error, result.message) == ("not_excel", "west.toml: a file is no Excel file, or a broken one.")


def test_a_file_of_which_no_sheet_fits_stops_the_source(drop: Drop) -> None:
    exports.xlsx(drop.folder / "a.xlsx", {"CT": [{"所见": "x", "诊断": "y"}]})
    assert drop.poll().error == "missing_column"


@pytest.mark.parametrize(("charset", "delimiter"), [("utf-16", "\t"), ("utf-16", ","), ("gb18030", "\t")])
def test_text_that_excel_saved_is_read_whatever_its_charset(drop: Drop, charset: str, delimiter: str) -> None:
    path = drop.settings.institutions_dir / "west.toml"
    text = path.read_text("utf-8").replace('format = "excel"', f'format = "csv"\ndelimiter = {delimiter!r}')
    text = text.replace('skip_sheets = ["说明"]', 'charset = "gb18030"').replace('["检查类型", "@sheet"]', '"检查类型"')
    path.write_text(text.replace("'\\t'", '"\\t"'), "utf-8")
    rows = exports.reports(3)
    rows[0]["影像所见"] = "東區弢珅：面积5.6cm²，𠮷。"
    path_of_export: Path = exports.text(drop.folder / "a.txt", rows, charset, delimiter=delimiter)
    assert path_of_export.stat().st_size > 0
    assert drop.poll().stored == 3
    assert drop.reports()[0].findings_raw == "東區弢珅：面积5.6cm²，𠮷。"
