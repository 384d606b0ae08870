"""Report text: the matching copy, the model's copy, sections, sentences.

Pure functions over one text. Nothing here knows what a finding is (that is `clinical.facts`) and nothing is displayed:
people always see the text as received, and every copy made here maps back to it.
"""

from __future__ import annotations

import hashlib
import html
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from clinical.deidentify import deidentify, is_header_line
from clinical.lexicon import traditional
from clinical.mapped import Mapped, identity, replaced
from clinical.together import Together

__all__ = [
    "Mapped",
    "NoBorder",
    "Sections",
    "Span",
    "clean",
    "comparable",
    "deidentify",
    "findings_hash",
    "findings_hashes",
    "normalise",
    "sentences",
    "split_sections",
    "untidy",
]

# NFKC would turn these into plain digits and letters: ² into 2, Ⅰ into I, ① into 1, and a size or grade would change.
_PROTECTED = frozenset(
    "²³¹⁰⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉…°′″½¼¾" + "".join(map(chr, (*range(0x2160, 0x2180), *range(0x2460, 0x24FF))))
)
_PUNCTUATION = {
    "，": ",", "；": ";", "：": ":", "？": "?", "！": "!", "（": "(", "）": ")", "｡": "。", "．": ".", "–": "-", "—": "-",
    "―": "-", "−": "-", "‐": "-", "‑": "-", "～": "~", "〜": "~", "“": '"', "”": '"', "‘": "'", "’": "'", "✕": "×",
    "╳": "×", "✖": "×", "·": "·", "〔": "(", "〕": ")", "﹣": "-", "﹤": "<", "﹥": ">",
}  # fmt: skip
_SAME_TERM = {"黏": "粘", "癥": "征", "鬆": "松", "徵": "征", "瀰": "弥", "繫": "系", "唿": "呼"}
_CJK = re.compile(r"[\u3000-\u303f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_TIMES = re.compile(r"(?<=[\dm米])(\s*)[xX*×](?=\s*[\d约])")

_TAG = re.compile(
    r"</?(?:br|p|div|span|b|i|u|strong|em|font|table|tbody|thead|tr|td|th|li|ul|ol|h[1-6]|html|head|body|sup|sub|a|o:p|pre"
    r"|hr|img|meta|style|script|title|center|small|big|label|input)\b[^<>]{0,300}>|<!--[^<>]{0,300}-->|<!DOCTYPE[^<>]{0,200}>",
    re.IGNORECASE,
)
_BREAKING_TAG = re.compile(r"<(?:br|/p|/div|/li|/tr|/h[1-6]|hr)\b", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#\d{1,6}|#[xX][0-9a-fA-F]{1,5}|[a-zA-Z][a-zA-Z0-9]{1,8});")
_MARKUP_ROUNDS = 4  # escaped twice by two systems in a row has been seen; more is an attack, and then it stays as text
_NEVER_SEEN = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff"
_BLANKS = "\t\u00a0\u2000-\u200a\u202f\u205f\u3000"
_INVISIBLE = re.compile(f"\r\n?|[{_NEVER_SEEN}]|[{_BLANKS}]")
_ODD = re.compile(f"[<&\r{_NEVER_SEEN}{_BLANKS}]")
"""Without one of these a text holds neither markup nor anything invisible."""
_RULES = "_=*-—─"
_RULE_LINE = re.compile(f"^[ {re.escape(_RULES)}]{{4,}}$")
_UNTIDY = re.compile(
    f"[<&\r{_NEVER_SEEN}{_BLANKS}\u1680 \n{re.escape(_RULES)}]"
    f"(?:(?<=[<&\r{_NEVER_SEEN}{_BLANKS}\u1680])|(?<=\n[ \n])|(?<= )(?=\n)|(?<=\n.)(?=[ {re.escape(_RULES)}]{{3}}))"
)
"""What `clean` may change, header lines left out, where each text stands between line ends: markup and what is invisible, blanks around a line, an
empty line, the beginning of a rule."""
_LINE_LIKE_A_HEADER = re.compile(r"\n[^:：\n]{1,24}+[:：](?<![示见見列象][:：])")


class Span(NamedTuple):
    """A half-open span of code points."""

    start: int
    end: int


class NoBorder(ValueError):
    """The text holds no recognisable border between findings and impression."""


@dataclass(frozen=True, slots=True)
class Sections:
    """One report cut in two; `exam_title` is the examination named by the title line, without its `示：`."""

    exam_title: str | None
    findings: str
    impression: str


# --- the matching copy -------------------------------------------------------------------------------------------------


@cache
def _fold(character: str) -> str:
    """One character of the matching copy: '' drops it, whitespace becomes ' ' or '\\n', others fold."""
    if character in "\n\r\u2028\u2029\x85":
        return "\n"
    if character in _PUNCTUATION:
        return _PUNCTUATION[character]
    category = unicodedata.category(character)
    if character.isspace():
        return " "
    if category in ("Cc", "Cf", "Cs", "Co", "Cn") or 0xFE00 <= ord(character) <= 0xFE0F:
        return ""
    if character in _SAME_TERM:
        return _SAME_TERM[character]
    if character in traditional():
        simple = traditional()[character]
        return _SAME_TERM.get(simple, simple)
    if character in _PROTECTED or "\u4e00" <= character <= "\u9fff" or character < "\x7f":
        return character
    folded = unicodedata.normalize("NFKC", character)
    return "".join(_PUNCTUATION.get(c, c) for c in folded if not c.isspace()) or character


def _folded(raw: str) -> Mapped:
    text: list[str] = []
    offsets: list[int] = []
    gap: int | None = None  # raw index of a run of blanks that may still turn out to matter
    for index, character in enumerate(raw):
        folded = _fold(character)
        if folded == " ":
            if gap is None:
                gap = index
            continue
        if not folded:
            continue
        if folded == "\n":
            if text and text[-1] != "\n":
                text.append("\n")
                offsets.append(index)
            gap = None
            continue
        if gap is not None:
            # a blank only separates words of an alphabet: `5 × 4 mm` and `left lung` keep it, `腰 4/5` does not need it
            if text and text[-1] != "\n" and not (_CJK.match(text[-1]) or _CJK.match(folded)):
                text.append(" ")
                offsets.append(gap)
            gap = None
        if len(folded) == 1:
            text.append(folded)
            offsets.append(index)
        else:
            text.extend(folded)
            offsets.extend([index] * len(folded))
    offsets.append(len(raw))
    return Mapped(_TIMES.sub(r"\1×", "".join(text)), tuple(offsets))


class _Unspaced(dict[int, str]):
    """Each character's fold, or nothing for a blank; filled as characters are met, so that `str.translate` runs at its own speed."""

    def __missing__(self, code: int) -> str:
        folded = _fold(chr(code))
        self[code] = folded = "" if folded.isspace() else folded
        return folded


_UNSPACED = _Unspaced()
_COMMON_FOLDS = (("，", ","), ("；", ";"), ("：", ":"), ("（", "("), ("）", ")"), ("\n", ""), (" ", ""))
"""What nearly every report holds; with these out of the way most need no look at their single characters."""
_UNSPACED_TIMES = re.compile(r"[xX*](?<=[\dm米].)(?=[\d约])")


def normalise(raw: str) -> Mapped:
    """The matching copy: simplified glyphs, one width, one × sign, no markup, no invisible characters.

    ², Ⅰ and ① stay what they are. Only for comparing; never shown to anybody.
    """
    if "<" in raw or "&" in raw:
        stripped = _without_markup(raw)
        return stripped.then(_folded(stripped.text))
    return _folded(raw)


@cache
def _changing() -> re.Pattern[str]:
    """Any character that the matching copy without blanks drops or changes; made when first needed, since it asks `_fold` of every one."""
    changed = [code for code in range(0x10000) if (folded := _fold(chr(code))) != chr(code) or folded.isspace()]
    return re.compile(f"[{''.join(re.escape(chr(code)) for code in changed)}\U00010000-\U0010ffff]")


def comparable(text: str) -> str:
    """The matching copy without blanks, as plain text: what makes two findings the same."""
    plain = _without_markup(text).text if "<" in text or "&" in text else text
    for common, folded in _COMMON_FOLDS:
        plain = plain.replace(common, folded)
    if _changing().search(plain) is not None:
        plain = plain.translate(_UNSPACED)
    if "x" in plain or "X" in plain or "*" in plain:
        plain = _UNSPACED_TIMES.sub("×", plain)
    return plain


def findings_hash(text: str) -> str:
    """SHA-256 in hex of the normalised findings without blanks: the same text in another width has the same hash."""
    return hashlib.sha256(comparable(text).encode("utf-8", "surrogatepass")).hexdigest()


@cache
def _irregular() -> re.Pattern[str]:
    """What needs a look of its own once the common folds are done: anything that changes, and markup."""
    return re.compile(f"[<&{_changing().pattern[1:]}")


def findings_hashes(texts: Sequence[str]) -> list[str]:
    """The `findings_hash` of each of many texts; what nearly every one holds is folded in all of them at once."""
    joined = "\0".join(texts)
    if joined.count("\0") >= len(texts):
        return [findings_hash(text) for text in texts]
    for common, folded in _COMMON_FOLDS:
        joined = joined.replace(common, folded)
    search = _irregular().search
    return [
        hashlib.sha256(plain.encode()).hexdigest() if search(plain) is None else findings_hash(text)
        for plain, text in zip(_UNSPACED_TIMES.sub("×", joined).split("\0"), texts, strict=True)
    ]


# --- the model's copy --------------------------------------------------------------------------------------------------


def _without_markup(raw: str) -> Mapped:
    mapped = identity(raw)
    for _ in range(_MARKUP_ROUNDS):
        edits: list[tuple[int, int, str]] = []
        for match in re.finditer(f"{_TAG.pattern}|{_ENTITY.pattern}", mapped.text, re.IGNORECASE):
            found = match[0]
            if found.startswith("<"):
                new = "\n" if _BREAKING_TAG.match(found) else ""
            else:
                new = html.unescape(found)
                if new == found:
                    continue
            edits.append((match.start(), match.end(), new))
        if not edits:
            break
        mapped = mapped.then(replaced(mapped.text, edits))
    return mapped


def clean(raw: str) -> Mapped:
    """The copy that a model reads: no markup, control characters, invisible blanks or patient header lines.

    The wording, the script and the punctuation stay as they are.
    """
    if _ODD.search(raw) is None:
        return _without_noise_lines(raw)
    mapped = _without_markup(raw)
    edits: list[tuple[int, int, str]] = []
    for match in _INVISIBLE.finditer(mapped.text):
        found = match[0]
        new = "\n" if found[0] in "\r\u2028\u2029\x85" else " " if found.isspace() and found not in "\x0b\x0c" else ""
        edits.append((match.start(), match.end(), new))
    if edits:
        mapped = mapped.then(replaced(mapped.text, edits))
    return mapped.then(_without_noise_lines(mapped.text))


def untidy(texts: Together) -> set[int]:
    """Which of them `clean` may change; it leaves all others as they are."""
    found = texts.holding(_UNTIDY)
    for match in _LINE_LIKE_A_HEADER.finditer(texts.text):
        if is_header_line(texts.text[match.start() + 1 : texts.text.index("\n", match.end())]):
            found.add(texts.at(match.end()))
    return found


def _is_noise(line: str) -> bool:
    bare = line.strip()
    return not bare or (bare[0] in _RULES and _RULE_LINE.match(bare) is not None) or is_header_line(bare)


def _without_noise_lines(text: str) -> Mapped:
    lines = text.split("\n")
    noise = [_is_noise(line) for line in lines]
    if not any(noise) and not text[0].isspace() and not any(line[-1].isspace() for line in lines):
        return identity(text)
    edits: list[tuple[int, int, str]] = []
    at = 0
    kept_any = False
    for line, is_noise in zip(lines, noise, strict=True):
        end = min(at + len(line) + 1, len(text))
        if is_noise:
            edits.append((at, end, ""))
        else:
            lead = 0 if kept_any else len(line) - len(line.lstrip())
            if lead:
                edits.append((at, at + lead, ""))
            tail = len(line.rstrip())
            if tail < len(line):
                edits.append((at + tail, at + len(line), ""))
            kept_any = True
        at = end
    mapped = replaced(text, [edit for edit in edits if edit[0] < edit[1]])
    if mapped.text.endswith("\n"):
        body = mapped.text.rstrip("\n")
        mapped = mapped.then(replaced(mapped.text, [(len(body), len(mapped.text), "")]))
    return mapped


# --- sections ----------------------------------------------------------------------------------------------------------

_IMPRESSION_TITLE = re.compile(
    r"^[ \t]{0,20}[【\[(（]?[ \t]{0,4}(?:影像(?:学)?(?:诊断(?:意见)?|印象|意见|提示)|影像診斷|放射学?诊断|(?:检查|CT|MRI?|X线)?诊断(?:意见|提示|印象|结论)?"
    r"|診斷(?:意見)?|印象|结论|結論|(?:检查|诊断)?意见|意見|提示|IMPRESSION|CONCLUSION)[ \t]{0,4}[】\])）]?[ \t]{0,4}[:：]?[ \t]{0,20}",
    re.IGNORECASE | re.MULTILINE,
)
_FINDINGS_TITLE = re.compile(
    r"^[ \t]{0,20}[【\[(（]?[ \t]{0,4}(?:影像(?:学)?(?:所见|表现|描述)|影像學表現|影像所見|(?:检查|CT|MRI?|X线|放射)?(?:所见|表现)|檢查所見|描述|FINDINGS?)"
    r"[ \t]{0,4}[】\])）]?[ \t]{0,4}[:：]?[ \t]{0,20}",
    re.IGNORECASE | re.MULTILINE,
)
_EXAM_TITLE = re.compile(r"^[ \t]{0,20}(?P<exam>[^\n。；;，,：:]{2,30}?)示[ \t]{0,4}[:：][ \t]{0,20}", re.MULTILINE)
_EXAM = r"(?:CTA?|MRI?|MRA|MRCP|HRCT|CR|DR|X线|X光|摄片|平片|胸片|透视|造影|钼靶|平扫|增强)"
_ONE_SENTENCE = re.compile(
    rf"^[ \t]{{0,20}}[^\n。；;，,：:]{{0,16}}{_EXAM}[^\n。；;，,：:]{{0,12}}(?:示|未见|所见|提示)", re.MULTILINE
)
_NUMBERED_BLOCK = re.compile(r"^[ \t]{0,20}(?:1[ \t]{0,4}[、.．)）]|[(（]1[)）]|①|一[ \t]{0,4}、)", re.MULTILINE)


def split_sections(text: str) -> Sections:
    """Findings and impression of one report text, cut at the LAST title.

    Raises `NoBorder` when there is no title, no one-sentence conclusion and no numbered closing block.
    """
    border: tuple[int, int, str | None] | None = None
    for match in _EXAM_TITLE.finditer(text):
        if text[match.end() :].strip():
            border = (match.start(), match.end(), match["exam"].strip())
    for match in _IMPRESSION_TITLE.finditer(text):
        rest = text[match.end() :]
        own_line = rest.startswith("\n") or match[0].rstrip().endswith((":", "：", "】", "]"))
        if (
            own_line
            and rest.strip()
            and text[: match.start()].strip()
            and (border is None or match.start() >= border[0])
        ):
            border = (
                match.start(),
                match.end(),
                border[2] if border and not text[border[1] : match.start()].strip() else None,
            )
    if border is None:
        for pattern in (_NUMBERED_BLOCK, _ONE_SENTENCE):
            found = [m for m in pattern.finditer(text) if text[: m.start()].strip()]
            if found:
                border = (found[-1].start(), found[-1].start(), None)
                break
    if border is None:
        raise NoBorder("no border between findings and impression")
    start, body, exam = border
    findings = text[:start].strip()
    opening = _FINDINGS_TITLE.match(findings)
    if (
        opening is not None
        and opening[0].rstrip().endswith((":", "：", "】", "]"))
        and findings[opening.end() :].strip()
    ):
        findings = findings[opening.end() :].strip()
    impression = text[body:].strip()
    if not findings or not impression:
        raise NoBorder("one side of the border is empty")
    return Sections(exam, findings, impression)


# --- sentences ---------------------------------------------------------------------------------------------------------

_SENTENCE_END = re.compile(r"[。；;！!？?\n]+|(?<=[^\d\s])\.(?=\s|$)|\.(?=\s+[A-Z])|……")


def sentences(text: str) -> tuple[Span, ...]:
    """Spans of the statements of a text, blanks trimmed: cut at 。；！？, line ends, and a full stop that ends a word."""
    spans: list[Span] = []
    at = 0
    for match in _SENTENCE_END.finditer(text):
        _append_trimmed(spans, text, at, match.start())
        at = match.end()
    _append_trimmed(spans, text, at, len(text))
    return tuple(spans)


def _append_trimmed(spans: list[Span], text: str, start: int, end: int) -> None:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start < end:
        spans.append(Span(start, end))
