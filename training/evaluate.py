"""Evaluation through the serving path: `worker.draft` over an engine, scored by `clinical.score` like a sign-off.

What is measured is what is served. A case without a draft scores 0 and is counted; none is dropped.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import Any

from sqlmodel import Session

from clinical.checks import check
from clinical.department import SHIPPED, Words
from clinical.issues import Issue, Pair
from clinical.score import SCORER_VERSION, Score, score
from clinical.style import Style
from core import institutions, vocabulary
from core.errors import DeadlinePassed
from training.dataset import Case
from training.measured import DEGENERATE, METRICS, Measured
from worker import draft as drafting
from worker.engine.protocol import Engine

DEADLINE_S = 600.0


@dataclass(frozen=True, slots=True)
class House:
    """How an institution writes, and the words that it adds to the checks and the fact score."""

    style: Style = field(default_factory=Style)
    words: Words = SHIPPED


@dataclass(frozen=True, slots=True)
class Judged:
    """One case after drafting; `draft` is empty when there is none, and `outcome` then says why.

    `issues` are of the draft; `degenerate` are kinds of the first generation, before any retry. `seconds` covers every try and the checks.
    """

    case: Case
    draft: str
    outcome: str
    score: Score
    finish: str | None
    new_tokens: int
    seconds: float
    issues: tuple[Issue, ...] = ()
    degenerate: tuple[str, ...] = ()

    def measured(self) -> Measured:
        """What is kept of it."""
        seen = self.case.input
        by_severity: dict[str, set[str]] = {}
        for issue in self.issues:
            by_severity.setdefault(issue.severity.value, set()).add(issue.kind.value)
        return Measured(
            case_id=self.case.id,
            institution=seen.institution,
            modality=str(seen.modality or "OT"),
            systems=tuple(map(str, seen.systems)),
            sex=str(seen.sex or "U"),
            age_band=seen.age_band,
            draft=self.draft,
            outcome=self.outcome,
            scores={name: getattr(self.score, name) for name in METRICS},
            issues={severity: tuple(sorted(kinds)) for severity, kinds in sorted(by_severity.items())},
            degenerate=self.degenerate,
            finish=self.finish,
            new_tokens=self.new_tokens,
            seconds=round(self.seconds, 4),
        )


@dataclass(frozen=True, slots=True)
class Result:
    """What an evaluation found."""

    judged: tuple[Judged, ...]

    def as_json(self) -> dict[str, Any]:
        """Means with counts, overall and by institution, and how the generations ended."""
        return summary([one.measured() for one in self.judged])


def summary(measured: Sequence[Measured]) -> dict[str, Any]:
    """Means with counts, overall and by institution, and how the drafting ended."""
    groups: dict[str, list[Measured]] = {}
    for one in measured:
        groups.setdefault(one.institution, []).append(one)
    return {
        **_means(measured),
        "by_institution": {name: _means(group) for name, group in sorted(groups.items())},
        "outcomes": dict(Counter(one.outcome for one in measured)),
        "scorer": SCORER_VERSION,
    }


def sample(cases: Iterable[Case], count: int) -> list[Case]:
    """At most `count` cases, evenly over the institutions, chosen by the hash of their ids: the same ones every time."""
    queues: dict[str, list[Case]] = {}
    for case in sorted(cases, key=lambda case: sha256(case.id.encode()).digest()):
        queues.setdefault(case.input.institution, []).append(case)
    chosen: list[Case] = []
    while len(chosen) < count and any(queues.values()):
        chosen += [queue.pop(0) for _, queue in sorted(queues.items()) if queue][: count - len(chosen)]
    return chosen


def houses(session: Session, home: Path, cases: Iterable[Case]) -> dict[str, House]:
    """Style and words of every institution among the cases, as serving reads them. Raises NotFound for an institution that is gone."""
    return {
        code: House(Style.of(institutions.profile(session, code).style), vocabulary.of(home, code).words)
        for code in sorted({case.input.institution for case in cases})
    }


def scorer(house: Mapping[str, House]) -> str:
    """The scorer of an evaluation over these institutions: with words of theirs, facts score differently (`clinical.score.version`)."""
    own = sorted((code, each.words.digest) for code, each in house.items() if each.words.digest)
    return f"{SCORER_VERSION}-{sha256(repr(own).encode()).hexdigest()[:8]}" if own else SCORER_VERSION


def judged(
    engine: Engine,
    cases: Sequence[Case],
    *,
    template: str,
    max_new_tokens: int,
    in_flight: int = 8,
    decoding: drafting.Decoding = "clinical",
    house: Mapping[str, House] = MappingProxyType({}),
) -> Iterator[Judged]:
    """Drafts and scores every case, `in_flight` at a time, and yields them in the order of the cases.

    `house` has style and words of each institution, as serving has them (`houses`); one that is not in it gets the text as the model wrote it.
    Whoever stops reading stops the drafting: nothing begins any more, and what has begun is waited for.
    """

    def judge(case: Case) -> Judged:
        began = time.monotonic()
        own = house.get(case.input.institution, House())
        try:
            outcome = drafting.draft(
                engine,
                case.input,
                template=template,
                decoding=decoding,
                max_new_tokens=max_new_tokens,
                deadline_s=DEADLINE_S,
                job_id=case.id,
                style=own.style,
                words=own.words,
            )
        except DeadlinePassed:
            return Judged(case, "", "deadline", _scored(case, "", own), None, 0, DEADLINE_S)
        chosen, rungs = outcome.chosen, outcome.rungs
        first = rungs[0].issues if rungs else ()
        text = "" if chosen is None else chosen.text
        return Judged(
            case,
            text,
            "drafted" if outcome.reason is None else outcome.reason.value,
            _scored(case, text, own),
            rungs[-1].generation.finish if rungs else None,
            sum(rung.generation.new_tokens for rung in rungs),
            time.monotonic() - began,
            () if chosen is None else chosen.issues,
            tuple(sorted({issue.kind.value for issue in first if issue.kind in DEGENERATE})),
        )

    pool = ThreadPoolExecutor(in_flight, thread_name_prefix="evaluate")
    try:
        yield from pool.map(judge, cases)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def evaluate(
    engine: Engine,
    cases: Sequence[Case],
    *,
    template: str,
    max_new_tokens: int,
    in_flight: int = 8,
    decoding: drafting.Decoding = "clinical",
    house: Mapping[str, House] = MappingProxyType({}),
    on_case: Callable[[int], None] = lambda _: None,
) -> Result:
    """Every case of `judged` at once; `on_case` gets the number done, in the order of the cases."""
    done: list[Judged] = []
    for one in judged(
        engine,
        cases,
        template=template,
        max_new_tokens=max_new_tokens,
        in_flight=in_flight,
        decoding=decoding,
        house=house,
    ):
        done.append(one)
        on_case(len(done))
    return Result(tuple(done))


def judge_text(case: Case, text: str, house: House) -> Judged:
    """A text that no engine wrote, put in the house's style, scored and checked like a draft; nothing is withheld."""
    began = time.monotonic()
    styled = house.style.apply(text.strip(), case.input.language)
    issues = check(_pair(case, styled, house))
    degenerate = tuple(sorted({issue.kind.value for issue in issues if issue.kind in DEGENERATE}))
    scored = _scored(case, styled, house)
    return Judged(case, styled, "drafted", scored, None, 0, time.monotonic() - began, issues, degenerate)


