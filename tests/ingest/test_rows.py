"""What becomes of one row: a table of values as they come and what is made of them."""

from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import pytest

from core.identity import Keyring
from ingest import mapping
from ingest.cleaning import cleaned_batch
from ingest.rows import Incoming, Reject, Rows
from ingest.sources import Batch
from tests.ingest.hospital import FILE, FINDINGS, IMPRESSION, NOON

ROW: dict[str, Any] = {"source_id": "30325||29", "status": "1", "findings": FINDINGS, "impression": IMPRESSION}
GBK_AS_LATIN = "右肺结节，建议复查。".encode("gbk").decode("latin-1")


def take(tmp_path: Path, keyring: Keyring, row: dict[str, Any], charset: str = "gb18030") -> Incoming | Reject:
    path = tmp_path / "north.toml"
    text = FILE.format(
        code="north", connection='url = "postgresql:///x"', findings="yx", extra=f'charset = "{charset}"'
    )
    path.write_text(text, "utf-8")
    taken, rejects = Rows(mapping.load(path), keyring).take(
        Batch("reports", tuple(row), [tuple(row.values())], None, None, NOON)
    )
    return (taken + rejects)[0]


@pytest.mark.parametrize(
    ("changes", "word", "expected"),
    [
        ({"age": "45"}, "age", 45),
        ({"age": "45岁"}, "age", 45),
        ({"age": "045Y"}, "age", 45),
        ({"age": 45.0}, "age", 45),
        ({"age": "45歲"}, "age", 45),
        ({"age": "8月"}, "age", 0),
        ({"age": "18个月"}, "age", 1),
        ({"age": "5天"}, "age", 0),
        ({"age": "2岁3月"}, "age", 2),
        ({"age": ""}, "age", None),
        ({"sex": " F "}, "sex", "F"),
        ({"sex": None}, "sex", "U"),
        ({"modality": "DR"}, "modality", "XR"),
        ({}, "modality", "OT"),
        ({"part": "颈椎"}, "systems", ("musculoskeletal",)),
        ({"part": "头颅+胸部"}, "systems", ("chest", "head")),
        ({"exam_title": "上腹部CT平扫"}, "systems", ("abdomen",)),
        ({"system": "chest、head"}, "systems", ("chest", "head")),
        ({"part": "左乳"}, "systems", ()),
        ({"signed_at": datetime.combine(date(2025, 6, 1), time(8))}, "signed_at", datetime(2025, 6, 1, tzinfo=UTC)),
        ({"signed_at": "2025-06-01 08:00:00"}, "signed_at", datetime(2025, 6, 1, tzinfo=UTC)),
        ({"signed_at": date(2025, 6, 1)}, "signed_at", datetime(2025, 5, 31, 16, tzinfo=UTC)),
        ({"signed_at": "0000-00-00 00:00:00"}, "signed_at", None),
        ({"findings": FINDINGS.encode("gb18030")}, "findings", FINDINGS),
        ({"findings": "𠮷字见于四字节。".encode("gb18030")}, "findings", "𠮷字见于四字节。"),
        ({"findings": "弢東區：肺纹理清。".encode("gb18030")}, "findings", "弢東區：肺纹理清。"),
        ({"findings": "NAÏVE élève：肺纹理清晰。"}, "findings", "NAÏVE élève：肺纹理清晰。"),
        ({"status": "0", "impression": None}, "impression", ""),
        ({"status": "9", "findings": None, "impression": None}, "findings", ""),
    ],
)
def test_a_value_is_taken_as_what_it_means(
    tmp_path: Path, keyring: Keyring, changes: dict[str, Any], word: str, expected: Any
) -> None:
    taken = take(tmp_path, keyring, {**ROW, **changes})
    assert isinstance(taken, Incoming), taken
    assert getattr(taken, word) == expected


@pytest.mark.parametrize(
    ("changes", "reason", "column"),
    [
        ({"status": "7"}, "unknown_status", "status"),
        ({"status": None}, "unknown_status", "status"),
        ({"sex": "X"}, "unknown_sex", "sex"),
        ({"modality": "PT"}, "unknown_modality", "modality"),
        ({"system": "chest、hat"}, "unknown_system", "system"),
        ({"age": "999"}, "bad_age", "age"),
        ({"age": "成人"}, "bad_age", "age"),
        ({"signed_at": "昨天"}, "bad_time", "signed_at"),
        ({"source_id": None}, "no_key", "source_id"),
        ({"findings": FINDINGS.encode("gbk")[:-1]}, "undecodable", "findings"),
        ({"findings": b"\xff\xfe\xff"}, "undecodable", "findings"),
        ({"impression": GBK_AS_LATIN}, "mojibake", "impression"),
        ({"findings": "肺\x00野清晰"}, "unstorable_character", "findings"),
        ({"findings": "肺\ud800野清晰"}, "unstorable_character", "findings"),
        ({"findings": "  \n"}, "empty_findings", "findings"),
        ({"impression": None}, "empty_impression", "impression"),
        ({"impression": "无"}, "empty_impression", "impression"),
        ({"impression": "——。"}, "empty_impression", "impression"),
    ],
)
def test_a_value_that_makes_no_sense_rejects_the_row_and_says_where(
    tmp_path: Path, keyring: Keyring, changes: dict[str, Any], reason: str, column: str
) -> None:
    rejected = take(tmp_path, keyring, {**ROW, **changes})
    assert isinstance(rejected, Reject)
    assert (rejected.reason, rejected.context["column"]) == (reason, column)
    assert rejected.raw == {**ROW, **changes}


