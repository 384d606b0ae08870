"""What the sandbox knows about a pretend report: frozen truth values, drawn before any text is written.

Holds no wording and draws nothing; `sandbox.draw` fills these values, `sandbox.write` renders them.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Side = Literal["L", "R", "B"]
Sex = Literal["F", "M"]
Modality = Literal["CT", "MR", "XR"]
System = Literal["chest", "abdomen", "musculoskeletal", "head", "maxillofacial_neck"]
Grade = Literal["junior", "intermediate", "senior"]
Status = Literal["final", "preliminary", "retracted", "addendum"]
Language = Literal["zh-Hans", "zh-Hant"]
Wording = Literal["seen", "unseen", "both"]

SYSTEMS: tuple[System, ...] = ("chest", "abdomen", "musculoskeletal", "head", "maxillofacial_neck")
MODALITIES: tuple[Modality, ...] = ("CT", "MR", "XR")


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that is true of the examination.

    `kind` is the finding type (`chest-01`); a fact with `polarity` False says that the type is absent (certainty 0,
    severity 1, never in the impression). `certainty` 1 is 待排/不除外, 2 可能/考虑, 3 可能性大/倾向, 4 plain. Several
    levels in one clause (腰3/4、4/5椎间盘) are several facts with the same spans. Spans are half-open code-point
    offsets into the report's texts, None where a text does not mention the fact.
    """

    kind: str
    system: str
    structure: str
    side: str | None
    level: str | None
    lesion: str
    polarity: bool
    certainty: int
    count: int | None
    sizes_mm: tuple[float, ...]
    grade: str | None
    critical: bool
    severity: int
    findings_span: tuple[int, int] | None
    impression_span: tuple[int, int] | None
    measures: tuple[tuple[str, float], ...] = ()
    """Other numbers with their unit: `%`, `HU`, `ml`, `°`, `枚` is `count`."""


@dataclass(frozen=True, slots=True)
class Noise:
    """One planted blemish: what was done, in which text, where it stands now, and what stood there before."""

    kind: str
    field: Literal["findings", "impression"]
    span: tuple[int, int]
    was: str


@dataclass(frozen=True, slots=True)
class Person:
    """A pretend patient; name, identity card (unassigned region 990000) and phone are invented but well formed."""

    id: str
    name: str
    id_card: str | None
    phone: str | None
    sex: Sex
    age: int


@dataclass(frozen=True, slots=True)
class Doctor:
    """A pretend radiologist of one house."""

    id: str
    name: str
    grade: Grade


@dataclass(frozen=True, slots=True)
class PretendReport:
    """One report as its hospital would hold it, with the facts behind both texts.

    `impression` is empty for the empty-impression noise; times are aware, in UTC; `noise` lists planted blemishes.
    """

    house: int
    accession: str
    person: Person
    sex: Sex
    age: int
    modality: Modality
    systems: tuple[str, ...]
    exam_title: str
    patient_class: str
    history: str | None
    findings: str
    impression: str
    status: Status
    author: Doctor
    reviewer: Doctor | None
    examined_at: datetime
    reported_at: datetime
    signed_at: datetime
    language: Language
    facts: tuple[Fact, ...]
    duplicate_of: str | None
    addendum_to: str | None
    held_out: bool
    noise: tuple[Noise, ...] = ()
