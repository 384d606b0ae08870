"""Why a row is rejected: the closed list of reasons, and one of them with its place. What stands in quarantine is `ingest.quarantine`."""

from enum import StrEnum
from typing import Any, NamedTuple


class Reason(StrEnum):
    """Why a row lies in quarantine."""

    UNDECODABLE = "undecodable"
    MOJIBAKE = "mojibake"
    LOST = "lost_characters"
    UNSTORABLE = "unstorable_character"
    BAD_ROW = "bad_row"
    BAD_SHEET = "bad_sheet"
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


class Wrong(NamedTuple):
    """Why a row is rejected, and where."""

    reason: Reason
    context: dict[str, Any]
