"""Asking the gate and acting on its answer: what is compared with what, and what is written down. The rules are `training.gate`'s.

A version is judged by its evaluation as exactly what would serve: the artefact's files are hashed again, and their evaluation must be of
these files, in this form of the weights, with this decoding.
"""

from collections.abc import Sequence
from typing import Any

from sqlmodel import Session, col, select

from core import institutions, registry
from core.errors import Conflict, Refused
from core.serving import Serving
from core.tables import Evaluation, Institution, RegressionCase
from training import evaluations, gate
from training.gate import Finding, Pairs, Policy, Verdict
from training.measured import Measured

BASELINES = ("copy", "nearest")
"""What a first version must be better than."""
_FLOORS = {"floor_rl": "core_rl", "floor_fact_f1": "fact_f1"}


def ask(
    session: Session,
    version: str,
    institution: str,
    serving: Serving,
    *,
    reason: str | None = None,
    policy: Policy = Policy(),
) -> Verdict:
    """Whether `version` may serve `institution` (`*`: everybody without their own).

    Raises:
        NotFound: there is no such version.
        Broken: its files are not what its manifest says.
        Conflict: it serves there already, or its files were removed.
    """
    row = registry.get(session, version)
    registry.require_usable(row)
    active = registry.pointers(session).get(institution) or registry.pointers(session).get(registry.EVERYONE)
    if active is not None and active.id == version:
        raise Conflict(f"{version} serves there already.", code="serves_already")
    found = evaluations.newest(session, f"{evaluations.MODEL}{version}", digest=serving.artefact(row.manifest))
    if found is None:
        says = f"It was not evaluated as it would serve ({serving.weights}, {serving.decoding}): run `valuer evaluate run {version}`."
        return Verdict((Finding("evaluated", False, says),))
    candidate = _of(evaluations.cases(session, found.id), institution)
    covered = set() if active is None else _covered(active.manifest)
    known = [one for one in candidate if _known(one, covered)]
    new = [one for one in candidate if not _known(one, covered)]
    findings = [
        Finding(
            "evaluated",
            True,
            f"Evaluated as it would serve on {len(candidate)} reports.",
            {"evaluation": str(found.id)},
        )
    ]
    if active is not None and known:
        findings += _against_active(session, active.id, found, known, serving, policy, reason)
    if active is not None and 0 < len(new) < policy.least:
        says = f"{len(new)} reports of examinations that {active.id} never saw are too few to judge: keep those in the shadow stage."
        findings.append(Finding("first", True, says, {"n": len(new)}))
    elif new or active is None:
        findings += _first(session, found, new, policy)
    findings += _asked_for(session, candidate, new, policy)
    findings += _regressions(session, found, institution)
    return Verdict(tuple(findings))


def promote(
    session: Session,
    version: str,
    institution: str,
    serving: Serving,
    actor: str,
    *,
    reason: str | None = None,
    force: bool = False,
    policy: Policy = Policy(),
) -> tuple[Verdict, str | None]:
    """Asks the gate and moves the pointer if it passes, or if `force` overrides it; else records that the version was held.

    One transaction, the caller's. Returns the verdict and the version that served before.

    Raises:
        Refused: `force` without a reason.
    """
    if force and not (reason or "").strip():
        raise Refused("Overriding the gate needs a --reason; it is kept for ever.", code="no_reason")
    registry.hold_still(session, institution)
    verdict = ask(session, version, institution, serving, reason=reason, policy=policy)
    if not verdict.passed and not force:
        registry.held(session, version, actor, institution, gate=verdict.as_json(), reason=reason)
        return verdict, None
    record = {**verdict.as_json(), "forced": force and not verdict.passed}
    return verdict, registry.promote(session, version, actor, institution, gate=record, reason=reason)


def passes(pinned: RegressionCase, drafted: Measured | None) -> bool:
    """Whether a candidate's draft of a pinned case makes the mistake no more."""
    if drafted is None or drafted.withheld:
        return False
    kinds = {kind for found in drafted.issues.values() for kind in found}
    fact_f1 = drafted.scores["fact_f1"]
    return not kinds & set(pinned.forbids) and (fact_f1 is None or fact_f1 >= pinned.fact_floor)


