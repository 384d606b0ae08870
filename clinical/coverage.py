"""How much of a department's texts the vocabulary reads, and which words it lacks: figures, never a sentence.

A statement is read when it yields a fact or a normal structure (`clinical.facts`). The words are those of the statements that were not
read, without everything that the vocabulary knows; they come from de-identified text, and who counts them shows none that is rare.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from clinical.case import System
from clinical.cleaning import readable
from clinical.deidentify import PLACEHOLDER
from clinical.department import SHIPPED, Words, using
from clinical.facts import Reading
from clinical.words import cut

__all__ = ["Section", "read", "system_of"]

_ROOTS = {
    "chest": System.CHEST,
    "abdomen": System.ABDOMEN,
    "head": System.HEAD,
    "neck": System.MAXILLOFACIAL_NECK,
    "spine": System.MUSCULOSKELETAL,
    "limb": System.MUSCULOSKELETAL,
}
_WORD = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]{2,12}|[^\W\d_]{3,24}")
"""What may be missing from a vocabulary: a word of two characters, or three letters, or more; no number, no piece of a serial number."""


@dataclass(frozen=True, slots=True)
class Section:
    """One text: statements that are no advice, those of them that were read, and each unknown word of the others once."""

    statements: int
    read: int
    unknown: frozenset[str]
    systems: Counter[System]


def read(text: str, *, language: str = "zh-Hans", words: Words = SHIPPED) -> Section:
    """What the vocabulary makes of a text as received. Never raises on any text."""
    with using(words):
        reading = Reading(readable(text).text, language)
        missed = [one for one, understood in reading.understood if not understood]
        named = Counter(_ROOTS[root] for place, _ in reading.places if (root := place.path.partition("/")[0]) in _ROOTS)
        unknown = frozenset(word for one in missed for word in _unknown(reading, one.start, one.end))
        return Section(len(reading.understood), len(reading.understood) - len(missed), unknown, named)


def _unknown(reading: Reading, start: int, end: int) -> list[str]:
    plain = list(reading.lower[start:end].replace(PLACEHOLDER, " " * len(PLACEHOLDER)))
    for token in reading.tokens:
        for at in range(max(token.start, start), min(token.end, end)):
            plain[at - start] = " "
    pieces = "".join(plain).split()
    return [word for piece in pieces for word in cut(piece, reading.language) if _WORD.fullmatch(word)]


def system_of(sections: list[Section]) -> System | None:
    """The body system whose structures a report names most; None when it names none."""
    named = sum((section.systems for section in sections), Counter[System]())
    return max(System, key=lambda system: named[system]) if named.total() else None
