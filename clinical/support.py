"""Whether an impression stays within its findings and leaves nothing that matters out: prior, sex, region, support, omission.

The rules that compare one finding with the same finding are in `clinical.faithful`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from clinical.compare import same_place
from clinical.context import Context
from clinical.facts import Fact
from clinical.faithful import GENERAL, TELLING_SIGNS, overlap, stated_in
from clinical.issues import Issue, Kind, Severity
from clinical.lexicon import Critical, criticals, inside, same_finding, sign_of, structures
from clinical.measures import DATE

# --- prior, sex, region ------------------------------------------------------------------------------------------------

_PRIOR = re.compile(
    r"(?P<claim>较(?:前|既往|上次|旧|老|原)(?:片|次|日)?[^,。;\n]{0,6}(?:增大|增多|缩小|减少|吸收|好转|进展|加重|减轻|变化|明显|相仿|增|减|消散|扩大|新)|新(?:发|出现|显示|增)(?!性脑梗|鲜)|(?:病灶|范围)?(?:明显)?(?:吸收|增多|进展)好转)"
    r"|(?P<compare>较(?:前|既往|旧片|原片|上次)|与(?:前|旧|上次|既往|原|老)片?[^,。;\n]{0,8}(?:比较|对比|相比|相仿)|对比(?:前|旧|老|既往|上次)|结合(?:前|旧|老|原)片|(?:大致|基本)?(?:同前|如前|相仿)(?!后)|前片|旧片|老片|复查(?=[,;。\n]|$))"
    r"|(?P<english>compared (?:with|to)|interval (?:increase|decrease|change)|unchanged|new since|previously|par rapport à|stable depuis)",
    re.IGNORECASE,
)
_LATER = re.compile(r"(?:建议|请|后|月|定期|随诊|随访|治疗后|短期|必要时|天|周|年|临床|\x00)[^,;。\n]{0,4}复查$|^复查$")


def prior(context: Context) -> Iterator[Issue]:
    """A comparison with an earlier examination that neither the findings nor a stored prior speak of."""
    if context.pair.prior or _PRIOR.search(context.findings.text):
        return
    reading = context.impression
    for statement in reading.statements:
        for match in _PRIOR.finditer(reading.text, statement.start, statement.end):
            if match[0] == "复查" and (
                statement.advice
                or _LATER.search(reading.masked[statement.start : match.end()])
                or statement.start == match.start()
            ):
                continue
            dated = DATE.search(reading.text, statement.start, statement.end) is not None
            severity = Severity.RED if match["claim"] or dated else Severity.AMBER
            span = reading.span(match.start(), match.end())
            quoted = reading.quote(span)
            message = context.say(
                f"意见与既往检查比较（“{quoted}”），所见和记录中没有既往检查",
                f"“{quoted}” compares with an earlier examination that is not on record",
            )
            yield Issue(Kind.PRIOR, severity, None, span, message, "prior.absent")
            break


def sex_organ(context: Context) -> Iterator[Issue]:
    """An organ that the patient does not have."""
    known = structures()
    sex = context.pair.sex if context.pair.sex in ("F", "M") else None
    from_findings = {known[p.path].sex for p, _ in context.findings.places} - {None}
    if sex is None and len(from_findings) == 1:
        sex = next(iter(from_findings))
    if sex is None:
        return
    for place, _ in context.impression.places:
        wrong = known[place.path].sex
        if wrong is None or wrong == sex:
            continue
        span = context.impression.span(place.start, place.end)
        other = next((p for p, _ in context.findings.places if known[p.path].sex == wrong), None)
        span_findings = None if other is None else context.findings.span(other.start, other.end)
        quoted = context.impression.quote(span)
        if other is None:
            message = context.say(
                f"患者为{'女' if sex == 'F' else '男'}性，意见写“{quoted}”",
                f"“{quoted}” does not fit the patient's sex",
            )
        else:
            message = context.say(
                f"登记性别与所见、意见中的“{quoted}”不符，请核对登记",
                f"The recorded sex does not fit “{quoted}”; check the record",
            )
        yield Issue(
            Kind.SEX_ORGAN,
            Severity.RED,
            span_findings,
            span,
            message,
            "sex_organ.record" if other else "sex_organ.draft",
        )
        return


_REGIONS = {
    "chest": {"chest", "artery", "node"},
    "abdomen": {"abdomen", "artery", "node"},
    "musculoskeletal": {"spine", "limb", "node"},
    "head": {"head", "neck", "artery"},
    "maxillofacial_neck": {"neck", "head", "artery", "node"},
}
_ANYWHERE = frozenset({"artery", "node", "soft"})
_MODALITY_WORDS = {
    "CT": re.compile(
        r"(?:t[12]wi|dwi|flair|adc|swi)(?![a-z])|[高低等]信号|弥散受限|mri?(?:平扫|增强)(?:示|未见)", re.IGNORECASE
    ),
    "MR": re.compile(r"ct值|hu(?![a-z])|[高低等]密度|ct(?:平扫|增强)(?:示|未见)", re.IGNORECASE),
    "XR": re.compile(r"(?:t[12]wi|dwi|flair|adc)(?![a-z])|[高低等]信号|ct值|弥散受限|强化", re.IGNORECASE),
}


def body_part(context: Context) -> Iterator[Issue]:
    """A region or a modality that belongs neither to the examination nor to the findings."""
    allowed = set(context.findings.regions) | _ANYWHERE
    for system in context.pair.systems:
        allowed |= _REGIONS.get(system, set())
    if context.findings.regions or context.pair.systems:
        for fact in stated_in(context.impression):
            outside = [place for place in fact.places if place.path.split("/")[0] not in allowed]
            if outside and len(outside) == len(fact.places):
                span = context.impression.span(outside[0].start, outside[0].end)
                quoted = context.impression.quote(span)
                message = context.say(
                    f"“{quoted}”不在本次检查部位和所见之内", f"“{quoted}” is outside this examination and its findings"
                )
                yield Issue(Kind.BODY_PART, Severity.AMBER, None, span, message, "body_part.region")
                return
    pattern = _MODALITY_WORDS.get(context.pair.modality or "")
    reading = context.impression
    if pattern is not None:
        for statement in reading.statements:
            match = None if statement.advice else pattern.search(reading.text, statement.start, statement.end)
            if match is not None and match[0].lower() not in context.findings.lower:
                span = reading.span(match.start(), match.end())
                quoted = reading.quote(span)
                message = context.say(
                    f"“{quoted}”不是{context.pair.modality}检查的用语", f"“{quoted}” is not a term of this modality"
                )
                yield Issue(Kind.BODY_PART, Severity.AMBER, None, span, message, "body_part.modality")
                return


# --- support and omission ----------------------------------------------------------------------------------------------


def supports(finding: Fact, stated: Fact) -> bool:
    """Whether a finding can be what a statement of the impression rests on."""
    if not finding.polarity or not overlap(finding, stated):
        return False
    return (
        same_finding(finding.lesion, stated.lesion)
        or sign_of(finding.lesion, stated.lesion)
        or sign_of(stated.lesion, finding.lesion)
    )


def unsupported(context: Context) -> Iterator[Issue]:
    """A positive statement for which the findings have neither the place nor a finding of its class."""
    theirs = [fact for fact in stated_in(context.findings) if fact.polarity]
    mine = [fact for fact in stated_in(context.impression) if fact.polarity]
    # a clause is one statement: 海绵状血管瘤可能 with one of its words supported is supported
    settled = {fact.clause for fact in mine if any(supports(f, fact) for f in theirs)}
    for fact in mine:
        if fact.lesion in GENERAL or fact.clause in settled:
            continue
        if not fact.places and fact.severity <= 1:
            continue
        settled.add(fact.clause)
        here = context.impression.quote(fact.clause)
        message = context.say(f"所见中没有支持“{here}”的内容", f"Nothing in the findings supports “{here}”")
        yield Issue(Kind.UNSUPPORTED, Severity.AMBER, None, fact.clause, message, "unsupported.fact")


def omitted(context: Context) -> Iterator[Issue]:
    """A positive finding that no statement of the impression covers, amber when it is one that matters."""
    stated = [fact for fact in stated_in(context.impression) if fact.polarity]
    told: list[Fact] = []
    covered = {_where(fact) for fact in stated_in(context.findings) if any(supports(fact, d) for d in stated)}
    for fact in stated_in(context.findings):
        if not fact.polarity or fact.certainty < 2 or (fact.severity == 0 and fact.lesion not in TELLING_SIGNS):
            continue
        if any(other.lesion == fact.lesion and same_place(other, fact) for other in told):
            continue
        if any(supports(fact, d) or (same_place(fact, d) and same_finding(fact.lesion, d.lesion)) for d in stated):
            continue
        if fact.severity == 0 and _where(fact) in covered:
            continue  # one lesion is described by several signs; one of them covered, all are
        told.append(fact)
        severity = Severity.AMBER if fact.severity >= 3 or fact.severity == 0 else Severity.INFO
        there = context.findings.quote(fact.clause)
        message = context.say(f"所见“{there}”没有写入意见", f"“{there}” of the findings is not in the impression")
        yield Issue(Kind.OMITTED, severity, fact.clause, None, message, "omitted.finding")


def _where(fact: Fact) -> frozenset[tuple[str, frozenset[str]]]:
    return frozenset((place.path, place.sides) for place in fact.places)


def critical(context: Context) -> Iterator[Issue]:
    """Each critical finding of the findings: info when the impression has it, red when it does not."""
    stated = [fact for fact in stated_in(context.impression) if fact.polarity]
    for entry in criticals():
        evidence = next((fact for fact in context.findings.facts if _is_evidence(context, entry, fact)), None)
        if evidence is None:
            continue
        cover = next((d for d in stated if d.lesion in entry.cover and same_place(d, evidence)), None)
        there = context.findings.quote(evidence.clause)
        if cover is None:
            message = context.say(
                f"危急征象“{there}”（{entry.name}）没有写入意见", f"Critical finding not in the impression: “{there}”"
            )
            yield Issue(Kind.CRITICAL, Severity.RED, evidence.clause, None, message, f"critical.{entry.id}")
        else:
            message = context.say(f"危急征象：{entry.name}（“{there}”）", f"Critical finding: “{there}”")
            yield Issue(Kind.CRITICAL, Severity.INFO, evidence.clause, cover.span, message, f"critical.{entry.id}")


def _is_evidence(context: Context, entry: Critical, fact: Fact) -> bool:
    if not fact.polarity or fact.certainty < 2:
        return False
    wanted = [path for lesion, path in entry.evidence if lesion == fact.lesion]
    if not any(not path or any(inside(place.path, path) for place in fact.places) for path in wanted):
        return False
    clause = context.findings.raw[fact.clause[0] : fact.clause[1]]
    return not any(word in clause for word in entry.excuses)
