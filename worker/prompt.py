"""`ClinicalInput` to prompt: five expert templates in two languages. Pure; training and serving call the same function.

A prompt is system description + expert instruction + input (paper, section on prompt generation); what follows is the impression. The
texts are data in worker/templates. This module knows no tokenizer: special tokens and chat markup are the engine's.
"""

import hashlib
import tomllib
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from typing import Any

from clinical.case import ClinicalInput, Modality, Sex, System
from clinical.cleaning import readable
from clinical.non_essential import NonEssential
from clinical.unify import unify
from core.errors import Broken
from core.tables import DraftRequest, Report

TEMPLATES = ("brief", "priority", "cautious", "house", "systematic")
"""Names of the five templates, the candidates of prompt selection."""

LANGUAGES = ("zh-Hans", "en")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered prompt in its parts; `answer` is the heading after which the impression begins."""

    system: str
    instruction: str
    input: str
    answer: str

    @property
    def text(self) -> str:
        """The whole prompt as plain text, for a base model without a chat template."""
        return f"{self.system}{self.instruction}\n{self.input}\n{self.answer}"


@cache
def _file(language: str) -> dict[str, Any]:
    return tomllib.loads(files("worker").joinpath("templates", f"{language}.toml").read_text("utf-8"))


def language_of(language: str) -> str:
    """The template language for a report's language tag: Chinese of either script reads the simplified one, all others the English one.

    Chinese findings reach the model in one form (`model_text`), whichever script the house writes.
    """
    return "zh-Hans" if language.lower().startswith("zh") else "en"


@cache
def version(template: str) -> str:
    """`name-` and 12 hex digits of the template's texts in every language: what an adapter was trained with and a draft was made with.

    Raises:
        Broken: there is no template of this name.
    """
    if template not in TEMPLATES:
        raise Broken(f"There is no prompt template called {template}.")
    parts: list[str] = []
    for language in LANGUAGES:
        data = _file(language)
        parts += [
            language,
            data["answer"],
            repr(sorted(data["labels"].items())),
            repr(sorted(data["values"].items())),
            repr(data["templates"][template]),
        ]
    return f"{template}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:12]}"


def _shown(field: str, case: ClinicalInput, values: dict[str, str]) -> str | None:
    match field:
        case "systems":
            return "、".join(values.get(system, system) for system in case.systems) or None
        case "age":
            return case.age_band
        case "sex" | "modality" | "patient_class":
            value = getattr(case, field)
            return None if value is None else values.get(value)
        case _:
            value = getattr(case, field)
            return None if value is None else " ".join(str(value).split()) or None


def render(template: str, case: ClinicalInput) -> Prompt:
    """The prompt of `case` by the named template, in the case's language.

    Unknown fields are left out; values of one field stand on one line, so that no input can imitate the prompt's own lines.

    Raises:
        Broken: there is no template of this name.
    """
    if template not in TEMPLATES:
        raise Broken(f"There is no prompt template called {template}.")
    data = _file(language_of(case.language))
    chosen, labels = data["templates"][template], data["labels"]
    shown = [(labels[field], _shown(field, case, data["values"])) for field in chosen["fields"]]
    lines = [
        f"{label}：{value}" if data["language"] != "en" else f"{label}: {value}" for label, value in shown if value
    ]
    colon = ": " if data["language"] == "en" else "："
    lines.append(f"{labels['findings']}{colon}{' '.join(case.findings.split())}")
    return Prompt(chosen["system"], chosen["instruction"], "\n".join(lines), data["answer"])


def model_text(
    raw: str, known: tuple[str, ...] = (), *, language: str = "zh-Hans", phrases: NonEssential | None = None
) -> str:
    """What the model may read of a stored text: cleaned, de-identified (the row's own identifiers, `known`, removed too), without the
    `phrases` that say nothing of the patient (None: the shipped ones), and in one form."""
    text = readable(raw, known, phrases).text
    return unify(text) if language.lower().startswith("zh") else text


def clinical_input(row: Report | DraftRequest, phrases: NonEssential) -> ClinicalInput:
    """What a model may know of a stored examination, the same for training and serving: cleaned, de-identified, without its department's
    non-essential `phrases`, in one form."""
    read = partial(model_text, language=row.language, phrases=phrases)
    return ClinicalInput(
        institution=row.institution,
        findings=read(row.findings),
        modality=Modality(row.modality),
        systems=tuple(System(system) for system in row.systems),
        exam_title=None if row.exam_title is None else read(row.exam_title),
        sex=Sex(row.sex),
        age=row.age,
        patient_class=row.patient_class,
        history=None if row.history is None else read(row.history),
        prior_impression=None if row.prior_impression is None else read(row.prior_impression),
        language=row.language,
    )
