"""House style as data: how an institution writes an impression. A lossless formatter: it changes how facts are written, never the facts.

A draft comes in the one form that models are trained on (clinical.unify) and leaves in the house's: numbering, separators, sides, spine
levels, punctuation width, closing advice, script. What was formatted is read back; when it does not say the same, the draft stays as it was.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from clinical.script import in_script
from clinical.unify import unify

_HAN = "一二三四五六七八九十"
_CIRCLED = "①②③④⑤⑥⑦⑧⑨⑩"
_ORDINAL = re.compile(r"^\s*(?:\d{1,2}\s*[、.．)）](?!\d)|[(（]\d{1,2}[)）]|[①-⑳]|[一二三四五六七八九十]{1,2}、)\s*")
_ADVICE = re.compile(r"^(?:请结合|结合临床|建议|必要时|随诊|随访|定期|处理[:：])")
_SENTENCE = re.compile(r"。|\.$")
_STATEMENT = re.compile(r"[。；;]|\.$")
_END = "。.；;，, \t"
_DISC = re.compile(r"(颈|胸|腰)(\d{1,2})/(?:(胸|腰|骶))?(\d{1,2})")
_LATIN = {"颈": "C", "胸": "T", "腰": "L", "骶": "S"}
_HALF = str.maketrans("，；：（）。？", ",;:().?")
_FORMATS = ("", "{n}、", "{n}.", "({n})", "（{n}）", "{n}）", "{circled}", "{han}、")


@dataclass(frozen=True, slots=True)
class Style:
    """How a house writes. The defaults leave a draft as the model wrote it.

    `numbering` None keeps the model's; "" writes no numbers. `advice` None keeps the model's closing advice, "" drops it, any other text
    takes its place, with `advice_always` also where the model gave none. `sides` are the house's words for 左侧 and 右侧; `discs` is a format
    of `{upper}` and `{lower}` with `{region}` or, for Latin letters, `{latin}` and `{latin_lower}` or `{latin_full}`.
    """

    numbering: str | None = None
    number_single: bool = False
    separator: str = "；\n"
    end: str = "。"
    sides: tuple[str, str] | None = None
    discs: str | None = None
    advice: str | None = None
    advice_always: bool = False
    half_width: bool = False

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> "Style":
        """The style of an institution's `[institution.style]` table.

        Raises:
            ValueError: a setting is unknown or does not fit.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(table) - known)
        if unknown:
            raise ValueError(
                f"[institution.style] has no setting called {unknown[0]}; it has {', '.join(sorted(known))}."
            )
        numbering = table.get("numbering")
        if numbering is not None and numbering not in _FORMATS:
            raise ValueError(f"numbering must be one of {', '.join(repr(each) for each in _FORMATS)}.")
        sides = table.get("sides")
        if sides is not None and (not isinstance(sides, list | tuple) or len(sides) != 2):
            raise ValueError("sides must be two words, for left and for right.")
        return cls(**{**table, **({"sides": tuple(sides)} if sides is not None else {})})

    def apply(self, text: str, language: str = "zh-Hans") -> str:
        """`text` as the house writes it. Where reading it back would not give the same items, `text` is returned in the house's script only."""
        if not language.startswith("zh"):
            return text
        if self == Style():
            return in_script(text, language)
        items, advice = _parts(text)
        if not items:
            return in_script(text, language)
        shown = in_script(self._written(items, advice), language)
        return shown if _said(_parts(unify(shown))[0]) == _said(items) else in_script(text, language)

    def _written(self, items: list[str], advice: str) -> str:
        numbering = self.numbering if self.numbering is not None else "{n}、"
        numbered = bool(numbering) and (len(items) > 1 or self.number_single) and len(items) <= len(_HAN)
        lines = [
            (numbering.format(n=index + 1, han=_HAN[index], circled=_CIRCLED[index]) if numbered else "")
            + self._words(item)
            for index, item in enumerate(items)
        ]
        body = self.separator.join(lines) + self.end
        closing = advice if self.advice is None else self.advice if advice or self.advice_always else ""
        written = f"{body}\n{closing}" if closing else body
        return written.translate(_HALF) if self.half_width else written

    def _words(self, item: str) -> str:
        if self.sides is not None:
            left, right = self.sides
            item = re.sub(r"左侧?(?![右上下中]?[心房室])", left, item)
            item = re.sub(r"右侧?(?![心房室])", right, item)
        if self.discs is not None:
            item = _DISC.sub(self._disc, item)
        return item

    def _disc(self, match: re.Match[str]) -> str:
        region, upper, other, lower = match.groups()
        discs = self.discs or "{region}{upper}/{lower}"
        return discs.format(
            region=region,
            upper=upper,
            lower=(other or "") + lower if "{region}" in discs else lower,
            latin=_LATIN[region],
            latin_lower=_LATIN[other] if other else "",
            latin_full=_LATIN[other or region],
        )


def _parts(text: str) -> tuple[list[str], str]:
    """An impression as its items without numbers and its closing advice.

    A numbered list has one item a line, which may hold several statements; without numbers each statement is an item.
    """
    lines = text.splitlines()
    border = _SENTENCE if sum(bool(_ORDINAL.match(line)) for line in lines) else _STATEMENT
    items: list[str] = []
    advice: list[str] = []
    for piece in (piece for line in lines for piece in border.split(line)):
        bare = _ORDINAL.sub("", piece).strip(_END)
        if not bare:
            continue
        if items and _ADVICE.match(bare):
            advice.append(bare)
        elif advice:
            return [*items, *advice, bare], ""  # advice in the middle is an item like any other
        else:
            items.append(bare)
    return items, "，".join(advice) + "。" if advice else ""


def _said(items: list[str]) -> list[str]:
    """Items as they are compared: one form, no punctuation, 左侧 as 左."""
    return [
        re.sub(r"[\s，,。.；;：:、（）()？?]", "", unify(item)).replace("侧", "").replace("旁", "") for item in items
    ]
