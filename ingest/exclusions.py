"""Why a stored report neither trains nor is tested on: a closed list, each reason with its sentence, and the rules that can be seen in one report.

A report that is kept out stays stored, shown and scored. Rows that could not be stored at all have reasons of their own (`ingest.reasons.Reason`).
"""

import re
from collections.abc import Sequence
from enum import StrEnum

from clinical import label
from clinical.cues import only_advice
from clinical.deidentify import PLACEHOLDER, fold
from clinical.lexicon import lesion_terms
from clinical.text import sentences
from clinical.together import Together


class Exclusion(StrEnum):
    """Why a report is kept out; what one report shows is checked in this order, and the first one counts."""

    LABEL_LEFT_OVER = "label_left_over"
    REPLACEMENT_CHAR = "replacement_char"
    LOSSY_SOURCE = "lossy_source"
    ADDENDUM_ONLY = "addendum_only"
    TEMPLATE_UNFILLED = "template_unfilled"
    EMPTY_FINDINGS = "empty_findings"
    EMPTY_IMPRESSION = "empty_impression"
    TITLE_ONLY = "title_only"
    ADVICE_ONLY = "advice_only"
    NON_CHINESE = "non_chinese"
    TRUNCATED = "truncated"
    POSSIBLY_TRUNCATED = "possibly_truncated"
    PHI_HIT = "phi_hit"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    ABSENT = "absent"


COPIES = (Exclusion.DUPLICATE, Exclusion.NEAR_DUPLICATE)
"""Reasons that hold because of another report, and only until the next search for duplicates."""
WHY: dict[str, str] = {
    Exclusion.LABEL_LEFT_OVER: "The label of a draft was left in the text.",
    Exclusion.REPLACEMENT_CHAR: "A character was lost before we read the text (U+FFFD).",
    Exclusion.LOSSY_SOURCE: "The source wrote a question mark where it could not store a character (cm? for cm²).",
    Exclusion.ADDENDUM_ONLY: "It is an addendum or a correction without the report it belongs to.",
    Exclusion.TEMPLATE_UNFILLED: "A blank of its template was not filled in.",
    Exclusion.EMPTY_FINDINGS: "Nothing is left of the findings once header lines and repetition are gone.",
    Exclusion.EMPTY_IMPRESSION: "Nothing is left of the impression, or it only repeats the findings.",
    Exclusion.TITLE_ONLY: "The impression is a title with nothing under it.",
    Exclusion.ADVICE_ONLY: "The impression holds nothing but advice.",
    Exclusion.NON_CHINESE: "The institution writes Chinese and this text is none.",
    Exclusion.TRUNCATED: "The text ends in the middle of a number, a size or a bracket.",
    Exclusion.POSSIBLY_TRUNCATED: "The text is exactly as long as its column is wide.",
    Exclusion.PHI_HIT: "The impression names a person or a number; a model would learn to write the gap.",
    Exclusion.DUPLICATE: "Another report has the same findings and stays.",
    Exclusion.NEAR_DUPLICATE: "Another report has nearly the same findings and stays.",
    Exclusion.ABSENT: "Its institution's database has no longer had it in two comparisons in a row; it counts again when it does.",
}
"""One sentence each, for people."""

_LOSSY = re.compile(r"(?<![A-Za-z])[cm]m\?|^\? |\d\?(?=[\dA-Za-z\u4e00-\u9fff])", re.MULTILINE)
_UNFILLED = re.compile(r"_{4,}|\{\s*\}|[XＸ×]{3,}")
_ADDENDUM = re.compile(r"\s*[【\[(（]?\s*(?:补充报告|補充報告|补充说明|更正(?:报告|報告|说明)?|附加报告)")
_SIGN = re.compile(
    r"\ufffd|\?|草稿|审核|審核|draft|DRAFT|Draft|补充|補充|更正|附加|____|\{|XX|ＸＸ|××|XＸ|X×|×X|Ｘ×|×Ｘ|ＸX"
)
"""Without one of these none of the five rules that look for them can hold."""
_ADVISES = re.compile(
    r"\s*(?:[(（]?\d[)）]?[、.．)）]?)?\s*(?:请|請|建议|建議|结合|結合|随|隨|复查|複查|必要|定期|进一步|進一步|密切|短期|治疗后|治療後|临床|臨床|\d+[个個]月)"
)
_WORD = re.compile(r"[^\W_]")
_HAN = re.compile(r"[\u3400-\u9fff]")
_LETTER = re.compile(r"[^\W\d_]")
_CUT = re.compile(r"(?:[（(【×约]|\d\s*[×xX*]|\d\.)\Z")
_PLACEHOLDER = re.compile(PLACEHOLDER)
_CUT_ENDS = frozenset("（(【×约xX*.")


