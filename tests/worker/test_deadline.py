"""Deadlines follow what was measured, within the setting."""

import pytest

from worker.deadline import ENOUGH, LAST, Deadline


@pytest.mark.parametrize(
    ("took", "allowed"),
    [(1.0, 30.0), (6.0, 60.0), (60.0, 120.0)],
    ids=["a fast card", "a slow one", "slower than the setting"],
)
def test_a_draft_may_take_ten_times_what_the_last_ones_took(took: float, allowed: float) -> None:
    deadline = Deadline(120.0)
    for _ in range(ENOUGH):
        deadline.took(took)
    assert deadline.seconds() == allowed


def test_until_enough_was_measured_the_setting_holds() -> None:
    deadline = Deadline(120.0)
    for _ in range(ENOUGH - 1):
        deadline.took(1.0)
    assert deadline.seconds() == 120.0
    deadline.took(1.0)
    assert deadline.seconds() == 30.0
    deadline.forget()
    assert deadline.seconds() == 120.0


def test_a_setting_below_the_least_holds() -> None:
    deadline = Deadline(5.0)
    for _ in range(ENOUGH):
        deadline.took(1.0)
    assert deadline.seconds() == 5.0


def test_a_busier_hour_moves_it() -> None:
    deadline = Deadline(120.0)
    for seconds in (4.0, 8.0):
        for _ in range(LAST):
            deadline.took(seconds)
    assert deadline.seconds() == 80.0
