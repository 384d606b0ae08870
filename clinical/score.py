"""How far a draft is from the signed text: ROUGE on words and characters, edit distance, facts.

The figures of rouge-chinese 1.0.3 on jieba words, with a faster common subsequence; the tests hold the two together. The
scorer's dictionary is its own and fixed: a department that extends the check vocabulary changes no score, apart from the
fact figures, whose vocabulary is hashed into the version. ROUGE shows change, it does not judge safety.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files

from clinical.compare import FactScore, fact_score
from clinical.facts import Reading
from clinical.lexicon import CHECK_FILES, digest
from clinical.text import normalise
from clinical.words import DICTIONARY, cut

_EPSILON = 1e-8  # rouge-chinese adds it to the denominator, so that identical texts score 0.999999995


@dataclass(frozen=True, slots=True)
class Score:
    """One draft against one signed text. F1 values lie in 0-1; an empty draft scores 0 and is never dropped.

    `r1 r2 rl` and `char_rl` are on the full text, `core_*` without advice and list numbers. `bag_r1` counts words as
    often as they occur, which ROUGE-1 does not. Edit figures count characters of the texts as given. `fact_*` are None
    when the signed text states no fact that the vocabulary knows.
    """

    r1: float
    r2: float
    rl: float
    r1_precision: float
    r1_recall: float
    char_r1: float
    char_r2: float
    char_rl: float
    bag_r1: float
    core_r1: float
    core_r2: float
    core_rl: float
    edit_distance: int
    edit_ratio: float
    length_ratio: float | None
    verbatim: bool
    reordered: bool
    fact_precision: float | None
    fact_recall: float | None
    fact_f1: float | None
    edit_kinds: tuple[str, ...]
    scorer: str

    def as_json(self) -> dict[str, object]:
        return {**asdict(self), "edit_kinds": list(self.edit_kinds)}


def tokens(text: str) -> list[str]:
    """The words that ROUGE counts: levels, sizes, grades and sequence names whole, the rest by jieba, no blanks."""
    return cut(normalise(text).text)


# --- ROUGE -------------------------------------------------------------------------------------------------------------


def _f1(hits: int, drafted: int, signed: int) -> tuple[float, float, float]:
    """(F1, precision, recall) in the very order of operations of rouge-chinese, so that the floats are equal."""
    precision = hits / drafted if drafted else 0.0
    recall = hits / signed if signed else 0.0
    return 2.0 * ((precision * recall) / (precision + recall + _EPSILON)), precision, recall


def _rouge_n(draft: Sequence[str], signed: Sequence[str], n: int) -> tuple[float, float, float]:
    """n-grams counted as a set, as rouge-chinese does by default: a word said six times counts once."""
    mine = set(zip(*(draft[i:] for i in range(n)), strict=False))
    theirs = set(zip(*(signed[i:] for i in range(n)), strict=False))
    return _f1(len(mine & theirs), len(mine), len(theirs))


def lcs(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence, bit-parallel (Hyyrö 2004): one big-integer step per item of `other`."""
    if len(one) < len(other):
        one, other = other, one
    where: dict[Hashable, int] = {}
    for index, item in enumerate(one):
        where[item] = where.get(item, 0) | 1 << index
    full = (1 << len(one)) - 1
    row = full
    for item in other:
        matched = row & where.get(item, 0)
        row = ((row + matched) | (row - matched)) & full
    return len(one) - row.bit_count()


def _rouge_l(draft: Sequence[str], signed: Sequence[str]) -> float:
    return _f1(lcs(draft, signed), len(draft), len(signed))[0]


def rouge(draft: Sequence[str], signed: Sequence[str]) -> tuple[float, float, float]:
    """F1 of ROUGE-1, ROUGE-2 and ROUGE-L over words, equal to rouge-chinese; an empty side scores 0."""
    return _rouge_n(draft, signed, 1)[0], _rouge_n(draft, signed, 2)[0], _rouge_l(draft, signed)


