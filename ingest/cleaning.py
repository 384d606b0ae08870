"""The texts that a model may read, derived from the texts as received: markup and header lines and an impression's title removed, identifiers replaced.

Derived means repeatable: the raw text stays in its own column, and `VERSION` says by which rules the other was made. Wording is never changed.
"""

import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import clinical.text
from clinical.text import clean, deidentify, findings_hash
from ingest.rows import FINAL, Incoming

_SOURCES = ("text.py", "deidentify.py", "mapped.py", "vocabulary/traditional.tsv")
VERSION = hashlib.sha256(
    b"".join((Path(clinical.text.__file__).parent / name).read_bytes() for name in _SOURCES)
).hexdigest()[:12]
"""Changes with any rule that makes the cleaned text."""

_LOSSY = re.compile(r"(?<![A-Za-z])[cm]m\?|^\? ", re.MULTILINE)
_LABEL = re.compile(r"AI\s*草稿|须医师审核|須醫師審核|AI draft, for review", re.IGNORECASE)
_UNFILLED = re.compile(r"_{4,}|\{\s*\}|[XＸ×]{3,}")
_ADDENDUM = re.compile(r"\s*[【\[(（]?\s*(?:补充报告|補充報告|更正(?:报告|報告)?)")
_HEADING = re.compile(
    r"\s*(?:[【\[(（]?\s*(?:影像(?:学|學)?|放射(?:学|學)?|检查|檢查|CT|MRI?|X线)?(?:诊断|診斷|印象|结论|結論|意见|意見|提示)(?:意见|意見|提示|印象)?"
    r"\s*[】\])）]?\s*[:：]|[^\n。；;，,：:]{2,30}?示\s*[:：])\s*"
)
"""The title above an impression: 印象：, 影像诊断：, 头颅CT平扫示：."""


class Cleaned(NamedTuple):
    """What is stored beside the raw texts. `excluded` says why the report never trains, None when nothing speaks against it."""

    findings: str
    impression: str
    history: str | None
    prior_impression: str | None
    findings_hash: str
    excluded: str | None


def cleaned(row: Incoming) -> Cleaned:
    """The derived texts of one row."""
    findings, impression = _readable(row.findings, row.known), _without_heading(_readable(row.impression, row.known))
    return Cleaned(
        findings,
        impression,
        None if row.history is None else _readable(row.history, row.known),
        None if row.prior_impression is None else _readable(row.prior_impression, row.known),
        _hash(findings),
        _exclusion(row, findings, impression),
    )


def _without_heading(impression: str) -> str:
    """A heading is the house's paper, not what a model should learn to write."""
    heading = _HEADING.match(impression)
    return impression if heading is None else impression[heading.end() :]


def _readable(raw: str, known: tuple[str, ...]) -> str:
    folded = raw.casefold()
    present = tuple(identifier for identifier in known if identifier.casefold() in folded)
    return _deidentified(_clean(raw), present)


@lru_cache(maxsize=20_000)
def _clean(raw: str) -> str:
    return clean(raw).text


@lru_cache(maxsize=20_000)
def _deidentified(text: str, known: tuple[str, ...]) -> str:
    return deidentify(text, known=known).text


@lru_cache(maxsize=20_000)
def _hash(text: str) -> str:
    return findings_hash(text)


def _exclusion(row: Incoming, findings: str, impression: str) -> str | None:
    if row.status not in FINAL:
        return None  # its status keeps it out, and it may become final
    both = (findings, impression)
    if any(_LABEL.search(text) for text in both):
        return "label_left_over"
    if any("\ufffd" in text for text in both):
        return "replacement_char"
    if any(_LOSSY.search(text) for text in both):
        return "lossy_source"
    if _ADDENDUM.match(findings) or _ADDENDUM.match(impression):
        return "addendum_only"
    if any(_UNFILLED.search(text) for text in both):
        return "template_unfilled"
    return None
