"""One written form for every writer of an expert study, so that nothing but the words tells who wrote a text.

Numbering, separators, punctuation width, script, units and line ends are those of nobody; what is said, and in which order, stays.
"""

import re

from clinical import cleaning, label
from clinical.style import Style
from worker.prompt import model_text

_PLAIN = Style(numbering="", separator="\n", end="")
_ORDINAL = re.compile(r"^\s*(?:\d{1,2}\s*[、.．)）](?!\d)|[(（]\d{1,2}[)）]|[①-⑳]|[一二三四五六七八九十]{1,2}、)\s*")
_ENDS = " \t\u3000。.；;，,、"
_WIDE = {",": "，", ";": "；", ":": "：", "(": "（", ")": "）", "?": "？"}
_HALF = re.compile(r"(?<=[\u4e00-\u9fff（）])[,;:()?]|[(](?=[\u4e00-\u9fff])")


def blinded(text: str, language: str) -> str:
    """The text as every reader sees it: cleaned, without a title, one item a line, without numbers and end marks."""
    body = model_text(cleaning.impression(text).text, language=language)
    if language.lower().startswith("zh"):
        body = _PLAIN.apply(body)
        body = _HALF.sub(lambda found: _WIDE[found[0]], body)
    lines = (_ORDINAL.sub("", line).strip(_ENDS) for line in body.splitlines() if not label.left_over(line))
    return "\n".join(line for line in lines if line)
