"""Which column of a stranger's table is which of our words, by its name and by what stands in it.

Pure: columns in, guesses out, each with how sure it is. Names are data (`headers.toml`). A guess is a proposal for a person, and whatever is not sure says
so. What the values of a code column mean is `ingest.meanings`', how columns are written `ingest.writing`'s.
"""

import re
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from clinical.case import Modality
from clinical.text import NoBorder, split_sections
from ingest.meanings import modality_of, sex_of, system_of
from ingest.writing import SAMPLES, Column, is_time, plain, time_formats

NEVER = "_never"
EXACT, LAST_STEP, PART = 2.0, 1.75, 1.0
"""How well a name is known. A guess of 2 and more is sure; values that fit add a half."""

MOST_TITLES = 100
"""More different titles than these make no table of codes."""


@dataclass(frozen=True, slots=True)
class Guess:
    """`word` is what the column holds. `sure`: the name is one that we know and the values fit it."""

    word: str
    column: str
    sure: bool
    why: str


def words(columns: Sequence[Column]) -> list[Guess]:
    """The best assignment of columns to words, each column to one; then the key, which may be the examination's number as well."""
    candidates: list[tuple[float, int, str, Column, str]] = []
    known = _headers()
    banned = {column.name for column in columns if _named(column.name, *known[NEVER]) == EXACT}
    for rank, (word, (exact, parts, kind)) in enumerate(
        (word, (*names, _TYPES.get(word, ""))) for word, names in known.items() if word != NEVER
    ):
        for column in columns:
            named = _named(column.name, exact, parts)
            if column.name in banned or not named:
                continue
            fits = _fits(kind, column)
            if fits is False:
                continue
            candidates.append(
                (
                    named + (0.5 if fits else 0) + _better(kind, column),
                    rank,
                    word,
                    column,
                    "name" if named > PART else "part of the name",
                )
            )
    taken: dict[str, Guess] = {}
    used: set[str] = set()
    for score, _, word, column, why in sorted(candidates, key=lambda each: (-each[0], each[1])):
        if word in taken or column.name in used:
            continue
        taken[word] = Guess(word, column.name, score >= 2, why)
        used.add(column.name)
    _texts_by_content(columns, taken, used | banned)
    _settle_reports(taken)
    _codes_by_content(columns, taken, banned)
    _key(columns, taken)
    if titled := titled_modality(columns, list(taken.values())):
        taken["modality"] = titled
    return sorted(taken.values(), key=lambda guess: list(known).index(guess.word))


def unfit(columns: Sequence[Column], found: Sequence[Guess]) -> list[Guess]:
    """Columns that are called like a word that none was found for, and whose values are not of its kind: they are not read, and somebody should know."""
    words, used = {each.word for each in found}, {each.column for each in found}
    return [
        Guess(word, column.name, False, "its name says so and its values do not")
        for word, (exact, parts) in _headers().items()
        if word not in words and word in _TYPES
        for column in columns
        if column.name not in used
        and _named(column.name, exact, parts) == EXACT
        and _fits(_TYPES[word], column) is False
    ]


def titled_modality(columns: Sequence[Column], found: Sequence[Guess]) -> Guess | None:
    """The modality by the examination's title (胸部CT平扫), where no column is a modality and nearly every title names one."""
    by_word = {each.word: each.column for each in found}
    if "modality" in by_word or "exam_title" not in by_word:
        return None
    texts = next(column for column in columns if column.name == by_word["exam_title"]).texts()
    if len(set(texts)) > MOST_TITLES or _share(texts, lambda text: modality_of(text)[0]) < 0.9:
        return None
    return Guess("modality", by_word["exam_title"], False, "by the examination's title")


# --- names ------------------------------------------------------------------------------------------------------------------


@cache
def _headers() -> dict[str, tuple[frozenset[str], tuple[str, ...]]]:
    data = tomllib.loads((Path(__file__).parent / "headers.toml").read_text("utf-8"))
    return {
        word: (frozenset(plain(each) for each in table["exact"]), tuple(plain(each) for each in table.get("part", ())))
        for word, table in data.items()
    }


@cache
def _types() -> dict[str, str]:
    data = tomllib.loads((Path(__file__).parent / "headers.toml").read_text("utf-8"))
    return {word: table["type"] for word, table in data.items() if "type" in table}


_TYPES = _types()


def _named(name: str, exact: frozenset[str], parts: tuple[str, ...]) -> float:
    """How well a name is known: as a whole, by the last step of its path (`patient.name` in JSON), by a part of it, or not at all (0)."""
    whole = plain(name)
    if whole in exact:
        return EXACT
    if "." in name and plain(name.rpartition(".")[2]) in exact:
        return LAST_STEP
    return PART if any(part in whole for part in parts) else 0


# --- values -----------------------------------------------------------------------------------------------------------------


def _share(texts: Iterable[str], test: Callable[[str], object]) -> float:
    each = [bool(test(text)) for text in texts]
    return sum(each) / len(each) if each else 0.0