def test_gbk_bytes_under_a_utf8_mapping_are_not_guessed(tmp_path: Path, keyring: Keyring) -> None:
    rejected = take(tmp_path, keyring, {**ROW, "findings": FINDINGS.encode("gbk")}, charset="utf-8")
    assert isinstance(rejected, Reject)
    assert rejected.reason == "undecodable"


BOTH = {"source_id": "1", "status": "1"}


def test_one_field_with_both_parts_is_cut_at_its_last_title(tmp_path: Path, keyring: Keyring) -> None:
    taken = take(tmp_path, keyring, {**BOTH, "report_text": f"描述：\n{FINDINGS}\n结论：\n{IMPRESSION}"})
    assert isinstance(taken, Incoming)
    assert (taken.findings, taken.impression) == (FINDINGS, IMPRESSION)


def test_a_title_with_nothing_after_it_is_an_empty_impression(tmp_path: Path, keyring: Keyring) -> None:
    rejected = take(tmp_path, keyring, {**BOTH, "report_text": f"描述：\n1、{FINDINGS}\n结论：\n"})
    assert isinstance(rejected, Reject)
    assert rejected.reason == "empty_impression"


def test_one_field_without_any_border_is_rejected_when_final_and_kept_when_not(
    tmp_path: Path, keyring: Keyring
) -> None:
    rejected = take(tmp_path, keyring, {**BOTH, "report_text": "双肺纹理清晰。"})
    assert isinstance(rejected, Reject)
    assert rejected.reason == "no_border"
    taken = take(tmp_path, keyring, {**BOTH, "status": "0", "report_text": "双肺纹理清晰。"})
    assert isinstance(taken, Incoming)
    assert taken.findings == "双肺纹理清晰。"


def test_the_patients_own_name_and_numbers_leave_the_text(tmp_path: Path, keyring: Keyring) -> None:
    text = f"姓名：吴桐桐 检查号：CT20250601\n{FINDINGS}吴桐桐既往片对比。电话13800138000。<br>"
    row = {**ROW, "findings": text, "accession": "CT20250601", "patient": "P-77881", "known_name": "吴桐桐"}
    taken = take(tmp_path, keyring, row)
    assert isinstance(taken, Incoming)
    assert taken.findings == text
    clean = cleaned_batch([taken])[0]
    for secret in ("吴桐桐", "CT20250601", "13800138000", "<br>"):
        assert secret not in clean.findings
    assert "长径约6mm" in clean.findings


def test_the_pseudonyms_are_those_that_a_request_would_get(tmp_path: Path, keyring: Keyring) -> None:
    taken = take(tmp_path, keyring, {**ROW, "accession": " ａ-1 ", "patient": "p-1", "author": "王医生"})
    assert isinstance(taken, Incoming)
    assert taken.accession == keyring.pseudonym("north", "accession", "A-1")
    assert taken.patient == keyring.pseudonym("north", "patient", "P-1")
    assert taken.author == keyring.pseudonym("north", "doctor", "王医生")


@pytest.mark.parametrize(
    "title", ["印象：", "【影像诊断】：", "头颅CT平扫示：\n", "意见:", "<b>影像诊断：</b>", "結論：\n", ""]
)
def test_a_title_above_the_impression_is_no_part_of_what_a_model_learns(
    tmp_path: Path, keyring: Keyring, title: str
) -> None:
    taken = take(tmp_path, keyring, {**ROW, "impression": title + IMPRESSION})
    assert isinstance(taken, Incoming)
    assert taken.impression == title + IMPRESSION
    assert cleaned_batch([taken])[0].impression == IMPRESSION


@pytest.mark.parametrize("impression", ["建议：定期复查。", "1、肝囊肿：S8段。", "左肺占位，提示肺癌：建议增强。"])
def test_words_that_look_like_a_title_stay(tmp_path: Path, keyring: Keyring, impression: str) -> None:
    taken = take(tmp_path, keyring, {**ROW, "impression": impression})
    assert isinstance(taken, Incoming)
    assert cleaned_batch([taken])[0].impression == impression
