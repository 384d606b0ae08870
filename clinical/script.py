"""Simplified Chinese in the script that an institution writes. Words stay as they are; only glyphs change."""

from __future__ import annotations

from functools import cache

import opencc

__all__ = ["in_script"]


@cache
def _converter() -> opencc.OpenCC:
    return opencc.OpenCC("s2tw")


def in_script(text: str, language: str) -> str:
    """`text` in traditional glyphs where the language is written in them, else as it is."""
    if language.lower().startswith(("zh-hant", "zh-tw", "zh-hk", "zh-mo")):
        return str(_converter().convert(text))
    return text
