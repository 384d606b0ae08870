"""What the engines promise, on a tiny random Llama in fp32: the same text, every future resolved, nothing that takes others down."""

import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from core.errors import Broken, Conflict, EngineRestarting, InputTooLong, OutOfMemory
from tests.engine.conftest import LIMITS, TURN, AdapterMaker, tiny_llama, tiny_tokenizer
from worker.engine.batched import Batched
from worker.engine.cb import ContinuousBatching
from worker.engine.protocol import Generation, Health, Job, Options
from worker.engine.resident import Resident
from worker.engine.static import Static

PROMPTS = ["右肺上叶结节影", "左肺下叶未见积液、心包积液。", "肝囊性低密度影12mm", "颈椎C4/5椎间盘突出", "脾"]
WAIT = 120
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"  # peft asks transformers for it
)


def results(engine: Resident, options: list[Options]) -> list[Generation]:
    """All prompts in flight at once, in order."""
    jobs = [
        Job(f"job-{number}", prompt, each) for number, (prompt, each) in enumerate(zip(PROMPTS, options, strict=True))
    ]
    futures = [engine.submit(job) for job in jobs]
    return [future.result(WAIT) for future in futures]


def reference(tokens: list[int], length: int, ends: tuple[int, ...] = (1,)) -> list[int]:
    """Greedy continuation, one full forward pass per token: no cache, no batch, no generation code."""
    model, start = tiny_llama(len(tiny_tokenizer())), len(tokens)
    with torch.no_grad():
        while len(tokens) < start + length and (len(tokens) == start or tokens[-1] not in ends):
            tokens = [*tokens, int(model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax())]
    return tokens[start:]


def test_greedy_text_is_that_of_the_bare_model_whatever_shares_the_batch(tiny_engine: Resident) -> None:
    tokenizer = tiny_tokenizer()
    for prompt, got in zip(PROMPTS, results(tiny_engine, [Options(max_new_tokens=12)] * 5), strict=True):
        expected = reference([0, *tokenizer.convert_tokens_to_ids(list(prompt))], 12)
        assert got.text == tokenizer.decode(expected, skip_special_tokens=True)
        assert (got.prompt_tokens, got.new_tokens) == (1 + len(prompt), len(expected))
        assert got.finish == ("stop" if expected[-1] == 1 else "length")


def test_every_engine_draws_the_same_text_from_the_same_seed(tiny_base: Path) -> None:
    options = [Options(temperature=0.8, top_k=20, top_p=0.9, max_new_tokens=16, seed=seed) for seed in (1, 1, 2, 3, 4)]
    drawn = []
    for kind in (Batched, ContinuousBatching, Static):
        tokenizer = tiny_tokenizer()
        engine = kind(tiny_llama(len(tokenizer)), tokenizer, LIMITS, base=tiny_base)
        drawn.append([(got.text, got.finish) for got in results(engine, options)])
        engine.drain(5)
    assert drawn[0] == drawn[1] == drawn[2]
    assert len(set(drawn[0])) == 5


def test_greedy_and_sampled_rows_share_a_batch_without_touching_each_other(tiny_engine: Resident) -> None:
    greedy, hot = Options(max_new_tokens=12), Options(temperature=1.5, max_new_tokens=12, seed=5)
    alone = results(tiny_engine, [greedy] * 5)
    mixed = results(tiny_engine, [greedy, hot, greedy, hot, greedy])
    assert [mixed[row].text for row in (0, 2, 4)] == [alone[row].text for row in (0, 2, 4)]
    assert [mixed[row].text for row in (1, 3)] != [alone[row].text for row in (1, 3)]


def test_the_mean_log_probability_is_the_models_own_also_when_sampled(tiny_engine: Resident) -> None:
    model, tokenizer = tiny_llama(len(tiny_tokenizer())), tiny_tokenizer()
    for temperature in (0.0, 0.9):
        job = Job(f"at {temperature}", PROMPTS[1], Options(temperature=temperature, top_k=8, max_new_tokens=6, seed=3))
        got = tiny_engine.submit(job).result(WAIT)
        prompt = [0, *tokenizer.convert_tokens_to_ids(list(PROMPTS[1]))]
        written = [*tokenizer.convert_tokens_to_ids(list(got.text)), *([1] if got.finish == "stop" else [])]
        assert len(written) == got.new_tokens
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + written])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        own = logits.gather(1, torch.tensor(written)[:, None]).mean().item()
        assert got.mean_logprob is not None
        assert math.isclose(got.mean_logprob, own, abs_tol=1e-3)


