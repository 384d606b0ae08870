"""Numbers with a unit, and anatomical levels: reading them, converting them, deciding whether two agree.

Works on the matching copy of `clinical.text.normalise`, in which image references, dates and sequence names have been
masked by `masked`. Does not know which finding a number belongs to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MASK = "\x00"

_IMAGE = r"[(\[]?(?:se|ser|series|im|img|image|图像?|序列)[ .:]?\d{1,5}(?:[ ]?[-,/、~][ ]?(?:se|im|img|image|图像?)?[ .:]?\d{1,5})*[)\]]?"
_DATE = r"(?:19|20)\d{2}(?:[-./年])\d{1,2}(?:(?:[-./月])\d{1,2}日?)?(?!\d)|(?:19|20)\d{6}(?!\d)|\d{1,2}/\d{1,2}/(?:19|20)\d{2}"
_SEQUENCE = (
    r"(?<![a-z])(?:3d ?)?t[12](?:\*)?(?:wi|w)(?:[ -]?(?:flair|fs|dixon))?|(?<![a-z])(?:pdwi|dwi|adc|swi|pwi|flair|flari|stir|mdixon|dixon)(?![a-z])"
    r"|(?<![a-z])t[12](?=[高低等稍长短呈像压抑增延三反]|信号|加权|序列|flair|[ -](?:weighted|hyper|hypo|signal|flair|压脂|dixon))|[长短等]t[12]"
)
_ORDINAL = r"(?:^|(?<=[\n。;]))[ ]*(?:[(]?\d{1,2}(?:[、)．]|\.(?!\d))|[①-⑳]|[一二三四五六七八九十]{1,3}、)"
_TIME = r"(?<!\d)\d{1,4}(?:\.\d{1,3})?(?:[-~至]\d{1,4})? ?(?:周?岁|天|日|周|个?月|年|小时|分钟|期(?!龄)|days?|weeks?|months?|years?|mois|ans|semaines?)"
_HEADER = (
    r"[^\n。;:]{0,12}(?:成像(?:序列|程序)|扫描(?:序列|方法|技术)|检查(?:序列|技术|方法))[:][^\n。]*"
    r"|(?<![^\n])[^\n。;:,]{0,12}(?:平扫|增强):(?=[^\n]*(?:t[12]wi|dwi|adc|增强|期))[^\n。]*"
)
_CALL = re.compile(r"(?:电话|口头)(?:通知|告知|报告|联系)|危急值")
_STATEMENT = re.compile(r"[^\n。;]+")
_MASKED = re.compile("|".join((_HEADER, _IMAGE, _DATE, _ORDINAL, _TIME)), re.IGNORECASE | re.MULTILINE)
_MASKED_SEQUENCE = re.compile(_SEQUENCE, re.IGNORECASE)
DATE = re.compile(_DATE)


def lowered(text: str) -> str:
    """Lower case with the length kept; a handful of letters (İ) grow when lowered and then stay as they are."""
    lower = text.lower()
    return lower if len(lower) == len(text) else "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def masked(text: str) -> str:
    """Everything whose digits are no measurement blanked out, lengths kept: sequence headers, image numbers, dates, times."""
    if _CALL.search(text):  # a note of a telephone call has numbers and organs of its own
        text = _STATEMENT.sub(lambda match: MASK * len(match[0]) if _CALL.search(match[0]) else match[0], text)
    text = _MASKED.sub(lambda match: MASK * len(match[0]), text)
    return _MASKED_SEQUENCE.sub(lambda match: MASK * len(match[0]), text)


# --- measurements ------------------------------------------------------------------------------------------------------

_TO_MM = {"mm": 1.0, "毫米": 1.0, "cm": 10.0, "厘米": 10.0, "公分": 10.0, "m": 1000.0, "米": 1000.0, "um": 0.001}
_UNITS = {
    "hu": "hu",
    "ml": "ml",
    "毫升": "ml",
    "cc": "ml",
    "cm3": "ml",
    "cm³": "ml",
    "立方厘米": "ml",
    "l": "ml",
    "%": "%",
    "°": "°",
    "度": "°",
}
_NUMBER = r"-?\d{1,5}(?:\.\d{1,4})?"
_LENGTH_UNIT = r"(?:mm|cm|毫米|厘米|公分)(?![³3²2a-z])"
_SIZE = re.compile(
    rf"(?<![\d.a-z/])(?P<a>\d{{1,4}}(?:\.\d{{1,3}})?) ?(?P<ua>{_LENGTH_UNIT})?(?: ?[×x*] ?(?P<b>\d{{1,4}}(?:\.\d{{1,3}})?) ?(?P<ub>{_LENGTH_UNIT})?)?"
    rf"(?: ?[×x*] ?(?P<c>\d{{1,4}}(?:\.\d{{1,3}})?) ?(?P<uc>{_LENGTH_UNIT})?)?"
)
_RANGE = re.compile(
    rf"(?<![\d.a-z/])(?P<a>\d{{1,4}}(?:\.\d{{1,3}})?) ?[-~至] ?(?P<b>\d{{1,4}}(?:\.\d{{1,3}})?) ?(?P<unit>{_LENGTH_UNIT}|%|hu)"
)
_OTHER = re.compile(rf"(?<![\d.a-z/])(?P<a>{_NUMBER}) ?(?P<unit>hu|ml|毫升|cc|cm[³3]|立方厘米|%|°)(?![a-z])")
_COBB = re.compile(rf"cobb'?s?角?(?:约为?)? ?(?P<a>{_NUMBER}) ?(?:°|度)")


@dataclass(frozen=True, slots=True)
class Measure:
    """One value in its canonical unit (mm, hu, ml, %, °); `slack` is half the last digit shown, in that unit."""

    value: float
    unit: str
    slack: float
    start: int
    end: int

    def agrees(self, other: Measure) -> bool:
        """The same quantity, or `other` rounded to the digits that we show."""
        return self.unit == other.unit and abs(self.value - other.value) <= max(self.slack, 1e-6) + 1e-9


def _measure(number: str, unit: str, start: int, end: int) -> Measure:
    factor = _TO_MM.get(unit)
    canonical = "mm" if factor is not None else _UNITS[unit]
    factor = factor if factor is not None else 1000.0 if unit == "l" else 1.0
    digits = len(number.partition(".")[2])
    # whole millimetres, HU and percent are read off as they are: 6 mm is not a rounding of 6.4 mm
    slack = 0.5 * 10.0**-digits * factor if digits or factor > 1 else 0.5 if canonical in ("mm", "ml") else 0.0
    return Measure(float(number) * factor, canonical, slack, start, end)


def measures(text: str) -> list[Measure]:
    """Every measurement in a masked, lower-case matching copy, each axis of a×b its own, in order."""
    found: list[Measure] = []
    taken: list[tuple[int, int]] = []
    for match in _RANGE.finditer(text):
        taken.append(match.span())
        found.extend(_measure(match[g], match["unit"], *match.span()) for g in ("a", "b"))
    for match in _SIZE.finditer(text):
        units = [match["ua"], match["ub"], match["uc"]]
        last = next((unit for unit in reversed(units) if unit), None)
        if last is None or any(start < match.end() and match.start() < end for start, end in taken):
            continue
        taken.append(match.span())
        for axis, unit in zip(("a", "b", "c"), units, strict=True):
            if match[axis] is not None:
                found.append(_measure(match[axis], unit or last, *match.span()))
    for pattern in (_COBB, _OTHER):
        for match in pattern.finditer(text):
            if any(start < match.end() and match.start() < end for start, end in taken):
                continue
            taken.append(match.span())
            found.append(_measure(match["a"], match.groupdict().get("unit") or "°", *match.span()))
    found.sort(key=lambda measure: (measure.start, measure.end))
    return found


# --- grades ------------------------------------------------------------------------------------------------------------

_ROMAN = {
    "ⅰ": "1",
    "ⅱ": "2",
    "ⅲ": "3",
    "ⅳ": "4",
    "ⅴ": "5",
    "ⅵ": "6",
    "i": "1",
    "ii": "2",
    "iii": "3",
    "iv": "4",
    "v": "5",
}
_GRADE = re.compile(
    r"(?P<system>(?:bi|ti|pi|li|lung|cad|o)[- ]?rads|fazekas|pfirrmann|modic|arco|bosniak|k-?l|kellgren-lawrence|meyerding|stanford"
    r"|debakey|garden|figo|hunt-hess|fisher)"
    r"(?:分级|分类|评分|分型|分期|grade)?[ :]*(?:约|为|类|级|grade|分)?[ ]?(?P<grade>\d[a-c]?|[ⅰⅱⅲⅳⅴⅵ]|iv|v|i{1,3}|[a-d](?![a-z]))"
)
_PLAIN_GRADE = re.compile(r"(?P<grade>[ⅰⅱⅲⅳ]|iv|i{1,3}|[1-4一二三四])[°度](?=[滑脱前后]|滑)")


@dataclass(frozen=True, slots=True)
class Grade:
    """One classification, as (system, grade), for example ("birads", "4a")."""

    system: str
    grade: str
    start: int
    end: int


def grades(text: str) -> Iterator[Grade]:
    for match in _GRADE.finditer(text):
        system = re.sub(r"[- ]", "", match["system"]).replace("kellgrenlawrence", "kl")
        yield Grade(system, _ROMAN.get(match["grade"], match["grade"]), *match.span())
    for match in _PLAIN_GRADE.finditer(text):
        yield Grade(
            "slip",
            {"一": "1", "二": "2", "三": "3", "四": "4"}.get(
                match["grade"], _ROMAN.get(match["grade"], match["grade"])
            ),
            *match.span(),
        )


# --- levels ------------------------------------------------------------------------------------------------------------

_PART = {"颈": "C", "胸": "T", "腰": "L", "骶": "S", "尾": "O", "c": "C", "t": "T", "l": "L", "s": "S"}
_COUNTS = {"C": 7, "T": 12, "L": 5, "S": 5, "O": 4}
_SPINE = [f"{part}{number}" for part in "CTLS" for number in range(1, _COUNTS[part] + 1)]
_INDEX = {name: index for index, name in enumerate(_SPINE)}
_HEAD = re.compile(
    r"(?:(?P<han>[颈胸腰骶])(?:椎体?)? ?|(?<![a-z\d])(?P<latin>[ctls]))(?P<n>\d{1,2})(?![\d.]|[nm]\d|期|段| ?mm| ?cm)"
)
_MORE = re.compile(
    r"(?P<join>[/\-~、,及和至]|-~)(?P<part>[颈胸腰骶]|[ctls](?=\d))?椎?(?P<n>\d{1,2})(?![\d.×]|[、)．](?=[^\d颈胸腰骶])|期|年|月|日|个|枚|处|:| ?mm| ?cm|%)"
)
_ORDINAL_LEVEL = re.compile(
    r"第 ?(?P<a>\d{1,2})(?: ?(?P<join>[/、\-~至及和,]) ?第? ?(?P<b>\d{1,2}))? ?(?P<part>[颈胸腰骶])(?P<what>椎间盘|椎间|间盘|椎体|椎)"
)
_DISC_AFTER = re.compile(r"^(?:、|椎?间盘|椎间|盘|间隙|水平椎间)")
_VERTEBRA_AFTER = re.compile(r"^[^,。;、\n]{0,3}(?:椎体|椎弓|横突|棘突|附件|椎板|vertebra)")
_RIB = re.compile(r"第 ?(?P<list>\d{1,2}(?: ?[-~、,及和至/] ?第?\d{1,2})*) ?(?:前|后|侧|腋段?)?肋")
_SEGMENT = re.compile(r"(?<![a-z\d])s(?P<a>[1-8])(?:[a-b])?(?:[/、\-~](?:s)?(?P<b>[1-8]))?段?")
_ROMAN_SEGMENT = re.compile(r"(?P<a>[ⅰⅱⅲⅳⅴⅵⅶⅷ])(?:[/、\-](?P<b>[ⅰⅱⅲⅳⅴⅵⅶⅷ]))?(?P<what>段|区)")
_ARTERY_SEGMENT = re.compile(r"(?<![a-z])(?P<a>[mapcv])(?P<n>[1-7])段")
_TOOTH = re.compile(r"(?<![\d.a-z])(?P<n>[1-4][1-8])(?=(?:号|阻生)?牙|阻生|埋伏|根尖|龋)")


@dataclass(frozen=True, slots=True)
class Level:
    """Level names one mention stands for (L4/5 a disc, L4 a vertebra, rib8, seg7, m1, tooth48).

    `loose` are further readings of an ambiguous notation such as L4-5 with nothing behind it.
    """

    names: frozenset[str]
    loose: frozenset[str]
    start: int
    end: int

    @property
    def path(self) -> str | None:
        """The structure that the notation implies."""
        first = next(iter(sorted(self.names)), "")
        if first.startswith("rib"):
            return "chest/ribs"
        if first.startswith("seg"):
            lobes = {"left" if name[3] in "234" else "right" if name[3] in "5678" else "caudate" for name in self.names}
            return f"abdomen/liver/{lobes.pop()}" if len(lobes) == 1 else "abdomen/liver"
        if first.startswith("tooth"):
            return "neck/teeth"
        return {"C": "spine/cervical", "T": "spine/thoracic", "L": "spine/lumbar", "S": "spine/sacral"}.get(first[:1])


def _disc(upper: str) -> str | None:
    index = _INDEX.get(upper)
    if index is None or index + 1 >= len(_SPINE):
        return None
    lower = _SPINE[index + 1]
    return f"{upper}/{lower[1:]}" if lower[0] == upper[0] else f"{upper}/{lower}"


def levels(text: str) -> list[Level]:
    """Every level in a masked, lower-case matching copy, in order."""
    found: list[Level] = []
    at = 0
    while (match := _HEAD.search(text, at)) is not None:
        at = match.end()
        if match["latin"] == "s" and (text[at : at + 1] == "段" or _liver_near(text, match.start())):
            continue
        level = _spinal(text, match)
        if level is not None:
            found.append(level)
            at = level.end
    for match in _ORDINAL_LEVEL.finditer(text):
        part, first = _PART[match["part"]], int(match["a"])
        last = int(match["b"]) if match["b"] else first
        names = {
            f"{part}{number}"
            for number in ((first, last) if match["join"] in ("、", "及", "和", ",") else range(first, last + 1))
        }
        if match["join"] == "/" or "间" in match["what"]:
            names = {disc for number in range(first, max(first + 1, last)) if (disc := _disc(f"{part}{number}"))}
        found.append(Level(frozenset(names), frozenset(), *match.span()))
    for match in _RIB.finditer(text):
        found.append(Level(frozenset(f"rib{n}" for n in _numbers(match["list"])), frozenset(), *match.span()))
    for match in _SEGMENT.finditer(text):
        if match[0].endswith("段") or _liver_near(text, match.start()):
            names = {match["a"]} if match["b"] is None else {match["a"], match["b"]}
            found.append(Level(frozenset(f"seg{n}" for n in names), frozenset(), *match.span()))
    for match in _ROMAN_SEGMENT.finditer(text):
        prefix = "seg" if match["what"] == "段" else "zone"
        names = {str("ⅰⅱⅲⅳⅴⅵⅶⅷ".index(match[g]) + 1) for g in ("a", "b") if match[g]}
        found.append(Level(frozenset(prefix + n for n in names), frozenset(), *match.span()))
    found.extend(
        Level(frozenset({f"{m['a']}{m['n']}"}), frozenset(), *m.span()) for m in _ARTERY_SEGMENT.finditer(text)
    )
    found.extend(Level(frozenset({f"tooth{m['n']}"}), frozenset(), *m.span("n")) for m in _TOOTH.finditer(text))
    found.sort(key=lambda level: (level.start, level.end))
    return found


def _liver_near(text: str, start: int) -> bool:
    before = text[max(0, start - 8) : start]
    return "肝" in before or "liver" in before or "hepatic" in before or "叶" in before[-2:]


def _numbers(listed: str) -> set[int]:
    numbers: set[int] = set()
    previous: int | None = None
    for join, digits in re.findall(r"([-~、,及和至/]?) ?第?(\d{1,2})", listed):
        number = int(digits)
        if join in ("-", "~", "至") and previous is not None and number - previous <= 24:
            numbers.update(range(previous, number + 1))
        numbers.add(number)
        previous = number
    return numbers


def _spinal(text: str, head: re.Match[str]) -> Level | None:
    """One run of spinal levels: `腰3/4、4/5`, `颈2/3-颈5/6`, `腰3-5椎体`, `L5/S1`."""
    part = _PART[head["han"] or head["latin"]]
    first = int(head["n"])
    if not 1 <= first <= _COUNTS[part] + 1:
        return None
    steps: list[tuple[str, str, int]] = [("", part, first)]
    end = head.end()
    while (more := _MORE.match(text, end)) is not None:
        letter = _PART[more["part"]] if more["part"] else steps[-1][1]
        number = int(more["n"])
        if not 1 <= number <= _COUNTS[letter] + 1:
            break
        if (
            more["join"] in (",", "及", "和")
            and not more["part"]
            and text[more.end() : more.end() + 1] not in ("/", "椎", "盘", "水", "-")
        ):
            break
        steps.append((more["join"], letter, number))
        end = more.end()
    after = text[end : end + 8]
    vertebrae = _VERTEBRA_AFTER.match(after) is not None
    units: list[tuple[str, str]] = []  # (kind, name): a disc by its upper vertebra, or a vertebra
    spans: list[tuple[int, int]] = []  # ranges of units, as indexes
    loose: set[str] = set()
    index = 0
    while index < len(steps):
        join, letter, number = steps[index]
        name = f"{letter}{number}"
        if index + 1 < len(steps) and steps[index + 1][0] == "/":
            units.append(("disc", name))
            index += 1
        else:
            units.append(("bone", name))
        if join in ("-", "~", "至") and len(units) > 1:
            spans.append((len(units) - 2, len(units) - 1))
        index += 1
    names: set[str] = set()
    used: set[int] = set()
    for left, right in spans:
        (kind, low), (_, high) = units[left], units[right]
        used.update((left, right))
        low_index, high_index = _INDEX.get(low), _INDEX.get(high)
        if low_index is None or high_index is None or high_index < low_index or high_index - low_index > 24:
            return None
        bones = _SPINE[low_index : high_index + 1]
        if kind == "disc":
            names.update(disc for bone in bones if (disc := _disc(bone)))
        elif _DISC_AFTER.match(after) and not vertebrae:
            names.update(disc for bone in bones[:-1] if (disc := _disc(bone)))
        elif vertebrae:
            names.update(bones)
        else:
            names.update(bones)
            loose.update(disc for bone in bones[:-1] if (disc := _disc(bone)))
    singles = [units[i] for i in range(len(units)) if i not in used]
    joined_bones = [name for kind, name in singles if kind == "bone"]
    for kind, name in singles:
        if kind == "disc":
            disc = _disc(name)
            if disc is None:
                return None
            names.add(disc)
        elif name in _INDEX:
            names.add(name)
    if len(joined_bones) == 2 and len(units) == 2 and not vertebrae:
        # 腰4、5 and L4,5 may mean the disc between the two
        disc = _disc(joined_bones[0])
        if disc is not None and _INDEX.get(joined_bones[1], -9) == _INDEX[joined_bones[0]] + 1:
            if _DISC_AFTER.match(after):
                names = {disc}
            else:
                loose.add(disc)
    if not names:
        return None
    return Level(frozenset(names), frozenset(loose), head.start(), end)
