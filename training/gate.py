"""The gate before promotion: reasons for and against letting a version serve, from paired evaluations. Pure; `training.promotion` asks it.

The rules and margins are those of the design's learning loop: ROUGE shows change and facts show error, so both are asked, overall and in every
stratum; checks, pinned mistakes and variety have a say of their own. The gate never says that a model is safe: a person promotes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clinical.score import tokens
from training.measured import Measured, groups_of
from training.statistics import Difference, difference

POINT = 100.0
"""Margins and figures are told in points: hundredths of an F1, or reports in a hundred."""

_NAMED = 4
"""How many of the groups that are pooled a sentence names."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Margins in points. `enough` reports make a stratum of their own; smaller ones are pooled, and a pool of fewer than `least` is named
    but not judged. Fewer than `overall` reports altogether decide nothing."""

    enough: int = 200
    least: int = 30
    overall: int = 100
    margin: float = 1.0
    stratum_margin: float = 3.0
    rate_margin: float = 0.5
    better_p: float = 0.05
    variety: float = 0.9


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule's answer, in a sentence with its figures."""

    rule: str
    passed: bool
    says: str
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Every rule's answer; one that did not pass holds the version."""

    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Nothing holds it."""
        return all(finding.passed for finding in self.findings)

    @property
    def held_by(self) -> tuple[Finding, ...]:
        """What holds it."""
        return tuple(finding for finding in self.findings if not finding.passed)

    def as_json(self) -> dict[str, Any]:
        """For the record of promotions."""
        return {
            "verdict": "promote" if self.passed else "hold",
            "findings": [
                {"rule": each.rule, "passed": each.passed, "says": each.says, **each.figures} for each in self.findings
            ],
        }


@dataclass(frozen=True, slots=True)
class Pairs:
    """Two evaluations of the same reports, in the same order."""

    candidate: tuple[Measured, ...]
    reference: tuple[Measured, ...]

    @classmethod
    def of(cls, candidate: Sequence[Measured], reference: Sequence[Measured]) -> "Pairs":
        """The reports that both have."""
        theirs = {one.case_id: one for one in reference}
        both = [one for one in candidate if one.case_id in theirs]
        return cls(tuple(both), tuple(theirs[one.case_id] for one in both))

    def where(self, wanted: Callable[[Measured], bool]) -> "Pairs":
        """Those whose candidate is wanted."""
        kept = [(mine, theirs) for mine, theirs in zip(self.candidate, self.reference, strict=True) if wanted(mine)]
        return Pairs(tuple(mine for mine, _ in kept), tuple(theirs for _, theirs in kept))

    def __len__(self) -> int:
        return len(self.candidate)

    def scores(self, metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Both sides' values in points, of the reports where both have one."""
        values = [
            (mine.scores[metric], theirs.scores[metric])
            for mine, theirs in zip(self.candidate, self.reference, strict=True)
            if mine.scores[metric] is not None and theirs.scores[metric] is not None
        ]
        made = POINT * np.array(values, dtype=np.float64).reshape(-1, 2)
        return made[:, 0], made[:, 1]

    def rate(self, of: Callable[[Measured], bool]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Both sides' 0 or 100 for each report."""
        return (
            POINT * np.array([of(one) for one in self.candidate], dtype=np.float64),
            POINT * np.array([of(one) for one in self.reference], dtype=np.float64),
        )


def against_active(pairs: Pairs, policy: Policy = Policy(), *, reason: str | None = None) -> tuple[Finding, ...]:
    """Candidate against the version that serves; `reason` says why to change to one that is no better."""
    if len(pairs) < policy.overall:
        return (_too_few(len(pairs), policy),)
    return (
        _facts(pairs, policy, reason),
        _no_worse(pairs, "core_rl", "overall", "all reports", policy.margin),
        *_strata(pairs, policy),
        _rate(pairs, "red", "drafts with a red issue", lambda one: one.red, policy),
        _rate(pairs, "withheld", "reports without a draft", lambda one: one.withheld, policy),
        _critical(pairs),
        _variety(pairs, policy),
    )


def against_baseline(name: str, pairs: Pairs, policy: Policy = Policy()) -> tuple[Finding, ...]:
    """A first version against a baseline, in every institution × system × modality that it would draft for: better, not just as good."""
    if len(pairs) < policy.overall:
        return (_too_few(len(pairs), policy),)
    return tuple(
        _better_than(name, part, where, policy)
        for where, part in _parts(pairs, _cell_of, policy, "small cells together")
    )


def cells(reports: Sequence[Measured], policy: Policy = Policy()) -> list[tuple[str, tuple[Measured, ...]]]:
    """The reports by institution × system × modality, small ones pooled; what is too small to be judged is left out."""
    same = Pairs(tuple(reports), tuple(reports))
    parts = _parts(same, _cell_of, policy, "small cells together")
    return [(where, part.candidate) for where, part in parts if len(part) >= policy.least]


def floor(metric: str, least: float, where: str, reports: Sequence[Measured]) -> Finding:
    """The department's own least mean, 0-1."""
    values = [value for one in reports if (value := one.scores[metric]) is not None]
    mean = float(np.mean(values)) if values else 0.0
    says = f"{where}: {metric} is {mean:.3f} over {len(values)} reports; the department asks for at least {least:.3f}."
    return Finding("floor", bool(values) and mean >= least, says, {"mean": mean, "least": least, "n": len(values)})


def speed(p95_s: float, reports: Sequence[Measured], where: str) -> Finding:
    """The department's own budget for the slowest twentieth of drafts, in seconds."""
    found = float(np.quantile([one.seconds for one in reports], 0.95)) if reports else 0.0
    says = f"{where}: 95 of 100 drafts are there within {found:.1f} s; the department asks for {p95_s:.1f} s."
    return Finding("speed", bool(reports) and found <= p95_s, says, {"p95_s": found, "budget_s": p95_s})


def _too_few(count: int, policy: Policy) -> Finding:
    return Finding(
        "reports", False, f"Only {count} reports are compared; at least {policy.overall} are needed.", {"n": count}
    )


def _facts(pairs: Pairs, policy: Policy, reason: str | None) -> Finding:
    mine, theirs = pairs.scores("fact_f1")
    if not len(mine):
        return Finding(
            "facts", False, "No signed text states a fact that the vocabulary knows: facts cannot be compared."
        )
    found = difference(mine, theirs)
    figures = _figures(found)
    told = f"fact F1 {found.mean:+.2f} points over {found.n} reports (lower bound {found.lower:+.2f})"
    if found.p_not_better < policy.better_p:
        return Finding("facts", True, f"Better: {told}.", figures)
    if found.lower < -policy.margin:
        return Finding("facts", False, f"Neither better nor surely no worse than by {policy.margin}: {told}.", figures)
    if reason:
        return Finding("facts", True, f"No worse, and a reason to change is given: {told}.", figures)
    return Finding("facts", False, f"No better: {told}. To change to it all the same, give a --reason.", figures)


def _no_worse(pairs: Pairs, metric: str, rule: str, where: str, margin: float) -> Finding:
    mine, theirs = pairs.scores(metric)
    if not len(mine):
        return Finding(rule, True, f"{where}: no report has {metric}.", {"metric": metric, "n": 0})
    found = difference(mine, theirs)
    says = f"{where}: {metric} {found.mean:+.2f} points over {found.n} reports, lower bound {found.lower:+.2f}; allowed -{margin}."
    return Finding(rule, found.lower >= -margin, says, {"metric": metric, "where": where, **_figures(found)})


def _strata(pairs: Pairs, policy: Policy) -> tuple[Finding, ...]:
    findings: list[Finding] = []
    for by in ("institution", "system", "modality"):
        for where, part in _parts(pairs, _group_of(by), policy, f"small groups by {by} together"):
            if len(part) < policy.least:
                says = f"{where}: {len(part)} reports are too few to judge."
                findings.append(Finding("stratum", True, says, {"where": where, "n": len(part)}))
                continue
            for metric in ("core_rl", "fact_f1"):
                findings.append(_no_worse(part, metric, "stratum", where, policy.stratum_margin))
    return tuple(findings)


def _parts(
    pairs: Pairs, groups: Callable[[Measured], tuple[str, ...]], policy: Policy, rest: str
) -> list[tuple[str, Pairs]]:
    """The strata of their own, and the small ones pooled at the end."""
    sizes: dict[str, int] = {}
    for one in pairs.candidate:
        for group in groups(one):
            sizes[group] = sizes.get(group, 0) + 1
    large = sorted(group for group, size in sizes.items() if size >= policy.enough)
    small = {group for group, size in sizes.items() if size < policy.enough}
    parts = [(group, pairs.where(lambda one, group=group: group in groups(one))) for group in large]  # type: ignore[misc]  # a default binds the loop's value
    if small:
        some = ", ".join(sorted(small)[:_NAMED])
        named = f"{len(small)} {rest} ({some}{', …' if len(small) > _NAMED else ''})"
        parts.append((named, pairs.where(lambda one: bool(small & set(groups(one))))))
    return parts


def _group_of(by: str) -> Callable[[Measured], tuple[str, ...]]:
    return lambda one: groups_of(one, by)


def _cell_of(one: Measured) -> tuple[str, ...]:
    return tuple(f"{one.institution} × {system} × {one.modality}" for system in groups_of(one, "system"))


def _better_than(name: str, pairs: Pairs, where: str, policy: Policy) -> Finding:
    if len(pairs) < policy.least:
        says = f"{where}: {len(pairs)} reports are too few to judge; keep those in the shadow stage."
        return Finding("first", True, says, {"against": name, "where": where, "n": len(pairs)})
    mine, theirs = pairs.scores("core_rl")
    found = difference(mine, theirs)
    says = f"{where}: ROUGE-L {found.mean:+.2f} points against {name} over {found.n} reports, lower bound {found.lower:+.2f}; it must be above 0."
    return Finding("first", found.lower > 0, says, {"against": name, "where": where, **_figures(found)})


def _rate(pairs: Pairs, rule: str, what: str, of: Callable[[Measured], bool], policy: Policy) -> Finding:
    mine, theirs = pairs.rate(of)
    found = difference(mine, theirs)
    says = (
        f"{what}: {mine.mean():.1f} in 100 against {theirs.mean():.1f}, upper bound of the rise {found.upper:+.2f}; "
        f"allowed +{policy.rate_margin}."
    )
    return Finding(rule, found.upper <= policy.rate_margin, says, _figures(found))


def _critical(pairs: Pairs) -> Finding:
    new = [
        mine.case_id
        for mine, theirs in zip(pairs.candidate, pairs.reference, strict=True)
        if mine.missed_critical and not theirs.missed_critical
    ]
    says = f"critical findings newly missed: {len(new)}."
    return Finding("critical", not new, says, {"cases": new[:20]})


def _variety(pairs: Pairs, policy: Policy) -> Finding:
    mine, theirs = (_words(one.draft for one in side) for side in (pairs.candidate, pairs.reference))
    shares = {name: mine[name] / theirs[name] if theirs[name] else 1.0 for name in mine}
    least = min(shares.values())
    told = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
    says = (
        f"variety of the drafts against the version that serves: {told}; at least {100 * policy.variety:.0f} % of each."
    )
    return Finding("variety", least >= policy.variety, says, shares)


def _words(texts: Iterable[str]) -> dict[str, float]:
    """How many different words, and different pairs of neighbouring words, the texts use."""
    words: set[str] = set()
    couples: set[tuple[str, str]] = set()
    for text in texts:
        cut = tokens(text)
        words.update(cut)
        couples.update(pairwise(cut))
    return {"words": float(len(words)), "word pairs": float(len(couples))}


def _figures(found: Difference) -> dict[str, Any]:
    return {
        "n": found.n,
        "difference": round(found.mean, 4),
        "lower": round(found.lower, 4),
        "upper": round(found.upper, 4),
        "p_not_better": round(found.p_not_better, 5),
    }
