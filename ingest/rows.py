"""From a source's row to the values of a report: strict decoding, codes, times, sections, pseudonyms, content hash.

Touches no database and cleans no text (that is `ingest.cleaning`, and only what changed is cleaned). A row is either taken whole or rejected with
a reason; no character is ever replaced. What is None or blank at the source is unknown here, and a value that is there but makes no sense rejects
the row, because it can be replayed once the mapping is mended.
"""

import hashlib
import re
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

from clinical.case import Modality, Sex, System, systems_of
from clinical.text import NoBorder, split_sections
from core.identity import Keyring, split_of
from core.states import ReportStatus
from ingest.mapping import Mapping
from ingest.sources import Batch

T = TypeVar("T")


class Reason(StrEnum):
    """Why a row lies in quarantine."""

    UNDECODABLE = "undecodable"
    MOJIBAKE = "mojibake"
    UNSTORABLE = "unstorable_character"
    BAD_ROW = "bad_row"
    NO_KEY = "no_key"
    BAD_TIME = "bad_time"
    BAD_AGE = "bad_age"
    UNKNOWN_STATUS = "unknown_status"
    UNKNOWN_SEX = "unknown_sex"
    UNKNOWN_MODALITY = "unknown_modality"
    UNKNOWN_SYSTEM = "unknown_system"
    UNKNOWN_PATIENT_CLASS = "unknown_patient_class"
    UNKNOWN_GRADE = "unknown_grade"
    NO_BORDER = "no_border"
    EMPTY_FINDINGS = "empty_findings"
    EMPTY_IMPRESSION = "empty_impression"


class Incoming(NamedTuple):
    """One row in our words: texts as received, everything else mapped. `known` are the patient's own identifiers, for de-identification only."""

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


class Reject(NamedTuple):
    """A row that could not be taken. `source_id` is its pseudonym where it has one; `context` names columns and places, never text."""

    reason: str
    raw: dict[str, Any] | bytes
    source_id: str | None
    context: dict[str, Any]


class _Rejected(Exception):
    def __init__(self, reason: Reason, word: str, **where: int) -> None:
        super().__init__(reason)
        self.reason, self.context = reason, {"column": word, **where}


FINAL = (ReportStatus.FINAL, ReportStatus.AMENDED)
_TEXTS = ("findings", "impression", "report_text", "history", "prior_impression")
_TIMES = ("examined_at", "reported_at", "signed_at", "modified_at")
_WORD = re.compile(r"[^\W_]")
_NOTHING = frozenset({"无", "無", "暂无", "暫無", "none", "null", "nan", "n/a", "nil"})
_BARE_TITLE = re.compile(
    r"^[ \t]*[【\[(（]?(?:影像(?:学|學)?)?(?:检查|檢查)?(?:诊断|診斷|印象|结论|結論|意见|意見|提示|IMPRESSION|CONCLUSION)(?:意见|意見)?"
    r"[】\])）]?\s*[:：]?\s*\Z",
    re.IGNORECASE | re.MULTILINE,
)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_LATIN_RUN = re.compile("[\u0080-\u00ff]{4,}")
_AGE = re.compile(
    r"0*(\d{1,3})(?:\.\d+)?\s*(岁|歲|周岁|Y|年|个月|個月|月|M|周|週|W|天|日|D|小时|小時|H)?(?:.*月|.*天)?",
    re.IGNORECASE,
)
_NO_TIME = re.compile(r"[0\-/:. T]*")
_SEPARATORS = re.compile(r"[+;；,，、|/]")


