"""Blemishes of real texts, planted at a house's rates: typing slips, lost characters, mixed widths, stray markup.

Every operator makes one edit, is recorded with its place, and moves the spans of facts and earlier blemishes along. The truth
values keep what was meant: `wei` (未 typed as 末) changes what the text says, not what is true.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sandbox.draw import Rnd, pick
from sandbox.facts import Noise
from sandbox.houses import House
from sandbox.script import mixed
from sandbox.write import Span, Text

Edit = tuple[int, int, str]
"""Replace `text[start:end]` by the string."""

_WORD = re.compile(r"[\u4e00-\u9fff]{2}")
_PLAIN = re.compile(r"[的见影示呈区部可约大小]")
_SIZE = re.compile(r"，(?=(?:大小|直径|长径|径|约|大者|短径|范围|最大)[^，。；]{0,8}\d)")
_TEXTUAL_FINDINGS_ONLY = frozenset({"image", "blank", "nobreak"})


@dataclass(slots=True)
class Marked:
    """A text with spans that follow its edits."""

    text: str
    spans: dict[int, Span]
    denied: list[tuple[str, Span]]
    noise: list[tuple[str, Span, str]]

    def apply(self, kind: str | None, edit: Edit) -> None:
        """Make one edit; `kind` None leaves no record (titles and headers are no blemish)."""
        start, end, new = edit
        was = self.text[start:end]
        self.text = self.text[:start] + new + self.text[end:]
        grown = len(new) - (end - start)
        self.spans = {key: _moved(span, start, end, grown) for key, span in self.spans.items()}
        self.denied = [(key, _moved(span, start, end, grown)) for key, span in self.denied]
        self.noise = [(name, _moved(span, start, end, grown), old) for name, span, old in self.noise]
        if kind:
            self.noise.append((kind, (start, start + len(new)), was))


def marked(text: Text) -> Marked:
    """A finished text, ready for edits."""
    return Marked(str(text), dict(text.spans), list(text.denied), [])


def _moved(span: Span, start: int, end: int, grown: int) -> Span:
    if start >= span[1]:
        return span
    if end <= span[0]:
        return span[0] + grown, span[1] + grown
    return min(span[0], start), max(span[1] + grown, start)


def _found(rnd: Rnd, pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    places = list(pattern.finditer(text))
    return pick(rnd, places) if places else None


def _swap(old: str, new: str) -> Callable[[Rnd, str], Edit | None]:
    pattern = re.compile(re.escape(old))

    def edit(rnd: Rnd, text: str) -> Edit | None:
        place = _found(rnd, pattern, text)
        return (place.start(), place.end(), new) if place else None

    return edit


def _any(*edits: Callable[[Rnd, str], Edit | None]) -> Callable[[Rnd, str], Edit | None]:
    return lambda rnd, text: pick(rnd, edits)(rnd, text)


def _double(rnd: Rnd, text: str) -> Edit | None:
    place = _found(rnd, _WORD, text)
    return (place.end(), place.end(), place.group()) if place else None


def _drop(rnd: Rnd, text: str) -> Edit | None:
    place = _found(rnd, _PLAIN, text)
    return (place.start(), place.end(), "") if place else None


def _fffd(rnd: Rnd, text: str) -> Edit | None:
    place = _found(rnd, _PLAIN, text)
    return (place.start(), place.end(), "\ufffd") if place else None


def _image(rnd: Rnd, text: str) -> Edit | None:
    place = _found(rnd, _SIZE, text)
    if not place:
        return None
    first = 20 + int(rnd() * 280)
    shown = f"Im{first}" if rnd() < 0.6 else f"Im{first}-{first + 1 + int(rnd() * 3)}"
    series = 2 + int(rnd() * 6)
    return place.start(), place.start(), f"（Se{series}，{shown}）" if rnd() < 0.5 else f"(Se{series}，{shown})"


def _script(rnd: Rnd, text: str) -> Edit | None:
    present = [glyph for glyph in mixed() if glyph in text]
    if not present:
        return None
    glyph = pick(rnd, present)
    at = text.index(glyph)
    return at, at + 1, mixed()[glyph]


def _end(new: str) -> Callable[[Rnd, str], Edit | None]:
    return lambda rnd, text: (len(text), len(text), new)


OPERATORS: dict[str, Callable[[Rnd, str], Edit | None]] = {
    "double": _double,
    "drop": _drop,
    "homophone": _any(_swap("像", "象"), _swap("清", "青"), _swap("密", "蜜"), _swap("形", "型")),
    "glyph": _swap("黏", "粘"),
    "wei": _any(_swap("未见", "末见"), _swap("未见", "见")),
    "width": _any(_swap("，", ","), _swap("。", "."), _swap("；", ";")),
    "nobreak": _swap("\n", ""),
    "nbsp": _any(_swap("，", "，&nbsp;"), _swap("。", "。&nbsp;"), _swap("见", "见&nbsp;")),
    "quote": _any(_swap("，", '，"'), _swap("。", "'。")),
    "fffd": _fffd,
    "unit": _any(_swap("mm", "Mm"), _swap("CM", "cm"), _swap("mm", "MM")),
    "image": _image,
    "script": _script,
    "blank": _end("其他：____。"),
    "trail": _end(" "),
}


def plant(rnd: Rnd, house: House, told: Marked, concluded: Marked | None) -> tuple[Noise, ...]:
    """Plant a house's blemishes into both texts (spans move along) and list them."""
    fields: list[tuple[Literal["findings", "impression"], Marked]] = [("findings", told)]
    if concluded:
        fields.append(("impression", concluded))
    for kind, rate in house.noise.items():
        if rnd() < rate:
            text = told if kind in _TEXTUAL_FINDINGS_ONLY or rnd() < 0.8 or not concluded else concluded
            edit = OPERATORS[kind](rnd, text.text)
            if edit:
                text.apply(kind, edit)
    return tuple(Noise(kind, name, span, was) for name, text in fields for kind, span, was in text.noise)
