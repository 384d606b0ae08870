"""How far a draft is from the signed text: ROUGE on words and characters, edit distance, facts.

The figures of rouge-chinese 1.0.3 on jieba words. The scorer's dictionary is its own and fixed: a department that extends the
check vocabulary changes no ROUGE, only the fact figures and the kinds of edit. ROUGE shows change, it does not judge safety.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from importlib.resources import files

from clinical.compare import FactScore, fact_score
from clinical.core_text import core, core_statements
from clinical.department import SHIPPED, Words, using
from clinical.distance import edit_distance, edits
from clinical.facts import Reading
from clinical.lexicon import CHECK_FILES, digest
from clinical.rouge import EPSILON, lcs, rouge, rouge_bag, rouge_l, rouge_n
from clinical.text import normalise
from clinical.words import DICTIONARY, cut, cut_as_published

__all__ = ["SCORER_VERSION", "Score", "edit_distance", "lcs", "rouge", "score", "tokens", "version"]


@dataclass(frozen=True, slots=True)
class Score:
    """One draft against one signed text. F1 values lie in 0-1; an empty draft scores 0 and is never dropped.

    `r1 r2 rl` and the `char_` figures are on the full text, `core_*` without title, list numbers, advice and comparison with a prior. `bag_r1`
    counts words as often as they occur, which ROUGE-1 does not. Edit figures count characters of the texts as given: `edit_distance` is what the
    person `inserted`, `deleted` and `replaced` together; `reordered` says that the same words stand in another order. `fact_*` are None when the
    signed text states no fact that the vocabulary knows; `fact_weighted_f1` counts a finding by its severity (1 to 5). `coverage` and
    `draft_coverage` are the share of the sentences, advice left out, that yielded a fact at all: fact figures of a low one say little.
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
    inserted: int
    deleted: int
    replaced: int
    edit_ratio: float
    length_ratio: float | None
    verbatim: bool
    reordered: bool
    fact_precision: float | None
    fact_recall: float | None
    fact_f1: float | None
    fact_weighted_f1: float | None
    coverage: float
    draft_coverage: float
    edit_kinds: tuple[str, ...]
    scorer: str

    def as_json(self) -> dict[str, object]:
        return {**asdict(self), "edit_kinds": list(self.edit_kinds)}


def tokens(text: str, *, language: str = "zh-Hans") -> list[str]:
    """The words that ROUGE counts: levels, sizes, grades and sequence names whole, the rest by jieba, no blanks."""
    return cut(normalise(text).text, language)


def score(draft: str, signed: str, *, language: str = "zh-Hans", words: Words = SHIPPED, compat: bool = False) -> Score:
    """Never raises on any text; an empty side scores 0. `words` are those of the department that signed.

    With `compat` the ROUGE figures are those of the libraries' defaults (rouge-chinese on what jieba makes of the text as it is), for comparison
    with published tables and nothing else.
    """
    with using(words):
        return _scored(Reading(draft, language), Reading(signed, language), version(words, compat=compat), compat)


def _scored(mine: Reading, theirs: Reading, scorer: str, compat: bool) -> Score:
    draft, signed, language = mine.raw, theirs.raw, theirs.language
    words_of: Callable[[str], list[str]] = cut_as_published if compat else lambda text: cut(text, language)
    words = words_of(draft if compat else mine.text)
    reference = words_of(signed if compat else theirs.text)
    core_words, core_reference = words_of(core(mine)), words_of(core(theirs))
    characters, reference_characters = _characters(mine), _characters(theirs)
    first = rouge_n(words, reference, 1)
    core_first, core_second, core_longest = rouge(core_words, core_reference)
    changed = edits(draft, signed)
    facts = fact_score(mine, theirs)
    return Score(
        r1=first.f1,
        r2=rouge_n(words, reference, 2).f1,
        rl=rouge_l(words, reference).f1,
        r1_precision=first.precision,
        r1_recall=first.recall,
        char_r1=rouge_n(characters, reference_characters, 1).f1,
        char_r2=rouge_n(characters, reference_characters, 2).f1,
        char_rl=rouge_l(characters, reference_characters).f1,
        bag_r1=rouge_bag(words, reference).f1,
        core_r1=core_first,
        core_r2=core_second,
        core_rl=core_longest,
        edit_distance=changed.distance,
        inserted=changed.inserted,
        deleted=changed.deleted,
        replaced=changed.replaced,
        edit_ratio=changed.distance / max(len(draft), len(signed), 1),
        length_ratio=len(characters) / len(reference_characters) if reference_characters else None,
        verbatim=bool(reference) and mine.text == theirs.text,
        reordered=words != reference and Counter(words) == Counter(reference),
        fact_precision=facts.precision,
        fact_recall=facts.recall,
        fact_f1=facts.f1,
        fact_weighted_f1=facts.weighted_f1,
        coverage=theirs.coverage,
        draft_coverage=mine.coverage,
        edit_kinds=_edit_kinds(mine, theirs, facts),
        scorer=scorer,
    )


def _characters(reading: Reading) -> list[str]:
    return [character for character in reading.text if not character.isspace()]


def _edit_kinds(draft: Reading, signed: Reading, facts: FactScore) -> tuple[str, ...]:
    """What the radiologist changed, in words; nothing when the texts agree.

    A fix of side, size, level, count, certainty or polarity, a finding added or removed, another order; style when it is none of these.
    """
    if draft.text == signed.text:
        return ()
    kinds = set(facts.changes)
    mine, theirs = list(core_statements(draft)), list(core_statements(signed))
    common = set(mine) & set(theirs)
    there, here = (list(dict.fromkeys(one for one in each if one in common)) for each in (mine, theirs))
    if there != here:
        kinds.add("order")
    return tuple(sorted(kinds or {"style"}))


_CODE = (
    "compare.py", "core_text.py", "cues.py", "department.py", "distance.py", "facts.py", "frames.py", "levels.py",
    "lexicon.py", "mapped.py", "measures.py", "placing.py", "rouge.py", "scanner.py", "score.py", "terms.py", "text.py", "tokens.py",
    "words.py",
)  # fmt: skip


@cache
def _shipped() -> str:
    hashed = hashlib.sha256()
    hashed.update(f"jieba {metadata.version('jieba')} rouge-chinese 1.0.3 hmm off set f1 epsilon {EPSILON}\0".encode())
    hashed.update(digest(DICTIONARY, *CHECK_FILES).encode())
    for name in _CODE:
        hashed.update(files("clinical").joinpath(name).read_bytes())
    return f"s{hashed.hexdigest()[:12]}"


SCORER_VERSION: str = _shipped()
"""The scorer as it is shipped; what `version` gives begins with it."""


def version(words: Words = SHIPPED, *, compat: bool = False) -> str:
    """Changes whenever the same two texts could score differently; scores of two versions are never compared.

    `SCORER_VERSION`, and behind it the digest of the words that a department has added to the vocabulary of the checks, if it has: they may
    change facts, kinds of edit and the core text, and no ROUGE on the full text. With `compat` it begins with `compat-`.
    """
    own = f"-{words.digest[:8]}" if words.digest else ""
    return f"{'compat-' if compat else ''}{SCORER_VERSION}{own}"