def edit_distance(one: str, other: str) -> int:
    """Levenshtein distance in characters, bit-parallel (Myers 1999, Hyyrö 2003)."""
    if one == other:
        return 0
    if not one or not other:
        return len(one) or len(other)
    where: dict[str, int] = {}
    for index, character in enumerate(one):
        where[character] = where.get(character, 0) | 1 << index
    full = (1 << len(one)) - 1
    last = 1 << (len(one) - 1)
    plus, minus, distance = full, 0, len(one)
    for character in other:
        match = where.get(character, 0)
        zero = (((match & plus) + plus) ^ plus) | match | minus
        grows = minus | ~(zero | plus) & full
        shrinks = plus & zero
        if grows & last:
            distance += 1
        elif shrinks & last:
            distance -= 1
        grows = (grows << 1 | 1) & full
        shrinks = shrinks << 1 & full
        plus = shrinks | ~(zero | grows) & full
        minus = grows & zero & full
    return distance


# --- the score ---------------------------------------------------------------------------------------------------------

_ORDINAL = re.compile(r"^[ ]*(?:[(]?\d{1,2}(?:[、)．]|\.(?!\d))|[①-⑳]|[一二三四五六七八九十]{1,3}、)[ ]*")


def core(reading: Reading) -> str:
    """The matching copy without advice sentences and list numbers, one statement a line."""
    return "\n".join(_ORDINAL.sub("", statement.text) for statement in reading.statements if not statement.advice)


def score(draft: str, signed: str, *, language: str = "zh-Hans") -> Score:
    """Never raises on any text; an empty side scores 0."""
    mine, theirs = Reading(draft, language), Reading(signed, language)
    words, reference = cut(mine.text), cut(theirs.text)
    core_words, core_reference = cut(core(mine)), cut(core(theirs))
    characters, reference_characters = (
        [c for c in mine.text if not c.isspace()],
        [c for c in theirs.text if not c.isspace()],
    )
    r1, precision, recall = _rouge_n(words, reference, 1)
    bag, signed_bag = Counter(words), Counter(reference)
    distance = edit_distance(draft, signed)
    facts = fact_score(mine, theirs)
    return Score(
        r1=r1,
        r2=_rouge_n(words, reference, 2)[0],
        rl=_rouge_l(words, reference),
        r1_precision=precision,
        r1_recall=recall,
        char_r1=_rouge_n(characters, reference_characters, 1)[0],
        char_r2=_rouge_n(characters, reference_characters, 2)[0],
        char_rl=_rouge_l(characters, reference_characters),
        bag_r1=_f1((bag & signed_bag).total(), bag.total(), signed_bag.total())[0],
        core_r1=_rouge_n(core_words, core_reference, 1)[0],
        core_r2=_rouge_n(core_words, core_reference, 2)[0],
        core_rl=_rouge_l(core_words, core_reference),
        edit_distance=distance,
        edit_ratio=distance / max(len(draft), len(signed), 1),
        length_ratio=len(characters) / len(reference_characters) if reference_characters else None,
        verbatim=bool(reference) and mine.text == theirs.text,
        reordered=words != reference and bag == signed_bag,
        fact_precision=facts.precision,
        fact_recall=facts.recall,
        fact_f1=facts.f1,
        edit_kinds=_edit_kinds(mine, theirs, facts),
        scorer=SCORER_VERSION,
    )


def _edit_kinds(draft: Reading, signed: Reading, facts: FactScore) -> tuple[str, ...]:
    """What the radiologist changed, in words; nothing when the texts agree."""
    if draft.text == signed.text:
        return ()
    kinds = set(facts.changes)
    if not kinds:
        same = Counter(s.text for s in draft.statements) == Counter(s.text for s in signed.statements)
        kinds.add("order" if same else "style")
    return tuple(sorted(kinds))


_CODE = (
    "compare.py", "facts.py", "frames.py", "lexicon.py", "mapped.py", "measures.py", "scanner.py", "score.py", "text.py", "words.py",
)  # fmt: skip


@cache
def _version() -> str:
    hashed = hashlib.sha256()
    hashed.update(f"jieba {version('jieba')} rouge-chinese 1.0.3 hmm off set f1 epsilon {_EPSILON}\0".encode())
    hashed.update(digest(DICTIONARY, *CHECK_FILES).encode())
    for name in _CODE:
        hashed.update(files("clinical").joinpath(name).read_bytes())
    return f"s{hashed.hexdigest()[:12]}"


SCORER_VERSION: str = _version()
"""Changes whenever the same two texts could score differently; scores of two versions are never compared."""