def _fits(kind: str, column: Column) -> bool | None:
    """Whether the values are of that kind; None when there is none to look at, or nothing to look for."""
    texts = column.texts()
    if not texts or not kind:
        return None
    return _FITS[kind](column, texts)


_FITS: dict[str, Callable[[Column, list[str]], bool]] = {
    "text": lambda column, texts: sum(map(len, texts)) / len(texts) >= 4 and not is_time(column),
    "report": lambda column, texts: _share(texts, _has_both) >= 0.6,
    "key": lambda column, texts: len(texts) < 2 or len(set(texts)) == len(texts),
    "number": lambda column, texts: _share(texts, lambda text: re.search(r"\d", text) and len(text) <= 64) >= 0.9,
    "code": lambda column, texts: len(set(texts)) <= max(12, len(texts) // 4) and max(map(len, texts)) <= 40,
    "sex": lambda column, texts: (
        len(set(texts)) <= 6 and _share(texts, lambda text: sex_of(text)[0] is not None) >= 0.6
    ),
    "age": lambda column, texts: _share(texts, lambda text: re.match(r"\s*0*\d{1,3}(?!\d)", text)) >= 0.7,
    "modality": lambda column, texts: (
        _share(texts, lambda text: modality_of(text)[0] not in (None, Modality.OT)) >= 0.5
    ),
    "system": lambda column, texts: _share(texts, lambda text: system_of(text)[0]) >= 0.8,
    "time": lambda column, texts: is_time(column) or time_formats(column) is not None,
}


def _better(kind: str, column: Column) -> float:
    """A true time is better than one that is text."""
    return 0.25 if kind == "time" and is_time(column) else 0.0


def _has_both(text: str) -> bool:
    try:
        split_sections(text)
    except NoBorder:
        return False
    return True


def _texts_by_content(columns: Sequence[Column], taken: dict[str, Guess], used: set[str]) -> None:
    """Findings and impression by their length, where no name told: the two columns of the longest Chinese texts."""
    if "report_text" in taken or {"findings", "impression"} <= taken.keys():
        return
    long = sorted(
        (
            (sum(map(len, texts)) / len(texts), column)
            for column in columns
            if column.name not in used and (texts := column.texts()) and _share(texts, _is_prose) >= 0.8
        ),
        key=lambda pair: -pair[0],
    )
    if long and long[0][0] >= 15 and not {"findings", "impression"} & taken.keys():
        first = long[0][1]
        if _share(first.texts(), _has_both) >= 0.6:
            taken["report_text"] = Guess("report_text", first.name, False, "its texts hold findings and impression")
            return
    for word, least in (("findings", 15), ("impression", 5)):
        if word not in taken and long and long[0][0] >= least:
            taken[word] = Guess(word, long.pop(0)[1].name, False, "the longest texts that are left")


def _is_prose(text: str) -> bool:
    """Whether a text has words and is neither a number nor a code."""
    return re.search(r"[\u3400-\u9fff]{2}|[^\W\d_]{3}.*\s", text) is not None


def _codes_by_content(columns: Sequence[Column], taken: dict[str, Guess], banned: set[str]) -> None:
    """Sex and modality by their values, where no name told."""
    for word in ("sex", "modality"):
        free = [column for column in columns if column.name not in banned | {each.column for each in taken.values()}]
        column = next((each for each in free if _is_all(word, each.texts())), None)
        if word not in taken and column is not None:
            taken[word] = Guess(word, column.name, False, "by what stands in it")


def _is_all(word: str, texts: Sequence[str]) -> bool:
    if not texts or len(set(texts)) > 12 or max(map(len, texts)) > 12:
        return False
    if word == "sex":
        return all(not text.isdigit() and sex_of(text)[0] is not None for text in texts)
    return _share(texts, lambda text: modality_of(text)[0] not in (None, Modality.OT)) >= 0.9


def _settle_reports(taken: dict[str, Guess]) -> None:
    """A report stands either in one field or in two."""
    if {"findings", "impression"} <= taken.keys():
        taken.pop("report_text", None)
    elif "report_text" in taken:
        taken.pop("findings", None)
        taken.pop("impression", None)


def _key(columns: Sequence[Column], taken: dict[str, Guess]) -> None:
    """The row's own key: where no column is called one, the examination's number if it is unique, else any unique column."""
    if "source_id" in taken:
        taken.setdefault(
            "accession", Guess("accession", taken["source_id"].column, False, "the key, for want of another")
        )
        return
    by_name = {column.name: column for column in columns}
    if "accession" in taken:
        column = by_name[taken["accession"].column]
        texts = column.texts()
        unique = len(set(texts)) == len(texts)
        why = "the examination's number" + ("" if unique else ", which is not unique")
        taken["source_id"] = Guess("source_id", column.name, unique and taken["accession"].sure, why)
        return
    used = {each.column for each in taken.values()}
    for column in columns:
        texts = column.texts()
        if (
            column.name not in used
            and len(texts) > 1
            and len(set(texts)) == len(texts) == len(column.values[:SAMPLES])
            and max(map(len, texts)) <= 64
        ):
            taken["source_id"] = Guess("source_id", column.name, False, "the first unique column")
            return