class Rows:
    """Maps the rows of one institution; keeps what repeats (doctors, codes, body parts)."""

    def __init__(self, mapping: Mapping, keyring: Keyring) -> None:
        self._mapping, self._codes, self._keyring = mapping, mapping.codes, keyring
        self._rules = [(rule.field, re.compile(rule.pattern), rule.systems) for rule in mapping.system_rules]
        self._systems: dict[tuple[str | None, str | None, str | None], tuple[System, ...]] = {}
        self._doctors: dict[str, str] = {}

    def take(self, batch: Batch) -> tuple[list[Incoming], list[Reject]]:
        """Every row of a batch, taken or rejected."""
        taken: list[Incoming] = []
        rejects = [Reject(misfit.reason, misfit.raw, None, misfit.context) for misfit in batch.misfits]
        for values in batch.rows:
            row = dict(zip(batch.columns, values, strict=True))
            try:
                taken.append(self._incoming(row))
            except _Rejected as error:
                rejects.append(Reject(error.reason, row, self._source_id(row), error.context))
        return taken, rejects

    def _source_id(self, row: dict[str, Any]) -> str | None:
        try:
            value = (self._plain("source_id", row.get("source_id")) or "").strip()
        except _Rejected:
            return None
        return self._keyring.pseudonym(self._mapping.code, "source_id", value) if value else None

    def _incoming(self, row: dict[str, Any]) -> Incoming:
        text = self._texts(row)
        times = {word: self._time(word, row.get(word)) for word in _TIMES}
        source_id = text["source_id"]
        if source_id is None:
            raise _Rejected(Reason.NO_KEY, "source_id")
        status = _coded(self._codes.status, text["status"], Reason.UNKNOWN_STATUS, "status")
        findings, impression, title = self._sections(text, status)
        code, pseudonym = self._mapping.code, self._keyring.pseudonym
        accession, patient = text.get("accession"), text.get("patient")
        sex, modality = text.get("sex"), text.get("modality")
        exam_title = text.get("exam_title") or title
        values: dict[str, Any] = {
            "status": status,
            "findings": findings,
            "impression": impression,
            "exam_title": exam_title,
            "modality": Modality.OT
            if modality is None
            else _coded(self._codes.modality, modality, Reason.UNKNOWN_MODALITY, "modality"),
            "systems": self._body_systems(text.get("system"), text.get("part"), exam_title),
            "sex": Sex.U if sex is None else _coded(self._codes.sex, sex, Reason.UNKNOWN_SEX, "sex"),
            "age": _age(text.get("age")),
            "patient_class": self._patient_class(text.get("patient_class")),
            "history": text.get("history"),
            "prior_impression": text.get("prior_impression"),
            "accession": None if accession is None else pseudonym(code, "accession", accession),
            "patient": None if patient is None else pseudonym(code, "patient", patient),
            "author": self._doctor(text.get("author")),
            "author_grade": self._grade(text.get("author_grade")),
            "reviewer": self._doctor(text.get("reviewer")),
            "reviewer_grade": self._grade(text.get("reviewer_grade")),
            "examined_at": times["examined_at"],
            "reported_at": times["reported_at"],
            "signed_at": times["signed_at"],
        }
        source = pseudonym(code, "source_id", source_id)
        return Incoming(
            **values,
            source_id=source,
            modified_at=times["modified_at"] or times["signed_at"] or times["reported_at"],
            split=split_of(values["patient"] or values["accession"] or source),
            content_hash=hashlib.sha256("\x1f".join(map(str, values.values())).encode()).hexdigest(),
            known=tuple(_identifiers(text)),
        )

    def _texts(self, row: dict[str, Any]) -> dict[str, str | None]:
        """Every cell but the times as text. What no cell may hold is looked for in all of them at once: nearly every row has none."""
        plain = {word: self._plain(word, value) for word, value in row.items() if word not in _TIMES}
        together = "\n".join(filter(None, plain.values()))
        if _UNSTORABLE.search(together) or _LATIN_RUN.search(together):
            for word, value in plain.items():
                _refuse_broken(word, value or "")
        return {
            word: value if value is None or word in _TEXTS else value.strip() or None for word, value in plain.items()
        }

    def _plain(self, word: str, value: Any) -> str | None:
        """A cell as text; None when it holds nothing. Bytes are decoded by the mapping's charset, strictly."""
        if value is None or isinstance(value, str):
            return value or None
        if isinstance(value, bytes | bytearray | memoryview):
            try:
                return bytes(value).decode(self._mapping.source.charset) or None
            except UnicodeDecodeError as error:
                raise _Rejected(Reason.UNDECODABLE, word, byte=error.start) from None
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)

    def _time(self, word: str, value: Any) -> datetime | None:
        """A time in UTC. Blank and all-zero texts are none."""
        if isinstance(value, str | bytes | bytearray | memoryview):
            value = (self._plain(word, value) or "").strip()
            if _NO_TIME.fullmatch(value):
                return None
        if value is None:
            return None
        try:
            return self._mapping.source.moment(value)
        except ValueError:
            raise _Rejected(Reason.BAD_TIME, word) from None

    def _sections(self, text: dict[str, str | None], status: ReportStatus) -> tuple[str, str, str | None]:
        """Findings, impression and the examination's title. Only a report that is final has to have both."""
        findings, impression, title = text.get("findings") or "", text.get("impression") or "", None
        both = text.get("report_text")
        if both is not None:
            if _BARE_TITLE.search(both) and status in FINAL:
                raise _Rejected(Reason.EMPTY_IMPRESSION, "report_text")
            try:
                sections = split_sections(both)
                findings, impression, title = sections.findings, sections.impression, sections.exam_title
            except NoBorder:
                if status in FINAL:
                    raise _Rejected(Reason.NO_BORDER, "report_text") from None
                findings = both
        if status in FINAL:
            if _is_empty(findings):
                raise _Rejected(Reason.EMPTY_FINDINGS, "findings")
            if _is_empty(impression):
                raise _Rejected(Reason.EMPTY_IMPRESSION, "impression")
        return findings, impression, title

    def _body_systems(self, system: str | None, part: str | None, title: str | None) -> tuple[System, ...]:
        key = (system, part, title)
        if key not in self._systems:
            self._systems[key] = self._look_up_systems(system, part, title)
        return self._systems[key]

    def _look_up_systems(self, system: str | None, part: str | None, title: str | None) -> tuple[System, ...]:
        """By code where the source has one, else by the mapping's rules, else by the words of the body part or the title."""
        if system is not None:
            codes = [
                code.strip()
                for code in ([system] if system in self._codes.system else _SEPARATORS.split(system))
                if code.strip()
            ]
            found = {_coded(self._codes.system, code, Reason.UNKNOWN_SYSTEM, "system") for code in codes}
        elif self._rules:
            texts = {"part": part or "", "exam_title": title or ""}
            found = {
                each for field, pattern, systems in self._rules if pattern.search(texts[field]) for each in systems
            }
        else:
            found = set(systems_of(part or "") or systems_of(title or ""))
        return tuple(each for each in System if each in found)

    def _patient_class(self, value: str | None) -> str | None:
        if value is None or not self._codes.patient_class:
            return value
        return _coded(self._codes.patient_class, value, Reason.UNKNOWN_PATIENT_CLASS, "patient_class")

    def _grade(self, value: str | None) -> str | None:
        if value is None:
            return None
        return _coded(self._codes.grade, value, Reason.UNKNOWN_GRADE, "grade") if self._codes.grade else None

    def _doctor(self, value: str | None) -> str | None:
        if value is None:
            return None
        if value not in self._doctors:
            self._doctors[value] = self._keyring.pseudonym(self._mapping.code, "doctor", value)
        return self._doctors[value]


