"""Says a report's impression in other words that are just as true, to measure false alarms.

Every rewriting keeps the facts: other units and notations, other words for both sides, other numbering and punctuation, sizes
told or left out. Wordings that no training text shows come from `generate(wording="unseen")` instead.
"""

from collections.abc import Callable
from dataclasses import replace
from random import Random

from sandbox import write
from sandbox.facts import PretendReport
from sandbox.houses import HOUSES, House, Numbering
from sandbox.script import traditional
from sandbox.statements import Parts, Statement, parts

_LIST = Numbering(tuple(f"{n}. " for n in range(1, 20)), "。\n", "。")
_LINE = Numbering((), "；", "。")
_WIDTHS = str.maketrans("，。；：（）", ",.;:()")


def _units(one: Statement, house: House) -> str:
    """Sizes told in the unit of another house, or added where the house leaves them out."""
    sizes = tuple(int(value) for value in one.fact.sizes_mm)
    if not sizes:
        return one.words
    told = write.size(house, sizes)
    other = write.size(HOUSES[1 if house.size.factor < 1 else 2], sizes)
    if told in one.words:
        return one.words.replace(told, other)
    head, comma, tail = one.words.partition("," if house.half_width else "，")
    about = traditional("约") if house.language == "zh-Hant" else "约"
    return f"{head}，{about}{other}{comma}{tail}"


def _longest(one: Statement, house: House) -> str:
    """Only the longest axis."""
    sizes = tuple(int(value) for value in one.fact.sizes_mm)
    if not sizes:
        return one.words
    told = write.size(house, sizes)
    return one.words.replace(told, write.size(house, (max(sizes),)))


def _sides(one: Statement, house: House) -> str:
    """双侧 for 两侧 and back."""
    for was, now in (
        ("两侧", "双侧"),
        ("双侧", "两侧"),
        ("雙側", "兩側"),
        ("两肺", "双肺"),
        ("双肺", "两肺"),
        ("双肾", "两肾"),
        ("两肾", "双肾"),
    ):
        if was in one.words:
            return one.words.replace(was, now)
    return one.words


def _levels(one: Statement, house: House) -> str:
    """Spine levels in the notation of another house."""
    level = one.fact.level or ""
    if one.fact.system != "musculoskeletal" or level[:1] not in ("C", "T", "L") or not level[1:2].isdigit():
        return one.words
    told = write.level(level, house.levels)
    other = write.level(level, HOUSES[2 if house.number == 1 else 1].levels)
    return one.words.replace(traditional(told) if house.language == "zh-Hant" else told, other)


_REWRITINGS: dict[str, Callable[[Statement, House], str]] = {
    "units": _units,
    "longest": _longest,
    "sides": _sides,
    "levels": _levels,
}
KINDS: tuple[str, ...] = (*_REWRITINGS, "list", "line", "half_width")


def paraphrase(report: PretendReport, kind: str, *, seed: int = 0) -> str | None:
    """The impression rewritten in one way (see `KINDS`); None where that changes nothing or the text cannot be taken apart."""
    found = parts(report)
    if found is None:
        return None
    if kind in _REWRITINGS:
        house = HOUSES[report.house]
        edited = tuple(replace(one, words=_REWRITINGS[kind](one, house)) for one in found.statements)
        text = found.text(edited)[0]
    elif kind == "half_width":
        text = report.impression.translate(_WIDTHS)
    elif kind in ("list", "line"):
        text = _renumbered(found, _LIST if kind == "list" else _LINE, Random(f"{seed}|{report.accession}"))
    else:
        raise ValueError(f"unknown kind {kind}: {' '.join(KINDS)}")
    return None if text == report.impression else text


def _renumbered(found: Parts, numbering: Numbering, rng: Random) -> str:
    """Other numbers, and statements of equal weight in another order."""
    statements = list(found.statements)
    rng.shuffle(statements)
    statements.sort(key=lambda one: (not one.fact.critical, -one.severity))
    return replace(found, numbering=numbering, before="", after="。").text(tuple(statements))[0]
