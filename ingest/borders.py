"""Findings and impressions of a batch, whether they come apart or in one text, and whether a final report has both. Where the border in a text is
found is `clinical.text.split_sections`."""

import re
from typing import Any

from clinical.text import NoBorder, split_sections
from core.states import ReportStatus
from ingest.mapping import FINAL
from ingest.reasons import Reason, Wrong

_WORD = re.compile(r"[^\W_]")
_NOTHING = frozenset({"无", "無", "暂无", "暫無", "none", "null", "nan", "n/a", "nil"})
_LONGEST_NOTHING = max(map(len, _NOTHING))
_BARE_TITLE = re.compile(
    r"^[ \t]*[【\[(（]?(?:影像(?:学|學)?)?(?:检查|檢查)?(?:诊断|診斷|印象|结论|結論|意见|意見|提示|IMPRESSION|CONCLUSION)(?:意见|意見)?"
    r"[】\])）]?\s*[:：]?\s*\Z",
    re.IGNORECASE | re.MULTILINE,
)


def sections_of(
    statuses: list[Any],
    findings: list[str | None],
    impressions: list[str | None],
    both: list[str | None] | None,
    wrong: dict[int, Wrong],
) -> tuple[list[str], list[str], list[str | None] | None]:
    """Findings and impressions, and the examinations' titles where one field holds both texts. Only a report that is final has to have both."""
    first, second = [text or "" for text in findings], [text or "" for text in impressions]
    titles: list[str | None] | None = None
    if both is not None:
        titles = [None] * len(first)
        for index, text in enumerate(both):
            if text is None or index in wrong:
                continue
            cut = _cut(text, statuses[index])
            if isinstance(cut, Wrong):
                wrong[index] = cut
            else:
                first[index], second[index], titles[index] = cut
    for word, reason, texts in (
        ("findings", Reason.EMPTY_FINDINGS, first),
        ("impression", Reason.EMPTY_IMPRESSION, second),
    ):
        for index in [
            index for index, text in enumerate(texts) if len(text) <= _LONGEST_NOTHING or not text[0].isalnum()
        ]:
            if statuses[index] in FINAL and _is_empty(texts[index]):
                wrong.setdefault(index, Wrong(reason, {"column": word}))
    return first, second, titles


def _cut(text: str, status: ReportStatus) -> tuple[str, str, str | None] | Wrong:
    """Findings, impression and title of a text that holds them all."""
    if _BARE_TITLE.search(text) and status in FINAL:
        return Wrong(Reason.EMPTY_IMPRESSION, {"column": "report_text"})
    try:
        sections = split_sections(text)
    except NoBorder:
        return Wrong(Reason.NO_BORDER, {"column": "report_text"}) if status in FINAL else (text, "", None)
    return sections.findings, sections.impression, sections.exam_title


def _is_empty(text: str) -> bool:
    if _WORD.search(text) is None:
        return True
    bare = text.strip()
    return len(bare) <= _LONGEST_NOTHING and bare.lower() in _NOTHING
