"""Exported files: whatever charset they claim, one broken cell costs one row, and a file is read when it is new or changed."""

import json
import os
import time
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlmodel import select

from core import db
from core.identity import Keyring
from core.settings import IngestSettings
from core.tables import Report
from ingest import quarantine, service
from ingest.poll import PollResult
from tests.ingest.hospital import FINDINGS, IMPRESSION

FILE = """
[institution]
code = "west"
name = "West"

[source]
kind = "files"
format = "{format}"
path = "../drop"
pattern = "*.{format}"
charset = "{charset}"
settle_s = 0

[source.columns]
source_id = "检查号"
accession = "检查号"
status = "状态"
findings = "所见"
impression = "诊断"

[codes.status]
"审核" = "final"
"""
HEADER = "检查号,姓名,状态,所见,诊断\r\n"


class Drop:
    """A folder of one institution."""

    def __init__(self, database: sa.Engine, settings: IngestSettings, keyring: Keyring) -> None:
        self.database, self.settings, self.keyring = database, settings, keyring
        self.folder = settings.home / "drop"
        self.folder.mkdir()
        self.describe("csv", "gb18030")

    def describe(self, format: str, charset: str) -> None:
        (self.settings.institutions_dir / "west.toml").write_text(FILE.format(format=format, charset=charset), "utf-8")

    def put(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        os.utime(path, (time.time() - 5, time.time() - 5))
        return path

    def poll(self) -> PollResult:
        return service.run_once(self.database, self.settings, self.keyring)["west"]

    def reports(self) -> list[Report]:
        with db.transaction(self.database) as session:
            return list(session.exec(select(Report).order_by(Report.findings_raw)))


@pytest.fixture
def drop(database: sa.Engine, settings: IngestSettings, keyring: Keyring) -> Drop:
    return Drop(database, settings, keyring)


def line(key: str, findings: str = FINDINGS) -> str:
    return f'{key},吴桐桐,审核,"{findings}",{IMPRESSION}\r\n'


@pytest.mark.parametrize("charset", ["utf-8", "gbk", "gb18030", "big5"])
def test_a_file_is_read_in_its_charset(drop: Drop, charset: str) -> None:
    traditional = charset == "big5"
    findings = (
        "右肺上葉見結節影，邊界清。\n縱隔淋巴結不大。"
        if traditional
        else "右肺上叶见结节影，边界清。\n纵隔淋巴结不大。"
    )
    text = (
        f'檢查號,狀態,所見,診斷\r\n1,審核,"{findings}",右肺結節。\r\n' if traditional else HEADER + line("1", findings)
    )
    drop.describe("csv", charset)
    if traditional:
        path = drop.settings.institutions_dir / "west.toml"
        changed = path.read_text("utf-8")
        for simple, old in (
            ("检查号", "檢查號"),
            ("状态", "狀態"),
            ("所见", "所見"),
            ("诊断", "診斷"),
            ("审核", "審核"),
        ):
            changed = changed.replace(simple, old)
        path.write_text(changed, "utf-8")
    drop.put("a.csv", text.encode(charset))
    assert drop.poll().stored == 1
    assert drop.reports()[0].findings_raw == findings


@pytest.mark.parametrize(("charset", "mark"), [("utf-8", b"\xef\xbb\xbf"), ("gb18030", b"\x84\x31\x95\x33")])
def test_a_byte_order_mark_is_no_part_of_the_first_column(drop: Drop, charset: str, mark: bytes) -> None:
    drop.describe("csv", charset)
    drop.put("a.csv", mark + (HEADER + line("1")).encode(charset))
    assert drop.poll().stored == 1


def test_names_whose_second_byte_looks_like_a_delimiter_stay_whole(drop: Drop) -> None:
    findings = "東區奮弢珅瑋玘玕：𠮷字见于四字节，肺野清晰。"
    drop.put("a.csv", (HEADER + line("1", findings)).encode("gb18030"))
    drop.poll()
    assert drop.reports()[0].findings_raw == findings


def test_one_broken_cell_costs_one_row(drop: Drop) -> None:
    good, bad = (
        (line("1") + line("2")).encode("gb18030"),
        line("3").encode("gb18030").replace("结节".encode("gb18030"), b"\xbd\xff\xff"),
    )
    drop.put("a.csv", HEADER.encode("gb18030") + good + bad + b"4,too,short\r\n" + line("5").encode("gb18030"))
    result = drop.poll()
    assert (result.rows_read, result.stored, result.quarantined, result.error) == (5, 3, 2, None)
    with db.transaction(drop.database) as session:
        waiting = {row["reason"]: row["context"] for row in quarantine.list_open(session)}
    assert waiting["undecodable"]["column"] == "findings"
    assert (waiting["bad_row"]["line"], waiting["bad_row"]["cells"]) == (5, 3)


@pytest.mark.parametrize("missing", [2, 3, 20, 21, 45, 90])
def test_a_file_that_was_read_half_written_is_right_once_it_is_whole(drop: Drop, missing: int) -> None:
    whole = (HEADER + line("1") + line("2", FINDINGS + "肋骨完整。")).encode("gb18030")
    drop.put("a.csv", whole[:-missing])
    assert drop.poll().stored >= 1
    drop.put("a.csv", whole)
    drop.poll()
    assert [report.findings_raw for report in drop.reports()] == [FINDINGS, FINDINGS + "肋骨完整。"]
    assert {report.impression_raw for report in drop.reports()} == {IMPRESSION}


def test_an_unchanged_file_is_not_read_again_and_a_grown_one_is(drop: Drop) -> None:
    path = drop.put("a.csv", (HEADER + line("1")).encode("gb18030"))
    assert drop.poll().rows_read == 1
    assert drop.poll().rows_read == 0
    path.write_bytes(path.read_bytes() + line("2", FINDINGS + "肋骨完整。").encode("gb18030"))
    result = drop.poll()
    assert (result.rows_read, result.stored, result.unchanged) == (2, 1, 1)


def test_json_lines_are_read_and_a_broken_one_is_kept(drop: Drop) -> None:
    drop.describe("jsonl", "utf-8")
    rows = [
        {"检查号": number, "状态": "审核", "所见": f"{FINDINGS}{number}", "诊断": IMPRESSION, "姓名": "吴桐桐"}
        for number in (1, 2)
    ]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    drop.put("a.jsonl", text.encode() + b'\n{"half": \n[1]\n\xff\xfe\xff\n')
    result = drop.poll()
    assert (result.stored, result.quarantined) == (2, 3)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ((HEADER + line("1")).encode("utf-16")[:-1], "utf16"),
        ("检查号,状态\r\n1,审核\r\n".encode("gb18030"), "missing_column"),
    ],
)
def test_a_file_that_cannot_be_what_it_should_be_stops_with_a_sentence(drop: Drop, content: bytes, error: str) -> None:
    drop.put("a.csv", content)
    result = drop.poll()
    assert result.error == error
    assert str(result.message).startswith("west.toml: a file")


def test_columns_that_are_not_mapped_leave_no_trace(drop: Drop) -> None:
    drop.put("a.csv", (HEADER + line("1") + line("2", "")).encode("gb18030"))
    drop.poll()
    with db.transaction(drop.database) as session:
        (waiting,) = quarantine.list_open(session)
        assert "吴桐桐" not in str(quarantine.show(session, drop.keyring, UUID(waiting["id"])))
    with drop.database.connect() as connection:
        assert "吴桐桐" not in str(connection.execute(sa.text("SELECT reports::text FROM reports")).all())
