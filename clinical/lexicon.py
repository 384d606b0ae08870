"""The vocabulary files, loaded once when first needed, and longest-match search in them.

Vocabulary is data: a department extends the files in `clinical/vocabulary` without touching code. Nothing here interprets
a match; that is `clinical.facts`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Generic, TypeVar

Value = TypeVar("Value")

CHECK_FILES = (
    "anatomy.tsv", "critical.tsv", "lesions.tsv", "latin_words.txt", "simplified_only.txt", "traditional.tsv",
)  # fmt: skip


def _read(name: str) -> str:
    return files("clinical").joinpath("vocabulary", name).read_text(encoding="utf-8")


def rows(name: str) -> Iterator[list[str]]:
    """The tab-separated rows of a vocabulary file, comments (#) and blank lines left out."""
    for line in _read(name).splitlines():
        if line.strip() and not line.startswith("#"):
            yield line.split("\t")


def digest(*names: str) -> str:
    """SHA-256 in hex over the named vocabulary files, part of the version of whatever rests on them."""
    hashed = hashlib.sha256()
    for name in names:
        hashed.update(name.encode() + b"\0" + _read(name).encode() + b"\0")
    return hashed.hexdigest()


@cache
def traditional() -> Mapping[str, str]:
    """Traditional character to simplified one, for characters that simplified text never uses."""
    return {row[0]: row[1] for row in rows("traditional.tsv")}


@cache
def simplified_only() -> frozenset[str]:
    """Characters that traditional text never uses."""
    return frozenset("".join(row[0] for row in rows("simplified_only.txt")))


@cache
def latin_words() -> frozenset[str]:
    """Lower-case Latin words that a Chinese report may hold: eponyms, scores, sequence names."""
    return frozenset(word.lower() for row in rows("latin_words.txt") for word in row[0].split())


def _whole_word(text: str, start: int, end: int) -> bool:
    """An alphabetic term is no piece of a longer word: `ca` is not found in `rca`."""
    if (
        text[start] < "\u0250"
        and start > 0
        and text[start].isalpha()
        and text[start - 1] < "\u0250"
        and text[start - 1].isalpha()
    ):
        return False
    last = text[end - 1]
    return not (last < "\u0250" and last.isalnum() and end < len(text) and text[end] < "\u0250" and text[end].isalnum())


class Terms(Generic[Value]):
    """Terms of a vocabulary, found in a text from left to right, the longest one first, never overlapping."""

    def __init__(self, terms: Mapping[str, Value]) -> None:
        self._terms = dict(terms)
        lengths: dict[str, set[int]] = {}
        for term in self._terms:
            lengths.setdefault(term[0], set()).add(len(term))
        self._lengths = {first: tuple(sorted(each, reverse=True)) for first, each in lengths.items()}

    def __len__(self) -> int:
        return len(self._terms)

    def __contains__(self, term: str) -> bool:
        return term in self._terms

    def find(self, text: str) -> list[tuple[int, int, Value]]:
        """(start, end, value) of each term in `text`, in order."""
        found: list[tuple[int, int, Value]] = []
        terms, lengths = self._terms, self._lengths
        at, end = 0, len(text)
        while at < end:
            for length in lengths.get(text[at], ()):
                value = terms.get(text[at : at + length])
                if value is not None and at + length <= end and _whole_word(text, at, at + length):
                    found.append((at, at + length, value))
                    at += length
                    break
            else:
                at += 1
        return found


# --- structures and findings -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Structure:
    """One structure of the body; `path` is its place in the tree (see `anatomy.tsv` for the flags)."""

    path: str
    paired: bool
    exclusive: bool
    never_sided: bool
    sex: str | None
    name: str


@dataclass(frozen=True, slots=True)
class Lesion:
    """One finding; `severity` 0 (only a sign) to 4; `place` is the structure its own name implies, `only` there it counts."""

    id: str
    severity: int
    place: str | None
    only: bool
    signs: frozenset[str]
    name: str


@dataclass(frozen=True, slots=True)
class Critical:
    """One critical finding: it stands in the findings when any of `evidence` does, and is covered by any of `cover`."""

    id: str
    name: str
    evidence: tuple[tuple[str, str], ...]  # (lesion id, structure path or "")
    cover: frozenset[str]
    excuses: tuple[str, ...]  # words in the same clause that make it old, treated or absent


NOT_A_STRUCTURE = "-"


@cache
def structures() -> Mapping[str, Structure]:
    """Path to structure."""
    found: dict[str, Structure] = {}
    for row in rows("anatomy.tsv"):
        path, flags = row[0], row[1] if len(row) > 1 else ""
        if "~" in path or path == NOT_A_STRUCTURE:
            continue
        sex = "F" if "F" in flags else "M" if "M" in flags else None
        found[path] = Structure(path, "p" in flags, "l" in flags, "m" in flags, sex, row[2].split("|")[0])
    return found


@cache
def structure_terms() -> Terms[str]:
    """Lower-case term to path; `-` for words that only look like a structure."""
    terms: dict[str, str] = {}
    for row in rows("anatomy.tsv"):
        if "~" not in row[0]:
            for cell in row[2:]:
                terms.update((term.strip(), row[0]) for term in cell.split("|") if term.strip())
    return Terms(terms)


@cache
def _neighbours() -> frozenset[tuple[str, str]]:
    pairs = [tuple(row[0].split("~")) for row in rows("anatomy.tsv") if "~" in row[0]]
    return frozenset((a, b) for pair in pairs for a, b in (pair, pair[::-1]))


@cache
def inside(path: str, other: str) -> bool:
    """Whether a structure is the other one or a part of it."""
    return path == other or path.startswith(other + "/")


@cache
def related(path: str, other: str) -> bool:
    """Whether two names may mean the same place: one inside the other, or neighbours that reports use for each other."""
    if inside(path, other) or inside(other, path):
        return True
    return any((inside(path, a) and inside(other, b)) for a, b in _neighbours())


@cache
def rivals(path: str, other: str) -> bool:
    """Whether two structures are siblings that exclude each other, as two lobes of one lung do."""
    known = structures()
    mine = _exclusive_part(path)
    return any(
        a != b and a.rpartition("/")[0] == b.rpartition("/")[0] and known[a].exclusive and known[b].exclusive
        for a in mine
        for b in _exclusive_part(other)
    ) and not (inside(path, other) or inside(other, path))


def _exclusive_part(path: str) -> list[str]:
    parts = path.split("/")
    chain = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    return [each for each in chain if each in structures() and structures()[each].exclusive]


@cache
def lesions() -> Mapping[str, Lesion]:
    """Id to finding."""
    found: dict[str, Lesion] = {}
    for row in rows("lesions.tsv"):
        name = row[4].split("|")[0]
        place = row[2].lstrip("!") or None
        found[row[0]] = Lesion(row[0], int(row[1]), place, row[2].startswith("!"), frozenset(row[3].split()), name)
    return found


@cache
def lesion_terms() -> Terms[str]:
    """Lower-case term to id of the finding; a term in two rows belongs to the later one."""
    terms: dict[str, str] = {}
    for row in rows("lesions.tsv"):
        for cell in row[4:]:
            terms.update((term.strip(), row[0]) for term in cell.split("|") if term.strip() and "*" not in term)
    return Terms(terms)


@cache
def lesion_gaps() -> tuple[re.Pattern[str], tuple[str, ...]]:
    """The terms with a gap (`密度*减低`) as one pattern, and the finding that each of its groups stands for."""
    parts: list[str] = []
    ids: list[str] = []
    for row in rows("lesions.tsv"):
        for term in row[4].split("|"):
            if "*" in term:
                gap = r"(?:(?![,、。;未无不])[^\s\x00]){0,6}?"
                parts.append("(" + gap.join(re.escape(piece) for piece in term.split("*")) + ")")
                ids.append(row[0])
    return re.compile("|".join(parts)), tuple(ids)


@cache
def _signs(lesion: str) -> frozenset[str]:
    """The finding itself and everything it may be called after, to any depth."""
    known = lesions()
    seen: set[str] = set()
    todo = [lesion]
    while todo:
        each = todo.pop()
        if each not in seen:
            seen.add(each)
            todo.extend(known[each].signs if each in known else ())
    return frozenset(seen)


@cache
def same_finding(one: str, other: str) -> bool:
    """Whether two findings can be the same thing: equal, one a sign of the other, or both names of a common sign."""
    if one == other:
        return True
    return other in lesions()[one].signs or one in lesions()[other].signs


@cache
def sign_of(sign: str, lesion: str) -> bool:
    """Whether a finding may rest on a sign, over any number of steps (a mass on a nodule on a rounded opacity)."""
    return sign in _signs(lesion)


@cache
def criticals() -> tuple[Critical, ...]:
    """The list of critical findings (危急值)."""
    found = []
    for row in rows("critical.tsv"):
        evidence = tuple((a, b) for a, _, b in (item.partition("@") for item in row[2].split()))
        found.append(
            Critical(
                row[0],
                row[1],
                evidence,
                frozenset(row[3].split()),
                tuple(row[4].split("|")) if len(row) > 4 and row[4] else (),
            )
        )
    return tuple(found)
