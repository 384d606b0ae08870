"""From a source's row to the values of a report: strict decoding, codes, times, sections, pseudonyms, content hash.

Touches no database and cleans no text (that is `ingest.cleaning`, and only what changed is cleaned). A row is either taken whole or rejected with
a reason; no character is ever replaced. What is None or blank at the source is unknown here, and a value that is there but makes no sense rejects
the row, because it can be replayed once the mapping is mended.
"""

import hashlib
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import compress, repeat
from types import NoneType
from typing import Any, Literal, NamedTuple

from clinical.case import Modality, Sex, System, systems_of
from core.identity import Keyring, split_of
from core.states import ReportStatus
from ingest.borders import sections_of
from ingest.cells import coded_cells, copy_cells
from ingest.codes import Memo, coded, nothing, optional, same, years
from ingest.damage import UNSTORABLE, is_utf8_chinese, refuse_broken
from ingest.mapping import Mapping
from ingest.origin import TEXTS
from ingest.reasons import Reason, Wrong
from ingest.sources import Batch


class Incoming(NamedTuple):
    """One row in our words: texts as received, everything else mapped. `known` are the patient's own identifiers, for de-identification only;
    `content` is what is stored of the columns `CONTENT`, ready for COPY, in UTF-8."""

    source_id: str
    accession: str | None
    patient: str | None
    status: ReportStatus
    findings: str
    impression: str
    exam_title: str | None
    modality: Modality
    systems: tuple[System, ...]
    sex: Sex
    age: int | None
    patient_class: str | None
    history: str | None
    prior_impression: str | None
    author: str | None
    author_grade: str | None
    reviewer: str | None
    reviewer_grade: str | None
    examined_at: datetime | None
    reported_at: datetime | None
    signed_at: datetime | None
    modified_at: datetime | None
    split: str
    content_hash: str
    known: tuple[str, ...]
    content: bytes


class Reject(NamedTuple):
    """A row that could not be taken. `source_id` is its pseudonym where it has one; `context` names columns and places, never text."""

    reason: str
    raw: dict[str, Any] | bytes
    source_id: str | None
    context: dict[str, Any]


_TIMES = ("examined_at", "reported_at", "signed_at", "modified_at")
_KNOWN = ("known_name", "known_card", "known_phone", "known_number")
_PSEUDONYMS: tuple[Literal["source_id", "accession", "patient"], ...] = ("source_id", "accession", "patient")
CONTENT = (
    "status", "findings", "impression", "exam_title", "modality", "systems", "sex", "age", "patient_class", "accession", "patient",
    "author", "author_grade", "reviewer", "reviewer_grade", "examined_at", "reported_at", "signed_at",
)  # fmt: skip
"""What makes one version of a report differ from another, with history and prior impression; the source's time of change does not."""
_CODED = frozenset(
    {"status", "exam_title", "modality", "systems", "sex", "age", "patient_class", "author", "author_grade", "reviewer", "reviewer_grade"}
)  # fmt: skip
"""Those of few different values."""
_NO_TIME = re.compile(r"[0\-/:. T]*")
_SEPARATORS = re.compile(r"[+;；,，、|/]")


