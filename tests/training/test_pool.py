"""The model pool: what runs, what is skipped and why; tiny random models of its architectures and a real chat server through the same evaluation."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from clinical.case import ClinicalInput, Modality, System
from core.errors import Broken, Invalid
from core.settings import WorkerSettings
from tests.training.test_evaluate import case
from training import pool
from training.chat import Chat, holds_identity
from training.evaluate import evaluate
from training.published import of_model, published
from training.turns import Turns
from worker.engine.open import open_engine
from worker.engine.protocol import Job, Options

TINY = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 2048,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def test_the_pool_has_the_papers_fifteen_rows_with_every_criterion_and_its_published_values(tmp_path: Path) -> None:
    rows = pool.rows(tmp_path)
    papers = {each.model for each in published()}
    assert len(published()) == 720
    assert papers == {row.name for row in rows if row.paper_seconds is not None}
    assert len(papers) == 15
    assert all(set(row.criteria) == set(pool.CRITERIA) and row.licence for row in rows)
    assert of_model("ChatRadio-Valuer")[("by_institution", "institution 1", "rl")] > 0.4


def test_a_departments_own_file_says_where_a_model_is_and_adds_rows(tmp_path: Path) -> None:
    (tmp_path / "pool.toml").write_text('[[row]]\nname = "Qwen3-8B"\npath = "/srv/qwen3"\n', "utf-8")
    changed = {row.name: row for row in pool.rows(tmp_path)}["Qwen3-8B"]
    assert (changed.path, changed.architecture) == ("/srv/qwen3", "qwen3")
    (tmp_path / "pool.toml").write_text('[[row]]\nname = "Mine"\n', "utf-8")
    with pytest.raises(Invalid, match="the row Mine lacks architecture, kind"):
        pool.rows(tmp_path)
    (tmp_path / "pool.toml").write_text('[[row]]\nname = "Mine"\ncolour = "red"\n', "utf-8")
    with pytest.raises(Invalid, match="a row has colour"):
        pool.rows(tmp_path)


def test_what_cannot_run_says_why_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POOL_KEY", raising=False)
    (tmp_path / "pool.toml").write_text(
        '[[row]]\nname = "GPT-4"\nurl = "https://api.example"\nkey_env = "POOL_KEY"\n'
        f'[[row]]\nname = "Llama2-7B"\npath = "{tmp_path}"\n',
        "utf-8",
    )
    rows = {row.name: row for row in pool.rows(tmp_path)}

    def why(name: str, **given: Any) -> str | None:
        options = {"offered": {"v1"}, "active": "v1", "leave_network": False, **given}
        return pool.skipped(rows[name], **options)

    assert "api.example is outside of this machine: --leave-network" in (why("GPT-4") or "")
    assert "POOL_KEY" in (why("GPT-4", leave_network=True) or "")
    assert "no server is named" in (why("GPT-3.5-Turbo", leave_network=True) or "")
    assert "hub cache" in (why("Tigerbot-7B-chat-v3") or "")
    assert "train one" in (why("Llama2-7B-ft") or "")
    assert why("ChatRadio-Valuer") is None
    assert why("ChatRadio-Valuer", offered=set()) == "there is no model version v1 here"
    assert why("Llama2-7B") is None
    assert rows["Chinese-Falcon-7B"].exercised == "falcon is exercised with a tiny random model"
    assert rows["ChatGLM2-ft"].exercised.endswith("this model is not")


def made(architecture: str) -> Any:
    import transformers

    names = {"llama": "Llama", "falcon": "Falcon", "glm4": "Glm4", "qwen3": "Qwen3", "gemma3": "Gemma3"}
    kind = names[architecture] + ("Text" if architecture == "gemma3" else "")
    options = dict(TINY)
    if architecture == "falcon":
        options = {name: value for name, value in TINY.items() if name not in ("head_dim", "num_key_value_heads")}
    if architecture == "glm4":
        options["partial_rotary_factor"] = 0.5
    torch.manual_seed(5)
    model_kind = f"{names[architecture]}ForCausalLM"
    return getattr(transformers, model_kind)(getattr(transformers, f"{kind}Config")(**options)).to(torch.bfloat16)


@pytest.mark.parametrize("architecture", pool.EXERCISED)
def test_a_tiny_model_of_each_architecture_runs_through_the_evaluation(
    architecture: str, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    folder = tmp_path / architecture
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(folder)
    made(architecture).save_pretrained(folder)
    monkeypatch.setenv("VALUER_HOME", str(tmp_path))
    settings = WorkerSettings(engine="generate", device="cpu", torch_threads=1, max_new_tokens=8, in_flight=2)
    engine = open_engine(settings, folder, None)
    try:
        told = evaluate(
            engine, [case(1, "左侧胸腔积液。"), case(2, "左侧胸腔积液。")], template="brief", max_new_tokens=8
        )
    finally:
        engine.drain(1.0)
    assert told.as_json()["reports"] == 2
    assert all(one.new_tokens > 0 for one in told.judged)


def test_a_turn_wraps_the_prompt_in_the_models_own_template_and_keeps_control_tokens_in_it_plain(
    tiny_base: Path,
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.chat_template = "<bos>user {{ messages[0]['content'] }}<eos>"
    turns = Turns(tokenizer)
    ids = turns("a<eos>b", add_special_tokens=True, split_special_tokens=True)["input_ids"]
    assert (ids[0], ids[-1]) == (1, 2)
    assert ids.count(2) == 1
    assert tokenizer.decode(ids) == "<bos>user a<eos>b<eos>"
    assert turns.eos_token_id == tokenizer.eos_token_id


class _Server(BaseHTTPRequestHandler):
    """Answers chats; keeps what it was asked."""

    asked: list[dict[str, Any]] = []  # noqa: RUF012 - one server a test
    answer: Callable[[dict[str, Any]], str] = staticmethod(lambda _: "左侧胸腔积液。")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append({**body, "path": self.path, "key": self.headers.get("Authorization")})
        if "坏" in body["messages"][0]["content"]:
            self.send_error(500)
            return
        told = {
            "choices": [{"message": {"content": self.answer(body)}, "finish_reason": "stop"}],
            "usage": {"completion_tokens": 9},
        }
        data = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def chat_server() -> Iterator[str]:
    _Server.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_chat_server_drafts_like_any_engine(chat_server: str) -> None:
    engine = Chat(chat_server, "gpt-4", key="secret", in_flight=2, leaves=False)
    try:
        told = evaluate(
            engine, [case(1, "左侧胸腔积液。"), case(2, "左侧胸腔积液。")], template="brief", max_new_tokens=64
        )
    finally:
        engine.drain(1.0)
    assert round(told.as_json()["r1"], 3) == 1.0
    [first, _] = _Server.asked
    assert (first["path"], first["model"], first["key"]) == ("/v1/chat/completions", "gpt-4", "Bearer secret")
    assert (first["max_tokens"], first["temperature"]) == (64, 0.0)
    assert "左侧胸腔见弧形水样影" in first["messages"][0]["content"]


def test_a_server_that_fails_is_named_without_repeating_what_was_sent(chat_server: str) -> None:
    from core.errors import EngineRestarting
    from training.dataset import Case

    engine = Chat(chat_server, "gpt-4", key=None, in_flight=1, leaves=False)
    bad = Case("bad", ClinicalInput("north", "坏报告", Modality.CT, (System.CHEST,)), "x")
    try:
        with pytest.raises(EngineRestarting) as caught:
            evaluate(engine, [bad], template="brief", max_new_tokens=8)
    finally:
        engine.drain(1.0)
    assert "坏报告" not in str(caught.value)


@pytest.mark.parametrize("field", ["findings", "history", "prior_impression", "exam_title"])
def test_no_prompt_with_an_identity_leaves_this_machine_whichever_field_it_stands_in(
    chat_server: str, field: str
) -> None:
    from dataclasses import replace

    from worker.prompt import TEMPLATES, render

    sound = case(1, "左侧胸腔积液。").input
    canary = replace(sound, **{field: "患者姓名：张三丰，住院号A12345678，电话13800138000。右肺结节。"})
    engine = Chat(chat_server, "gpt-4", key=None, in_flight=1, leaves=True)
    try:
        for template in TEMPLATES:
            assert not holds_identity(render(template, sound).text)
            shown = render(template, canary).text
            assert holds_identity(shown) == ("张三丰" in shown)
            if "张三丰" in shown:
                with pytest.raises(Broken, match="is not sent"):
                    engine.submit(Job("j", shown, Options(8)))
    finally:
        engine.drain(1.0)
    assert _Server.asked == []


def test_a_text_with_an_identity_does_not_leave() -> None:
    assert holds_identity("患者姓名：张三丰，电话13800138000。右肺上叶结节。")
    assert not holds_identity("右肺上叶结节，大小约8mm×6mm。")
