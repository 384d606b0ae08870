"""What every comparison of two texts starts from: what a text states, which findings are too general to compare, which signs stand for a lesion.

Values and two small predicates over facts; comparing is `clinical.matching` and `clinical.rules`.
"""

from __future__ import annotations

from clinical.facts import Fact, Reading
from clinical.lexicon import inside, related

GENERAL = frozenset(
    {
        "abnormality",
        "postoperative",
        "drain",
        "variant",
        "active",
        "metal",
        "gas",
        "swelling",
        "compression",
        "displacement",
        "mass_effect",
    }
)


TELLING_SIGNS = frozenset(
    (
        *(
            "soft_shadow",
            "patchy",
            "clot",
            "crescent",
            "lens_shape",
            "cast",
            "wavy",
            "line_sign",
            "brain_loss",
            "bulge_sign",
            "reticular",
            "sac_out",
            "opacified",
            "fat_stranding",
        ),
        *("low_density", "high_density", "mixed_density", "abnormal_density", "abnormal_signal", "high_signal"),
        *("restricted_diffusion", "fluid_shadow", "cystic", "round_shadow", "soft_shadow", "patchy", "nodular_high"),
        *(
            "filling_defect",
            "lucent_line",
            "air_band",
            "air_sac",
            "strip_shadow",
            "slip",
            "interruption",
            "costophrenic_blunt",
            "butterfly",
        ),
    )
)
"""Signs that stand for a lesion nobody has named; the others only describe one."""


_TELLING_AT = (
    ("dilation", "artery/aorta"),
    ("displacement", "neck/orbit"),
    ("wedge", "spine"),
    ("ggo", "chest/lung"),
    ("displacement", "neck/nose/bone"),
    ("protrusion", "abdomen/pelvis/bladder"),
    ("volume_loss", "chest/lung/upper"),
    ("volume_loss", "chest/lung/middle"),
    ("volume_loss", "chest/lung/lower"),
    ("narrowing", "spine/canal"),
    ("narrowing", "artery"),
    ("narrowing", "head/artery"),
    ("narrowing", "neck/carotid"),
    ("dilation", "head/ventricle"),
    ("widening", "head/ventricle"),
    ("wall_thick", "chest/mediastinum/oesophagus"),
    ("wall_thick", "abdomen/bowel/colon"),
    ("wall_thick", "abdomen/stomach"),
    ("pleural_sign", "neck/larynx"),
    ("pleural_sign", "abdomen/bowel/colon"),
    ("pleural_sign", "chest/mediastinum/oesophagus"),
)
"""Signs that stand for a lesion at one structure only: a narrow canal is stenosis, a narrow disc space is age."""


def telling(fact: Fact) -> bool:
    """Whether a mere sign stands for a lesion nobody has named."""
    return fact.lesion in TELLING_SIGNS or any(
        fact.lesion == sign and any(inside(place.path, path) for place in fact.places) for sign, path in _TELLING_AT
    )


CONSEQUENCES = frozenset({"compression", "displacement", "swelling"})
VAGUE = CONSEQUENCES | {"low_density", "high_signal", "low_signal", "abnormal_signal", "patchy"}
"""Signs of almost everything: they speak for a statement at their own place only, and not at a neighbour's."""


_SHADES = (VAGUE | {"edema", "enhancement"}) - {"patchy"}  # a patch in a lung tells enough


def telling_kin(kin: list[Fact]) -> list[Fact]:
    """Findings that may be one thing, without those that may be anything as long as others are left."""
    return [fact for fact in kin if fact.lesion not in _SHADES] or kin


MOST = 300
"""Facts of a text that are compared with those of another, more than what reports state: what is compared grows with the
product of both, and no text may hold a process up."""


def stated_in(reading: Reading) -> list[Fact]:
    """What a text states about the patient, its advice left out; of one that is no report any more, the first `MOST`."""
    return [fact for fact in reading.facts if not fact.advice][:MOST]


def overlap(one: Fact, other: Fact) -> bool:
    """Same place, and sides that do not exclude each other."""
    if not one.places or not other.places:
        return True
    return any(
        related(a.path, b.path) and (not a.sides or not b.sides or bool(a.sides & b.sides))
        for a in one.places
        for b in other.places
    )


def within(one: Fact, other: Fact) -> bool:
    """The same structure or one inside the other, more than a region of the body, and sides that do not exclude each other."""
    return any(
        "/" in a.path
        and "/" in b.path
        and (inside(a.path, b.path) or inside(b.path, a.path))
        and (not a.sides or not b.sides or bool(a.sides & b.sides))
        for a in one.places
        for b in other.places
    )


def apart(one: Fact, other: Fact) -> bool:
    """Whether both name levels, and none in common."""
    mine, theirs = one.levels | one.loose_levels, other.levels | other.loose_levels
    return bool(mine and theirs) and not mine & theirs