class Rows:
    """Maps the rows of one institution, a batch at a time and column by column; keeps what repeats (doctors, codes, body parts).

    What becomes of a row does not depend on its neighbours: a batch is the same as its rows one by one.
    """

    def __init__(self, mapping: Mapping, keyring: Keyring) -> None:
        self._mapping, self._keyring = mapping, keyring
        self._rules = [(rule.field, re.compile(rule.pattern), rule.systems) for rule in mapping.system_rules]
        codes = mapping.codes
        self._status = Memo(lambda value: coded(codes.status, value, Reason.UNKNOWN_STATUS, "status"))
        self._modality = Memo(optional(codes.modality, Modality.OT, Reason.UNKNOWN_MODALITY, "modality"))
        self._sex = Memo(optional(codes.sex, Sex.U, Reason.UNKNOWN_SEX, "sex"))
        self._age = Memo(years)
        self._class = Memo(
            optional(codes.patient_class, None, Reason.UNKNOWN_PATIENT_CLASS, "patient_class")
            if codes.patient_class
            else same
        )
        self._grades = {
            word: Memo(optional(codes.grade, None, Reason.UNKNOWN_GRADE, word) if codes.grade else nothing)
            for word in ("author_grade", "reviewer_grade")
        }
        self._systems = Memo(self._look_up_systems)
        self._doctors = Memo(self._doctor)

    def take(self, batch: Batch) -> tuple[list[Incoming], list[Reject]]:
        """Every row of a batch, taken or rejected."""
        rejects = [Reject(misfit.reason, misfit.raw, None, misfit.context) for misfit in batch.misfits]
        if not batch.rows:
            return [], rejects
        wrong: dict[int, Wrong] = {}
        columns = self._columns(batch, wrong)
        for index in sorted(wrong):
            row = dict(zip(batch.columns, batch.rows[index], strict=True))
            rejects.append(Reject(wrong[index].reason, row, self.source_id(row.get("source_id")), wrong[index].context))
        if wrong:
            kept = [index not in wrong for index in range(len(batch.rows))]
            columns = {word: list(compress(column, kept)) for word, column in columns.items()}
        return self._incoming(columns), rejects

    def _columns(self, batch: Batch, wrong: dict[int, Wrong]) -> dict[str, list[Any]]:
        """The mapped values of each row by our words. The first reason against a row, in this order, is the one that it is rejected for."""
        count = len(batch.rows)
        cells = dict(zip(batch.columns, zip(*batch.rows, strict=True), strict=True))
        none: list[Any] = [None] * count
        text = {word: self._plain_column(word, cells[word], wrong) for word in batch.columns if word not in _TIMES}
        for word, column in text.items():
            refuse_broken(word, column, wrong)
        for word in ("source_id", "accession", "patient", "exam_title", *_KNOWN):
            if word in text:
                text[word] = [value and (value.strip() or None) for value in text[word]]

        def given(word: str) -> list[Any]:
            return text.get(word, none)

        made = {word: self._times(word, cells[word], wrong) if word in cells else none for word in _TIMES}
        for index, value in enumerate(given("source_id")):
            if value is None:
                wrong.setdefault(index, Wrong(Reason.NO_KEY, {"column": "source_id"}))
        made["status"] = self._status.column(given("status"), wrong)
        made["findings"], made["impression"], titles = sections_of(
            made["status"], given("findings"), given("impression"), text.get("report_text"), wrong
        )
        made["exam_title"] = (
            given("exam_title")
            if titles is None
            else [a or b for a, b in zip(given("exam_title"), titles, strict=True)]
        )
        made["modality"] = self._modality.column(given("modality"), wrong)
        made["systems"] = self._systems.column(
            list(zip(given("system"), given("part"), made["exam_title"], strict=True)), wrong
        )
        made["sex"] = self._sex.column(given("sex"), wrong)
        made["age"] = self._age.column(given("age"), wrong)
        made["patient_class"] = self._class.column(given("patient_class"), wrong)
        for word, memo in self._grades.items():
            made[word] = memo.column(given(word), wrong)
        made["author"] = self._doctors.column(given("author"), wrong)
        made["reviewer"] = self._doctors.column(given("reviewer"), wrong)
        as_given = {word: given(word) for word in ("source_id", "accession", "patient", "history", "prior_impression")}
        return made | as_given | {"known": list(_identifiers(text, count))}

    def _incoming(self, made: dict[str, list[Any]]) -> list[Incoming]:
        """Rows out of columns, with pseudonyms for numbers, and a hash of everything that is content."""
        for word in _PSEUDONYMS:
            name = self._keyring.naming(self._mapping.code, word)
            made[word] = [None if value is None else name(value) for value in made[word]]
        made["modified_at"] = [
            modified or signed or reported
            for modified, signed, reported in zip(
                made["modified_at"], made["signed_at"], made["reported_at"], strict=True
            )
        ]
        made["split"] = [
            split_of(patient or accession or source)
            for patient, accession, source in zip(made["patient"], made["accession"], made["source_id"], strict=True)
        ]
        cells = [coded_cells(made[word]) if word in _CODED else copy_cells(made[word]) for word in CONTENT]
        made["content"] = [line.encode() for line in map("\t".join, zip(*cells, strict=True))]
        made["content_hash"] = [
            hashlib.sha256(content + f"\t{history}\t{prior}".encode()).hexdigest()
            for content, history, prior in zip(made["content"], made["history"], made["prior_impression"], strict=True)
        ]
        return list(map(Incoming._make, zip(*(made[word] for word in Incoming._fields), strict=True)))

    def source_id(self, key: Any) -> str | None:
        """The pseudonym of a source's own key, as every report carries it; None when there is none to be made."""
        value = self._plain("source_id", key)
        value = None if value is None or isinstance(value, Wrong) or UNSTORABLE.search(value) else value.strip()
        return self._keyring.pseudonym(self._mapping.code, "source_id", value) if value else None

    def _plain_column(self, word: str, column: tuple[Any, ...], wrong: dict[int, Wrong]) -> list[str | None]:
        """A column as texts; None where a cell holds nothing."""
        kinds = set(map(type, column))
        if kinds <= {str, NoneType}:
            return list(column) if all(column) else [value or None for value in column]
        if kinds <= {int, NoneType}:
            return [None if value is None else str(value) for value in column]
        plain: list[str | None] = []
        for index, cell in enumerate(column):
            value = self._plain(word, cell)
            if isinstance(value, Wrong):
                wrong.setdefault(index, value)
                value = None
            plain.append(value)
        return plain

    def _plain(self, word: str, value: Any) -> str | Wrong | None:
        """A cell as text; None when it holds nothing. Bytes are decoded by the mapping's charset, strictly."""
        if value is None or isinstance(value, str):
            return value or None
        if isinstance(value, bytes | bytearray | memoryview):
            charset = self._mapping.source.charset_of(word)
            try:
                if word in TEXTS and charset != "utf-8" and is_utf8_chinese(bytes(value)):
                    return Wrong(Reason.MOJIBAKE, {"column": word, "byte": 0})
                return bytes(value).decode(charset) or None
            except UnicodeDecodeError as error:
                return Wrong(Reason.UNDECODABLE, {"column": word, "byte": error.start})
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)

    def _times(self, word: str, column: tuple[Any, ...], wrong: dict[int, Wrong]) -> list[datetime | None]:
        """Times in UTC. Blank and all-zero texts are none."""
        times: list[datetime | None] = []
        for index, value in enumerate(column):
            try:
                if value is None:
                    times.append(None)
                elif type(value) is datetime and value.tzinfo is not None:
                    times.append(value.astimezone(UTC))
                else:
                    times.append(self._time(word, value))
            except _Rejected as error:
                wrong.setdefault(index, error.wrong)
                times.append(None)
            except (ValueError, OverflowError):
                wrong.setdefault(index, Wrong(Reason.BAD_TIME, {"column": word}))
                times.append(None)
        return times

    def _time(self, word: str, value: Any) -> datetime | None:
        if isinstance(
            value, str | bytes | bytearray | memoryview | int | float
        ):  # numbers: 20260102 in a cell of a sheet
            plain = self._plain(word, value)
            if isinstance(plain, Wrong):
                raise _Rejected(plain)
            value = (plain or "").strip()
            if _NO_TIME.fullmatch(value):
                return None
        return self._mapping.source.moment(value)

    def _look_up_systems(self, key: tuple[str | None, str | None, str | None]) -> tuple[System, ...] | Wrong:
        """By code where the source has one, else by the mapping's rules, else by the words of the body part or the title."""
        system, part, title = (value and (value.strip() or None) for value in key)
        if system is not None:
            known = self._mapping.codes.system
            codes = [
                code.strip() for code in ([system] if system in known else _SEPARATORS.split(system)) if code.strip()
            ]
            if any(code not in known for code in codes):
                return Wrong(Reason.UNKNOWN_SYSTEM, {"column": "system"})
            found = {known[code] for code in codes}
        elif self._rules:
            texts = {"part": part or "", "exam_title": title or ""}
            found = {
                each for field, pattern, systems in self._rules if pattern.search(texts[field]) for each in systems
            }
        else:
            found = set(systems_of(part or "") or systems_of(title or ""))
        return tuple(each for each in System if each in found)

    def _doctor(self, value: str | None) -> str | None:
        value = value and (value.strip() or None)
        return None if value is None else self._keyring.pseudonym(self._mapping.code, "doctor", value)


class _Rejected(Exception):
    def __init__(self, wrong: Wrong) -> None:
        super().__init__(wrong.reason)
        self.wrong = wrong


def _identifiers(text: dict[str, list[str | None]], count: int) -> Iterable[tuple[str, ...]]:
    """Each row's own names and numbers that may stand in its texts; short numbers would hit measurements."""
    columns = [
        [value if value and len(value) >= (2 if word == "known_name" else 5) else None for value in text[word]]
        for word in (*_KNOWN, "patient", "accession")
        if word in text
    ]
    return (tuple(filter(None, values)) for values in zip(*columns, strict=True)) if columns else repeat((), count)
