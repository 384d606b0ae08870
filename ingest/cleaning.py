"""The texts that a model may read, derived from the texts as received, and why a report may not be learned from.

Derived means repeatable: the raw text stays in its own column, and the version says by which rules the other was made (`ingest.reclean` makes it anew
when they change). What cleaning is stands in `clinical.cleaning`; here it meets a row, its own identifiers and its institution's statements.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import clinical.text
from clinical import cleaning as rules
from clinical.cleaning import Readable
from clinical.deidentify import present
from clinical.non_essential import NonEssential, shipped
from clinical.text import findings_hashes
from clinical.together import Together
from core import vocabulary
from core.states import ReportStatus
from ingest.exclusions import Exclusion, all_seen_in
from ingest.mapping import FINAL, Mapping

Text = TypeVar("Text", str, str | None)

_HERE, _THERE = Path(__file__).parent, Path(clinical.text.__file__).parent
_SOURCES = (
    *(
        _THERE / name
        for name in (
            "cleaning.py",
            "deidentify.py",
            "label.py",
            "mapped.py",
            "names.py",
            "non_essential.py",
            "text.py",
            "together.py",
        )
    ),
    *(_THERE / "vocabulary" / name for name in ("surnames.txt", "traditional.tsv")),
    _HERE / "cleaning.py",
    _HERE / "exclusions.py",
)
_RULES = hashlib.sha256(b"".join(path.read_bytes() for path in _SOURCES)).hexdigest()[:12]
_REPEATED_FINDINGS = "repeated_findings"
_LONG_ENOUGH = 20


class Uncleaned(Protocol):
    """Texts as received, and what their record knows of its patient; an `Incoming` row is one."""

    @property
    def findings(self) -> str: ...
    @property
    def impression(self) -> str: ...
    @property
    def history(self) -> str | None: ...
    @property
    def prior_impression(self) -> str | None: ...
    @property
    def status(self) -> ReportStatus: ...
    @property
    def known(self) -> tuple[str, ...]: ...


class Cleaned(NamedTuple):
    """What is stored beside the raw texts. `excluded` says why the report never trains, None when nothing speaks against it; `removed` what was taken
    out of findings and impression, once per place."""

    findings: str
    impression: str
    history: str | None
    prior_impression: str | None
    findings_hash: str
    excluded: str | None
    removed: tuple[str, ...]
    version: str


@dataclass(frozen=True)
class Cleaning:
    """By which rules an institution's texts are cleaned. `version` changes with any rule and any statement. `widths` are (our word, what its column
    holds, the column's charset)."""

    language: str = "zh-Hans"
    terms: NonEssential = field(default_factory=shipped)
    widths: tuple[tuple[str, int, str], ...] = ()
    version: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "version", hashlib.sha256(f"{_RULES} {self.language} {self.terms.digest}".encode()).hexdigest()[:12]
        )


STANDARD = Cleaning()


def cleaning_of(mapping: Mapping) -> Cleaning:
    """How the texts of an institution are cleaned.

    Raises:
        Refused: the department's own vocabulary is wrong; the sentence says what to change.
    """
    widths = tuple((word, width, mapping.source.charset_of(word)) for word, width in mapping.source.widths.items())
    phrases = shipped() if mapping.home is None else vocabulary.of(mapping.home, mapping.code).phrases
    return Cleaning(mapping.language, phrases, widths)


class Texts(NamedTuple):
    """The columns of many rows as received, with what each row knows of its patient."""

    findings: list[str]
    impressions: list[str]
    histories: list[str | None]
    priors: list[str | None]
    statuses: list[ReportStatus]
    known: list[tuple[str, ...]]


def texts_of(rows: Sequence[Uncleaned]) -> Texts:
    """What cleaning needs of rows."""
    return Texts(
        [row.findings for row in rows],
        [row.impression for row in rows],
        [row.history for row in rows],
        [row.prior_impression for row in rows],
        [row.status for row in rows],
        [row.known for row in rows],
    )


class Derived(NamedTuple):
    """What cleaning made of `Texts`: the texts that read differently now, by the number of the row, and of what all rows have one for each."""

    findings: dict[int, str]
    impressions: dict[int, str]
    histories: dict[int, str]
    priors: dict[int, str]
    removed: dict[int, tuple[str, ...]]
    excluded: dict[int, str]
    findings_hashes: list[str]


