"""One form for what houses write differently: script, units, sides in brackets, spine levels, organ labels, headings.

This is the paper's cleaning of inconsistencies (Algorithm 1) for the text that a model reads; how a house wants its text written is
`clinical.style`'s. Never used on text that a person sees, and changes no number's value: 0.6cm becomes 6mm.
"""

from __future__ import annotations

import re
from decimal import Decimal

from clinical.lexicon import traditional

__all__ = ["unify"]

_REGIONS = {"C": "颈", "T": "胸", "L": "腰", "S": "骶"}
_UNIT = r"(?:mm|MM|Mm|cm|CM|Cm|毫米|厘米)"
_NUMBER = r"\d{1,4}(?:\.\d{1,3})?"
_SIZE = re.compile(
    rf"(?<![\d.A-Za-z/])(?P<a>{_NUMBER})(?:\s*(?P<ua>{_UNIT}))?"
    rf"(?:\s*[×xX*✕]\s*(?P<b>{_NUMBER})(?:\s*(?P<ub>{_UNIT}))?)?"
    rf"(?:\s*[×xX*✕]\s*(?P<c>{_NUMBER})(?:\s*(?P<uc>{_UNIT}))?)?"
)
_BRACKETED_SIDE = re.compile(r"[(（]\s*([LR])\s*[)）]")
_DISC = re.compile(r"(?<![A-Za-z\d])([CTLS])(\d{1,2})\s*[-/～~]\s*([CTLS])?(\d{1,2})(?![A-Za-z\d/])")
_VERTEBRA = re.compile(r"(?<![A-Za-z\d/])([CTL])(\d{1,2})(?=椎|棘突|横突|水平|平面|附件)")
_ORDINAL_DISC = re.compile(r"第(\d{1,2})([颈胸腰])椎/第(\d)([腰骶])椎|第(\d{1,2})/(\d{1,2})([颈胸腰])椎")
_ORDINAL_VERTEBRA = re.compile(r"第(\d{1,2})([颈胸腰骶])椎")
_LABEL = re.compile(r"【[^【】\n]{1,12}】[ \t]*")
_HEADING = re.compile(r"^\s*(?:影像所见|影像学表现|影像表现|检查所见|放射学表现|描述|所见)\s*[:：\n]\s*")
_UNFILLED = re.compile(r"(?:其他|其它)[:：]?_{2,}。?")


def _millimetres(match: re.Match[str]) -> str:
    units = [match["ua"], match["ub"], match["uc"]]
    named = [unit for unit in units if unit]
    if not named:
        return match[0]
    axes = [match[name] for name in ("a", "b", "c") if match[name]]
    shown = []
    for axis, unit in zip(axes, units, strict=False):
        centimetres = (unit or named[-1]).lower() in ("cm", "厘米")
        value = Decimal(axis) * (10 if centimetres else 1)
        shown.append(format(value.normalize(), "f") if value % 1 else str(int(value)))
    return f"{'×'.join(shown)}mm"


def _disc(match: re.Match[str]) -> str:
    upper, first, lower, second = match.groups()
    if lower is None or lower == upper:
        return f"{_REGIONS[upper]}{first}/{second}"
    return f"{_REGIONS[upper]}{first}/{_REGIONS[lower]}{second}"


def _ordinal(match: re.Match[str]) -> str:
    if match[1]:
        return f"{match[2]}{match[1]}/{match[4]}{match[3]}"
    return f"{match[7]}{match[5]}/{match[6]}"


def unify(text: str) -> str:
    """`text` in the one form that models are trained on: simplified script, mm, 左侧 and 右侧, 腰4/5, no organ labels or headings."""
    table = traditional()
    text = "".join(table.get(character, character) for character in text)
    text = _HEADING.sub("", _UNFILLED.sub("", _LABEL.sub("", text)))
    text = _BRACKETED_SIDE.sub(lambda match: "左侧" if match[1] == "L" else "右侧", text)
    text = _ORDINAL_VERTEBRA.sub(r"\2\1椎", _ORDINAL_DISC.sub(_ordinal, text))
    text = _VERTEBRA.sub(lambda match: _REGIONS[match[1]] + match[2], _DISC.sub(_disc, text))
    return _SIZE.sub(_millimetres, text)