def test_each_job_has_its_own_cap(tiny_engine: Resident) -> None:
    got = results(tiny_engine, [Options(max_new_tokens=cap) for cap in (1, 2, 3, 5, 8)])
    assert all(one.new_tokens <= cap for one, cap in zip(got, (1, 2, 3, 5, 8), strict=True))
    assert got[0].finish == "length"


def test_more_jobs_than_places_all_end(tiny_engine: Resident) -> None:
    jobs = [Job(str(number), PROMPTS[number % 5], Options(max_new_tokens=4 + number % 7)) for number in range(40)]
    ended = [future.result(WAIT) for future in [tiny_engine.submit(job) for job in jobs]]
    assert all(one.finish in ("stop", "length", "looped") for one in ended)
    assert tiny_engine.health().in_flight == 0


def test_jobs_that_together_outgrow_the_cache_start_over_and_end_right(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.engine.cb.TYPICAL_TOKENS", 1)  # room for two of the longest jobs; here come four
    long = ["".join((PROMPTS * 10)[number : number + 7])[:50] for number in range(4)]
    tokenizer = tiny_tokenizer()
    engine = ContinuousBatching(tiny_llama(len(tokenizer)), tokenizer, LIMITS, base=tiny_base)
    gate = Gate(engine)
    gate.open()
    futures = [engine.submit(Job(str(n), prompt, Options(max_new_tokens=77))) for n, prompt in enumerate(long)]
    ended = [future.result(WAIT) for future in futures]
    engine.drain(5)
    for prompt, got in zip(long, ended, strict=True):
        expected = reference([0, *tokenizer.convert_tokens_to_ids(list(prompt))], got.new_tokens, ends=())
        assert got.text == tokenizer.decode(expected, skip_special_tokens=True)
        assert got.finish in ("length", "looped")


def test_a_prompt_that_does_not_fit_is_refused_and_the_others_go_on(tiny_engine: Resident) -> None:
    first = tiny_engine.submit(Job("first", PROMPTS[0], Options(max_new_tokens=30)))
    with pytest.raises(InputTooLong):
        tiny_engine.submit(Job("long prompt", "肺" * 64, Options(max_new_tokens=1)))
    with pytest.raises(InputTooLong):
        tiny_engine.submit(Job("long together", "肺" * 40, Options(max_new_tokens=100)))
    fitting = tiny_engine.submit(Job("fitting", "肺" * 63, Options(max_new_tokens=64)))
    assert first.result(WAIT).finish != "cancelled"
    assert fitting.result(WAIT).prompt_tokens == 64 == tiny_engine.count("肺" * 63)


class Gate:
    """Lets the model of an engine do a few steps and no more, so that jobs can be caught in flight on a machine of any speed."""

    def __init__(self, engine: Resident) -> None:
        self.engine = engine
        self._steps = threading.Semaphore(0)
        self._open = threading.Event()
        self._handle = engine._model.register_forward_pre_hook(self._wait)
        engine._ends = frozenset({10_000})  # no token ends a text: every job runs to its cap

    def _wait(self, *_: object) -> None:
        while not self._open.is_set() and not self._steps.acquire(timeout=0.01):
            pass

    def until_written(self, *job_ids: str) -> None:
        """Let the model work until each of the jobs has a token, and no further than that."""
        until = time.monotonic() + WAIT
        while not all(map(self._has_written, job_ids)):
            assert time.monotonic() < until
            self._steps.release()
            time.sleep(0.02)

    def _has_written(self, job_id: str) -> bool:
        flight = self.engine._book.find(job_id)
        assert flight is not None
        return bool(flight.tokens)

    def open(self) -> None:
        self._open.set()

    def remove(self) -> None:
        self.open()
        self._handle.remove()


@pytest.fixture
def gate(tiny_engine: Resident) -> Iterator[Gate]:
    """Each engine in turn, its model stopped until the gate lets it work."""
    made = Gate(tiny_engine)
    yield made
    made.remove()


def test_cancel_resolves_at_once_with_the_text_so_far(gate: Gate) -> None:
    engine, options = gate.engine, Options(max_new_tokens=50, temperature=1.0)
    futures = [engine.submit(Job(str(number), PROMPTS[number], options)) for number in range(3)]
    gate.until_written("0", "1", "2")
    engine.cancel("1")
    got = futures[1].result(0)  # while the model stands still
    assert got.finish == "cancelled"
    assert 0 < got.new_tokens < 50
    engine.cancel("1")
    engine.cancel("never heard of")
    again = engine.submit(Job("1", PROMPTS[1], Options(max_new_tokens=3, temperature=1.0)))
    gate.open()
    assert again.result(WAIT).new_tokens == 3
    assert {futures[number].result(WAIT).finish for number in (0, 2)} <= {"length", "looped"}


def test_a_caller_cannot_cancel_the_future_behind_the_engines_back(gate: Gate) -> None:
    future = gate.engine.submit(Job("kept", PROMPTS[0], Options(max_new_tokens=3)))
    assert not future.cancel()
    gate.open()
    assert future.result(WAIT).new_tokens == 3


def test_the_same_id_twice_in_flight_is_a_conflict_and_later_is_not(gate: Gate) -> None:
    engine, options = gate.engine, Options(max_new_tokens=2)
    first = engine.submit(Job("same", PROMPTS[0], options))
    with pytest.raises(Conflict):
        engine.submit(Job("same", PROMPTS[1], options))
    gate.open()
    first.result(WAIT)
    assert engine.submit(Job("same", PROMPTS[1], options)).result(WAIT).prompt_tokens == engine.count(PROMPTS[1])


def test_drain_lets_jobs_end(gate: Gate) -> None:
    jobs = [Job(str(number), PROMPTS[number], Options(max_new_tokens=5, temperature=1.0)) for number in range(3)]
    futures = [gate.engine.submit(job) for job in jobs]
    gate.until_written("0")
    gate.open()
    gate.engine.drain(WAIT)
    assert [future.result(0).new_tokens for future in futures] == [5, 5, 5]
    health = gate.engine.health()
    assert (health.alive, health.fatal, health.in_flight) == (False, None, 0)
    with pytest.raises(EngineRestarting):
        gate.engine.submit(Job("late", PROMPTS[2], Options(max_new_tokens=2)))


def test_drain_cancels_what_does_not_end_in_time(gate: Gate) -> None:
    future = gate.engine.submit(Job("long", PROMPTS[1], Options(max_new_tokens=100, temperature=1.0)))
    gate.until_written("long")
    future.add_done_callback(lambda _: gate.open())  # the model moves again only after the job was given up
    gate.engine.drain(0.1)
    assert future.result(0).finish == "cancelled"
    gate.engine.drain(0)


@pytest.mark.parametrize("kind", [Batched, ContinuousBatching, Static])
def test_when_the_backend_dies_every_future_fails_and_nothing_more_is_taken(
    kind: type[Resident], tiny_base: Path
) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_llama(len(tokenizer))
    tokenizer.add_tokens(["毒"])  # a token that the model has no embedding for
    gate = Gate(kind(model, tokenizer, LIMITS, base=tiny_base))
    innocent = gate.engine.submit(Job("innocent", PROMPTS[0], Options(max_new_tokens=100, temperature=1.0)))
    gate.until_written("innocent")
    poison = gate.engine.submit(Job("poison", "毒", Options(max_new_tokens=2)))
    gate.open()
    with pytest.raises(EngineRestarting):
        poison.result(WAIT)
    if kind is not Batched:  # a plain batch has ended before the next one begins
        with pytest.raises(EngineRestarting):
            innocent.result(WAIT)
    health = gate.engine.health()
    assert (health.alive, health.fatal, health.in_flight) == (False, "IndexError", 0)
    with pytest.raises(EngineRestarting):
        gate.engine.submit(Job("late", PROMPTS[2], Options(max_new_tokens=2)))
    gate.engine.drain(1)


KINDS = [Batched, ContinuousBatching, Static]


class Scarce:
    """Memory that does not suffice for as many forward passes as it is told, the first tokens of which go well."""

    def __init__(self, model: torch.nn.Module, failures: int) -> None:
        self.left, self._passes = failures, 0
        model.register_forward_pre_hook(self._allocate)

    def _allocate(self, *_: object) -> None:
        self._passes += 1
        if self._passes > 3 and self.left:
            self.left, self._passes = self.left - 1, 0
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("kind", KINDS)
def test_out_of_memory_the_jobs_begin_again_with_fewer_at_once_and_their_texts_are_whole(
    kind: type[Resident], tiny_base: Path
) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_llama(len(tokenizer))
    scarce = Scarce(model, 1)
    engine = kind(model, tokenizer, LIMITS, base=tiny_base)
    for prompt, got in zip(PROMPTS, results(engine, [Options(max_new_tokens=12)] * 5), strict=True):
        expected = reference([0, *tokenizer.convert_tokens_to_ids(list(prompt))], 12)
        assert got.text == tokenizer.decode(expected, skip_special_tokens=True)
    assert scarce.left == 0
    assert engine._limits.in_flight == LIMITS.in_flight // 2
    assert engine.health().alive
    engine.swap(None)
    assert engine._limits.in_flight == LIMITS.in_flight  # another version, another try
    engine.drain(5)


@pytest.mark.parametrize("kind", KINDS)
def test_out_of_memory_twice_the_jobs_go_back_and_the_engine_serves_on(kind: type[Resident], tiny_base: Path) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_llama(len(tokenizer))
    Scarce(model, 2)
    engine = kind(model, tokenizer, LIMITS, base=tiny_base)
    engine._ends = frozenset({10_000})  # no token ends a text
    futures = [engine.submit(Job(str(n), prompt, Options(max_new_tokens=20))) for n, prompt in enumerate(PROMPTS[:3])]
    failed = [type(future.exception(WAIT)) for future in futures]
    assert OutOfMemory in failed
    assert set(failed) <= {OutOfMemory, type(None)}  # a plain batch of fewer may have ended before the second time
    assert engine.submit(Job("next", PROMPTS[0], Options(max_new_tokens=2))).result(WAIT).new_tokens == 2
    assert engine.health() == Health(alive=True, fatal=None, in_flight=0)
    engine.drain(5)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_of_the_card_ends_the_engine_and_no_job_hangs(kind: type[Resident], tiny_base: Path) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_llama(len(tokenizer))

    def poisoned(*_: object) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    engine = kind(model, tokenizer, LIMITS, base=tiny_base)
    model.register_forward_pre_hook(poisoned)
    future = engine.submit(Job("job", PROMPTS[0], Options(max_new_tokens=2)))
    with pytest.raises(EngineRestarting):
        future.result(WAIT)
    assert engine.health() == Health(alive=False, fatal="AcceleratorError", in_flight=0)
    engine.drain(1)


def test_an_error_of_the_card_during_a_swap_ends_the_engine(tiny_base: Path, make_adapter: AdapterMaker) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_llama(len(tokenizer))
    engine = ContinuousBatching(model, tokenizer, LIMITS, base=tiny_base)
    golden = {"prompt_tokens": [0, 4, 5], "first_tokens": [9]}

    def poisoned(*_: object) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    model.register_forward_pre_hook(poisoned)
    with pytest.raises(EngineRestarting):
        engine.swap(make_adapter(tiny_base, "next", golden=golden))
    assert engine.health().fatal == "AcceleratorError"
    with pytest.raises(EngineRestarting):
        engine.submit(Job("late", PROMPTS[2], Options(max_new_tokens=2)))
    engine.drain(1)


def test_a_batch_that_nobody_wants_any_more_does_not_end_the_engine(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.engine.batched.GATHER_S", 0.5)
    tokenizer = tiny_tokenizer()
    engine = Batched(tiny_llama(len(tokenizer)), tokenizer, LIMITS, base=tiny_base)
    for number in range(3):
        given_up = engine.submit(Job(f"{number}", PROMPTS[0], Options(max_new_tokens=2)))
        engine.cancel(f"{number}")  # while the engine waits for company
        assert given_up.result(0).finish == "cancelled"
        time.sleep(0.6)
    assert engine.submit(Job("wanted", PROMPTS[0], Options(max_new_tokens=2))).result(WAIT).new_tokens <= 2
    engine.drain(5)


def test_control_tokens_in_the_findings_are_plain_text(tiny_engine: Resident) -> None:
    plain = tiny_engine.count("右肺")
    assert tiny_engine.count(f"右肺{TURN}") == plain + len(TURN)
    assert tiny_engine.count("<eos>右肺<bos>") == plain + 10


def test_a_swap_changes_the_text_and_back_again(
    tiny_engine: Resident, tiny_base: Path, make_adapter: AdapterMaker
) -> None:
    options = [Options(max_new_tokens=10)] * 5
    bare = results(tiny_engine, options)
    tiny_engine.swap(make_adapter(tiny_base, "first"))
    first = results(tiny_engine, options)
    tiny_engine.swap(make_adapter(tiny_base, "second", seed=1, rank=8))
    second = results(tiny_engine, options)
    tiny_engine.swap(None)
    texts = [[one.text for one in each] for each in (bare, first, second, results(tiny_engine, options))]
    assert texts[0] == texts[3]
    assert len({tuple(each) for each in texts}) == 3
    assert [bare[0].adapter, first[0].adapter, second[0].adapter, tiny_engine.adapter] == [
        None,
        "first",
        "second",
        None,
    ]


def test_jobs_in_flight_at_a_swap_are_whole_texts_of_one_adapter(
    gate: Gate, tiny_base: Path, make_adapter: AdapterMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.engine.resident.SWAP_GRACE_S", 0.1)
    engine, adapter = gate.engine, make_adapter(tiny_base, "next")
    options = [Options(max_new_tokens=20, temperature=0.5, seed=number) for number in range(5)]
    futures = [engine.submit(Job(f"job-{n}", PROMPTS[n], options[n])) for n in range(5)]
    gate.until_written("job-0")
    threading.Timer(0.5, gate.open).start()  # the swap has stopped waiting and wants the backend to stop
    engine.swap(adapter)
    during = [future.result(WAIT) for future in futures]
    assert {one.adapter for one in during} == {"next"}
    assert [one.text for one in during] == [one.text for one in results(engine, options)]


def test_a_bad_adapter_is_refused_and_the_old_one_goes_on(
    tiny_engine: Resident, tiny_base: Path, make_adapter: AdapterMaker
) -> None:
    options = [Options(max_new_tokens=10)] * 5
    tiny_engine.swap(make_adapter(tiny_base, "good"))
    before = [one.text for one in results(tiny_engine, options)]
    prompt = [0, 4, 5]
    wrong = make_adapter(
        tiny_base, "wrong answer", seed=3, golden={"prompt_tokens": prompt, "first_tokens": [9, 9, 9, 9]}
    )
    cut = make_adapter(tiny_base, "cut")
    with (cut / "adapter_model.safetensors").open("r+b") as file:
        file.truncate(1000)
    for bad in (wrong, cut, cut.parent / "nowhere"):
        with pytest.raises(Broken):
            tiny_engine.swap(bad)
        assert tiny_engine.adapter == "good"
    assert [one.text for one in results(tiny_engine, options)] == before


@pytest.mark.timeout(600)  # a process of its own imports torch first: most of a minute where ten others want the core
@pytest.mark.parametrize("kind", ["Batched", "ContinuousBatching", "Static"])
def test_the_process_ends_after_a_drain(kind: str) -> None:
    module = {"Batched": "batched", "ContinuousBatching": "cb", "Static": "static"}[kind]
    program = f"""
from pathlib import Path
from tests.engine.conftest import LIMITS, tiny_llama, tiny_tokenizer
from worker.engine.{module} import {kind}
from worker.engine.protocol import Job, Options
tokenizer = tiny_tokenizer()
engine = {kind}(tiny_llama(len(tokenizer)), tokenizer, LIMITS, base=Path())
print(engine.submit(Job("only", "右肺", Options(max_new_tokens=3))).result().new_tokens)
engine.submit(Job("unfinished", "右肺", Options(max_new_tokens=90)))
engine.drain(0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    assert 1 <= int(done.stdout) <= 3
