"""A department's own vocabulary: rows beside the shipped ones, examined line by line before any check uses them.

Four files of tab-separated rows, of the form of the shipped ones: structures (`anatomy.tsv`), findings (`lesions.tsv`), critical findings
(`critical.tsv`), and words that the department writes for each other (`equivalents.tsv`: two words a row). A row with a known path or id
adds words to it; no row takes a shipped one away. Pure: who reads the files, when and for whom is `core.vocabulary`'s to say; the
scorer's dictionary is another file and never changes with these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from clinical.department import SHIPPED, Words, using
from clinical.lexicon import NOT_A_STRUCTURE, OWN_FILES, lesion_terms, lesions, structures
from clinical.measures import lowered
from clinical.text import normalise

__all__ = ["read"]

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_PATH = re.compile(r"[a-z][a-z0-9_]*(?:/[a-z][a-z0-9_]*)*")
_FLAGS = frozenset("plmFMx")


def read(texts: Mapping[str, str], beside: Words = SHIPPED) -> Words:
    """The words of a department's files, by name, in the form that texts are matched in, behind those that it has already (`beside`).

    Raises:
        ValueError: a row does not fit; the sentence begins with file and line.
    """
    unknown = sorted(set(texts) - set(OWN_FILES))
    if unknown:
        raise ValueError(f"{unknown[0]} is no file of this folder: {', '.join(OWN_FILES)}.")
    with using(beside):
        read = _examined({name: list(_rows(texts[name])) for name in OWN_FILES if name in texts})
    return Words({name: (*beside.rows.get(name, ()), *read.get(name, ())) for name in OWN_FILES})


def _examined(parsed: Mapping[str, list[tuple[int, list[str]]]]) -> dict[str, tuple[tuple[str, ...], ...]]:
    paths = set(structures()) | {cells[0] for _, cells in parsed.get("anatomy.tsv", ()) if "~" not in cells[0]}
    ids = set(lesions()) | {cells[0] for _, cells in parsed.get("lesions.tsv", ())}
    words = {word for _, cells in parsed.get("lesions.tsv", ()) for cell in cells[4:] for word in _words(cell)}
    found: dict[str, tuple[tuple[str, ...], ...]] = {}
    for name, rows in parsed.items():
        made = []
        for line, cells in rows:
            try:
                if name == "anatomy.tsv":
                    made.append(_structure(cells, paths))
                elif name == "lesions.tsv":
                    made.append(_lesion(cells, ids, paths))
                elif name == "critical.tsv":
                    made.append(_critical(cells, ids, paths))
                else:
                    made.append(_equivalent(cells, words))
            except ValueError as error:
                raise ValueError(f"{name}:{line}: {error}") from None
        found[name] = tuple(made)
    return found


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            yield number, [cell.strip() for cell in line.split("\t")]


def _words(cell: str) -> list[str]:
    """The words of one cell as the matching copy has them: lower case, simplified, half width."""
    return [folded for word in cell.split("|") if (folded := lowered(normalise(word).text))]


def _columns(cells: list[str], least: int, what: str) -> None:
    if len(cells) < least:
        raise ValueError(f"{len(cells)} columns between tabs, {least} are needed ({what}).")


def _cells(cells: list[str], first: int) -> tuple[str, ...]:
    """The cells of words, folded; at least one word."""
    folded = tuple("|".join(_words(cell)) for cell in cells[first:])
    if not any(folded):
        raise ValueError("the row has no words.")
    short = next((word for cell in folded for word in cell.split("|") if len(word.replace("*", "")) == 1), None)
    if short:
        raise ValueError(f"{short!r} is one character, which would be found everywhere; give at least two.")
    return folded


def _structure(cells: list[str], paths: set[str]) -> tuple[str, ...]:
    if "~" in cells[0]:
        one, _, other = cells[0].partition("~")
        for path in (one, other):
            if path not in paths:
                raise ValueError(f"there is no structure {path!r}.")
        return (cells[0],)
    _columns(cells, 3, "path, flags, words")
    path, flags = cells[0], cells[1]
    if path == NOT_A_STRUCTURE:
        return (path, "", *_cells(cells, 2))
    if _PATH.fullmatch(path) is None:
        raise ValueError(f"{path!r} is no path: small letters, digits and _, parts joined by /.")
    above = path.rpartition("/")[0]
    if above and above not in paths:
        raise ValueError(f"{path!r} lies in {above!r}, which does not exist.")
    if set(flags) - _FLAGS:
        raise ValueError(f"flags are {' '.join(sorted(_FLAGS))}, not {flags!r}.")
    return (path, flags, *_cells(cells, 2))


def _lesion(cells: list[str], ids: set[str], paths: set[str]) -> tuple[str, ...]:
    _columns(cells, 5, "id, severity, place, comes from, words")
    name, severity, place, signs = cells[:4]
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} is no id: small letters, digits and _.")
    if severity not in tuple("01234") and not (severity == "" and name in lesions()):
        raise ValueError(f"severity is 0 to 4, not {severity!r}.")
    if place and place.removeprefix("!") not in paths:
        raise ValueError(f"there is no structure {place!r}.")
    for sign in signs.split():
        if sign not in ids:
            raise ValueError(f"there is no finding {sign!r}.")
    return (name, severity or "0", place, signs, *_cells(cells, 4))


def _critical(cells: list[str], ids: set[str], paths: set[str]) -> tuple[str, ...]:
    _columns(cells, 4, "id, name, evidence, what covers it")
    for item in cells[2].split():
        finding, at, path = item.partition("@")
        if finding not in ids or not at or (path and path not in paths):
            raise ValueError(f"{item!r} is no finding@structure.")
    for item in cells[3].split():
        finding, _, path = item.partition("@")
        if finding not in ids or (path and path not in paths):
            raise ValueError(f"there is no finding {item!r}.")
    for path in cells[5].split() if len(cells) > 5 else ():
        if path not in paths:
            raise ValueError(f"there is no structure {path!r}.")
    if not cells[2] or not cells[3]:
        raise ValueError("evidence and what covers it may not be empty.")
    return tuple(cells)


def _equivalent(cells: list[str], own_words: set[str]) -> tuple[str, ...]:
    if len(cells) != 2:
        raise ValueError(f"{len(cells)} columns between tabs, 2 are needed (word, word).")
    one, other = (_cells([cell], 0)[0] for cell in cells)
    if not any(word in lesion_terms() or word in own_words for word in (one, other)):
        raise ValueError(f"neither {one!r} nor {other!r} is a known finding; add one of them to lesions.tsv first.")
    return one, other
