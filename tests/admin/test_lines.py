"""`valuer check` and `valuer score`: files of JSON lines in, files of JSON lines out, no database."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from admin import lines
from admin.main import app
from core.errors import Invalid, NotFound, Refused

FINDINGS = "左肺上叶见一结节，大小约8mm×6mm，边缘光滑。余肺未见明显异常。"


def _write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _valuer(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "admin.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_a_wrong_side_is_told_with_its_spans_and_the_last_line_is_json(tmp_path: Path) -> None:
    source = _write(
        tmp_path / "in.jsonl", [{"id": "a", "findings": FINDINGS, "impression": "右肺上叶结节。", "sex": "F"}]
    )
    done = _valuer("check", source, tmp_path / "out.jsonl", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["lines"] == 1
    (row,) = _read(tmp_path / "out.jsonl")
    assert row["id"] == "a"
    side = next(issue for issue in row["issues"] if issue["kind"] == "side")
    assert set(side) == {"kind", "severity", "span_findings", "span_impression", "message"}
    start, end = side["span_impression"]
    assert "右" in "右肺上叶结节。"[start:end]


def test_a_file_larger_than_one_piece_keeps_its_order_and_its_ids_over_all_cores(tmp_path: Path) -> None:
    rows = [
        {"id": number, "draft": "右肺结节。", "signed": "右肺结节。" if number % 2 else "左肾囊肿。"}
        for number in range(1500)
    ]
    source = _write(tmp_path / "in.jsonl", rows)
    done = _valuer("score", source, tmp_path / "out.jsonl", "--json")
    assert done.returncode == 0, done.stderr
    scored = _read(tmp_path / "out.jsonl")
    assert [row["id"] for row in scored] == list(range(1500))
    assert set(scored[0]) == {"id", "r1", "r2", "rl", "char_rl", "edit_distance", "fact_f1", "scorer"}
    assert all((row["r1"] > 0.99) == bool(row["id"] % 2) for row in scored)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"id": 2, "findings": 3, "impression": "x"}', "Line 2: findings must be text."),
        ('{"findings": "x", "impression": "x"}', 'Line 2: not an object with an "id".'),
        ("[1]", 'Line 2: not an object with an "id".'),
        ("{", "Line 2 is not JSON in UTF-8."),
        ("[" * 100_000, "Line 2 is not JSON in UTF-8."),
    ],
)
def test_a_line_that_does_not_fit_is_named_and_nothing_is_written(tmp_path: Path, line: str, sentence: str) -> None:
    source = _write(tmp_path / "in.jsonl", [{"id": 1, "findings": FINDINGS, "impression": "左肺结节。"}])
    source.write_text(source.read_text("utf-8") + line + "\n", "utf-8")
    result = CliRunner().invoke(app, ["check", str(source), str(tmp_path / "out.jsonl")])
    assert isinstance(result.exception, Invalid)
    assert result.exception.message == sentence
    assert sorted(each.name for each in tmp_path.iterdir()) == ["in.jsonl"]


def test_a_refusal_is_one_sentence_on_standard_error_and_status_2(tmp_path: Path) -> None:
    done = _valuer("check", tmp_path / "none.jsonl", tmp_path / "out.jsonl")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip() == f"There is no file {tmp_path / 'none.jsonl'}."


def test_bytes_of_another_charset_are_refused_by_line(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes('{"id": 1, "draft": "结节", "signed": "结节"}\n'.encode("gbk"))
    with pytest.raises(Invalid, match="Line 1 is not JSON"):
        lines.convert(tmp_path / "in.jsonl", tmp_path / "out.jsonl", dict, "x")


def test_a_mark_of_byte_order_blank_lines_and_half_a_surrogate_pair_are_taken(tmp_path: Path) -> None:
    text = (
        '\ufeff{"id": "\\ud800", "draft": null, "signed": "结节"}\n\n{"id": null, "draft": "a\\u0000", "signed": "a"}'
    )
    (tmp_path / "in.jsonl").write_text(text, "utf-8")
    result = CliRunner().invoke(app, ["score", str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")])
    assert result.exit_code == 0, result.exception
    assert [row["id"] for row in _read(tmp_path / "out.jsonl")] == ["\ud800", None]


def test_the_source_is_never_overwritten(tmp_path: Path) -> None:
    source = _write(tmp_path / "in.jsonl", [{"id": 1, "draft": "a", "signed": "a"}])
    with pytest.raises(Refused, match="another one"):
        lines.convert(source, source, dict, "x")
    with pytest.raises(NotFound, match="no folder"):
        lines.convert(source, tmp_path / "none" / "out.jsonl", dict, "x")
    assert _read(source)[0]["id"] == 1
