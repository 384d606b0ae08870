"""The phrase files as frozen values: exams, normal clauses and finding types of each body system, ready to render.

Reads data and decides nothing. The files' syntax: `{slot}` is filled by `sandbox.write` (S, s side in full and short; at, in
place in findings and impression; L levels; d, d2 sizes; n count; p, m measure; w size word; g, cue grade and the sign it shows
by; H:x diagnosis x hedged; R, B, T region word, bone, tooth; any `pick` key), `[a|b]` means one of both. Wordings in
`SYSTEM.toml` are `seen`, those in `SYSTEM_unseen.toml` appear only where a caller asks for them.
"""

import itertools
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from sandbox.facts import MODALITIES, SYSTEMS, Wording

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True, slots=True)
class Template:
    """A wording as a %-format and the slots that fill it, in order."""

    form: str
    slots: tuple[str, ...]


Wordings = tuple[tuple[Template, ...], ...]
"""Wordings of equal weight, each as its `[a|b]` expansions."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a lesion may lie; `sides` lists the sides it exists on (empty: midline or not told)."""

    sides: str
    level: str
    at: str
    coarse: str


@dataclass(frozen=True, slots=True)
class Measure:
    """A number other than a size: percent, HU, ml, degrees or a ratio, drawn from `lo` to `hi` in steps."""

    unit: str
    lo: float
    step: float
    steps: int


