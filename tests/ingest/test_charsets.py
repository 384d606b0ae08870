"""The golden set of charsets: what a hospital's bytes become is right, character by character, or it lies in quarantine with those bytes."""

import json

import pytest
import sqlalchemy as sa

from core import db
from core.identity import Keyring
from core.settings import IngestSettings
from core.tables import Quarantine
from ingest import quarantine
from tests.ingest.hospital import FINDINGS, IMPRESSION
from tests.ingest.test_files import HEADER, Drop

FOUR = "𠮷氏弢東區：面积3.2cm²，体积5cm³•，㎜、㎝、㎡、℃、×、≥、Ⅰ级，囊变。"
"""Four bytes in GB18030 for 𠮷, ² and ³; trail bytes that look like | and \\ in 弢東區."""
GBK = "弢東區：㎜、㎝、㎡、℃、×、≥、Ⅰ级，右肺上叶见结节影。"
BIG5 = "右肺上葉見實性小結節影，長徑約6mm。許功蓋。"
"""許功蓋 have trail bytes that look like a backslash."""

RIGHT = {
    "utf-8": ("utf-8", FOUR.encode(), FOUR),
    "utf-8 with the mark of a lost character in it": ("utf-8", f"{FINDINGS}\ufffd".encode(), f"{FINDINGS}\ufffd"),
    "gbk": ("gbk", GBK.encode("gbk"), GBK),
    "gb18030 of four bytes": ("gb18030", FOUR.encode("gb18030"), FOUR),
    "gbk read as gb18030": ("gb18030", GBK.encode("gbk"), GBK),
    "big5": ("big5", BIG5.encode("big5"), BIG5),
    "a question": ("gb18030", f"{FINDINGS}结核？肿瘤?".encode("gb18030"), f"{FINDINGS}结核？肿瘤?"),
    "a character that the source lost": ("gb18030", "面积约3.2cm?，边界清。".encode("gbk"), "面积约3.2cm?，边界清。"),
}
WRONG = {
    "gbk read as utf-8": ("utf-8", GBK.encode("gbk"), "undecodable"),
    "gb18030 of four bytes read as gbk": ("gbk", FOUR.encode("gb18030"), "undecodable"),
    "utf-8 read as gb18030": ("gb18030", f"{FINDINGS}阴".encode(), "mojibake"),
    "utf-8 read as big5": ("big5", FINDINGS.encode(), "mojibake"),
    "gbk cut in the middle of a character": ("gb18030", GBK.encode("gbk")[:-1], "undecodable"),
    "gb18030 cut after two of four bytes": ("gb18030", "面积3cm²".encode("gb18030")[:-2], "undecodable"),
    "utf-8 cut in the middle of a character": ("utf-8", FINDINGS.encode()[:-1], "undecodable"),
    "a surrogate in utf-8": ("utf-8", FINDINGS.encode() + b"\xed\xa0\xbd", "undecodable"),
    "what us7ascii leaves of chinese": ("utf-8", b"????????????????????6mm??", "lost_characters"),
}


@pytest.fixture
def drop(database: sa.Engine, settings: IngestSettings, keyring: Keyring) -> Drop:
    return Drop(database, settings, keyring)


def rejected(drop: Drop) -> tuple[str, bytes]:
    """The reason of the one row in quarantine, and the bytes of its findings as they are sealed there."""
    with db.transaction(drop.database) as session:
        (row,) = session.execute(sa.select(Quarantine)).scalars().all()
        raw = quarantine.unpack(drop.keyring.open("west", "quarantine", row.raw))["findings"]
        return row.reason, raw if isinstance(raw, bytes) else raw.encode("utf-8", "surrogatepass")


SAME = str.maketrans("检号状态见诊断审吴结实节", "檢號狀態見診斷審吳結實節")


def put(drop: Drop, charset: str, findings: bytes) -> None:
    """One row, its other cells in the charset too; a house that writes Big5 writes traditional characters."""
    drop.describe("csv", charset)
    path = drop.settings.institutions_dir / "west.toml"
    before, after = HEADER + "1,吴,审核,", ",右肺上小结节。\r\n"
    if charset == "big5":
        path.write_text(path.read_text("utf-8").translate(SAME), "utf-8")
        before, after = before.translate(SAME), after.translate(SAME)
    drop.put("a.csv", before.encode(charset) + findings + after.encode(charset))


@pytest.mark.parametrize("case", RIGHT)
def test_bytes_that_can_be_read_are_read_right(drop: Drop, case: str) -> None:
    charset, raw, text = RIGHT[case]
    put(drop, charset, raw)
    result = drop.poll()
    assert (result.error, result.stored, result.quarantined) == (None, 1, 0)
    (report,) = drop.reports()
    assert report.findings_raw == text
    assert report.excluded == {
        "a character that the source lost": "lossy_source",
        "utf-8 with the mark of a lost character in it": "replacement_char",
    }.get(case)


@pytest.mark.parametrize("case", WRONG)
def test_bytes_that_cannot_be_read_are_kept_as_they_are(drop: Drop, case: str) -> None:
    charset, raw, reason = WRONG[case]
    put(drop, charset, raw)
    result = drop.poll()
    assert (result.error, result.stored, result.quarantined) == (None, 0, 1)
    assert rejected(drop) == (reason, raw)
    assert drop.reports() == []


@pytest.mark.parametrize(
    ("findings", "reason"),
    [
        (f"{FINDINGS}\ud83d", "unstorable_character"),
        ("\udcff" + FINDINGS, "unstorable_character"),
        (f"{FINDINGS}\0", "unstorable_character"),
        (FINDINGS.encode("gbk").decode("latin-1"), "mojibake"),
    ],
    ids=["half of a pair", "a byte that was smuggled", "nul", "gbk taken for latin-1"],
)
def test_texts_that_are_no_text_are_kept_as_they_are(drop: Drop, findings: str, reason: str) -> None:
    drop.describe("jsonl", "utf-8")
    row = {"检查号": "1", "状态": "审核", "所见": findings, "诊断": IMPRESSION}
    drop.put("a.jsonl", json.dumps(row).encode("ascii"))
    result = drop.poll()
    assert (result.error, result.stored, result.quarantined) == (None, 0, 1)
    assert rejected(drop) == (reason, findings.encode("utf-8", "surrogatepass"))


def test_a_pair_of_surrogates_in_json_is_one_character(drop: Drop) -> None:
    drop.describe("jsonl", "utf-8")
    row = {"检查号": "1", "状态": "审核", "所见": FOUR, "诊断": IMPRESSION}
    drop.put("a.jsonl", json.dumps(row).encode("ascii"))
    assert drop.poll().stored == 1
    assert drop.reports()[0].findings_raw == FOUR
