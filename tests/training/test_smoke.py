"""Smoke training as a hospital does it: its own signed reports, a queued run, the worker, and the evaluation through the code that serves.

The hospital is the sandbox's seventh, whose style nothing shipped was trained on; its short chest reports, so that it takes minutes on two
cores. The rows of the bare base and of the shipped adapter on the same reports are printed beside its own (`pytest -s`).
"""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from admin import demo_adapter, rounds
from core import registry
from core.db import transaction
from core.settings import WorkerSettings
from core.states import RunState
from sandbox.generator import report
from tests import builders
from training import dataset, evaluate, runs
from training.dataset import Case
from training.policy import Policy
from training.profiles import SMOKE
from training.runs import Options
from training.service import Trainer
from worker.engine.open import open_engine

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)  # peft asks transformers for it
STYLE = {
    "numbering": "{n}）",
    "separator": "。",
    "sides": ["左", "右"],
    "discs": "{latin}{upper}～{latin_lower}{lower}",
}
"""How house 7 writes, as its institution file would say it."""
SHORT = 80
"""Characters of findings."""
HELD_OUT = 40
BARE = 8
"""Held-out reports that the bare base drafts too: it rambles, and each takes it long."""


def short_chest_reports(count: int, *, held_out: bool, besides: frozenset[str] = frozenset()) -> list[Case]:
    """That many usable reports of house 7 with findings that are all different, and none of them `besides`."""
    found: dict[str, Case] = {}
    index = 0
    while len(found) < count:
        for modality in ("CT", "XR"):
            made = report(7, "chest", modality, "FM"[index % 2], seed=0, index=index, held_out=held_out)  # type: ignore[arg-type]
            if demo_adapter.teaches(made) and len(made.findings) <= SHORT:
                case = demo_adapter.case(made)
                if case.input.findings not in besides:
                    found.setdefault(case.input.findings, case)
        index += 1
    return list(found.values())[:count]


@pytest.fixture
def environment(database_url: str, base_model_cache: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the child process of a run reads: this test's database and home, and the real demo base."""
    (home / "models").mkdir()
    (home / "models" / "base-demo").symlink_to(base_model_cache)
    for name, value in {
        "DATABASE_URL": database_url,
        "BROKER_URL": "redis://127.0.0.1:1",
        "HOME": str(home),
        "TRAINING_DEVICE": "cpu",
        "DEVICE": "cpu",
        "MAX_NEW_TOKENS": "64",
    }.items():
        monkeypatch.setenv(f"VALUER_{name}", value)


def drafted(database: sa.Engine, home: Path, base: Path, adapter: Path | None, cases: list[Case]) -> dict[str, Any]:
    """The cases through the engine that serves, with that adapter or bare."""
    settings = WorkerSettings()
    with transaction(database) as session:
        house = evaluate.houses(session, home, cases)
    engine = open_engine(settings, base, adapter)
    try:
        return evaluate.evaluate(
            engine,
            cases,
            template=SMOKE.template,
            max_new_tokens=settings.max_new_tokens,
            in_flight=settings.in_flight,
            house=house,
        ).as_json()
    finally:
        engine.drain(1.0)


@pytest.mark.timeout(2400)
@pytest.mark.usefixtures("environment")
def test_forty_steps_on_a_house_that_nothing_shipped_has_seen_lift_the_bare_base_from_below_30_to_60(
    database: sa.Engine, home: Path, base_model_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taught = short_chest_reports(SMOKE.batch * (SMOKE.steps or 0), held_out=False)
    tested = short_chest_reports(HELD_OUT, held_out=True, besides=frozenset(case.input.findings for case in taught))
    with transaction(database) as session:
        builders.institution(session, "sandbox-7", role="train", sandbox=True, style=STYLE)
        data = dataset.freeze(session, home, Policy(), dataset.Plan(tuple(taught), tuple(tested)))
        run = runs.start(session, "smoke", Options(dataset=data.id, evaluate=len(tested)), "user:boss")

    assert Trainer(database).take_one()

    with transaction(database) as session:
        ended = runs.get(session, run.id)
        assert (ended.state, ended.error) == (RunState.DONE, None)
        trained = registry.get(session, ended.model_version or "").manifest
    rows = {
        "bare base": drafted(database, home, base_model_cache, None, tested[:BARE]),
        "shipped demo-1": drafted(database, home, base_model_cache, rounds.MODEL, tested),
        f"{trained['training']['steps']} steps of smoke": trained["metrics"],
    }
    with capsys.disabled():
        print()  # noqa: T201 - the rows are to be seen
        for name, row in rows.items():
            print(  # noqa: T201
                f"{name:20s} ROUGE-1 {row['r1']:.3f}  ROUGE-2 {row['r2']:.3f}  ROUGE-L {row['rl']:.3f}  "
                f"fact F1 {row['fact_f1']:.3f}  on {row['reports']} reports"
            )
    assert rows["bare base"]["r1"] <= 0.3
    assert trained["metrics"]["r1"] >= 0.6
    assert trained["metrics"]["reports"] == HELD_OUT
