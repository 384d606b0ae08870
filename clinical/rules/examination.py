"""Whether an impression belongs to this examination: an earlier one that is not on record, the patient's sex, region and modality."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from clinical.context import Context
from clinical.issues import Issue, Kind, Severity
from clinical.lexicon import structures
from clinical.measures import DATE

_PRIOR = re.compile(
    r"(?P<claim>较(?:前|既往|上次|旧|老|原|(?:19|20)\d{2}[-./年\d月日 ]{0,12})(?:片|次|日)?[^,。;\n]{0,6}"
    r"(?:增大|增多|缩小|减少|吸收|好转|进展|加重|减轻|变化|明显|相仿|增|减|消散|扩大|新)"
    r"|新(?:发|出现|显示|增)(?!性脑梗|鲜)|(?:病灶|范围)?(?:明显)?(?:吸收|增多|进展)好转)"
    r"|(?P<compare>较(?:前|既往|旧片|原片|上次|(?:19|20)\d{2})|与(?:前|旧|上次|既往|原|老)片?[^,。;\n]{0,8}(?:比较|对比|相比|相仿)"
    r"|对比(?:前|旧|老|既往|上次)|结合(?:前|旧|老|原)片|(?:大致|基本)?(?:同前|如前|相仿)(?!后)|前片|旧片|老片|复查(?=[,;。\n]|$))"
    r"|(?P<english>compared (?:with|to)|interval (?:increase|decrease|change)|unchanged|new since|previously|par rapport à|stable depuis)",
    re.IGNORECASE,
)
_EARLIER = re.compile(
    r"previous|prior (?:exam|study|ct|mri)|comparison|comparatif|comparaison|antérieur|précédent|stab(?:le|ilit)|persist",
    re.IGNORECASE,
)
_LATER = re.compile(r"(?:建议|请|后|月|定期|随诊|随访|治疗后|短期|必要时|天|周|年|临床|\x00)[^,;。\n]{0,4}复查$|^复查$")


def prior(context: Context) -> Iterator[Issue]:
    """A comparison with an earlier examination that neither the findings nor a stored prior speak of."""
    if context.pair.prior or _PRIOR.search(context.findings.text) or _EARLIER.search(context.findings.text):
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
    "chest": {"chest"},
    "abdomen": {"abdomen"},
    "musculoskeletal": {"spine", "limb"},
    "head": {"head"},
    "maxillofacial_neck": {"neck"},
}
_ANYWHERE = frozenset({"artery", "node", "soft"})
_IN_PASSING = frozenset({"limb", "spine", "artery", "soft", "chest/vessel", "limb/muscle"})
_BETWEEN = frozenset({"chest/airway", "chest/mediastinum/oesophagus"})  # of the neck as well
_IN_VIEW = 2  # a region named no oftener, and only as normal, was not what was examined
_VESSELS = {
    "artery/aorta/ascending": "chest",
    "artery/aorta/arch": "chest",
    "artery/aorta/descending": "chest",
    "artery/aorta/abdominal": "abdomen",
    "artery/visceral": "abdomen",
    "artery/renal": "abdomen",
    "artery/iliac": "abdomen",
}


def _region(path: str) -> str:
    return _VESSELS.get(path, path.partition("/")[0])


_MODALITY_WORDS = {
    "CT": re.compile(
        r"(?:t[12]wi|dwi|flair|adc|swi)(?![a-z])|[高低等]信号|弥散受限|mri?(?:平扫|增强)(?:示|未见)", re.IGNORECASE
    ),
    "MR": re.compile(r"ct值|hu(?![a-z])|[高低等]密度|ct(?:平扫|增强)(?:示|未见)", re.IGNORECASE),
    "XR": re.compile(r"(?:t[12]wi|dwi|flair|adc)(?![a-z])|[高低等]信号|ct值|弥散受限|强化", re.IGNORECASE),
}


def body_part(context: Context) -> Iterator[Issue]:
    """A region or a modality that belongs neither to the examination nor to the findings."""
    seen = Counter(_region(place.path) for place, _ in context.findings.places if place.path not in _IN_PASSING)
    allowed = {region for region, times in seen.items() if times > _IN_VIEW} | _ANYWHERE
    allowed |= {_region(p.path) for f in context.findings.facts if f.polarity for p in f.places}
    for system in context.pair.systems:
        allowed |= _REGIONS.get(system, set())
    if context.chinese and (context.findings.places or context.pair.systems):
        for fact, behind in context.matching.behind:
            outside = (
                []
                if behind
                else [
                    place for place in fact.places if place.path not in _BETWEEN and _region(place.path) not in allowed
                ]
            )
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
