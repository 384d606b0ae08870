"""The page's words in four languages, from `words.toml`; and which of them a browser wants. Knows nothing about templates."""

import tomllib
from datetime import datetime, timedelta
from importlib import resources
from typing import Literal, get_args

from fastapi import Request

Language = Literal["zh-Hans", "zh-Hant", "en", "fr"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
NAMES: dict[Language, str] = {"zh-Hans": "简体中文", "zh-Hant": "繁體中文", "en": "English", "fr": "Français"}
"""Each in its own words, since its reader looks for it."""
COOKIE = "valuer_language"

_TABLE: dict[str, list[str]] = {
    f"{section}.{key}": spoken
    for section, entries in tomllib.loads((resources.files("worklist") / "words.toml").read_text("utf-8")).items()
    for key, spoken in entries.items()
}


class Words:
    """Says things in one language: `words("state.queued")`."""

    def __init__(self, language: Language) -> None:
        self.language = language

    @classmethod
    def of(cls, request: Request) -> "Words":
        """The words that this browser wants: as its language switch says, else as its settings do, else simplified Chinese."""
        chosen = request.cookies.get(COOKIE)
        known = next((language for language in LANGUAGES if language == chosen), None)
        return cls(known or _preferred(request.headers.get("accept-language", "")))

    def get(self, key: str, **values: object) -> str | None:
        """The word, or None when the table has none."""
        said = _TABLE.get(key)
        return None if said is None else said[LANGUAGES.index(self.language)].format(**values)

    def __call__(self, key: str, **values: object) -> str:
        """The word. Raises KeyError for one that the table does not have: that is a mistake in a template."""
        said = self.get(key, **values)
        if said is None:
            raise KeyError(key)
        return said

    def seconds(self, count: int) -> str:
        """A short while: seconds up to two minutes, then minutes."""
        if count < 120:
            return self("time.seconds", seconds=count)
        return self("time.minutes", minutes=round(count / 60))

    def elapsed(self, since: datetime, now: datetime) -> str:
        """How long ago `since` was, in the two largest units."""
        minutes = max(0, int((now - since) / timedelta(minutes=1)))
        if minutes < 60:
            return self("time.minutes", minutes=minutes)
        if minutes < 48 * 60:
            return self("time.hours", hours=minutes // 60, minutes=minutes % 60)
        return self("time.days", days=minutes // 1440, hours=minutes % 1440 // 60)


_TAGS: tuple[tuple[Language, tuple[str, ...]], ...] = (
    ("zh-Hant", ("zh-hant", "zh-tw", "zh-hk", "zh-mo")),
    ("zh-Hans", ("zh",)),
    ("en", ("en",)),
    ("fr", ("fr",)),
)


def _preferred(header: str) -> Language:
    """The first of ours in an Accept-Language header (RFC 9110, 12.5.4), by weight."""
    asked: list[tuple[float, str]] = []
    for part in header.lower().split(","):
        name, _, parameter = part.strip().partition(";")
        try:
            asked.append((float(parameter.strip().removeprefix("q=") or 1), name.strip()))
        except ValueError:
            continue
    for weight, tag in sorted(asked, key=lambda each: -each[0]):
        for language, begins in _TAGS:
            if weight > 0 and tag.startswith(begins):
                return language
    return "zh-Hans"
