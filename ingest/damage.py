"""Text that is no longer what was written: characters that no database holds, Chinese that was read in another charset, or lost. Mends nothing."""

import re

from clinical.together import Together
from ingest.origin import TEXTS
from ingest.reasons import Reason, Wrong

_WORD = re.compile(r"[^\W_]")
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_LOST = re.compile(r"\?{3}")
_LATIN_RUN = re.compile("[\u0080-\u00ff]{4,}")


def refuse_broken(word: str, column: list[str | None], wrong: dict[int, Wrong]) -> None:
    """Refuses what cannot be stored, and in report texts what is Chinese no more. All cells are looked at at once: few columns have any."""
    if _is_whole("\n".join(filter(None, column)), is_report=word in TEXTS):
        return
    cells = Together([value or "" for value in column])
    suspect = cells.holding(UNSTORABLE)
    if word in TEXTS:
        suspect |= cells.holding(_LOST) | cells.holding(_LATIN_RUN)
    for index in sorted(suspect):
        value = column[index] or ""
        if found := UNSTORABLE.search(value):
            wrong.setdefault(index, Wrong(Reason.UNSTORABLE, {"column": word, "character": found.start()}))
        elif word in TEXTS and (found := _LATIN_RUN.search(value)) and _is_mojibake(found[0]):
            wrong.setdefault(index, Wrong(Reason.MOJIBAKE, {"column": word, "character": found.start()}))
        elif word in TEXTS and _LOST.search(value) and value.count("?") > len(_WORD.findall(value)):
            # what a US7ASCII database makes of Chinese
            wrong.setdefault(index, Wrong(Reason.LOST, {"column": word, "character": value.index("?")}))


def _is_whole(text: str, *, is_report: bool) -> bool:
    """Whether a column's text holds nothing that any rule looks for. Latin letters with accents are looked for as bytes, which is faster: in UTF-8 the
    two that they begin with begin nothing else. × is one of them, and every second report holds it."""
    if "\0" in text or (is_report and "???" in text):
        return False
    if text.isascii():
        return True
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        return False
    accented = b"\xc2" in encoded or encoded.count(b"\xc3") > text.count("×")
    return not (is_report and (accented or "××××" in text))


def is_utf8_chinese(raw: bytes) -> bool:
    """Whether bytes that should be GBK or Big5 are Chinese in UTF-8, which those charsets would read as other Chinese."""
    if raw.isascii():
        return False
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return sum("\u4e00" <= character <= "\u9fff" for character in text) >= 4


def _is_mojibake(run: str) -> bool:
    """Whether a run of accented Latin letters is Chinese that was read as Latin-1: 右肺结节 as `ÓÒ·Î½á½Ú`."""
    try:
        read_right = run.encode("latin-1")[: len(run) // 2 * 2].decode("gbk")
    except UnicodeDecodeError:
        return False
    return sum("\u4e00" <= character <= "\u9fff" for character in read_right) >= 2
