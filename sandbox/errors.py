"""Plants one error of a named kind into a correct impression and says where, so that the product's checks can be measured.

Works from the facts of a `PretendReport`, never from the checks' own vocabulary or rules. Reports whose impression cannot be
taken apart into its statements (blemishes, empty impressions, incidental blocks) are left alone: `inject` returns None, as it
does where a report offers no place for the kind. `KINDS` lists what can be planted.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from types import MappingProxyType

from sandbox import draw, write
from sandbox.catalogue import catalogue
from sandbox.facts import SYSTEMS, Fact, PretendReport
from sandbox.houses import HOUSES, House
from sandbox.script import traditional
from sandbox.statements import Parts, Span, Statement
from sandbox.statements import parts as take_apart


@dataclass(frozen=True, slots=True)
class Planted:
    """One error: the edited impression, what was done, and where.

    `span_findings` is where the truth stands in the findings (None: nowhere); `span_impression` is where the error stands in
    `impression` (None: something is missing); `was` and `now` are the texts before and after.
    """

    kind: str
    detail: str
    impression: str
    span_findings: Span | None
    span_impression: Span | None
    was: str
    now: str


class _Injection:
    """One attempt to plant an error into one report."""

    def __init__(self, report: PretendReport, parts: Parts, rng: Random) -> None:
        self.report, self.parts, self.rng = report, parts, rng
        self.house: House = HOUSES[report.house]
        self.comma = "," if self.house.half_width else "，"

    def script(self, text: str) -> str:
        return traditional(text) if self.house.language == "zh-Hant" else text

    def changed(self, kind: str, detail: str, index: int, start: int, end: int, new: str) -> Planted:
        """Replace `[start:end]` of statement `index`."""
        one = self.parts.statements[index]
        words = one.words[:start] + new + one.words[end:]
        edited = [*self.parts.statements]
        edited[index] = Statement(words, one.severity, one.fact)
        text, spans = self.parts.text(tuple(edited))
        at = spans[index][0] + start
        return Planted(kind, detail, text, one.fact.findings_span, (at, at + len(new)), one.words[start:end], new)

    def dropped(self, kind: str, index: int) -> Planted:
        one = self.parts.statements[index]
        left = self.parts.statements[:index] + self.parts.statements[index + 1 :]
        text, _ = self.parts.text(left)
        return Planted(kind, one.fact.kind, text, one.fact.findings_span, None, one.words, "")

    def added(self, kind: str, detail: str, words: str, fact: Fact | None = None) -> Planted:
        """Put a statement behind the major ones."""
        at = sum(one.severity > 1 for one in self.parts.statements)
        new = Statement(words, 2, fact or self.parts.statements[0].fact)
        text, spans = self.parts.text((*self.parts.statements[:at], new, *self.parts.statements[at:]))
        return Planted(kind, detail, text, fact.findings_span if fact else None, spans[at], "", words)

    def whole(self, kind: str, detail: str, text: str, span: Span | None, now: str) -> Planted:
        return Planted(kind, detail, text, None, span, "" if span else self.report.impression, now)

    def picked(self, wanted: Callable[[Statement], bool]) -> int | None:
        fitting = [index for index, one in enumerate(self.parts.statements) if wanted(one)]
        return self.rng.choice(fitting) if fitting else None

    def foreign(self, system: str, accept: Callable[[str, str], bool]) -> tuple[str, str] | None:
        """A statement (type id, words) of `system` about a finding type that `accept`s structure and lesion."""
        rng, report = self.rng, self.report
        told = {fact.kind for fact in report.facts}
        for _ in range(20):
            kind = rng.choice(catalogue(system).types)
            modality = report.modality if report.modality in kind.seen else next(iter(kind.seen))
            if (
                kind.silent
                or kind.id in told
                or kind.sex not in (None, report.sex)
                or not accept(kind.structure, kind.lesion)
            ):
                continue
            exams, _ = draw.exams(system, draw.MODALITY[modality])
            exam = next((exam for exam in exams if set(exam.regions) & set(kind.regions)), None)
            if exam is None:
                continue
            age = min(max(report.age, kind.age[0]), kind.age[1])
            lesion = draw.Drawing(rng.random, self.house, report.sex, age, "seen").lesion(kind, exam, None)
            if lesion:
                return kind.id, self.script(write.conclusion(lesion, write.style(self.house, 0, False)))
        return None


def _sides(house: House) -> list[tuple[str, str, str]]:
    return [*house.sides[:1], *house.short_sides[:1]]


def _side(work: _Injection) -> Planted | None:
    index = work.picked(lambda one: one.fact.side is not None and one.fact.kind not in _SIDE_OF_SHIFT)
    if index is None:
        return None
    one = work.parts.statements[index]
    for words in _sides(work.house):
        left, right, both = map(work.script, words)
        here = {"L": left, "R": right, "B": both}[one.fact.side or "B"]
        at = one.words.find(here)
        if at < 0:
            continue
        if one.fact.side == "B":
            return work.changed("side", "narrowed", index, at, at + len(here), work.rng.choice((left, right)))
        if work.rng.random() < 0.25:
            return work.changed("side", "widened", index, at, at + len(here), both)
        return work.changed("side", "swapped", index, at, at + len(here), right if one.fact.side == "L" else left)
    return None


_SIDE_OF_SHIFT = frozenset({"head-16", "musculoskeletal-06", "maxillofacial_neck-04", "maxillofacial_neck-23"})
"""Types whose side is where something shifts or bends to; their impression does not name it."""


def _sized(work: _Injection) -> int | None:
    return work.picked(lambda one: bool(one.fact.sizes_mm))


def _append_size(
    work: _Injection, kind: str, detail: str, index: int, sizes: tuple[int, ...], unit: str | None = None
) -> Planted:
    one = work.parts.statements[index]
    told = write.size(work.house, sizes)
    if unit:
        told = told.replace(work.house.size.unit.strip(), unit)
    right = work.script(f"{work.comma}约{write.size(work.house, _millimetres(one.fact))}")
    at, end = one.words.find(right), 0
    if at >= 0:
        end = at + len(right)
    else:
        at = end = len(one.words.partition(work.comma)[0])
    return work.changed(kind, detail, index, at, end, work.script(f"{work.comma}约{told}"))


def _millimetres(fact: Fact) -> tuple[int, ...]:
    return tuple(int(value) for value in fact.sizes_mm)


def _measure(work: _Injection) -> Planted | None:
    """Another percentage or volume than the one that the impression repeats."""
    index = work.picked(lambda one: any(f"{value:g}" in one.words for _, value in one.fact.measures))
    if index is None:
        return None
    one = work.parts.statements[index]
    unit, value = one.fact.measures[0]
    wrong = value + work.rng.choice((-20, 20, 30)) if unit == "%" else value + work.rng.choice((7, 15, 40))
    if not 0 < wrong <= (100 if unit == "%" else wrong):
        return None
    at = one.words.find(f"{value:g}")
    return work.changed("number", "measure", index, at, at + len(f"{value:g}"), f"{wrong:g}")


def _number(work: _Injection) -> Planted | None:
    if work.rng.random() < 0.5 and (found := _measure(work)):
        return found
    index = _sized(work)
    if index is None:
        return None
    right = _millimetres(work.parts.statements[index].fact)
    taken = {int(value) for fact in work.report.facts for value in fact.sizes_mm}
    first = right[0]
    digits = str(first)
    wrong = {"times ten": first * 10, "off": first + work.rng.choice((3, 4, 7, 9))}
    if len(digits) == 2 and digits[0] != digits[1] and digits[1] != "0":
        wrong["digits swapped"] = int(digits[::-1])
    detail = work.rng.choice(sorted(name for name, value in wrong.items() if value not in taken) or ["off"])
    if wrong[detail] in taken:
        return None
    return _append_size(work, "number", detail, index, (wrong[detail], *right[1:]))


def _unit(work: _Injection) -> Planted | None:
    index = _sized(work)
    if index is None:
        return None
    unit = work.house.size.unit.strip()
    other = {"mm": "cm", "cm": "mm", "CM": "MM", "毫米": "厘米"}[unit]
    sizes = _millimetres(work.parts.statements[index].fact)
    return _append_size(work, "unit", f"{unit} to {other}", index, sizes, other)


def _negation(work: _Injection) -> Planted | None:
    denied = [fact for fact in work.report.facts if not fact.polarity]
    if denied and work.rng.random() < 0.4:
        fact = work.rng.choice(denied)
        return work.added("negation", "asserted", work.script(_joined(fact.structure, fact.lesion)), fact)
    index = work.picked(lambda one: one.fact.certainty == 4)
    return None if index is None else work.changed("negation", "denied", index, 0, 0, work.script("未见"))


def _joined(structure: str, lesion: str) -> str:
    """膝关节 and 关节积液 make 膝关节积液."""
    shared = next((n for n in range(len(lesion), 0, -1) if structure.endswith(lesion[:n])), 0)
    return structure + lesion[shared:]


def _certainty(work: _Injection) -> Planted | None:
    """Two steps or more, where findings and impression name the same thing."""

    def named_in_both(one: Statement) -> bool:
        span, lesion = one.fact.findings_span, work.script(one.fact.lesion[-2:])
        return one.fact.certainty == 4 and span is not None and lesion in work.report.findings[slice(*span)]

    index = work.picked(named_in_both)
    if index is None:
        return None
    end = len(work.parts.statements[index].words.partition(work.comma)[0])
    return work.changed("certainty", "lowered", index, end, end, work.script(work.rng.choice(("不除外", "待排"))))


_LOBES = ("上叶", "中叶", "下叶")
_NEIGHBOURS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "额叶": ("颞叶", "顶叶"),
        "颞叶": ("枕叶", "额叶"),
        "顶叶": ("额叶", "枕叶"),
        "枕叶": ("顶叶", "颞叶"),
        "上段": ("下段",),
        "中段": ("下段",),
        "下段": ("上段",),
    }
)


def _level(work: _Injection) -> Planted | None:
    index = work.picked(lambda one: one.fact.level is not None)
    if index is None:
        return None
    one, findings = work.parts.statements[index], work.report.findings
    level = one.fact.level or ""
    spine = re.fullmatch(r"([CTL])(\d+)(/.*)?", level)
    if spine:
        letter, upper = spine[1], int(spine[2])
        shown = write.level(level, work.house.levels)
        if spine[3]:
            other = f"{letter}{upper - 1}/{upper}" if upper > 2 else f"{letter}{upper + 1}/{upper + 2}"
        else:
            other = f"{letter}{upper - 1}" if upper > 1 else f"{letter}{upper + 1}"
        pairs = [(shown, write.level(other, work.house.levels))]
    elif re.fullmatch(r"S\d", level):
        pairs = [(level, f"S{int(level[1]) % 8 + 1}")]
    else:
        here = next((lobe for lobe in _LOBES if level.startswith(lobe)), "")
        # 中叶 lies on the right only, so lobes are exchanged between upper and lower.
        swaps = {"上叶": ("下叶",), "下叶": ("上叶",), "中叶": ("下叶",)}.get(here) or _NEIGHBOURS.get(level, ())
        pairs = [(here or level, swap) for swap in swaps]
    for was, now in pairs:
        was, now = work.script(was), work.script(now)
        at = one.words.find(was)
        if at >= 0 and now not in findings:
            return work.changed("level", f"{was} to {now}", index, at, at + len(was), now)
    return None


def _count(work: _Injection) -> Planted | None:
    index = work.picked(lambda one: "多发" in one.words or "多發" in one.words)
    if index is not None and work.rng.random() < 0.5:
        one = work.parts.statements[index]
        at = one.words.find("多")
        return work.changed("count", "many to one", index, at, at + 2, work.script("单发"))
    index = work.picked(
        lambda one: (
            one.fact.count is None and one.fact.lesion in _COUNTABLE and work.script(one.fact.lesion) in one.words
        )
    )
    if index is None:
        return None
    one = work.parts.statements[index]
    at = one.words.find(work.script(one.fact.lesion))
    return work.changed("count", "one to many", index, at, at, work.script("多发"))


_COUNTABLE = frozenset(
    {"实性结节", "囊肿", "血管瘤", "肾囊肿", "脑膜瘤", "动脉瘤", "甲状腺结节", "磨玻璃结节", "腺瘤", "肌瘤"}
)


def _prior(work: _Injection) -> Planted | None:
    index = work.picked(lambda one: True)
    if index is None:
        return None
    end = len(work.parts.statements[index].words)
    year, month = 2018 + int(work.rng.random() * 4), 1 + int(work.rng.random() * 12)
    claims = (
        "较前增大",
        "较前片相仿",
        f"较{year}-{month:02d}-15片进展",
        "与前片比较大致同前",
        "较前吸收好转",
        "为新发",
    )
    claim = work.rng.choice(claims)
    return work.changed("prior", claim, index, end, end, work.script(f"{work.comma}{claim}"))


def _sex_organ(work: _Injection) -> Planted | None:
    wrong = (
        ("子宫肌瘤", "左侧卵巢囊肿", "宫颈囊肿")
        if work.report.sex == "M"
        else ("前列腺增生", "精囊腺囊肿", "前列腺钙化")
    )
    words = work.rng.choice(wrong)
    return work.added("sex_organ", words, work.script(words))


def _body_part(work: _Injection) -> Planted | None:
    others = [system for system in SYSTEMS if system not in work.report.systems]
    found = work.foreign(
        work.rng.choice(others), lambda structure, lesion: work.script(structure) not in work.report.findings
    )
    return work.added("body_part", *found) if found else None


def _unsupported(work: _Injection) -> Planted | None:
    findings = work.report.findings

    def absent(structure: str, lesion: str) -> bool:
        return (
            work.script(structure) not in findings and work.script(lesion[-2:]) not in findings + work.report.impression
        )

    found = work.foreign(work.report.systems[0], absent)
    return work.added("unsupported", *found) if found else None


def _omitted(work: _Injection) -> Planted | None:
    if len(work.parts.statements) < 2:
        return None
    index = work.picked(lambda one: one.severity >= 3 and not one.fact.critical)
    return None if index is None else work.dropped("omitted", index)


def _critical(work: _Injection) -> Planted | None:
    if len(work.parts.statements) < 2:
        return None
    index = work.picked(lambda one: one.fact.critical)
    return None if index is None else work.dropped("critical", index)


def _front(work: _Injection, kind: str, new: str) -> Planted:
    return work.whole(kind, new.strip(), new + work.report.impression, (0, len(new)), new)


def _back(work: _Injection, kind: str, new: str) -> Planted:
    text = work.report.impression
    return work.whole(kind, new.strip()[:20], text + new, (len(text), len(text) + len(new)), new)


def _prompt_leak(work: _Injection) -> Planted | None:
    if work.rng.random() < 0.5:
        heads = ("<start_of_turn>model\n", "[INST] ", "诊断印象：", "以下是根据所见生成的印象：\n", "{impression} ")
        return _front(work, "prompt_leak", work.rng.choice(heads))
    tails = ("<end_of_turn>", " [/INST]", "\n### 指令", "\n患者XX，某某医院", "\nassistant:")
    return _back(work, "prompt_leak", work.rng.choice(tails))


def _phi(work: _Injection) -> Planted | None:
    person = work.report.person
    told = [f"姓名：{person.name}", f"检查号：{work.report.accession}"]
    told += [f"身份证号{person.id_card}"] if person.id_card else []
    told += [f"联系电话{person.phone}"] if person.phone else []
    return _back(work, "phi", work.script(f"\n{work.rng.choice(told)}。"))


def _language(work: _Injection) -> Planted | None:
    drifts = (
        "\nNo evidence of acute intracranial hemorrhage or mass effect.",
        "\nThe lungs are clear without focal consolidation.",
        "\n胸部に異常は認められません。",
        "\n특이 소견 없음.",
        "\nRecommend clinical correlation and follow up examination.",
    )
    return _back(work, "language", work.rng.choice(drifts))


def _repetition(work: _Injection) -> Planted | None:
    words = work.rng.choice(work.parts.statements).words
    times = 5 + int(work.rng.random() * 8)
    return _back(work, "repetition", ("；" + words) * times if work.rng.random() < 0.5 else words[:2] * (times * 3))


def _truncation(work: _Injection) -> Planted | None:
    one = work.parts.statements[-1]
    text = work.report.impression[: (one.fact.impression_span or (0, 0))[1]]
    endings = ("、", "及", "，考虑", "（约", "伴", f"；\n{len(work.parts.statements) + 1}、", "，大小约1")
    new = work.script(work.rng.choice(endings))
    return work.whole("truncation", new.strip(), text + new, (len(text), len(text) + len(new)), new)


def _null(work: _Injection) -> Planted | None:
    new = work.rng.choice(("", " ", "无", "。", "1、", "\n", "None", "请结合临床。"))
    return work.whole("null", repr(new), work.script(new), None, new)


_RULES: Mapping[str, Callable[[_Injection], Planted | None]] = MappingProxyType(
    {
        "side": _side,
        "number": _number,
        "unit": _unit,
        "negation": _negation,
        "certainty": _certainty,
        "level": _level,
        "count": _count,
        "prior": _prior,
        "sex_organ": _sex_organ,
        "body_part": _body_part,
        "unsupported": _unsupported,
        "omitted": _omitted,
        "critical": _critical,
        "prompt_leak": _prompt_leak,
        "phi": _phi,
        "language": _language,
        "repetition": _repetition,
        "truncation": _truncation,
        "null": _null,
    }
)
KINDS: tuple[str, ...] = tuple(_RULES)


def inject(report: PretendReport, kind: str, *, seed: int = 0) -> Planted | None:
    """Plant one error of `kind` (see `KINDS`) into the impression of `report`; the same seed gives the same error.

    None where the report has no place for it. Raises ValueError for an unknown kind.
    """
    if kind not in _RULES:
        raise ValueError(f"unknown kind {kind}: {' '.join(KINDS)}")
    parts = take_apart(report)
    if parts is None:
        return None
    return _RULES[kind](_Injection(report, parts, Random(f"{seed}|{kind}|{report.house}|{report.accession}")))
