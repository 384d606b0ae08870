"""Anatomical levels: vertebrae, discs, ribs, liver segments, node zones, arteries' segments, teeth, in the notations reports use.

Works on the masked matching copy, as `clinical.measures` does. Does not know which finding a level belongs to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from clinical.measures import MASK

_PART = {"颈": "C", "胸": "T", "腰": "L", "骶": "S", "尾": "O", "c": "C", "t": "T", "l": "L", "s": "S"}
_COUNTS = {"C": 7, "T": 12, "L": 5, "S": 5, "O": 4}
_SPINE = [f"{part}{number}" for part in "CTLS" for number in range(1, _COUNTS[part] + 1)]
_INDEX = {name: index for index, name in enumerate(_SPINE)}
_HEAD = re.compile(
    r"(?:(?P<han>[颈胸腰骶])(?:椎体?)? ?|(?<![a-z\d])(?P<latin>[ctls]))(?P<n>\d{1,2})(?![\d.]|[nm]\d|期|段|[个枚处节]| ?mm| ?cm)"
)
_MORE = re.compile(
    r"(?P<join>[/\-~、,及和至]|-~)(?P<part>[颈胸腰骶]|[ctls](?=\d))?椎?(?P<n>\d{1,2})(?![\d.×]|(?<!/\d)(?<!/\d\d)(?<!/[颈胸腰骶ctls]\d)[、)．](?=[^\d颈胸腰骶ctls])"
    r"|期|年|月|日|个|枚|处|:| ?mm| ?cm|%)"
)
_ORDINAL_LEVEL = re.compile(
    r"第 ?(?P<a>\d{1,2})(?: ?(?P<join>[/、\-~至及和,]) ?第? ?(?P<b>\d{1,2}))? ?(?P<part>[颈胸腰骶])(?P<what>椎间盘|椎间|间盘|椎体|椎)"
)
_JUNCTION = re.compile(r"第 ?(?P<a>\d{1,2}) ?(?P<upper>[颈胸腰])椎?[/\-、]第 ?(?P<b>\d{1,2}) ?(?P<lower>[胸腰骶])椎?")
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
        if first.startswith("zone"):
            return "neck/node"
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
    for match in _JUNCTION.finditer(text):
        name, lower = f"{_PART[match['upper']]}{match['a']}", f"{_PART[match['lower']]}{match['b']}"
        found.append(Level(frozenset({f"{name}/{lower}"}), frozenset(), *match.span()))
    for match in _ORDINAL_LEVEL.finditer(_JUNCTION.sub(lambda match: MASK * len(match[0]), text)):
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


@dataclass(frozen=True, slots=True)
class _Unit:
    """A disc by its upper vertebra, a vertebra, or an odd pair that is no disc (腰5/骶2); `join` stands before it."""

    kind: str
    name: str
    join: str


def _spinal(text: str, head: re.Match[str]) -> Level | None:
    """One run of spinal levels: `腰3/4、4/5`, `颈2/3-颈5/6`, `腰3-5椎体`, `L5/S1`."""
    steps, end = _steps(text, head)
    after = text[end : end + 8]
    vertebrae = _VERTEBRA_AFTER.match(after) is not None
    discs = _DISC_AFTER.match(after) is not None and not vertebrae
    units = _units(steps, discs)
    names: set[str] = set()
    loose: set[str] = set()
    used: set[int] = set()
    for right in range(1, len(units)):
        low, high = units[right - 1], units[right]
        if high.join not in ("-", "~", "至") or "odd" in (low.kind, high.kind):
            continue
        used.update((right - 1, right))
        bones = _bones(low.name, high.name)
        if not bones:
            return None
        between = {disc for bone in bones[: None if low.kind == "disc" else -1] if (disc := _disc(bone))}
        if low.kind == "disc" or discs:
            names |= between
            continue
        names.update(bones)
        if not vertebrae:
            loose |= between
    for index, unit in enumerate(units):
        if index in used:
            continue
        name = _disc(unit.name) if unit.kind == "disc" else unit.name
        if name is None:
            return None
        if unit.kind != "bone" or name in _INDEX:
            names.add(name)
        if unit.kind == "bone" and not vertebrae and index + 1 < len(units) and _follows(units[index + 1], unit):
            loose.update(filter(None, (_disc(unit.name),)))  # 腰4、5 and L4,5 may mean the disc between the two
    return Level(frozenset(names), frozenset(loose), head.start(), end) if names else None


def _steps(text: str, head: re.Match[str]) -> tuple[list[tuple[str, str, int]], int]:
    """(join, part, number) of each number of a run, and where the run ends; none when the first is no vertebra."""
    part, first, end = _PART[head["han"] or head["latin"]], int(head["n"]), head.end()
    if not 1 <= first <= _COUNTS[part] + 1:
        return [], end
    steps = [("", part, first)]
    while (more := _MORE.match(text, end)) is not None:
        letter, number = _PART[more["part"]] if more["part"] else steps[-1][1], int(more["n"])
        alone = more["join"] in (",", "及", "和") and not more["part"]
        if not 1 <= number <= _COUNTS[letter] + 1 or (
            alone and text[more.end() : more.end() + 1] not in ("/", "椎", "盘", "水", "-")
        ):
            break
        steps.append((more["join"], letter, number))
        end = more.end()
    return steps, end


def _units(steps: list[tuple[str, str, int]], discs: bool) -> list[_Unit]:
    """Numbers joined by `/`, and before a word for discs (`discs`) by `、`, are discs; the others vertebrae."""
    units: list[_Unit] = []
    index = 0
    while index < len(steps):
        join, letter, number = steps[index]
        name = f"{letter}{number}"
        index += 1
        if index < len(steps) and steps[index][0] in ("/", "、"):
            mark, *below = steps[index]
            lower = "{}{}".format(*below)
            fits = _INDEX.get(lower, -9) == _INDEX.get(name, -7) + 1
            if mark == "/" or (discs and fits):
                units.append(_Unit("disc", name, join) if fits else _Unit("odd", f"{name}/{lower}", join))
                more = mark == "、" and index + 1 < len(steps) and steps[index + 1][0] == "、"
                index += 0 if more else 1  # 腰3、4、5椎间盘: two discs
                continue
        units.append(_Unit("bone", name, join))
    return units


def _bones(low: str, high: str) -> list[str]:
    first, last = _INDEX.get(low), _INDEX.get(high)
    return [] if first is None or last is None or last < first else _SPINE[first : last + 1]


def _follows(unit: _Unit, before: _Unit) -> bool:
    return (
        unit.kind == "bone"
        and unit.join in ("、", ",")
        and _INDEX.get(unit.name, -9) == _INDEX.get(before.name, -7) + 1
    )
