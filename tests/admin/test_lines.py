"""`valuer check` and `valuer score`: files of JSON lines in, files of JSON lines out, no database."""

import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from admin import check, lines, score, vocabulary
from admin.main import app
from core.errors import NotFound, Refused

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
        ("{", "Line 2: not JSON in UTF-8."),
        ('{"id": NaN, "findings": "x", "impression": "x"}', "Line 2: not JSON in UTF-8."),
        ('{"id": 1e999, "findings": "x", "impression": "x"}', "Line 2: its id holds a number that JSON cannot hold."),
        ('{"id": 2, "findings": "x", "impresion": "x"}', "Line 2: there is no impression."),
        (
            '{"id": 2, "findings": "x", "impression": "x", "language": "de"}',
            "Line 2: language must be one of zh-Hans, zh-Hant, en, fr.",
        ),
        ('{"id": 2, "findings": "x", "impression": "x"}{}', "Line 2: not JSON in UTF-8."),
        ("[" * 100_000, "Line 2: not JSON in UTF-8."),
        ('"' + "x" * lines.LONGEST_LINE, "Line 2: longer than 4,194,304 bytes."),
    ],
)
def test_a_line_that_does_not_fit_is_named_and_left_out_and_the_rest_goes_on(
    tmp_path: Path, line: str, sentence: str
) -> None:
    good = {"findings": FINDINGS, "impression": "左肺结节。"}
    source = _write(tmp_path / "in.jsonl", [{"id": 1, **good}])
    text = source.read_text("utf-8")
    source.write_text(f"{text}{line}\n{text.replace('1', '3', 1)}", "utf-8")
    result = CliRunner().invoke(app, ["check", str(source), str(tmp_path / "out.jsonl"), "--json"])
    assert isinstance(result.exception, Refused)
    assert result.exception.message == f"1 of 3 lines did not fit and were left out. {sentence}"
    assert sentence in result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["refused"] == 1
    assert [row["id"] for row in _read(tmp_path / "out.jsonl")] == [1, 3]


