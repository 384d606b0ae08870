"""Evaluation through the serving path: `worker.draft` over an engine, scored by `clinical.score` like a sign-off.

What is measured is what is served. A case without a draft scores 0 and is counted; none is dropped.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from statistics import fmean
from types import MappingProxyType
from typing import Any

from sqlmodel import Session

from clinical.score import SCORER_VERSION, Score, score
from clinical.style import Style
from core import institutions
from core.errors import DeadlinePassed
from training.dataset import Case
from worker import draft as drafting
from worker.engine.protocol import Engine

DEADLINE_S = 600.0


@dataclass(frozen=True, slots=True)
class Judged:
    """One case after drafting; `draft` is empty when there is none, and `outcome` then says why."""

    case: Case
    draft: str
    outcome: str
    score: Score
    finish: str | None
    new_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Result:
    """What an evaluation found."""

    judged: tuple[Judged, ...]

    def as_json(self) -> dict[str, Any]:
        """Means with counts, overall and by institution, and how the generations ended."""
        groups: dict[str, list[Judged]] = {}
        for one in self.judged:
            groups.setdefault(one.case.input.institution, []).append(one)
        return {
            **_means(self.judged),
            "by_institution": {name: _means(group) for name, group in sorted(groups.items())},
            "outcomes": dict(Counter(one.outcome for one in self.judged)),
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


def styles(session: Session, cases: Iterable[Case]) -> dict[str, Style]:
    """The house style of every institution among the cases, as serving reads it. Raises NotFound for an institution that is gone."""
    houses = {case.input.institution for case in cases}
    return {code: Style.of(institutions.profile(session, code).style) for code in sorted(houses)}


def evaluate(
    engine: Engine,
    cases: Sequence[Case],
    *,
    template: str,
    max_new_tokens: int,
    in_flight: int = 8,
    decoding: drafting.Decoding = "clinical",
    house: Mapping[str, Style] = MappingProxyType({}),
    on_case: Callable[[int], None] = lambda _: None,
) -> Result:
    """Drafts and scores every case, `in_flight` at a time; `on_case` gets the number done, in the order of the cases.

    `house` has the style of each institution, which serving puts on (`styles`); one that is not in it gets the text as the model wrote it.
    """

    def judge(case: Case) -> Judged:
        try:
            outcome = drafting.draft(
                engine,
                case.input,
                template=template,
                decoding=decoding,
                max_new_tokens=max_new_tokens,
                deadline_s=DEADLINE_S,
                job_id=case.id,
                style=house.get(case.input.institution, Style()),
            )
        except DeadlinePassed:
            return Judged(case, "", "deadline", score("", case.signed), None, 0, DEADLINE_S)
        text = "" if outcome.chosen is None else outcome.chosen.text
        last = outcome.rungs[-1].generation if outcome.rungs else None
        return Judged(
            case,
            text,
            "drafted" if outcome.reason is None else outcome.reason.value,
            score(text, case.signed, language=case.input.language),
            None if last is None else last.finish,
            sum(rung.generation.new_tokens for rung in outcome.rungs),
            sum(rung.generation.seconds for rung in outcome.rungs),
        )

    judged: list[Judged] = []
    with ThreadPoolExecutor(in_flight, thread_name_prefix="evaluate") as pool:
        for one in pool.map(judge, cases):
            judged.append(one)
            on_case(len(judged))
    return Result(tuple(judged))


def _means(group: Sequence[Judged]) -> dict[str, Any]:
    if not group:
        return {"reports": 0}
    facts = [one.score.fact_f1 for one in group if one.score.fact_f1 is not None]
    return {
        "reports": len(group),
        "r1": round(fmean(one.score.r1 for one in group), 4),
        "r2": round(fmean(one.score.r2 for one in group), 4),
        "rl": round(fmean(one.score.rl for one in group), 4),
        "fact_f1": round(fmean(facts), 4) if facts else None,
        "seconds": round(fmean(one.seconds for one in group), 3),
    }
