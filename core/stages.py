"""How far a model may go with an examination: the stage of institution × modality × system, the hold-back arm, and the scope it was trained for.

Pure functions over what an institution's file and a model's manifest say. What becomes of the answer is the drafting desk's business.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from clinical.case import Modality, System


class Stage(StrEnum):
    """collect: no draft is made. shadow: it is made and scored, and nobody sees it. live: it is shown."""

    COLLECT = "collect"
    SHADOW = "shadow"
    LIVE = "live"


_STRICT = (Stage.COLLECT, Stage.SHADOW, Stage.LIVE)
ANY = "*"
_HEADER = re.compile(r"\s*\[institution\.stages\]\s*(#.*)?")


def fault(key: str, value: Any) -> str | None:
    """What is wrong with one line of `[institution.stages]`; None when it can be used."""
    modality, _, system = key.partition("/")
    if modality not in (ANY, *Modality) or (system and system not in (ANY, *System)):
        return f'{key} must be "MODALITY", "MODALITY/SYSTEM" or "*", such as "CT/chest" or "*/head".'
    if value not in tuple(Stage):
        return f"{key} must be one of {', '.join(Stage)}."
    return None


def stage(stages: Mapping[str, str], modality: str, systems: Sequence[str]) -> Stage:
    """The stage of an examination; of several systems the strictest. The closest line decides: CT/chest, then CT, then */chest, then *."""

    def of(system: str) -> Stage:
        keys = (f"{modality}/{system}", modality, f"{modality}/{ANY}", f"{ANY}/{system}", ANY)
        return Stage(next((stages[key] for key in keys if key in stages), Stage.LIVE))

    return min((of(system) for system in systems or (ANY,)), key=_STRICT.index)


def of_line(stages: Mapping[str, str], key: str) -> Stage:
    """The stage that an institution has where `key` ("CT/chest", "CT", "*/head", "*") says."""
    modality, _, system = key.partition("/")
    return stage(stages, modality, (system or ANY,))


def written(text: str, key: str, to: Stage) -> str:
    """An institution file's text with the line of `key` in `[institution.stages]` set; everything else, comments too, stays as it is."""
    lines = text.splitlines()
    header = next((at for at, line in enumerate(lines) if _HEADER.match(line)), None)
    if header is None:
        return "\n".join([*lines, "", "[institution.stages]", f'"{key}" = "{to}"', ""])
    end = next((at for at in range(header + 1, len(lines)) if lines[at].lstrip().startswith("[")), len(lines))
    line = re.compile(rf"""(\s*["']?{re.escape(key)}["']?\s*=\s*)["'][a-z]*["'](.*)""")
    for at in range(header + 1, end):
        if (found := line.fullmatch(lines[at])) is not None:
            lines[at] = f'{found[1]}"{to}"{found[2]}'
            break
    else:
        lines.insert(header + 1, f'"{key}" = "{to}"')
    return "\n".join([*lines, ""])


def is_held_back(pseudonym: str, share: float) -> bool:
    """Whether an accession number is of the hold-back arm. Its pseudonym is an HMAC under the institution's key, so nobody can choose."""
    drawn = int.from_bytes(hashlib.sha256(f"hold-back/{pseudonym}".encode()).digest()[:8])
    return drawn < share * 2**64


def seen(
    scope: Sequence[Mapping[str, Any]], modality: str, systems: Sequence[str], age_band: str | None, language: str
) -> int | None:
    """How many examinations like this the model was trained on; of several systems the fewest. None when its manifest does not count them.

    An unknown age is compared with every age.
    """
    if not scope:
        return None

    def of(system: str) -> int:
        return sum(
            int(line["count"])
            for line in scope
            if (line["modality"], line["system"], line["language"]) == (modality, system, language)
            and age_band in (None, line["age_band"])
        )

    return min(of(system) for system in systems or ("unknown",))
