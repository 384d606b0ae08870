"""Texts in tokens: what `valuer models tokens` counts is what the engine would be given, and long findings are served whole or not at all."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from admin.main import app
from core.db import new_id, transaction
from core.errors import Invalid, NotFound
from core.settings import Settings, WorkerSettings
from core.states import ReportStatus
from core.tables import Report
from tests.builders import institution
from tests.engine.conftest import tiny_tokenizer
from worker.engine.weights import encode
from worker.lengths import Lengths, histogram, quantiles, share
from worker.prompt import Prompt


def count(base: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["models", "tokens", *arguments, "--model", str(base)])


def said(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.exception
    made: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return made


def write(path: Path, *rows: dict[str, Any] | str) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines), "utf-8")
    return path


def test_quantiles_shares_and_histogram_of_known_lengths() -> None:
    assert quantiles(range(1, 101)) == {"p50": 51, "p95": 96, "p99": 100, "max": 100}
    assert quantiles([]) is None
    assert share([True, False, True, True]) == 0.75
    assert share([]) is None
    assert histogram([1, 64, 65, 300, 3000]) == {"64": 2, "128": 1, "512": 1, "4096": 1}


def test_lengths_are_those_that_the_engine_would_see() -> None:
    tokenizer = tiny_tokenizer()
    prompt = Prompt("右", "左", "肺右肺上叶结节影", "：")
    lengths = Lengths()
    assert lengths.add(tokenizer, [("右肺上叶结节影", prompt, "肺结节。"), ("脾", prompt, None)]) == 2
    assert lengths.characters == lengths.findings == [7, 1]
    assert lengths.prompts == [len(encode(tokenizer, prompt.text))] * 2
    assert lengths.impressions == [5, None]  # and the end of sequence
    longest = lengths.prompts[0]
    made = lengths.summary(longest, 5, 1000)
    assert (made["tokens_per_character"], made["prompts_that_fit"], made["impressions_that_fit"]) == (1.0, 1.0, 1.0)
    assert lengths.summary(longest - 1, 4, 1000)["prompts_that_fit"] == 0.0
    assert lengths.summary(longest, 5, longest + 4)["prompts_that_fit"] == 0.0  # prompt and answer share the context


def test_a_file_of_findings_is_counted(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VALUER_MAX_NEW_TOKENS", "8")
    source = write(
        tmp_path / "in.jsonl",
        {"findings": "右肺上叶结节影，长径12mm。", "impression": "右肺上叶结节。"},
        "",
        {"findings": "脾大"},
    )
    made = said(count(tiny_base, str(source), "--json"))
    assert (made["texts"], made["context"], made["max_new_tokens"], made["longest_prompt"]) == (2, 128, 8, 120)
    assert made["impression_tokens"]["max"] == 8
    assert made["impressions_that_fit"] == 1.0
    assert sum(made["histogram"].values()) == 2
    words = count(tiny_base, str(source))
    assert "2 texts for" in words.stdout
    assert "2,000 should" in words.stderr  # a base of 128 tokens serves nobody
    for row in ("no json", "[1]", json.dumps({"impression": "x"})):
        refused = count(tiny_base, str(write(tmp_path / "bad.jsonl", {"findings": "脾"}, row)))
        assert isinstance(refused.exception, Invalid)
        assert "Line 2" in refused.exception.message
    assert isinstance(count(tiny_base, str(tmp_path / "none")).exception, NotFound)


def test_stored_reports_are_counted(
    tiny_base: Path, database: Any, database_url: str, home: Path, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"HOME": home, "DATABASE_URL": database_url, "BROKER_URL": broker_url}.items():
        monkeypatch.setenv(f"VALUER_{name}", str(value))
    assert said(count(tiny_base, "--json"))["texts"] == 0
    with transaction(database) as session:
        institution(session)
        for number, findings in enumerate(["右肺上叶结节影。", "肝右叶囊性低密度影。", "脾不大。"]):
            session.add(
                Report(
                    id=new_id(),
                    institution="north",
                    source_id=f"r-{number}",
                    status=ReportStatus.FINAL,
                    content_hash=f"{number}",
                    findings_hash=f"{number}",
                    findings_raw=findings,
                    impression_raw="脾大。",
                    findings=findings,
                    impression="脾大。",
                    cleaning_version="1",
                    split="train",
                )
            )
    assert Settings().home == home
    made = said(count(tiny_base, "--json"))
    assert (made["texts"], made["findings_characters"]["max"], made["impression_tokens"]["p50"]) == (3, 10, 4)
    assert said(count(tiny_base, "--json", "--count", "2"))["texts"] == 2


def test_two_thousand_characters_of_findings_fit_the_demo_base_by_default(base_model_cache: Path) -> None:
    from transformers import AutoTokenizer

    settings = WorkerSettings()
    findings = ("右肺上叶尖段见实性小结节，长径约6mm，边界清。双侧胸腔未见积液。" * 80)[:2000]
    longest = settings.max_input_tokens
    assert len(encode(AutoTokenizer.from_pretrained(base_model_cache), findings)) + 300 < longest
    # Llama-2 needs 1.66 to 1.78 tokens per Chinese character and holds 4,096 together; 300 is more than a prompt's own words take
    assert longest >= 2000 * 1.78 + 300
    assert longest + settings.max_new_tokens <= 4096


def test_the_papers_decoding_writes_up_to_512_tokens_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert WorkerSettings().max_new_tokens == 128
    monkeypatch.setenv("VALUER_DECODING", "paper")
    assert WorkerSettings().max_new_tokens == 512
    monkeypatch.setenv("VALUER_MAX_NEW_TOKENS", "200")
    assert WorkerSettings().max_new_tokens == 200