def _against_active(
    session: Session,
    active: str,
    found: Evaluation,
    candidate: Sequence[Measured],
    serving: Serving,
    policy: Policy,
    reason: str | None,
) -> tuple[Finding, ...]:
    row = registry.get(session, active)
    theirs = evaluations.newest(
        session,
        f"{evaluations.MODEL}{active}",
        dataset=found.dataset,
        digest=serving.artefact(row.manifest),
        scorer=found.scorer,
    )
    command = f"`valuer evaluate run {active} --dataset {found.dataset}`"
    if theirs is None:
        says = f"{active}, which serves now, was not evaluated on the same reports by today's scorer: run {command}."
        return (Finding("compared", False, says),)
    pairs = Pairs.of(candidate, evaluations.cases(session, theirs.id))
    if len(pairs) < len(candidate):
        says = f"{active} was evaluated on {len(pairs)} of the {len(candidate)} reports only: run {command} on as many."
        return (Finding("compared", False, says),)
    return gate.against_active(pairs, policy, reason=reason)


def _first(session: Session, found: Evaluation, new: Sequence[Measured], policy: Policy) -> list[Finding]:
    findings: list[Finding] = []
    for name in BASELINES:
        theirs = evaluations.newest(
            session, f"{evaluations.BASELINE}{name}", dataset=found.dataset, scorer=found.scorer
        )
        if theirs is None:
            says = f"It would be the first model there, and the baseline {name} was not measured on the same reports: run `valuer evaluate run`."
            findings.append(Finding("first", False, says))
            continue
        pairs = Pairs.of(new, evaluations.cases(session, theirs.id))
        if len(pairs) < len(new):
            says = f"The baseline {name} was measured on {len(pairs)} of the {len(new)} reports only: run `valuer evaluate run`."
            findings.append(Finding("first", False, says))
            continue
        findings += gate.against_baseline(name, pairs, policy)
    return findings


def _asked_for(
    session: Session, candidate: Sequence[Measured], new: Sequence[Measured], policy: Policy
) -> list[Finding]:
    """The floors and budgets of the departments whose reports are among the cases; a floor also in each cell where it would be the first."""
    findings: list[Finding] = []
    for code in sorted({one.institution for one in candidate}):
        if session.get(Institution, code) is None:
            continue
        wanted = institutions.profile(session, code).gate
        mine = [one for one in candidate if one.institution == code]
        first = gate.cells([one for one in new if one.institution == code], policy)
        for key in sorted(_FLOORS.keys() & wanted.keys()):
            for where, reports in ((code, mine), *first):
                findings.append(gate.floor(_FLOORS[key], wanted[key], where, reports))
        if "p95_s" in wanted:
            findings.append(gate.speed(wanted["p95_s"], mine, code))
    return findings


def _regressions(session: Session, found: Evaluation, institution: str) -> list[Finding]:
    pinned = [
        row
        for row in session.exec(select(RegressionCase).where(col(RegressionCase.retired_at).is_(None)))
        if institution in (registry.EVERYONE, row.institution)
    ]
    if not pinned:
        return []
    drafted = evaluations.regressions(session, found.id)
    failed = [str(row.id) for row in pinned if not passes(row, drafted.get(row.id))]
    says = f"pinned regression cases: {len(pinned) - len(failed)} of {len(pinned)} pass."
    return [Finding("regression", not failed, says, {"failed": failed})]


def _of(measured: Sequence[Measured], institution: str) -> list[Measured]:
    return [one for one in measured if institution in (registry.EVERYONE, one.institution)]


def _covered(manifest: dict[str, Any]) -> set[tuple[str, str]]:
    return {(entry["modality"], entry["system"]) for entry in manifest["scope"]}


def _known(one: Measured, covered: set[tuple[str, str]]) -> bool:
    """The version that serves has seen such examinations."""
    return all((one.modality, system) in covered for system in one.systems or ("unknown",))
