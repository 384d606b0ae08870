"""The engine as a worker opens it, on the real 4-bit demo model."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import Broken, InputTooLong
from core.settings import WorkerSettings
from tests.engine.conftest import AdapterMaker
from worker.engine.open import open_engine
from worker.engine.protocol import Engine, Job, Options

PROMPTS = [
    "影像所见：双侧胸廓对称，气管居中。右肺上叶尖段见实性小结节，长径约6mm，边界清。双侧胸腔未见积液。\n影像诊断：",
    "影像所见：肝右叶见一类圆形低密度影，大小约12mm×10mm，边界清，增强未见强化。胆囊不大，壁不厚。\n影像诊断：",
    "影像所见：颈椎生理曲度变直，C4/5、C5/6椎间盘向后突出，硬膜囊受压。椎体边缘骨质增生。\n影像诊断：",
]
CAP = 200
WAIT = 800
pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"  # peft asks transformers for it
    ),
    pytest.mark.timeout(900),  # the real model, on a machine that may have others to serve
]


@pytest.fixture(scope="module")
def engine(base_model_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The default engine, as its settings open it."""
    settings = WorkerSettings(
        home=tmp_path_factory.mktemp("home"),
        device="cpu",
        in_flight=4,
        stat_threads=0,
        max_input_tokens=512,
        max_new_tokens=CAP,
    )
    opened = open_engine(settings, base_model_cache, None)
    yield opened
    opened.drain(1)


def test_the_bare_model_loops_and_is_stopped_while_it_streams(engine: Engine) -> None:
    jobs = [Job(str(number), prompt, Options(max_new_tokens=CAP)) for number, prompt in enumerate(PROMPTS)]
    ended = [future.result(WAIT) for future in [engine.submit(job) for job in jobs]]
    assert [one.finish for one in ended] == ["looped"] * 3
    assert all(one.new_tokens < CAP for one in ended)
    assert all(one.mean_logprob is not None and -1.0 < one.mean_logprob < 0.0 for one in ended)


def test_what_does_not_fit_is_refused_with_the_limits_of_the_settings(engine: Engine) -> None:
    with pytest.raises(InputTooLong, match="512"):
        engine.submit(Job("long", "右肺上叶结节。" * 200, Options(max_new_tokens=10)))
    with pytest.raises(InputTooLong):
        engine.submit(Job("longer answer", PROMPTS[0], Options(max_new_tokens=512 + CAP)))


def test_a_truncated_adapter_is_refused_and_the_old_one_serves_the_same_text(
    engine: Engine, base_model_cache: Path, make_adapter: AdapterMaker
) -> None:
    def text() -> str:
        return engine.submit(Job("same", PROMPTS[0], Options(max_new_tokens=12))).result(WAIT).text

    bare = text()
    engine.swap(make_adapter(base_model_cache, "good", rank=2))
    good = text()
    assert good != bare
    cut = make_adapter(base_model_cache, "cut", seed=1, rank=2)
    with (cut / "adapter_model.safetensors").open("r+b") as file:
        file.truncate(4096)
    with pytest.raises(Broken, match="truncated"):
        engine.swap(cut)
    assert engine.adapter == "good"
    assert text() == good
    engine.swap(None)
    assert text() == bare


def test_an_engine_does_not_open_on_an_adapter_that_answers_wrongly(
    tiny_base: Path, make_adapter: AdapterMaker, home: Path
) -> None:
    adapter = make_adapter(tiny_base, "odd", golden={"prompt_tokens": [0, 4, 5], "first_tokens": [9, 9, 9, 9]})
    with pytest.raises(Broken, match="golden"):
        open_engine(WorkerSettings(home=home, device="cpu"), tiny_base, adapter)
