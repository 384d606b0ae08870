"""Prompt → generate → check → ladder. Pure over an Engine: no database, no queue; evaluation and serving call the same function.

Each rung of the ladder is one generation, kept whether it passed or not. A generation passes when no check withholds it; one with red issues
gets one more try and the candidate with fewer reds is taken. What is not good enough is not repaired: then there is no draft.
"""

import time
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, replace
from typing import Literal

from clinical.case import ClinicalInput
from clinical.checks import check
from clinical.department import SHIPPED, Words
from clinical.issues import Issue, Kind, Pair, Severity
from clinical.style import Style
from core.errors import DeadlinePassed, InputTooLong
from core.states import Reason
from worker import prompt as prompts
from worker.engine.protocol import Engine, Generation, Job, Options

Decoding = Literal["clinical", "paper"]

LADDERS: dict[str, tuple[Options, ...]] = {
    "clinical": (
        Options(temperature=0.0),
        Options(temperature=0.3, top_p=0.9),
        Options(temperature=0.6, top_p=0.95),
    ),
    # Algorithm 3 of the paper: temperature 1.0, top-k 50, top-p 1.0, on every try.
    "paper": (Options(temperature=1.0, top_k=50),) * 3,
}
"""Options of each rung. `clinical` begins greedy and gets warmer; an extra try for a red issue uses the next rung's options."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One generation and what the checks said of it."""

    number: int
    generation: Generation
    text: str
    issues: tuple[Issue, ...]

    @property
    def passed(self) -> bool:
        """Nothing withholds it."""
        return all(issue.severity is not Severity.WITHHOLD for issue in self.issues)

    @property
    def is_degenerate(self) -> bool:
        """Empty, a loop, or cut: what a broken model writes rather than a wrong one."""
        kinds = {issue.kind for issue in self.issues if issue.severity is Severity.WITHHOLD}
        return self.generation.finish == "looped" or bool(kinds & {Kind.NULL, Kind.REPETITION})

    @property
    def reds(self) -> int:
        """How many red issues it has."""
        return sum(issue.severity is Severity.RED for issue in self.issues)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a case: the chosen rung, or the reason why there is none; and every rung that was tried."""

    chosen: Rung | None
    reason: Reason | None
    rungs: tuple[Rung, ...]
    prompt_version: str


class Interrupted(Exception):
    """The generation was cancelled from outside: the lease was lost, the adapter is being swapped or the worker stops."""

    def __init__(self, rungs: tuple[Rung, ...]) -> None:
        super().__init__("cancelled")
        self.rungs = rungs


def _await(engine: Engine, job: Job, future: Future[Generation], until: float) -> Generation:
    try:
        return future.result(timeout=max(0.0, until - time.monotonic()))
    except FutureTimeout:
        engine.cancel(job.id)
        raise DeadlinePassed("The generation did not finish within its deadline.") from None


def draft(
    engine: Engine,
    case: ClinicalInput,
    *,
    raw_findings: str | None = None,
    template: str,
    decoding: Decoding = "clinical",
    max_new_tokens: int,
    deadline_s: float,
    job_id: str,
    seed: int = 0,
    known: Sequence[str] = (),
    style: Style = Style(),
    words: Words = SHIPPED,
    extra_for_red: bool = True,
) -> Outcome:
    """Drafts the impression of `case`; blocks for at most `deadline_s` seconds.

    `raw_findings` is the stored text that issue spans point into (the case's findings when None); `known` holds the record's own identifiers,
    which no draft may show; `style` and `words` are the institution's.

    Raises:
        Interrupted: a generation was cancelled from outside.
        DeadlinePassed: the time is over.
        EngineRestarting: the engine died under it.
    """
    until = time.monotonic() + deadline_s
    rendered = prompts.render(template, case)
    version = prompts.version(template)
    ladder = LADDERS[decoding]
    rungs: list[Rung] = []
    passed: list[Rung] = []
    for number, step in enumerate((*ladder, ladder[-1])):
        if number == len(ladder) and not passed:
            break  # the extra try is for a red issue only
        options = replace(step, max_new_tokens=max_new_tokens, seed=seed + number)
        job = Job(f"{job_id}/{number}", rendered.text, options)
        try:
            generation = _await(engine, job, engine.submit(job), until)
        except InputTooLong:
            return Outcome(None, Reason.TOO_LONG, tuple(rungs), version)
        if generation.finish == "cancelled":
            raise Interrupted(tuple(rungs))
        text = style.apply(generation.text.strip(), case.language)
        pair = Pair(
            findings=raw_findings if raw_findings is not None else case.findings,
            impression=text,
            sex=case.sex,
            modality=case.modality,
            systems=tuple(case.systems),
            prior=case.prior_impression,
            language=case.language,
            finish=generation.finish,
            prompt=rendered.system + rendered.instruction,
            known=tuple(known),
            words=words,
        )
        rung = Rung(number, generation, text, check(pair))
        rungs.append(rung)
        if rung.passed:
            passed.append(rung)
            if rung.reds == 0 or not extra_for_red or len(passed) == 2:
                break
    if not passed:
        return Outcome(None, Reason.CHECKS_FAILED, tuple(rungs), version)
    return Outcome(min(passed, key=lambda rung: (rung.reds, rung.number)), None, tuple(rungs), version)
