"""The presets: Table 1 of the paper to the report, and its shares at any scale."""

from collections import Counter
from collections.abc import Iterable

import pytest

from sandbox.generator import generate
from sandbox.presets import Cell, plan, shares

# arXiv 2310.05242, Table 1, written down here once more so that a slip in the preset shows.
PAPER = {
    (1, "train"): {"total": 253_871, "F": 119_185, "M": 134_686, "CT": 210_487, "MR": 43_384},
    (1, "test"): {"total": 63_468, "F": 28_993, "M": 34_475, "CT": 49_488, "MR": 13_980},
    (2, "test"): {"total": 12_412, "F": 7_320, "M": 5_092, "CT": 12_397, "MR": 15},
    (3, "test"): {"total": 1_465, "F": 620, "M": 845, "CT": 1_465, "MR": 0},
    (4, "test"): {"total": 300, "F": 133, "M": 167, "CT": 238, "MR": 62},
    (5, "test"): {"total": 741, "F": 382, "M": 359, "CT": 543, "MR": 198},
    (6, "test"): {"total": 416, "F": 225, "M": 191, "CT": 346, "MR": 70},
}
SYSTEM_TOTALS = {
    "chest": 106_509,
    "abdomen": 66_015,
    "musculoskeletal": 46_392,
    "head": 70_643,
    "maxillofacial_neck": 43_114,
}


def totals(cells: Iterable[Cell]) -> Counter[object]:
    counted: Counter[object] = Counter()
    for cell in cells:
        for key in ("total", cell.sex, cell.modality, cell.system):
            counted[key] += cell.count
    return counted


def test_the_paper_at_full_scale_is_table_1_to_the_report() -> None:
    cells = plan("paper", 1)
    assert sum(cell.count for cell in cells) == 332_673
    for (house, split), expected in PAPER.items():
        found = totals(cell for cell in cells if (cell.house, cell.split) == (house, split))
        assert {key: found[key] for key in expected} == expected
    assert {system: totals(cells)[system] for system in SYSTEM_TOTALS} == SYSTEM_TOTALS


@pytest.mark.parametrize("scale", [0.002, 0.01, 0.1])
def test_the_paper_at_any_scale_keeps_each_share_within_one_report(scale: float) -> None:
    cells = plan("paper", scale)
    for (house, split), expected in PAPER.items():
        found = totals(cell for cell in cells if (cell.house, cell.split) == (house, split))
        if round(expected["total"] * scale) > 20:
            assert abs(found["total"] - expected["total"] * scale) < 1
        for key, count in expected.items():
            assert abs(found[key] - found["total"] * count / expected["total"]) < 1


@pytest.mark.parametrize("preset", ["paper", "demo", "balanced"])
@pytest.mark.parametrize("scale", [0.000001, 0.001, 0.01])
def test_no_hospital_has_fewer_than_20_reports(preset: str, scale: float) -> None:
    counted = Counter(dict.fromkeys(range(1, 7), 0))
    for cell in plan(preset, scale):
        counted[cell.house] += cell.count
    assert min(counted.values()) >= 20


def test_the_demo_is_the_paper_with_some_ct_taken_as_x_ray() -> None:
    paper, demo = plan("paper", 0.01), plan("demo", 0.01)
    assert totals(paper)["XR"] == 0
    assert totals(demo)["XR"] > 0.1 * totals(demo)["total"]
    for key in ("total", "F", "M", "MR", "chest", "head"):
        assert totals(demo)[key] == totals(paper)[key]


def test_balanced_has_every_house_in_every_system_and_modality() -> None:
    found = {(cell.house, cell.system, cell.modality, cell.sex) for cell in plan("balanced", 0.001) if cell.count}
    assert len(found) == 6 * 5 * 3 * 2
    assert {cell.house for cell in plan("balanced", 0.001, houses=(7,))} == {7}


def test_the_generator_writes_as_many_reports_as_the_plan_says() -> None:
    written = Counter((one.house, one.systems[0], one.modality, one.sex) for one in generate("demo", scale=0.003))
    planned: Counter[tuple[int, str, str, str]] = Counter()
    for cell in plan("demo", 0.003):
        planned[cell.house, cell.system, cell.modality, cell.sex] += cell.count
    assert written == planned


def test_largest_remainders_add_up() -> None:
    assert shares(10, {"a": 1, "b": 1, "c": 1}) == {"a": 4, "b": 3, "c": 3}
    assert shares(3, {"a": 0.0, "b": 2.0}) == {"a": 0, "b": 3}


@pytest.mark.parametrize(("preset", "scale", "houses"), [("paper", 0, (1,)), ("papers", 1, (1,)), ("demo", 1, (7,))])
def test_an_impossible_plan_is_refused(preset: str, scale: float, houses: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"scale|unknown preset|house 7"):
        plan(preset, scale, houses)
