"""The engine on another server: the same text as the model here, every future resolved whatever the server does, findings to allowed hosts only."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import Broken, Conflict, EngineRestarting, InputTooLong, Retryable
from core.settings import WorkerSettings
from tests.engine.completions_server import Behaviour, serving
from tests.engine.conftest import LIMITS, TURN, AdapterMaker, tiny_tokenizer
from tests.engine.test_engines import PROMPTS, WAIT, reference
from worker.engine.open import open_engine
from worker.engine.openai import OpenAI, Server
from worker.engine.protocol import Job, Options


@pytest.fixture
def behaviour() -> Behaviour:
    return Behaviour()


@pytest.fixture
def address(behaviour: Behaviour) -> Iterator[str]:
    with serving(behaviour) as url:
        yield url


@pytest.fixture
def engine(address: str, tiny_base: Path) -> Iterator[OpenAI]:
    opened = OpenAI(Server(address, "base"), tiny_tokenizer(), LIMITS, base=tiny_base)
    yield opened
    opened.drain(5)


def until(fact: threading.Event) -> None:
    assert fact.wait(WAIT)


def test_greedy_text_is_that_of_the_model_and_everything_about_it_is_told(engine: OpenAI) -> None:
    tokenizer = tiny_tokenizer()
    jobs = [Job(str(number), prompt, Options(max_new_tokens=12)) for number, prompt in enumerate(PROMPTS)]
    for prompt, got in zip(PROMPTS, [each.result(WAIT) for each in [engine.submit(job) for job in jobs]], strict=True):
        expected = reference([0, *tokenizer.convert_tokens_to_ids(list(prompt))], 12)
        assert got.text == tokenizer.decode(expected, skip_special_tokens=True)
        assert (got.prompt_tokens, got.new_tokens) == (1 + len(prompt), len(expected))
        assert got.finish == ("stop" if expected[-1] == 1 else "length")
        assert got.mean_logprob is not None
        assert got.mean_logprob < 0
        assert got.adapter is None
    assert engine.health().in_flight == 0


def test_a_seed_fixes_the_text_and_options_reach_the_server(engine: OpenAI, behaviour: Behaviour) -> None:
    behaviour.ends = ()

    def drawn(number: int, seed: int) -> str:
        options = Options(temperature=1.2, top_k=30, top_p=0.95, max_new_tokens=12, seed=seed)
        return engine.submit(Job(f"{number}", PROMPTS[0], options)).result(WAIT).text

    assert drawn(0, 7) == drawn(1, 7) != drawn(2, 8)
    sent = behaviour.seen[0]
    assert (sent["temperature"], sent["top_k"], sent["top_p"], sent["seed"], sent["max_tokens"]) == (
        1.2,
        30,
        0.95,
        7,
        12,
    )


def test_control_tokens_in_the_findings_reach_the_server_as_text(engine: OpenAI, behaviour: Behaviour) -> None:
    engine.submit(Job("odd", f"右肺{TURN}<eos>", Options(max_new_tokens=1))).result(WAIT)
    sent = behaviour.seen[0]["prompt"]
    assert all(isinstance(token, int) for token in sent)
    assert not {1, 3} & set(sent)
    assert len(sent) == engine.count(f"右肺{TURN}<eos>") == 1 + 2 + len(TURN) + len("<eos>")


def test_what_does_not_fit_never_reaches_the_server(engine: OpenAI, behaviour: Behaviour) -> None:
    with pytest.raises(InputTooLong):
        engine.submit(Job("long", "肺" * 64, Options(max_new_tokens=1)))
    with pytest.raises(InputTooLong):
        engine.submit(Job("long together", "肺" * 40, Options(max_new_tokens=100)))
    assert behaviour.seen == []


def test_a_loop_is_stopped_while_it_streams_and_the_server_may_stop_too(engine: OpenAI, behaviour: Behaviour) -> None:
    behaviour.loop, behaviour.ends, behaviour.pause_s = "右肺上叶结节。", (), 0.01
    got = engine.submit(Job("loop", PROMPTS[0], Options(max_new_tokens=100))).result(WAIT)
    assert got.finish == "looped"
    assert got.new_tokens < 40
    until(behaviour.gave_up)


def test_cancel_resolves_at_once_and_closes_the_stream(engine: OpenAI, behaviour: Behaviour) -> None:
    behaviour.ends, behaviour.pause_s = (), 0.01
    future = engine.submit(Job("given up", PROMPTS[1], Options(max_new_tokens=100, temperature=1.0)))
    deadline = time.monotonic() + WAIT
    while not (flight := engine._book.find("given up")) or not flight.text:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(Conflict):
        engine.submit(Job("given up", PROMPTS[1], Options(max_new_tokens=2)))
    assert not future.cancel()
    engine.cancel("given up")
    assert future.result(0).finish == "cancelled"
    assert future.result(0).text
    engine.cancel("given up")
    until(behaviour.gave_up)


@pytest.mark.parametrize(
    ("harm", "error", "code"),
    [
        ({"status": 500}, EngineRestarting, "engine_restarting"),
        ({"status": 503}, EngineRestarting, "engine_restarting"),
        ({"status": 400}, Retryable, "engine_refused"),
        ({"status": 429}, Retryable, "engine_refused"),
        ({"cut_after": 3}, Retryable, "engine_refused"),
        ({"finish": "abort"}, Retryable, "engine_refused"),
    ],
)
def test_a_job_that_the_server_fails_goes_back_and_the_error_holds_no_text(
    engine: OpenAI, behaviour: Behaviour, harm: dict[str, object], error: type[Retryable], code: str
) -> None:
    for name, value in harm.items():
        setattr(behaviour, name, value)
    behaviour.ends = ()
    with pytest.raises(error) as caught:
        engine.submit(Job("failed", PROMPTS[0], Options(max_new_tokens=8))).result(WAIT)
    assert caught.value.code == code
    assert PROMPTS[0] not in str(caught.value)
    assert "in full" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert engine.health().in_flight == 0


def test_a_server_that_went_away_fails_the_job_and_the_next_one_is_served_when_it_is_back(
    tiny_base: Path, behaviour: Behaviour
) -> None:
    with serving(behaviour) as address:
        engine = OpenAI(Server(address, "base"), tiny_tokenizer(), LIMITS, base=tiny_base)
    with pytest.raises(EngineRestarting):
        engine.submit(Job("nobody there", PROMPTS[0], Options(max_new_tokens=2))).result(WAIT)
    assert engine.health().alive
    engine.drain(0)
    with pytest.raises(EngineRestarting):
        engine.submit(Job("late", PROMPTS[0], Options(max_new_tokens=2)))


def test_drain_lets_jobs_end_and_cancels_what_does_not(engine: OpenAI, behaviour: Behaviour) -> None:
    behaviour.ends = ()
    short = engine.submit(Job("short", PROMPTS[0], Options(max_new_tokens=3, temperature=1.0)))
    engine.drain(WAIT)
    assert short.result(0).new_tokens == 3
    assert not engine.health().alive
    engine.drain(0)


def test_a_key_is_sent_and_a_wrong_one_is_a_server_that_refuses(
    address: str, behaviour: Behaviour, tiny_base: Path
) -> None:
    behaviour.key = "right"
    OpenAI(Server(address, "base", key="right"), tiny_tokenizer(), LIMITS, base=tiny_base).drain(0)
    with pytest.raises(Retryable, match="401"):
        OpenAI(Server(address, "base", key="wrong"), tiny_tokenizer(), LIMITS, base=tiny_base)


@pytest.mark.parametrize(
    "url", ["http://models.example:8000", "https://10.0.0.5", "ftp://localhost", "localhost:8000", ""]
)
def test_findings_go_to_loopback_and_listed_hosts_only(url: str, tiny_base: Path) -> None:
    with pytest.raises(Broken, match="VALUER_ENGINE_"):
        OpenAI(Server(url, "base", hosts=("other.example",)), tiny_tokenizer(), LIMITS, base=tiny_base)
    Server("https://other.example/models", "base", hosts=("other.example",)).require_allowed()


def test_a_version_serves_when_the_server_offers_it_and_answers_its_golden_prompt(
    engine: OpenAI, behaviour: Behaviour, tiny_base: Path, make_adapter: AdapterMaker
) -> None:
    prompt = [0, 5, 6, 7, 8]
    first = reference(prompt, 4)
    good = make_adapter(tiny_base, "good", golden={"prompt_tokens": prompt, "first_tokens": first})
    wrong = make_adapter(tiny_base, "wrong", golden={"prompt_tokens": prompt, "first_tokens": [9, 9, 9, 9]})
    with pytest.raises(Broken, match="does not offer good"):
        engine.swap(good)
    behaviour.models += ["good", "wrong"]
    engine.swap(good)
    got = engine.submit(Job("under it", PROMPTS[0], Options(max_new_tokens=2))).result(WAIT)
    assert (got.adapter, engine.adapter, behaviour.seen[-1]["model"]) == ("good", "good", "good")
    with pytest.raises(Broken, match="golden prompt"):
        engine.swap(wrong)
    (good / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(Broken, match="truncated"):
        engine.swap(good)
    assert engine.adapter == "good"
    engine.swap(None)
    assert engine.submit(Job("bare", PROMPTS[0], Options(max_new_tokens=2))).result(WAIT).adapter is None


def test_the_settings_open_it(address: str, tiny_base: Path, home: Path) -> None:
    settings = WorkerSettings(home=home, engine="openai", engine_url=address, max_input_tokens=64, max_new_tokens=8)
    engine = open_engine(settings, tiny_base, None)
    assert engine.submit(Job("one", PROMPTS[0], Options(max_new_tokens=4))).result(WAIT).new_tokens <= 4
    engine.drain(1)
    with pytest.raises(Broken, match="needs VALUER_ENGINE_URL"):
        open_engine(WorkerSettings(home=home, engine="openai"), tiny_base, None)
    with pytest.raises(Broken, match="does not offer other"):
        open_engine(settings.model_copy(update={"engine_model": "other"}), tiny_base, None)