@dataclass(frozen=True, slots=True, eq=False)
class Exam:
    title: str
    modality: str
    regions: tuple[str, ...]
    weight: float
    contrast: bool
    side: str
    pair: str
    only: tuple[str, ...]
    head: tuple[str, ...]
    age: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Normal:
    """A normal clause: it says that `organ` is fine (`rest`: apart from the lesion) or that type `negates` is absent."""

    organ: str
    order: int
    region: str
    rest: bool
    negates: str | None
    sex: str | None
    age: tuple[int, int]
    wordings: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class FindingType:
    """One finding type; every name as in the phrase files."""

    id: str
    system: str
    order: int
    organ: str
    harms: tuple[str, ...]
    regions: tuple[str, ...]
    structure: str
    lesion: str
    side: str
    places: tuple[Place, ...]
    clash: str
    level: str
    many: int
    d: tuple[int, int] | None
    d2: tuple[int, int] | None
    n: tuple[int, int] | None
    m: Measure | None
    volume: bool
    grades: tuple[tuple[str, str], ...]
    critical_grades: tuple[str, ...]
    scale: str
    picks: tuple[tuple[str, tuple[str, ...]], ...]
    severity: int
    critical: bool
    hedge: str
    sex: str | None
    age: tuple[int, int]
    contrast: bool
    echo: bool
    diffuse: bool
    silent: bool
    weight: float
    excludes: tuple[str, ...]
    seen: Mapping[str, Wordings]
    unseen: Mapping[str, Wordings]
    impression_seen: Wordings
    impression_unseen: Wordings

    def wordings(self, modality: str, wording: Wording) -> Wordings:
        """Findings wordings of one modality."""
        if wording == "seen":
            return self.seen[modality]
        return self.unseen[modality] if wording == "unseen" else self.seen[modality] + self.unseen[modality]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything the generator can say about one body system."""

    system: str
    organs: tuple[str, ...]
    exams: tuple[Exam, ...]
    normals: tuple[Normal, ...]
    types: tuple[FindingType, ...]
    history: tuple[str, ...]
    incidental: tuple[str, ...]
    partners: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Spine:
    """Discs, vertebrae, bones and words of each region of the skeleton."""

    levels: Mapping[str, Mapping[str, tuple[tuple[str, float], ...]]]
    bones: Mapping[str, tuple[str, ...]]
    words: Mapping[str, str]


def read(name: str) -> dict[str, Any]:
    """The parsed phrase file `name`."""
    return tomllib.loads((resources.files("sandbox.phrases") / name).read_text(encoding="utf-8"))


def compiled(text: str) -> tuple[Template, ...]:
    """All expansions of one wording."""
    parts = _CHOICE.split(text)
    options: list[list[str]] = [[part] if i % 2 == 0 else part.split("|") for i, part in enumerate(parts)]
    return tuple(_template("".join(choice)) for choice in itertools.product(*options))


def _template(text: str) -> Template:
    slots: list[str] = []

    def note(found: re.Match[str]) -> str:
        slots.append(found.group(1))
        return "%s"

    return Template(_SLOT.sub(note, text.replace("%", "%%")), tuple(slots))


def _wordings(texts: Iterable[str]) -> Wordings:
    return tuple(compiled(text) for text in texts)


def _span(value: list[int] | None) -> tuple[int, int] | None:
    return (value[0], value[1]) if value else None


@cache
def spine() -> Spine:
    """Levels of the spine and bones of the limbs."""
    data = read("places.toml")
    levels = {
        kind: {region: tuple((level, float(weight)) for level, weight in rows) for region, rows in data[kind].items()}
        for kind in ("disc", "vertebra")
    }
    return Spine(levels, {k: tuple(v) for k, v in data["bone"].items()}, dict(data["word"]))


def _places(value: str | list[str] | None) -> tuple[Place, ...]:
    if value is None:
        return ()
    if isinstance(value, list):
        return tuple(Place("", text, text, text) for text in value)
    return tuple(Place(*row) for row in read("places.toml")[value])


def _measure(value: Mapping[str, Any] | None) -> Measure | None:
    if value is None:
        return None
    steps = round((value["hi"] - value["lo"]) / value["step"])
    return Measure(value["unit"], value["lo"], value["step"], steps)


def _finding(
    id_: str, row: Mapping[str, Any], unseen: Mapping[str, Any], system: str, organs: list[str]
) -> FindingType:
    modalities = [m for m in MODALITIES if m.lower() in row]
    age = _span(row.get("age"))
    picks = {name: tuple(values) for name, values in row.get("pick", {}).items()}
    return FindingType(
        id=id_,
        system=system,
        order=organs.index(row["organ"]),
        organ=row["organ"],
        harms=tuple(row.get("harms", ())),
        regions=(row["region"], *row.get("also", ())),
        structure=row["structure"],
        lesion=row["lesion"],
        side=row.get("side", ""),
        places=_places(row.get("place")),
        clash=row.get("clash", ""),
        level=row.get("level", ""),
        many=row.get("many", 1),
        d=_span(row.get("d")),
        d2=_span(row.get("d2")),
        n=_span(row.get("n")),
        m=_measure(row.get("m")),
        volume=row.get("volume", False),
        grades=tuple((grade, cue) for grade, cue in row.get("grades", ())),
        critical_grades=tuple(row.get("critical_grades", ())),
        scale=row.get("scale", ""),
        picks=tuple(picks.items()),
        severity=row["severity"],
        critical=row.get("critical", False),
        hedge=row.get("hedge", ""),
        sex=row.get("sex"),
        age=age or (0, 130),
        contrast=row.get("contrast", False),
        echo=row.get("echo", False),
        diffuse=row.get("diffuse", False),
        silent=row.get("silent", False),
        weight=row.get("weight", 1.0),
        excludes=tuple(row.get("excludes", ())),
        seen={m: _wordings(row[m.lower()]) for m in modalities},
        unseen={m: _wordings(unseen[m.lower()]) for m in modalities},
        impression_seen=_wordings(row["imp"]),
        impression_unseen=_wordings(unseen["imp"]),
    )


def _normal(row: Mapping[str, Any], organs: list[str]) -> Normal:
    return Normal(
        organ=row["organ"],
        order=organs.index(row["organ"]),
        region=row["region"],
        rest=row.get("rest", False),
        negates=row.get("negates"),
        sex=row.get("sex"),
        age=_span(row.get("age")) or (0, 130),
        wordings={m: tuple(row[m.lower()]) for m in MODALITIES if m.lower() in row},
    )


def _exam(row: Mapping[str, Any]) -> Exam:
    return Exam(
        title=row["title"],
        modality=row["modality"],
        regions=tuple(row["regions"]),
        weight=float(row["weight"]),
        contrast=row.get("contrast", False),
        side=row.get("side", ""),
        pair=row.get("pair", ""),
        only=tuple(row.get("only", ())),
        head=tuple(row.get("head", ())),
        age=_span(row.get("age")),
    )


@cache
def catalogue(system: str) -> Catalogue:
    """What the phrase files hold for one body system."""
    data, unseen = read(f"{system}.toml"), read(f"{system}_unseen.toml")
    organs: list[str] = data["organs"]
    return Catalogue(
        system=system,
        organs=tuple(organs),
        exams=tuple(_exam(row) for row in data["exam"]),
        normals=tuple(_normal(row, organs) for row in data["normal"]),
        types=tuple(_finding(id_, row, unseen[id_], system, organs) for id_, row in data["type"].items()),
        history=tuple(data["history"]),
        incidental=tuple(data["incidental"]),
        partners=tuple(data["partners"]),
    )


@cache
def finding_types() -> Mapping[str, FindingType]:
    """Every finding type of the five systems by its id."""
    return {kind.id: kind for system in SYSTEMS for kind in catalogue(system).types}
