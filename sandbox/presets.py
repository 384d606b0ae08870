"""How many reports of each kind a preset asks for: the shares of the paper's Table 1, the same with X-ray, or all evenly.

Counts only. Institutions, systems, sexes and modalities follow Table 1 of arXiv 2310.05242 exactly, each rounded by largest
remainders; the paper gives no joint counts, so which system has how many MR exams is our choice (mostly head and joints).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from sandbox.facts import SYSTEMS, Modality, Sex, System

Split = Literal["train", "test"]
K = TypeVar("K")

MIN_PER_HOUSE = 20
TOTAL = 332_673


@dataclass(frozen=True, slots=True)
class Cell:
    """`count` reports of one kind."""

    house: int
    split: Split
    system: System
    modality: Modality
    sex: Sex
    count: int


@dataclass(frozen=True, slots=True)
class _Column:
    """One column of Table 1."""

    house: int
    split: Split
    female: int
    male: int
    ct: int
    mr: int
    systems: Mapping[System, int]

    @property
    def total(self) -> int:
        return self.female + self.male


TABLE_1 = (
    _Column(
        1,
        "train",
        119_185,
        134_686,
        210_487,
        43_384,
        dict(zip(SYSTEMS, (75_277, 51_640, 36_874, 55_922, 34_158), strict=True)),
    ),
    _Column(
        1,
        "test",
        28_993,
        34_475,
        49_488,
        13_980,
        dict(zip(SYSTEMS, (18_820, 12_910, 9_218, 13_980, 8_540), strict=True)),
    ),
    _Column(2, "test", 7_320, 5_092, 12_397, 15, {"chest": 12_412}),
    _Column(3, "test", 620, 845, 1_465, 0, {"abdomen": 1_465}),
    _Column(4, "test", 133, 167, 238, 62, {"musculoskeletal": 300}),
    _Column(5, "test", 382, 359, 543, 198, {"head": 741}),
    _Column(6, "test", 225, 191, 346, 70, {"maxillofacial_neck": 416}),
)

_MR_LEANING: Mapping[System, float] = {
    "chest": 0.02,
    "abdomen": 0.6,
    "musculoskeletal": 1.6,
    "head": 1.6,
    "maxillofacial_neck": 0.5,
}
_XR_SHARE: Mapping[System, float] = {
    "chest": 0.25,
    "abdomen": 0.05,
    "musculoskeletal": 0.35,
    "head": 0.0,
    "maxillofacial_neck": 0.04,
}
"""In `demo`, the share of a system's CT exams that become X-ray."""
_BALANCED_MIX: tuple[tuple[Modality, int], ...] = (("CT", 60), ("MR", 25), ("XR", 15))


def plan(preset: str, scale: float, houses: Sequence[int] = (1, 2, 3, 4, 5, 6)) -> tuple[Cell, ...]:
    """The cells of `paper`, `demo` or `balanced`, at `scale` times 332,673 reports, for `houses`.

    No house gets fewer than 20 reports. House 7 has a place in `balanced` only; `paper` and `demo` refuse it.
    """
    if not scale > 0:
        raise ValueError("scale must be above 0")
    if preset == "balanced":
        return tuple(cell for house in houses for cell in _balanced(house, scale))
    if preset not in ("paper", "demo"):
        raise ValueError(f"unknown preset {preset}: paper, demo or balanced")
    if not set(houses) <= {1, 2, 3, 4, 5, 6}:
        raise ValueError("the paper has six institutions; house 7 is in the preset balanced only")
    cells = _paper(scale)
    if preset == "demo":
        cells = [part for cell in cells for part in _with_xray(cell)]
    return tuple(cell for cell in cells if cell.house in houses and cell.count)


def shares(total: int, weights: Mapping[K, float]) -> dict[K, int]:
    """`total` divided by weights, rounded by largest remainders (ties: earlier first)."""
    whole = sum(weights.values())
    exact = {key: total * weight / whole if whole else 0.0 for key, weight in weights.items()}
    counts = {key: math.floor(value) for key, value in exact.items()}
    short = total - sum(counts.values())
    for key in sorted(exact, key=lambda key: counts[key] - exact[key])[:short]:
        counts[key] += 1
    return counts


def _paper(scale: float) -> list[Cell]:
    totals = shares(round(TOTAL * scale), {index: column.total for index, column in enumerate(TABLE_1)})
    cells = []
    for index, column in enumerate(TABLE_1):
        # House 1 fills two columns, so its floor is met by both together; its training part takes what is missing.
        floor = MIN_PER_HOUSE if column.house > 1 else MIN_PER_HOUSE - totals[1 - index] if index == 0 else 0
        cells += _column_cells(column, max(totals[index], floor))
    return cells


def _column_cells(column: _Column, total: int) -> list[Cell]:
    systems = shares(total, column.systems)
    modalities = shares(total, {"CT": column.ct, "MR": column.mr})
    mr = _split_mr(systems, modalities["MR"])
    females = shares(total, {"F": column.female, "M": column.male})["F"]
    cells: list[Cell] = []
    seen = told = 0
    for system, count in systems.items():
        for modality, part in (("CT", count - mr[system]), ("MR", mr[system])):
            # Cumulative rounding keeps the column's sum of women exact while every cell stays near its share.
            seen += part
            women = round(females * seen / total) - told if total else 0
            told += women
            for sex, people in (("F", women), ("M", part - women)):
                cells.append(Cell(column.house, column.split, system, _modality(modality), _sex(sex), people))
    return cells


def _modality(name: str) -> Modality:
    return "CT" if name == "CT" else "MR" if name == "MR" else "XR"


def _sex(name: str) -> Sex:
    return "F" if name == "F" else "M"


def _split_mr(systems: Mapping[System, int], total: int) -> dict[System, int]:
    """MR exams by system: by leaning, never more than a system has."""
    left = total
    given = dict.fromkeys(systems, 0)
    while left:
        room = {system: systems[system] - given[system] for system in systems}
        weights = {system: systems[system] * _MR_LEANING[system] for system in systems if room[system]}
        for system, more in shares(left, weights).items():
            take = min(more, room[system])
            given[system] += take
            left -= take
    return given


def _with_xray(cell: Cell) -> list[Cell]:
    films = round(cell.count * _XR_SHARE[cell.system]) if cell.modality == "CT" else 0
    return [
        Cell(cell.house, cell.split, cell.system, cell.modality, cell.sex, cell.count - films),
        Cell(cell.house, cell.split, cell.system, "XR", cell.sex, films),
    ]


def _balanced(house: int, scale: float) -> list[Cell]:
    """House 1 has 45 % of the reports, every other one 11 %; systems and sexes evenly; CT 60, MR 25, X-ray 15 %."""
    wanted = TOTAL * scale * (0.45 if house == 1 else 0.11)
    kinds = len(SYSTEMS) * len(_BALANCED_MIX) * 2
    total = max(math.ceil(wanted), kinds)
    splits: Mapping[Split, float] = {"train": 0.8, "test": 0.2} if house == 1 else {"test": 1.0}
    weights = {
        (split, system, modality, _sex(sex)): share * part
        for split, share in splits.items()
        for system in SYSTEMS
        for modality, part in _BALANCED_MIX
        for sex in "FM"
    }
    return [
        Cell(house, split, system, modality, sex, max(1, count) if split == "test" else count)
        for (split, system, modality, sex), count in shares(total, weights).items()
    ]