def judged_again(case: Case, before: Measured, house: House) -> Judged:
    """An earlier draft of the case, scored and checked by today's rules; how it was drafted stays as it was."""
    issues = check(_pair(case, before.draft, house)) if before.draft else ()
    scored = _scored(case, before.draft, house)
    return Judged(
        case,
        before.draft,
        before.outcome,
        scored,
        before.finish,
        before.new_tokens,
        before.seconds,
        issues,
        before.degenerate,
    )


def _scored(case: Case, draft: str, house: House) -> Score:
    return score(draft, case.signed, language=case.input.language, words=house.words)


def _pair(case: Case, impression: str, house: House) -> Pair:
    seen = case.input
    return Pair(
        findings=seen.findings,
        impression=impression,
        sex=seen.sex,
        modality=seen.modality,
        systems=tuple(seen.systems),
        prior=seen.prior_impression,
        language=seen.language,
        words=house.words,
    )


def _means(group: Sequence[Measured]) -> dict[str, Any]:
    if not group:
        return {"reports": 0}

    def mean(metric: str) -> float | None:
        values = [value for one in group if (value := one.scores[metric]) is not None]
        return round(fmean(values), 4) if values else None

    return {
        "reports": len(group),
        **{metric: mean(metric) for metric in ("r1", "r2", "rl", "core_rl", "fact_f1")},
        "seconds": round(fmean(one.seconds for one in group), 3),
    }