def cleaned_batch(rows: Sequence[Uncleaned], cleaning: Cleaning = STANDARD) -> list[Cleaned]:
    """The derived texts of many rows; what becomes of a row does not depend on the others."""
    texts = texts_of(rows)
    return with_texts(texts, derived(texts, cleaning), cleaning.version)


def with_texts(texts: Texts, made: Derived, version: str) -> list[Cleaned]:
    """Row by row what was derived; a text that reads as it was received is the same object."""
    count = range(len(texts.findings))
    columns = (
        _changed(texts.findings, made.findings),
        _changed(texts.impressions, made.impressions),
        _changed(texts.histories, made.histories),
        _changed(texts.priors, made.priors),
        made.findings_hashes,
        map(made.excluded.get, count),
        map(made.removed.get, count, repeat(())),
    )
    return list(map(Cleaned, *columns, repeat(version)))


def derived(texts: Texts, cleaning: Cleaning) -> Derived:
    """Cleaning itself, column by column."""
    terms = cleaning.terms
    known = _known(texts)
    read = rules.all_findings(texts.findings, known, terms)
    findings = _changed(texts.findings, _texts(read))
    concluded = rules.all_impressions(texts.impressions, known, terms)
    _take_out_findings(findings, texts.impressions, concluded, terms)
    return Derived(
        _texts(read),
        _texts(concluded),
        _texts(_optional(texts.histories, known, terms)),
        _texts(_optional(texts.priors, known, terms)),
        {
            number: removed
            for number in read.keys() | concluded.keys()
            if (removed := read.get(number, _AS_IT_WAS).removed + concluded.get(number, _AS_IT_WAS).removed)
        },
        _excluded(texts, findings, concluded, cleaning),
        findings_hashes(findings),
    )


_AS_IT_WAS = Readable("", ())


def _texts(read: dict[int, Readable]) -> dict[int, str]:
    return {number: its.text for number, its in read.items()}


def _changed(raws: Sequence[Text], changes: dict[int, str]) -> list[Text | str]:
    texts: list[Text | str] = list(raws)
    for number, text in changes.items():
        texts[number] = text
    return texts


def _known(texts: Texts) -> rules.Known:
    """What each row knows of its patient and may say in one of its texts."""
    columns = [column for column in texts[:4] if any(column)]
    if not columns or not any(texts.known):
        return {}
    return present(Together(["\n".join(filter(None, row)) for row in zip(*columns, strict=True)]), texts.known)


def _take_out_findings(
    findings: Sequence[str], raws: Sequence[str], concluded: dict[int, Readable], terms: NonEssential
) -> None:
    """Some houses repeat the findings above the impression."""
    for number, before in enumerate(findings):
        read = concluded.get(number) or Readable(raws[number], ())
        if read.text.startswith(before) and len(before) >= _LONG_ENOUGH:
            rest = rules.impression(read.text[len(before) :], (), terms)
            concluded[number] = Readable(rest.text, (*read.removed, _REPEATED_FINDINGS, *rest.removed))


def _optional(texts: Sequence[str | None], known: rules.Known, terms: NonEssential) -> dict[int, Readable]:
    """Of texts that not every row has; none is made where there is none."""
    if not any(texts):
        return {}
    read = rules.all_readable([text or "" for text in texts], known, terms)
    return {number: its for number, its in read.items() if texts[number] is not None}


def _excluded(
    texts: Texts, findings: Sequence[str], concluded: dict[int, Readable], cleaning: Cleaning
) -> dict[int, str]:
    """Why rows never train. The status of one that is not final keeps it out, and it may become final."""
    impressions = _changed(texts.impressions, _texts(concluded))
    why = all_seen_in(findings, impressions, texts.impressions, chinese=cleaning.language.startswith("zh"))
    for number, read in concluded.items():
        if not read.text and _REPEATED_FINDINGS in read.removed:
            why[number] = Exclusion.EMPTY_IMPRESSION
    for width in cleaning.widths:
        for number, (before, after) in enumerate(zip(texts.findings, texts.impressions, strict=True)):
            if _fills(before, after, *width):
                why.setdefault(number, Exclusion.POSSIBLY_TRUNCATED)
    return {number: its.value for number, its in why.items() if texts.statuses[number] in FINAL}


def _fills(findings: str, impression: str, word: str, width: int, charset: str) -> bool:
    """Whether a text is as long as its column is wide, or one short of it: half of a character may have been cut off with the rest."""
    raw = f"{findings}{impression}" if word == "report_text" else findings if word == "findings" else impression
    return len(raw) in (width, width - 1) or len(raw.encode(charset, "replace")) in (width, width - 1)