def test_a_file_of_which_no_line_fits_makes_no_file(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("not\njson\n", "utf-8")
    result = CliRunner().invoke(app, ["score", str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")])
    assert isinstance(result.exception, Refused)
    assert result.exception.message == "Not one of the 2 lines fits; nothing was written. Line 1: not JSON in UTF-8."
    assert [each.name for each in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize("order", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_told_to_end_leaves_nothing_behind(tmp_path: Path, order: signal.Signals) -> None:
    row = json.dumps({"id": 1, "findings": FINDINGS * 8, "impression": "左肺结节。"}, ensure_ascii=False) + "\n"
    (tmp_path / "in.jsonl").write_text(row * 40_000, "utf-8")
    command = [sys.executable, "-m", "admin.main", "check", str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not any(each.is_dir() for each in tmp_path.iterdir()):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(order)
        assert process.wait(60) != 0
    assert [each.name for each in tmp_path.iterdir()] == ["in.jsonl"]


def test_the_last_line_has_the_totals_of_the_file(tmp_path: Path) -> None:
    source = _write(
        tmp_path / "in.jsonl",
        [{"id": 1, "draft": "右肺结节。", "signed": "右肺结节。"}, {"id": 2, "draft": "", "signed": "请结合临床。"}],
    )
    result = CliRunner().invoke(app, ["score", str(source), str(tmp_path / "out.jsonl"), "--json"])
    data = json.loads(result.stdout.splitlines()[-1])
    assert (data["lines"], data["refused"], data["fact_f1"]) == (2, 0, 1.0)
    assert data["r1"] == pytest.approx(0.5, abs=1e-6)
    result = CliRunner().invoke(app, ["score", str(source), str(tmp_path / "full.jsonl"), "--full", "--compat"])
    assert result.exit_code == 0, result.exception
    assert _read(tmp_path / "full.jsonl")[0]["core_r1"] == pytest.approx(1, abs=1e-6)
    assert _read(tmp_path / "full.jsonl")[0]["scorer"].startswith("compat-")


def test_the_words_that_are_counted_are_printed_for_a_text_and_for_a_file(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("右肺上叶结节，约5x4mm。", "utf-8")
    for given in ("右肺上叶结节，约5x4mm。", str(tmp_path / "text.txt")):
        result = CliRunner().invoke(app, ["score", "tokens", given, "--json"])
        words = json.loads(result.stdout.splitlines()[-1])["tokens"]
        assert words == ["右", "肺上叶", "结节", ",", "约", "5×4mm", "。"]
    assert CliRunner().invoke(app, ["score", "tokens", "No effusion.", "--language", "en"]).stdout == "no effusion\n"
    assert CliRunner().invoke(app, ["score", "tokens", "5×4mm", "--compat"]).stdout == "5 × 4mm\n"


def test_a_refusal_is_one_sentence_on_standard_error_and_status_2(tmp_path: Path) -> None:
    done = _valuer("check", tmp_path / "none.jsonl", tmp_path / "out.jsonl")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip() == f"There is no file {tmp_path / 'none.jsonl'}."


def test_bytes_of_another_charset_are_refused_by_line(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes('{"id": 1, "draft": "结节", "signed": "结节"}\n'.encode("gbk"))
    with pytest.raises(Refused, match="Line 1: not JSON"):
        lines.convert(tmp_path / "in.jsonl", tmp_path / "out.jsonl", dict, dict, "x")


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
        lines.convert(source, source, dict, dict, "x")
    with pytest.raises(NotFound, match="no folder"):
        lines.convert(source, tmp_path / "none" / "out.jsonl", dict, dict, "x")
    assert _read(source)[0]["id"] == 1


def test_how_much_is_read_is_counted_by_section_and_system_and_rare_words_are_not_shown(tmp_path: Path) -> None:
    rows = [
        {
            "id": number,
            "findings": f"左肺上叶结节。两肺见磨砂{'小花样' if number < 2 else ''}影。",
            "impression": "左肺结节。",
        }
        for number in range(3)
    ]
    source = _write(tmp_path / "in.jsonl", [*rows, {"id": 3, "findings": "肝囊肿。"}, {"id": 4, "findings": 5}])
    result = CliRunner().invoke(app, ["vocabulary", "coverage", str(source), "--json"])
    assert isinstance(result.exception, Refused)
    data = json.loads(result.stdout.splitlines()[-1])
    counted = {(row["system"], row["section"]): (row["statements"], row["read"]) for row in data["coverage"]}
    assert (counted["all", "findings"], counted["all", "impression"]) == ((7, 4), (3, 3))
    assert (counted["chest", "findings"], counted["abdomen", "findings"]) == ((6, 3), (1, 1))
    assert data["unknown"] == [{"word": "磨砂", "lines": 3}]
    assert data["refused"] == 1
    assert [each.name for each in tmp_path.iterdir()] == ["in.jsonl"]


def test_what_is_counted_stays_bounded_and_what_is_frequent_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "TOTALS", 50)
    source = _write(tmp_path / "in.jsonl", [{"id": number} for number in range(300)])
    done = lines.count(source, dict, lambda made: {f"word {made['id']}": 1.0, "word often": 1.0}, "x")
    assert done.totals["word often"] == 300
    assert len(done.totals) < 50 + lines.CHUNK


def test_a_line_is_read_with_the_words_of_its_institution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "home" / "vocabulary" / "north"
    own.mkdir(parents=True)
    (own / "equivalents.tsv").write_text("胶质瘤\t脱髓鞘灶\n", "utf-8")
    monkeypatch.setenv("VALUER_HOME", str(tmp_path / "home"))
    lines.own_words.cache_clear()
    texts = {
        "findings": "右侧额叶胶质瘤。",
        "impression": "右侧额叶脱髓鞘灶。",
        "draft": "右侧额叶胶质瘤。",
        "signed": "右侧额叶脱髓鞘灶。",
    }
    source = _write(tmp_path / "in.jsonl", [{"id": code, "institution": code, **texts} for code in ("north", "south")])
    for command in ("check", "score"):
        assert CliRunner().invoke(app, [command, str(source), str(tmp_path / f"{command}.jsonl")]).exit_code == 0
    north, south = _read(tmp_path / "check.jsonl")
    assert (north["issues"], [issue["kind"] for issue in south["issues"]]) == ([], ["unsupported", "omitted"])
    north, south = _read(tmp_path / "score.jsonl")
    assert (north["fact_f1"], south["fact_f1"]) == (1.0, 0.0)
    assert north["scorer"] != south["scorer"]
    result = CliRunner().invoke(app, ["vocabulary", "show", "--json"])
    shown = json.loads(result.stdout.splitlines()[-1])["institutions"]
    assert [(row["institution"], row["equivalents"]) for row in shown] == [("*", 0), ("north", 1)]
    lines.own_words.cache_clear()


HOSTILE = [
    b'{"id":%s}' % (b"9" * 5000),
    b'{"id":%s}' % (b"[" * 5000 + b"]" * 5000),
    b'{"id":{"a":[1,{"b":null}]},"findings":"","impression":"","draft":"","signed":null}',
    b'{"id":"\\ud800","findings":"\\udfff","impression":"\\ud83d\\u0000","draft":"\\ud800","signed":"x"}',
    b'{"id":1,"id":1,"findings":"x","impression":"y","draft":"x","signed":"y"}\r',
    b'{"id":1,"findings":["x"],"impression":{},"draft":1,"signed":true}',
    b'{"id":1,"findings":"x","impression":"y","sex":5,"draft":"x","signed":"y","language":["zh"]}',
    b'{"id":1,"findings":"x","impression":"y","sex":"?","modality":"??","draft":"x","signed":"y","institution":"../.."}',
    "\ufeff{}".encode(),
    "{}".encode("utf-16"),
    b"{'id':1}",
    b"null",
    b"\x00",
    b"  ",
]


def test_whatever_stands_in_a_line_it_is_either_made_or_named_and_what_is_written_is_json() -> None:
    for work, tally in (
        (check._line, check._tally),
        (partial(score._line, compat=False, full=True), score._tally),
        (vocabulary._line, vocabulary._tally),
    ):
        made = lines._chunk(work, tally, 1, [None, *(line + b"\n" for line in HOSTILE)])
        assert len(made.lines) + len(made.faults) == len(HOSTILE)  # but the blank one, with the one that is too long
        assert [fault.split(":")[0] for fault in made.faults[:3]] == ["Line 1", "Line 2", "Line 3"]
        assert len(made.lines) >= 4
        for line in made.lines:
            json.loads(line, parse_constant=pytest.fail)
