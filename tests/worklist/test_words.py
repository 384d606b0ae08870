"""Every word of the page is there in both languages."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from clinical.case import Modality, Sex, System
from clinical.issues import Kind
from core.states import SETTLED, UNCLOSED, Reason, RequestState
from worklist.list_page import TABS
from worklist.rendering import HERE
from worklist.words import _TABLE, LANGUAGES, Language, Words


def test_every_word_is_there_in_both_languages_with_the_same_gaps() -> None:
    for key, both in _TABLE.items():
        assert len(both) == len(LANGUAGES), key
        assert set(re.findall(r"{(\w+)}", both[0])) == set(re.findall(r"{(\w+)}", both[1])), key
        assert all(both) or key == "sex.U", key


def test_every_word_that_a_template_or_a_handler_asks_for_is_there() -> None:
    sources = [*HERE.glob("templates/*.html"), *HERE.glob("*.py")]
    asked = {
        key
        for source in sources
        for key in re.findall(r'(?:words|said)\(["\']([a-z_]+\.[a-z_]+)["\']', source.read_text("utf-8"))
    }
    assert len(asked) > 60
    assert asked <= set(_TABLE)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_state_reason_kind_and_code_has_its_word(language: Language) -> None:
    words = Words(language)
    for section, members in (
        ("state", RequestState),
        ("reason", Reason),
        ("kind", Kind),
        ("modality", Modality),
        ("system", System),
        ("list", TABS),
        ("priority", ("stat", "urgent", "routine")),
    ):
        for member in members:
            assert words(f"{section}.{member}")
    for state in (UNCLOSED | SETTLED) - {RequestState.DRAFTED}:
        assert words(f"state_sentence.{state}")
    for sex in Sex:
        words(f"sex.{sex}")


def test_times_are_told_in_their_two_largest_units() -> None:
    now = datetime(2026, 1, 10, 12, 0, tzinfo=UTC)
    told = [
        Words("en").elapsed(now - since, now)
        for since in (
            timedelta(seconds=-3),
            timedelta(minutes=59),
            timedelta(hours=47, minutes=5),
            timedelta(days=3, hours=4),
        )
    ]
    assert told == ["0 min", "59 min", "47 h 5 min", "3 d 4 h"]
