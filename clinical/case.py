"""The one input that training and serving share: what a model may know about an examination.

A `ClinicalInput` holds no name, number or date: a value that cannot leak is safer than a rule that must not be broken. It does not
validate; doors validate at the edge (core.requests) and training reads rows that passed a door or ingest.
"""

from dataclasses import dataclass
from enum import StrEnum


class Modality(StrEnum):
    """How the images were made; OT is anything else."""

    CT = "CT"
    MR = "MR"
    XR = "XR"
    OT = "OT"


class System(StrEnum):
    """The five body systems of the paper (arXiv 2310.05242, Table 1)."""

    CHEST = "chest"
    ABDOMEN = "abdomen"
    MUSCULOSKELETAL = "musculoskeletal"
    HEAD = "head"
    MAXILLOFACIAL_NECK = "maxillofacial_neck"


class Sex(StrEnum):
    """Administrative sex as HL7 table 0001 codes it: female, male, other, unknown."""

    F = "F"
    M = "M"
    O = "O"  # noqa: E741 - the code of the standard
    U = "U"


AGE_BANDS = ((0, 13), (14, 39), (40, 64), (65, 150))
"""Inclusive years of each age band; a model's scope and the evaluation tables are counted by these."""


@dataclass(frozen=True, slots=True)
class ClinicalInput:
    """What a model sees of one examination. `findings` is de-identified, cleaned text; every field but it and the institution is optional."""

    institution: str
    findings: str
    modality: Modality | None = None
    systems: tuple[System, ...] = ()
    exam_title: str | None = None
    sex: Sex | None = None
    age: int | None = None
    patient_class: str | None = None
    history: str | None = None
    prior_impression: str | None = None
    language: str = "zh-Hans"

    @property
    def age_band(self) -> str | None:
        """The band of `age` as "40-64"; None when the age is unknown."""
        if self.age is None:
            return None
        low, high = next(band for band in AGE_BANDS if self.age <= band[1] or band is AGE_BANDS[-1])
        return f"{low}-{high}"


_SYSTEM_WORDS: tuple[tuple[System, tuple[str, ...]], ...] = (
    (
        System.MAXILLOFACIAL_NECK,
        (
            "颌",
            "頜",
            "颈部",
            "頸部",
            "鼻",
            "副鼻窦",
            "眼眶",
            "耳",
            "咽",
            "喉",
            "甲状腺",
            "甲狀腺",
            "腮腺",
            "neck",
            "sinus",
            "orbit",
            "face",
        ),
    ),
    (System.HEAD, ("头", "頭", "颅", "顱", "脑", "腦", "垂体", "head", "brain")),
    (System.CHEST, ("胸", "肺", "纵隔", "縱隔", "心", "冠脉", "chest", "lung", "thorax")),
    (
        System.ABDOMEN,
        (
            "腹",
            "盆",
            "肝",
            "胆",
            "膽",
            "胰",
            "脾",
            "肾",
            "腎",
            "泌尿",
            "前列腺",
            "子宫",
            "子宮",
            "abdom",
            "pelvi",
            "liver",
            "kidney",
        ),
    ),
    (
        System.MUSCULOSKELETAL,
        (
            "椎",
            "脊",
            "骨",
            "关节",
            "關節",
            "膝",
            "髋",
            "髖",
            "肩",
            "肘",
            "腕",
            "踝",
            "足",
            "手",
            "肢",
            "spine",
            "knee",
            "hip",
            "shoulder",
            "bone",
            "joint",
        ),
    ),
)


def systems_of(body_part: str) -> tuple[System, ...]:
    """The body systems that a reporting system's body part or examination title names; empty when it names none we know.

    `颈椎` is a spine and no neck, `胸椎` no chest: vertebrae are looked for first.
    """
    text = body_part.lower()
    exact = tuple(System(part) for part in text.replace(" ", "").split(",") if part in set(System))
    if exact:
        return exact
    found: list[System] = []
    for vertebrae in ("颈椎", "頸椎", "胸椎", "腰椎", "骶椎", "颈胸椎", "胸腰椎"):
        if vertebrae in text:
            found = [System.MUSCULOSKELETAL]
            text = text.replace(vertebrae, "")
    found += [system for system, words in _SYSTEM_WORDS if system not in found and any(word in text for word in words)]
    return tuple(sorted(found, key=list(System).index))
