"""Where the words of one clause say that something is: structures with their sides, as neighbouring words give them.

Works on the tokens of one clause. What the next clause inherits is `clinical.scanner`'s to keep in mind.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from clinical.frames import BOTH, Place
from clinical.levels import Level
from clinical.lexicon import inside, lesions, structures
from clinical.tokens import Token

_NOWHERE: frozenset[str] = frozenset()
SIDES = {"L": frozenset("L"), "R": frozenset("R"), "B": BOTH}
_LOBED = ("abdomen/liver", "neck/thyroid", "abdomen/portal_vein")
_JOINS = frozenset("、及和与或/以并,同 至")


def places_of(
    text: str, tokens: list[Token], side: tuple[str, int, int] | None
) -> tuple[dict[int, Place], tuple[str, int, int] | None]:
    """Places of one clause by the index of their token, and the side a following clause inherits."""
    placed: dict[int, Place] = {}
    known = structures()
    fresh: tuple[int, int] | None = None  # span of the side word right before
    for index, token in enumerate(tokens):
        if token.kind == "side":
            value = str(token.value)
            if (
                side is not None
                and fresh is not None
                and fresh[1] <= token.start
                and set(text[fresh[1] : token.start]) <= _JOINS
            ):
                value = value if side[0] == value else "B"  # 左、右: both
                fresh = (fresh[0], token.end)
            else:
                fresh = (token.start, token.end)
            side = (value, *fresh)
            _postfix(text, tokens, index, placed, value)
        elif token.kind in ("place", "level"):
            path = (
                str(token.value)
                if token.kind == "place"
                else token.value.path
                if isinstance(token.value, Level)
                else None
            )
            if path is None:
                continue
            structure = known[path]
            adjacent = (
                fresh is not None and token.start - fresh[1] <= 2 and not set(text[fresh[1] : token.start]) & _JOINS
            )
            sides = _NOWHERE
            said: tuple[int, int] | None = None
            if path.rpartition("/")[2] in ("left", "right") and path.split("/")[-2] in (
                "liver",
                "thyroid",
                "portal_vein",
            ):
                sides = SIDES["L" if path.endswith("/left") else "R"]
                said = (token.start, token.end)
            elif side is not None and (adjacent or structure.paired):
                sides = SIDES[side[0]]
                said = (side[1], side[2])
            placed[index] = Place(path, sides, token.start, token.end, said)
    for index, place in placed.items():
        if (
            place.path in _LOBED
            and len(place.sides) == 1
            and place.said_side is not None
            and abs(place.said_side[0] - place.end) <= 2
        ):
            placed[index] = replace(place, path=place.path + ("/left" if "L" in place.sides else "/right"))
    return placed, side


_BEHIND = ("gauche", "droit")  # French: rein droit


def _postfix(text: str, tokens: list[Token], index: int, placed: dict[int, Place], value: str) -> None:
    """`胸腔左侧`, `中线向左移`, `rein droit`: a side right behind a structure that has none of its own and before no other."""
    side = tokens[index]
    earlier = max((i for i in placed if i < index), default=None)
    if earlier is None or placed[earlier].said_side is not None:
        return
    before = placed[earlier]
    gap = text[before.end : side.start]
    follows = index + 1 < len(tokens) and tokens[index + 1].kind == "place" and tokens[index + 1].start == side.end
    midline = before.path == "head/midline" and len(gap) <= 8  # 中线结构偏移至右侧
    behind = gap == " " and text.startswith(_BEHIND, side.start)
    if not follows and (not gap or behind or midline or (len(gap) <= 2 and gap[-1] in "向偏")):
        placed[earlier] = replace(before, sides=SIDES[value], said_side=(side.start, side.end))


def specific(text: str, places: list[Place]) -> list[Place]:
    """`右膝内侧半月板` is one place, not the knee and the meniscus: a structure right before a part of it goes, or right behind it."""
    behind = {
        after
        for place, after in pairwise(places)
        if place.end == after.start and place.path != after.path and inside(place.path, after.path)
    }  # 枕叶脑表面
    places = [place for place in places if place not in behind]
    return [
        place
        for place, after in zip(places, [*places[1:], None], strict=True)
        if after is None
        or place.path == after.path
        or not inside(after.path, place.path)
        or after.start - place.end > 1
        or bool(set(text[place.end : after.start]) & _JOINS)
    ]


def refers_back(text: str, place: Place, before: list[Place]) -> bool:
    """关节面, 周围软组织, 窦腔, 管壁: a part of whatever was named before, and no structure of its own."""
    if place.path == "limb" or text[place.start : place.end] == "管壁":
        return bool(before)
    lumen = text[place.start : place.end] in ("窦腔", "窦壁")
    own_side = place.said_side is not None and place.said_side[1] == place.start
    return lumen and not own_side and any(inside(each.path, place.path) for each in before)


def belongs(lesion: str, places: list[Place]) -> bool:
    """A word like 突出 is a finding of the spine only; elsewhere it describes a contour."""
    place = lesions()[lesion].place or ""
    return not places or any(inside(each.path, place) or inside(place, each.path) for each in places)


def own_places(lesion: str, token: Token, current: list[Place], before: list[Token]) -> list[Place]:
    """The places of the clause, or the one that the word itself names when they do not fit it (`右侧气胸`)."""
    implied = lesions()[lesion].place
    if implied is None:
        return current
    if any(inside(place.path, implied) or inside(implied, place.path) for place in current):
        return current
    if current and implied.split("/")[0] == current[0].path.split("/")[0]:
        return current
    side = next((t for t in reversed(before) if t.kind in ("side", "place", "lesion")), None)
    if side is None or side.kind != "side" or token.start - side.end > 4:
        return [Place(implied, _NOWHERE, token.start, token.end)]
    return [Place(implied, SIDES[str(side.value)], token.start, token.end, (side.start, side.end))]