def seen_in(findings: str, impression: str, raw_impression: str, *, chinese: bool) -> Exclusion | None:
    """The first reason that two cleaned texts and the impression as received show; None: nothing speaks against it."""
    both = f"{findings}\n\n{impression}"
    if _SIGN.search(both) is not None and (sign := _signed(both, findings, impression)) is not None:
        return sign
    if _WORD.search(findings) is None:
        return Exclusion.EMPTY_FINDINGS
    if _WORD.search(impression) is None:
        return Exclusion.TITLE_ONLY if _WORD.search(raw_impression) is not None else Exclusion.EMPTY_IMPRESSION
    if len(impression) <= 60 and _is_advice(impression):
        return Exclusion.ADVICE_ONLY
    if chinese and (_is_foreign(findings) or _is_foreign(impression)):
        return Exclusion.NON_CHINESE
    if _CUT.search(findings, len(findings) - 4) or _CUT.search(impression, max(len(impression) - 4, 0)):
        return Exclusion.TRUNCATED
    if PLACEHOLDER in impression:
        return Exclusion.PHI_HIT
    return None


def all_seen_in(
    findings: Sequence[str], impressions: Sequence[str], raw_impressions: Sequence[str], *, chinese: bool
) -> dict[int, Exclusion]:
    """What `seen_in` says of many reports, by number; only those of which any of its rules may speak are read one by one."""
    together = Together(impressions)
    signed = Together(findings).holding(_SIGN) | together.holding(_SIGN) | together.holding(_PLACEHOLDER)
    found: dict[int, Exclusion] = {}
    for number, (before, after) in enumerate(zip(findings, impressions, strict=True)):
        if (
            number in signed
            or not (before[:1].isalnum() and after[:1].isalnum())
            or before[-1] in _CUT_ENDS
            or after[-1] in _CUT_ENDS
            or (len(after) <= 60 and _ADVISES.match(after) is not None)
            or (chinese and (_is_foreign(before) or _is_foreign(after)))
        ) and (why := seen_in(before, after, raw_impressions[number], chinese=chinese)) is not None:
            found[number] = why
    return found


def _signed(both: str, findings: str, impression: str) -> Exclusion | None:
    if label.left_over(both):
        return Exclusion.LABEL_LEFT_OVER
    if "\ufffd" in both:
        return Exclusion.REPLACEMENT_CHAR
    if _LOSSY.search(both):
        return Exclusion.LOSSY_SOURCE
    if _ADDENDUM.match(findings) or _ADDENDUM.match(impression):
        return Exclusion.ADDENDUM_ONLY
    return Exclusion.TEMPLATE_UNFILLED if _UNFILLED.search(both) else None


def _is_advice(impression: str) -> bool:
    if _ADVISES.match(impression) is None:
        return False
    said = [impression[start:end] for start, end in sentences(impression)]
    return bool(said) and all(map(only_advice, said)) and not lesion_terms().find(fold(impression))


def _is_foreign(text: str) -> bool:
    """Fewer than a fifth of its letters are Han; only a text of many one-byte characters is counted."""
    if len(text.encode("utf-8", "surrogatepass")) >= 2 * len(text):
        return False
    return 5 * len(_HAN.findall(text)) < len(_LETTER.findall(text))
