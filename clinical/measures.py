"""Numbers with a unit, and grades: reading them, converting them, deciding whether two agree.

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
    r"(?<![a-z])(?:3d ?)?t[12](?:\*)?(?:wi|w)(?:[ -]?(?:flair|fs|dixon))?"
    r"|(?<![a-z])(?:pdwi|dwi(?!(?:序列)?上?[呈为见示]?(?:明显|稍)?(?:高信号|亮))|adc|swi|pwi|flair|flari|stir|mdixon|dixon)(?![a-z])"
    r"|(?<![a-z])t[12](?=[、/和及,]t[12]\D)"
    r"|(?<![a-z])t[12](?=[高低等稍长短呈像压抑增延三反]|信号|加权|序列|flair|[ -](?:weighted|hyper|hypo|signal|flair|压脂|dixon))|(?<=[长短等高低])t[12]"
)
_ORDINAL = r"(?:^|(?<=[\n。;]))[ ]*(?:[(]?\d{1,2}(?:[、)．]|\.(?!\d))|[①-⑳]|[一二三四五六七八九十]{1,3}、)"
_TIME = r"(?<!\d)\d{1,4}(?:\.\d{1,3})?(?:[-~至]\d{1,4})? ?(?:周?岁|天|日|周|个?月|年|小时|分钟|期(?!龄)|days?|weeks?|months?|years?|mois|ans|semaines?)"
_HEADER = (
    r"[^\n。;:]{0,12}(?:成像(?:序列|程序)|扫描(?:序列|方法|技术)|检查(?:序列|技术|方法))[:][^\n。]*"
    r"|(?<![^\n])[^\n。;:,]{0,12}(?:平扫|增强):(?=[^\n]*(?:t[12]wi|dwi|adc|增强|期))[^\n。]*"
)
_STAGE = r"(?<=[癌瘤a])[(,]? ?[ycp]{0,2}t[0-4][a-d]?(?:n[0-3x][a-c]?)?(?:m[01x])?(?![\w/])[)]?"
_CALL = re.compile(r"(?:电话|口头)(?:通知|告知|报告|联系)|危急值")
_STATEMENT = re.compile(r"[^\n。;]+")
_MASKED = re.compile("|".join((_HEADER, _IMAGE, _DATE, _ORDINAL, _TIME, _STAGE)), re.IGNORECASE | re.MULTILINE)
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
    taken = bytearray(len(text))

    def take(match: re.Match[str]) -> bool:
        """Whether no part of it belongs to a measurement already; it does from now on."""
        start, end = match.span()
        if any(taken[start:end]):
            return False
        taken[start:end] = b"\x01" * (end - start)
        return True

    for match in _RANGE.finditer(text):
        if take(match):
            found.extend(_measure(match[g], match["unit"], *match.span()) for g in ("a", "b"))
    for match in _SIZE.finditer(text):
        units = [match["ua"], match["ub"], match["uc"]]
        last = next((unit for unit in reversed(units) if unit), None)
        if last is None or not take(match):
            continue
        for axis, unit in zip(("a", "b", "c"), units, strict=True):
            if match[axis] is not None:
                found.append(_measure(match[axis], unit or last, *match.span()))
    for pattern in (_COBB, _OTHER):
        for match in pattern.finditer(text):
            if take(match):
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
