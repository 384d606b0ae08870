"""Text into words for scoring: jieba with a pinned dictionary, hidden Markov model off, its own instance, no cache file.

Measurements, levels, grades and sequence names are cut out whole first, since jieba would take 0.6 and 腰4/5 apart. The
dictionary is the one of the jieba package plus `scorer_dictionary.txt`; both are fixed, for scores must stay comparable.
"""

from __future__ import annotations

import re
import threading
import warnings
from functools import cache
from typing import Any

from clinical.lexicon import rows

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # jieba looks for pkg_resources, which warns about itself
    import jieba

DICTIONARY = "scorer_dictionary.txt"

_WHOLE = re.compile(
    r"\d+(?:\.\d+)? ?(?:mm|cm)?(?: ?× ?\d+(?:\.\d+)?(?: ?(?:mm|cm))?){1,2}"  # 5×4mm
    r"|(?:[颈胸腰骶]|(?<![A-Za-z])[CTLS])\d{1,2}(?:[/-](?:[颈胸腰骶]|[CTLS])?\d{1,2})+(?!\d)"  # 腰4/5, L5/S1
    r"|(?:(?<![A-Za-z])[CTLSMAPV]|[颈胸腰骶])\d{1,2}(?![\d.A-Za-z])"  # T11, S8, M1
    r"|(?<![A-Za-z])T[12]WI(?:[- ]?FLAIR)?|(?<![A-Za-z])(?:BI|TI|PI|LI|CAD|Lung)-RADS ?\d?[a-c]?|(?<![A-Za-z])K-L"
    r"|\d+(?:\.\d+)? ?(?:mm|cm|HU|ml|%|°)(?![A-Za-z])|\d+\.\d+",
    re.IGNORECASE,
)


class _Tokenizer(jieba.Tokenizer):  # type: ignore[misc]  # jieba has no types
    """jieba without its cache file: the standard one sits in /tmp, where any other user could put a forged one."""

    def initialize(self, dictionary: Any = None) -> None:
        with self.lock:
            if not getattr(self, "initialized", False):
                self.FREQ, self.total = self.gen_pfdict(self.get_dict_file())
                for word, frequency in ((row[0], int(row[1])) for row in rows(DICTIONARY)):
                    self.total += frequency - self.FREQ.get(word, 0)
                    self.FREQ[word] = frequency
                    for end in range(1, len(word)):
                        self.FREQ.setdefault(word[:end], 0)
                self.initialized = True


@cache
def _tokenizer() -> _Tokenizer:
    tokenizer = _Tokenizer()
    tokenizer.lock = threading.RLock()
    tokenizer.initialize()
    return tokenizer


def cut(text: str) -> list[str]:
    """Words of a matching copy, blanks left out. The first call loads the dictionary (about half a second)."""
    words: list[str] = []
    tokenizer = _tokenizer()
    at = 0
    for match in _WHOLE.finditer(text):
        words.extend(tokenizer.cut(text[at : match.start()], HMM=False))
        words.append("".join(match[0].split()))
        at = match.end()
    words.extend(tokenizer.cut(text[at:], HMM=False))
    return [word for word in words if word.strip()]
