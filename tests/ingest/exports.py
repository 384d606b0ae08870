"""Exports as hospitals send them: Excel and text files of many shapes, made of a handful of pretend reports."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import xlsxwriter
import xlwt

NOON = datetime(2025, 6, 1, 12, 0)  # noqa: DTZ001 - an export's times carry no zone
NAMES = ("吴桐桐", "欧阳静", "马建国", "林小芳")
PARTS = (("胸部", "胸部CT平扫", "右肺上叶见实性小结节影，长径约{n}mm。左侧胸腔未见积液。", "右肺上叶实性小结节，建议年度复查。"),
         ("头颅", "头颅CT平扫", "双侧大脑半球对称，左侧基底节区见斑片状低密度影，范围约{n}mm。脑室不大。", "左侧基底节区腔隙灶。"),
         ("腹部", "上腹部CT增强", "肝右叶见类圆形低密度影，直径约{n}mm，增强后无强化。胆囊不大。", "肝右叶囊肿。"))  # fmt: skip


def reports(count: int = 60) -> list[dict[str, Any]]:
    """Reports by the names of what they are; every field in its most Chinese form."""
    made = []
    for number in range(count):
        part, title, findings, impression = PARTS[number % len(PARTS)]
        made.append(
            {
                "报告号": f"R{number:05d}",
                "检查号": f"CT2025{number:06d}",
                "病人ID": f"P{number // 2:06d}",
                "姓名": NAMES[number % len(NAMES)],
                "性别": "男" if number % 2 else "女",
                "年龄": f"{30 + number % 50}岁",
                "检查类型": "CT",
                "检查部位": part,
                "检查项目": title,
                "影像所见": findings.format(n=number + 3),
                "影像诊断": impression,
                "报告状态": "草稿" if number % 20 == 19 else "已审核",
                "报告医师": "王医师",
                "审核医师": "李主任",
                "审核时间": NOON + timedelta(minutes=number),
                "联系电话": f"1380000{number:04d}",
                "家庭住址": "某市某路1号",
            }
        )
    return made


def renamed(rows: list[dict[str, Any]], names: dict[str, str]) -> list[dict[str, Any]]:
    """The rows with only these columns, under their new names."""
    return [{new: row[old] for old, new in names.items()} for row in rows]


ENGLISH = {
    "报告号": "ReportID", "检查号": "Accession No", "病人ID": "Patient ID", "姓名": "Patient Name", "性别": "Sex", "年龄": "Age", "检查类型": "Modality",
    "检查部位": "Body Part", "影像所见": "Findings", "影像诊断": "Impression", "报告状态": "Report Status", "审核时间": "Sign Time",
}  # fmt: skip
PINYIN = {
    "检查号": "jch", "病人ID": "brid", "姓名": "brxm", "性别": "brxb", "年龄": "nl", "检查类型": "jclx", "检查部位": "jcbw",
    "影像所见": "yxbx", "影像诊断": "yxzd",
    "报告状态": "bgzt", "审核时间": "bgsj", "审核医师": "shrxm",
}  # fmt: skip


def xlsx(
    path: Path, sheets: dict[str, list[dict[str, Any]]], *, above: int = 0, dates: str | None = "yyyy-mm-dd hh:mm"
) -> Path:
    """An .xlsx file; `above` title lines (the first merged over the columns); `dates` None: times are bare serial numbers."""
    with xlsxwriter.Workbook(path) as book:
        form = book.add_format({"num_format": dates}) if dates else None
        for name, rows in sheets.items():
            sheet = book.add_worksheet(name)
            columns = list(rows[0]) if rows else []
            for line in range(above):
                if line == 0:
                    sheet.merge_range(0, 0, 0, len(columns) - 1, "影像科报告导出")
                else:
                    sheet.write(line, 0, "导出日期：2025-10-01")
            for at, column in enumerate(columns):
                sheet.write(above, at, column)
            for number, row in enumerate(rows, above + 1):
                for at, value in enumerate(row.values()):
                    if isinstance(value, datetime):
                        sheet.write_datetime(number, at, value, form)
                    elif value is not None:
                        sheet.write(number, at, value)
    return path


def xls(path: Path, rows: list[dict[str, Any]]) -> Path:
    """An .xls file of the years before 2007."""
    book = xlwt.Workbook(encoding="utf-8")
    sheet = book.add_sheet("报告")
    form = xlwt.easyxf(num_format_str="yyyy-mm-dd hh:mm:ss")
    for at, column in enumerate(rows[0]):
        sheet.write(0, at, column)
    for number, row in enumerate(rows, 1):
        for at, value in enumerate(row.values()):
            if isinstance(value, datetime):
                sheet.write(number, at, value, form)
            else:
                sheet.write(number, at, value)
    book.save(str(path))
    return path


def text(
    path: Path, rows: list[dict[str, Any]], charset: str, *, delimiter: str = ",", moments: str = "%Y-%m-%d %H:%M:%S"
) -> Path:
    """A CSV or TSV file in that charset."""
    lines = [delimiter.join(rows[0])]
    for row in rows:
        lines.append(
            delimiter.join(
                value.strftime(moments) if isinstance(value, datetime) else str(value) for value in row.values()
            )
        )
    path.write_bytes(("\r\n".join(lines) + "\r\n").encode(charset))
    return path


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows), "utf-8")
    return path
