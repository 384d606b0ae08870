"""Stages, the hold-back arm and scope, as pure functions."""

import uuid

import pytest

from core import stages
from core.stages import Stage


@pytest.mark.parametrize(
    ("lines", "systems", "expected"),
    [
        ({}, ["chest"], Stage.LIVE),
        ({"*": "collect"}, ["chest"], Stage.COLLECT),
        ({"*": "collect", "CT": "live"}, ["chest"], Stage.LIVE),
        ({"*": "live", "CT": "shadow", "CT/chest": "live"}, ["chest"], Stage.LIVE),
        ({"*": "live", "CT": "shadow", "CT/chest": "live"}, ["chest", "abdomen"], Stage.SHADOW),
        ({"*/chest": "collect"}, ["chest"], Stage.COLLECT),
        ({"*/chest": "collect"}, [], Stage.LIVE),
        ({"MR": "collect"}, ["chest"], Stage.LIVE),
    ],
)
def test_the_closest_line_decides_and_of_several_systems_the_strictest(
    lines: dict[str, str], systems: list[str], expected: Stage
) -> None:
    assert stages.stage(lines, "CT", systems) is expected


@pytest.mark.parametrize("line", [("US", "live"), ("CT/spleen", "live"), ("CT/chest", "on"), ("chest", "live")])
def test_a_line_that_says_nothing_is_a_fault(line: tuple[str, str]) -> None:
    assert stages.fault(*line) is not None


def test_the_hold_back_arm_has_its_share_and_is_always_the_same() -> None:
    drawn = [stages.is_held_back(uuid.UUID(int=n).hex, 0.05) for n in range(20_000)]
    assert 0.04 < sum(drawn) / len(drawn) < 0.06
    assert drawn == [stages.is_held_back(uuid.UUID(int=n).hex, 0.05) for n in range(20_000)]
    assert not any(stages.is_held_back(uuid.UUID(int=n).hex, 0.0) for n in range(1000))


def test_scope_counts_by_modality_system_age_and_language() -> None:
    scope = [
        {"modality": "CT", "system": "chest", "age_band": "14-39", "language": "zh-Hans", "count": 5},
        {"modality": "CT", "system": "chest", "age_band": "40-64", "language": "zh-Hans", "count": 9},
        {"modality": "CT", "system": "abdomen", "age_band": "40-64", "language": "zh-Hans", "count": 2},
    ]
    assert stages.seen([], "CT", ["chest"], "40-64", "zh-Hans") is None
    assert stages.seen(scope, "CT", ["chest"], "40-64", "zh-Hans") == 9
    assert stages.seen(scope, "CT", ["chest"], None, "zh-Hans") == 14
    assert stages.seen(scope, "CT", ["chest", "abdomen"], "40-64", "zh-Hans") == 2
    assert stages.seen(scope, "MR", ["chest"], "40-64", "zh-Hans") == 0
    assert stages.seen(scope, "CT", ["chest"], "40-64", "en") == 0
