"""The page's words in Chinese and English, from `words.toml`; and which of the two a browser wants. Knows nothing about templates."""

import tomllib
from datetime import datetime, timedelta
from importlib import resources
from typing import Literal

from fastapi import Request

Language = Literal["zh", "en"]
LANGUAGES: tuple[Language, ...] = ("zh", "en")
COOKIE = "valuer_language"

_TABLE: dict[str, list[str]] = {
    f"{section}.{key}": both
    for section, entries in tomllib.loads((resources.files("worklist") / "words.toml").read_text("utf-8")).items()
    for key, both in entries.items()
}


class Words:
    """Says things in one language: `words("state.queued")`."""

    def __init__(self, language: Language) -> None:
        self.language = language

    @classmethod
    def of(cls, request: Request) -> "Words":
        """The words that this browser wants: as its language switch says, Chinese when it never touched it."""
        return cls("en" if request.cookies.get(COOKIE) == "en" else "zh")

    @property
    def html_language(self) -> str:
        """The language as the `lang` attribute spells it."""
        return {"zh": "zh-Hans", "en": "en"}[self.language]

    def get(self, key: str, **values: object) -> str | None:
        """The word, or None when the table has none."""
        both = _TABLE.get(key)
        return None if both is None else both[LANGUAGES.index(self.language)].format(**values)

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
