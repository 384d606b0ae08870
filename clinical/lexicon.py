"""The vocabulary files, loaded once when first needed.

Vocabulary is data: a department adds rows of its own without touching code (`clinical.department`). Nothing here interprets a match;
that is `clinical.facts`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

from clinical.department import own_rows, per_department
from clinical.measures import masked
from clinical.terms import Gaps, Terms

CHECK_FILES = (
    "anatomy.tsv", "critical.tsv", "lesions.tsv", "latin_words.txt", "simplified_only.txt", "surnames.txt", "traditional.tsv",
)  # fmt: skip


OWN_FILES = ("anatomy.tsv", "lesions.tsv", "critical.tsv", "equivalents.tsv")
"""What a department may add to; `equivalents.tsv` ships empty."""


def _read(name: str) -> str:
    return files("clinical").joinpath("vocabulary", name).read_text(encoding="utf-8")


def rows(name: str) -> Iterator[list[str]]:
    """The tab-separated rows of a vocabulary file, comments (#) and blank lines left out, then those of the department."""
    for line in _read(name).splitlines():
        if line.strip() and not line.startswith("#"):
            yield line.split("\t")
    for row in own_rows(name):
        yield list(row)


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
    cover: tuple[tuple[str, str], ...]  # likewise
    excuses: tuple[str, ...]  # words in the same clause that make it old, treated or absent
    elsewhere: tuple[str, ...]  # structures at which the same words mean something else

    def with_more(self, more: Critical) -> Critical:
        """The same entry with what a department's row of its id adds."""
        return Critical(
            self.id,
            self.name,
            self.evidence + more.evidence,
            self.cover + more.cover,
            self.excuses + more.excuses,
            self.elsewhere + more.elsewhere,
        )


NOT_A_STRUCTURE = "-"


@per_department
def structures() -> Mapping[str, Structure]:
    """Path to structure."""
    found: dict[str, Structure] = {}
    for row in rows("anatomy.tsv"):
        path, flags = row[0], row[1] if len(row) > 1 else ""
        if "~" in path or path == NOT_A_STRUCTURE or path in found:
            continue  # a department adds words to a structure, and changes none
        sex = "F" if "F" in flags else "M" if "M" in flags else None
        found[path] = Structure(path, "p" in flags, "l" in flags, "m" in flags, sex, row[2].split("|")[0])
    return found


@per_department
def structure_terms() -> Terms[str]:
    """Lower-case term to path; `-` for words that only look like a structure."""
    terms: dict[str, str] = {}
    for row in rows("anatomy.tsv"):
        if "~" not in row[0]:
            for cell in row[2:]:
                terms.update((term.strip(), row[0]) for term in cell.split("|") if term.strip())
    return Terms(terms)


@per_department
def _neighbours() -> frozenset[tuple[str, str]]:
    pairs = [tuple(row[0].split("~")) for row in rows("anatomy.tsv") if "~" in row[0]]
    return frozenset((a, b) for pair in pairs for a, b in (pair, pair[::-1]))


@cache
def inside(path: str, other: str) -> bool:
    """Whether a structure is the other one or a part of it."""
    return path == other or path.startswith(other + "/")


@cache
def organ_of(path: str) -> str:
    """The organ that a structure is or lies in: the first two steps of its path."""
    return "/".join(path.split("/")[:2])


@per_department
def related(path: str, other: str) -> bool:
    """Whether two names may mean the same place: one inside the other, or neighbours that reports use for each other."""
    if inside(path, other) or inside(other, path):
        return True
    near = _neighbours()
    return any((a, b) in near for a in _upwards(path) for b in _upwards(other))


@cache
def _upwards(path: str) -> tuple[str, ...]:
    """The structure and everything that it lies in."""
    parts = path.split("/")
    return tuple("/".join(parts[: n + 1]) for n in range(len(parts)))


@per_department
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
    return [each for each in _upwards(path) if each in structures() and structures()[each].exclusive]


@per_department
def lesions() -> Mapping[str, Lesion]:
    """Id to finding."""
    found: dict[str, Lesion] = {}
    for row in rows("lesions.tsv"):
        if row[0] in found:
            known = found[row[0]]
            found[row[0]] = replace(known, signs=known.signs | frozenset(row[3].split()))
            continue
        name = row[4].split("|")[0]
        place = row[2].lstrip("!") or None
        found[row[0]] = Lesion(row[0], int(row[1]), place, row[2].startswith("!"), frozenset(row[3].split()), name)
    return found


@per_department
def lesion_terms() -> Terms[str]:
    """Lower-case term to id of the finding; a term in two rows belongs to the later one."""
    terms: dict[str, str] = {}
    for row in rows("lesions.tsv"):
        for cell in row[4:]:
            # 长t2信号: the text in which terms are looked for has the names of sequences blanked out
            terms.update((masked(term.strip()), row[0]) for term in cell.split("|") if term.strip() and "*" not in term)
    for one, other in own_rows("equivalents.tsv"):
        for new, known in ((one, other), (other, one)):
            if new not in terms and known in terms:
                terms[new] = terms[known]
    return Terms(terms)


@per_department
def meant_elsewhere() -> Mapping[str, str]:
    """What a term of a sign that counts at one place only (`!`) means anywhere else: the sign of an earlier row that has it too."""
    terms: dict[str, str] = {}
    found: dict[str, str] = {}
    for row in rows("lesions.tsv"):
        for cell in row[4:]:
            for term in filter(None, (masked(each.strip()) for each in cell.split("|") if "*" not in each)):
                if lesions()[row[0]].only and lesions()[row[0]].severity == 0 and term in terms:
                    found[term] = terms[term]
                terms[term] = row[0]
    return found


@per_department
def lesion_gaps() -> Gaps:
    """The terms with a gap, and the finding that each of them stands for."""
    terms = ((masked(term.strip()), row[0]) for row in rows("lesions.tsv") for term in row[4].split("|"))
    return Gaps({term: lesion for term, lesion in terms if "*" in term})


@per_department
def _signs(lesion: str) -> frozenset[str]:
    """The finding itself, what it may be called after, and what that may be called after; further steps mean little."""
    known = lesions()
    first = known[lesion].signs
    return frozenset({lesion}).union(first, *(known[each].signs for each in first if each in known))


@per_department
def same_finding(one: str, other: str) -> bool:
    """Whether two findings can be the same thing: equal, one a sign of the other, or words that the department takes for the same."""
    if one == other or (one, other) in _equal():
        return True
    return other in lesions()[one].signs or one in lesions()[other].signs


@per_department
def sign_of(sign: str, lesion: str) -> bool:
    """Whether a finding may rest on a sign, over two steps (a mass on a nodule on a rounded opacity)."""
    return sign in _signs(lesion) or (sign, lesion) in _equal()


@per_department
def kinship(sign: str, lesion: str) -> int:
    """How near what was seen is to what it is called: 3 the same · 2 one a sign of the other · 1 over two steps, either way · 0 strangers."""
    if sign == lesion or (sign, lesion) in _equal():
        return 3
    if same_finding(sign, lesion):
        return 2
    return 1 if sign_of(sign, lesion) or sign_of(lesion, sign) else 0


@per_department
def _equal() -> frozenset[tuple[str, str]]:
    """Pairs of findings that the department writes for each other, in both orders."""
    terms = lesion_terms()
    pairs = [(terms.get(one), terms.get(other)) for one, other in own_rows("equivalents.tsv")]
    return frozenset((a, b) for one, other in pairs if one and other for a, b in ((one, other), (other, one)))


@per_department
def criticals() -> tuple[Critical, ...]:
    """The list of critical findings (危急值)."""
    found: dict[str, Critical] = {}
    for row in rows("critical.tsv"):
        evidence, cover = (
            tuple((a, b) for a, _, b in (item.partition("@") for item in cell.split())) for cell in row[2:4]
        )
        excuses = tuple(row[4].split("|")) if len(row) > 4 and row[4] else ()
        elsewhere = tuple(row[5].split()) if len(row) > 5 else ()
        entry = Critical(row[0], row[1], evidence, cover, excuses, elsewhere)
        known = found.get(entry.id)
        found[entry.id] = entry if known is None else known.with_more(entry)
    return tuple(found.values())
