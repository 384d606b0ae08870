"""Every word of the page is there in each of its languages, and a browser gets the one that it asks for."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from fastapi import Request

from clinical.case import Modality, Sex, System
from clinical.issues import Kind
from clinical.script import in_script
from core.states import SETTLED, UNCLOSED, Reason, RequestState
from worklist.list_page import TABS
from worklist.rendering import HERE
from worklist.words import _TABLE, COOKIE, LANGUAGES, Language, Words


def test_every_word_is_there_in_each_language_with_the_same_gaps() -> None:
    for key, spoken in _TABLE.items():
        assert len(spoken) == len(LANGUAGES), key
        assert len({frozenset(re.findall(r"{(\w+)}", said)) for said in spoken}) == 1, key
        assert all(spoken) or key == "sex.U", key


def test_each_word_is_in_the_script_of_its_language() -> None:
    for key, (hans, hant, en, fr) in _TABLE.items():
        assert not re.search(r"[\u3000-\u9fff]", en + fr), key
        assert in_script(hant, "zh-Hant") == hant, key
        assert not set(hans) & set("簽發檢見請態張醫師號機構與無"), key
        assert not set(hant) & set("签发检见请态张医师号机构与无"), key


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


@pytest.mark.parametrize(
    ("cookie", "header", "language"),
    [
        (None, "", "zh-Hans"),
        (None, "zh-CN,zh;q=0.9,en;q=0.8", "zh-Hans"),
        (None, "zh-TW,zh;q=0.9", "zh-Hant"),
        (None, "zh-Hant-HK", "zh-Hant"),
        (None, "de-DE,de;q=0.9,fr-CA;q=0.7,en;q=0.6", "fr"),
        (None, "en;q=0.2, fr;q=0.1", "en"),
        (None, "fr;q=0, en-GB", "en"),
        (None, "*;q=x, ;;, q=1,", "zh-Hans"),
        ("fr", "zh-CN", "fr"),
        ("zh-Hant", "en", "zh-Hant"),
        ("de", "en", "en"),
    ],
)
def test_a_browser_gets_what_its_switch_says_else_what_its_settings_ask_for(
    cookie: str | None, header: str, language: Language
) -> None:
    headers = {"accept-language": header} | ({} if cookie is None else {"cookie": f"{COOKIE}={cookie}"})
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert Words.of(Request({"type": "http", "headers": raw})).language == language
