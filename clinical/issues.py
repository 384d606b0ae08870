"""What a check says: kinds, severities, one issue, and the pair of texts it is about.

Values only; the rules are in `clinical.degenerate` and `clinical.rules`, the entry point in `clinical.checks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from clinical.department import SHIPPED, Words


class Kind(StrEnum):
    """What is wrong. The first six need nothing but the draft; the others compare it with the findings."""

    NULL = "null"
    REPETITION = "repetition"
    TRUNCATION = "truncation"
    PROMPT_LEAK = "prompt_leak"
    PHI = "phi"
    LANGUAGE = "language"
    SIDE = "side"
    NUMBER = "number"
    NEGATION = "negation"
    CERTAINTY = "certainty"
    LEVEL = "level"
    COUNT = "count"
    PRIOR = "prior"
    SEX_ORGAN = "sex_organ"
    BODY_PART = "body_part"
    UNSUPPORTED = "unsupported"
    OMITTED = "omitted"
    CRITICAL = "critical"


class Severity(StrEnum):
    """withhold: not shown at all · red: shown with a confirmation · amber: a marked span · info: stored only."""

    WITHHOLD = "withhold"
    RED = "red"
    AMBER = "amber"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Issue:
    """One reason to look twice. Spans are half-open, in code points of the texts as given; None where a text has none."""

    kind: Kind
    severity: Severity
    span_findings: tuple[int, int] | None
    span_impression: tuple[int, int] | None
    message: str
    rule: str

    def as_json(self) -> dict[str, object]:
        return {
            "kind": self.kind.value,
            "severity": self.severity.value,
            "span_findings": None if self.span_findings is None else list(self.span_findings),
            "span_impression": None if self.span_impression is None else list(self.span_impression),
            "message": self.message,
            "rule": self.rule,
        }


@dataclass(frozen=True, slots=True)
class Pair:
    """Findings and the impression drawn from them, with what is known about the examination.

    `finish` is how generation ended (stop, length, stopped), None for a text that a person wrote; `prompt` is the
    instruction the model was given, to recognise its echo; `known` are identifiers of the record; `words` are the department's own.
    """

    findings: str
    impression: str
    sex: str | None = None
    modality: str | None = None
    systems: tuple[str, ...] = ()
    prior: str | None = None
    language: str = "zh-Hans"
    finish: str | None = None
    prompt: str | None = None
    known: tuple[str, ...] = ()
    words: Words = SHIPPED