def _refuse_broken(word: str, value: str) -> None:
    """Refuses what cannot be stored, and in report texts what is Chinese no more."""
    if found := _UNSTORABLE.search(value):
        raise _Rejected(Reason.UNSTORABLE, word, character=found.start())
    if word in _TEXTS and (found := _LATIN_RUN.search(value)) and _is_mojibake(found[0]):
        raise _Rejected(Reason.MOJIBAKE, word, character=found.start())


def _coded(codes: dict[str, T], value: str | None, reason: Reason, word: str) -> T:
    try:
        return codes[value or ""]
    except KeyError:
        raise _Rejected(reason, word) from None


def _age(value: str | None) -> int | None:
    """Years from `45`, `45岁`, `045Y`, `8月`; what is younger than a year is 0."""
    if value is None:
        return None
    found = _AGE.fullmatch(value)
    if found is None:
        raise _Rejected(Reason.BAD_AGE, "age")
    number, unit = int(found[1]), (found[2] or "岁").upper()
    years = (
        number // 12
        if unit in ("个月", "個月", "月", "M")
        else number
        if unit in ("岁", "歲", "周岁", "Y", "年")
        else 0
    )
    if years > 150:
        raise _Rejected(Reason.BAD_AGE, "age")
    return years


def _is_empty(text: str) -> bool:
    return _WORD.search(text) is None or text.strip().lower() in _NOTHING


def _is_mojibake(run: str) -> bool:
    """Whether a run of accented Latin letters is Chinese that was read as Latin-1: 右肺结节 as `ÓÒ·Î½á½Ú`."""
    try:
        read_right = run.encode("latin-1")[: len(run) // 2 * 2].decode("gbk")
    except UnicodeDecodeError:
        return False
    return sum("\u4e00" <= character <= "\u9fff" for character in read_right) >= 2


def _identifiers(text: dict[str, str | None]) -> Iterable[str]:
    """The row's own names and numbers that may stand in its texts; short numbers would hit measurements."""
    for word in ("known_name", "known_card", "known_phone", "known_number", "patient", "accession"):
        value = text.get(word)
        if value and (len(value) >= 5 or (word == "known_name" and len(value) >= 2)):
            yield value
