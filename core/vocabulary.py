"""Departments' own vocabulary, read once in a process: the words of the whole installation, and behind them those of each institution.

`vocabulary/` of the data root holds files for all institutions, `vocabulary/CODE/` those of one. Their form, and what is wrong with a row,
are `clinical.overlay`'s and `clinical.non_essential`'s to say.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from clinical import non_essential, overlay
from clinical.department import SHIPPED, Words, using
from clinical.lexicon import OWN_FILES
from clinical.non_essential import NonEssential
from core.errors import Refused

__all__ = ["FOLDER", "PHRASES", "Vocabulary", "load", "of"]

FOLDER = "vocabulary"
PHRASES = "non_essential.toml"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a department adds: words of findings and structures, and phrases that say nothing of the patient."""

    words: Words = SHIPPED
    phrases: NonEssential = field(default_factory=non_essential.shipped)


def of(home: Path, institution: str) -> Vocabulary:
    """The vocabulary of an institution: its own files behind those of the installation.

    Raises:
        Refused: see `load`.
    """
    every = load(home)
    return every.get(institution, every[""])


def load(home: Path) -> Mapping[str, Vocabulary]:
    """Every institution's vocabulary by its code, and under "" that of all others. Files are read once and hold until the process ends.

    Raises:
        Refused: a file is not UTF-8, has an unknown name or does not fit; the sentence names file and line.
    """
    return _load(home.absolute())


@cache
def _load(home: Path) -> Mapping[str, Vocabulary]:
    folder = home / FOLDER
    shared = _read(folder, Vocabulary())
    houses = sorted(each for each in folder.iterdir() if each.is_dir()) if folder.is_dir() else []
    return {"": shared, **{each.name: _read(each, shared) for each in houses}}


def _read(folder: Path, beside: Vocabulary) -> Vocabulary:
    """What a folder adds. A file that nobody would read is refused: its writer believes that it holds."""
    texts = {path.name: _text(path) for path in sorted(folder.glob("*")) if path.suffix in (".tsv", ".toml")}
    phrases = texts.pop(PHRASES, None)
    unknown = next((name for name in texts if name not in OWN_FILES), None)
    if unknown is not None:
        raise Refused(f"{folder / unknown}: the files are {', '.join((*OWN_FILES, PHRASES))}.", code="vocabulary")
    try:
        words = overlay.read(texts, beside.words) if texts else beside.words
        with using(words):  # a phrase may name none of the department's own structures and findings either
            own = None if phrases is None else non_essential.read(phrases, PHRASES)
    except ValueError as error:
        raise Refused(f"{folder}/{error}", code="vocabulary") from None
    return Vocabulary(words, beside.phrases if own is None else beside.phrases.with_more(own))


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Refused(f"{path} is not UTF-8 text.", code="vocabulary") from None
    except OSError as error:
        raise Refused(f"{path} cannot be read ({type(error).__name__}).", code="vocabulary") from None
