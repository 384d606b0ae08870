"""Turns simplified text into the traditional script of house 5, one character for one, so that spans stay true."""

import re
from functools import cache

from sandbox.catalogue import read


@cache
def _table() -> tuple[dict[int, int], re.Pattern[str], dict[str, str]]:
    data = read("traditional.toml")
    words: dict[str, str] = data["words"]
    table = str.maketrans(data["simplified"], data["traditional"])
    return table, re.compile("|".join(map(re.escape, words))), words


@cache
def mixed() -> dict[str, str]:
    """Traditional glyphs and the variants that stand for them now and then."""
    return dict(read("traditional.toml")["mixed"])


def traditional(text: str) -> str:
    """`text` in traditional script, of the same length."""
    table, pattern, words = _table()
    return pattern.sub(lambda found: words[found.group()], text.translate(table))
