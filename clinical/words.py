"""Text into words for scoring: jieba with a pinned dictionary, hidden Markov model off, its own instance, no cache file.

Measurements, levels, grades and sequence names are cut out whole first, since jieba would take 0.6 and 腰4/5 apart. The
dictionary is the one of the jieba package plus `scorer_dictionary.txt`; both are fixed, for scores must stay comparable, and no
vocabulary that a department adds to the checks reaches them. Languages of an alphabet are cut at blanks and marks instead.
"""

from __future__ import annotations

import re
import warnings
from functools import cache
from typing import Any

from clinical.lexicon import rows

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # jieba looks for pkg_resources, which warns about itself
    import jieba

DICTIONARY = "scorer_dictionary.txt"

_WHOLE = re.compile(
    r"(?<!\d)\d+(?:\.\d+)? ?(?:mm|cm)?(?: ?× ?\d+(?:\.\d+)?(?: ?(?:mm|cm))?){1,2}"  # 5×4mm
    r"|(?:[颈胸腰骶]|(?<![A-Za-z])[CTLS])\d{1,2}(?:[/-](?:[颈胸腰骶]|[CTLS])?\d{1,2})+(?!\d)"  # 腰4/5, L5/S1
    r"|(?:(?<![A-Za-z])[CTLSMAPV]|[颈胸腰骶])\d{1,2}(?![\d.A-Za-z])"  # T11, S8, M1
    r"|(?<![A-Za-z])T[12]WI(?:[- ]?FLAIR)?|(?<![A-Za-z])(?:BI|TI|PI|LI|CAD|Lung)-RADS ?\d?[a-c]?|(?<![A-Za-z])K-L"
    r"|(?<!\d)\d+(?:\.\d+)? ?(?:mm|cm|HU|ml|%|°)(?![A-Za-z])|(?<!\d)\d+\.\d+",
    re.IGNORECASE,
)
"""Numbers are looked at from their first digit only: from each of a thousand in a row, it would take a million steps."""


class _Tokenizer(jieba.Tokenizer):  # type: ignore[misc]  # jieba has no types
    """jieba without its cache file: the standard one sits in /tmp, where any other user could put a forged one."""

    initialized: bool

    def __init__(self, *, domain: bool) -> None:
        super().__init__()
        self._domain = domain

    def initialize(self, dictionary: Any = None) -> None:
        with self.lock:
            if not self.initialized:
                self.FREQ, self.total = self.gen_pfdict(self.get_dict_file())
                for word, frequency in ((row[0], int(row[1])) for row in rows(DICTIONARY) if self._domain):
                    self.total += frequency - self.FREQ.get(word, 0)
                    self.FREQ[word] = frequency
                    for end in range(1, len(word)):
                        self.FREQ.setdefault(word[:end], 0)
                self.initialized = True


@cache
def _tokenizer() -> _Tokenizer:
    tokenizer = _Tokenizer(domain=True)
    tokenizer.initialize()
    return tokenizer


@cache
def _plain() -> _Tokenizer:
    tokenizer = _Tokenizer(domain=False)
    tokenizer.initialize()
    return tokenizer


_ALPHABETIC = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]|[^\W_\u3400-\u4dbf\u4e00-\u9fff]+")


def cut(text: str, language: str = "zh-Hans") -> list[str]:
    """Words of a matching copy. The first call in Chinese loads the dictionary (about half a second).

    In Chinese, marks count as words and blanks do not, as rouge-chinese has it. In other languages words are lower-cased runs of letters
    and digits and marks do not count, as the ROUGE of those languages has it.
    """
    parts = _chinese if language.startswith("zh") else _alphabetic
    words: list[str] = []
    at = 0
    for match in _WHOLE.finditer(text):
        words.extend(parts(text[at : match.start()]))
        whole = "".join(match[0].split())
        words.append(whole if parts is _chinese else whole.lower())
        at = match.end()
    words.extend(parts(text[at:]))
    return words


def _chinese(text: str) -> list[str]:
    return [word for word in _tokenizer().cut(text, HMM=False) if word.strip()]


def _alphabetic(text: str) -> list[str]:
    return _ALPHABETIC.findall(text.lower())


_SENTENCE_ENDS = (
    (re.compile(r"([。！？?])([^”’])"), r"\1\n\2"),
    (re.compile(r"(\.{6})([^”’])"), r"\1\n\2"),
    (re.compile(r"(…{2})([^”’])"), r"\1\n\2"),
    (re.compile(r"([。！？?][”’])([^，。！？?])"), r"\1\n\2"),
)
"""Where rouge-chinese 1.0.3 cuts sentences (`Rouge.cut_sent`)."""


def cut_as_published(text: str) -> list[str]:
    """What published tables count: the text as it is, by jieba as it comes (hidden Markov model on), as rouge-chinese then takes it apart."""
    joined = " ".join(_plain().cut(text))
    for pattern, new in _SENTENCE_ENDS:
        joined = pattern.sub(new, joined)
    sentences = [" ".join(sentence.split()) for sentence in joined.rstrip().split("\n") if sentence]
    return [word for sentence in sentences for word in sentence.split(" ")] if any(sentences) else []
