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
    cells = Together([value or "" for value in column])
    suspect: set[int] = set()
    if "\0" in cells.text or not (cells.text.isascii() or _is_encodable(cells.text)):
        suspect |= cells.holding(UNSTORABLE)
    if word in TEXTS and "???" in cells.text:
        suspect |= cells.holding(_LOST)
    if word in TEXTS and not cells.text.isascii() and (suspect or _may_be_accented(cells.text)):
        suspect |= cells.holding(_LATIN_RUN)
    for index in sorted(suspect):
        value = column[index] or ""
        if found := UNSTORABLE.search(value):
            wrong.setdefault(index, Wrong(Reason.UNSTORABLE, {"column": word, "character": found.start()}))
        elif word in TEXTS and (found := _LATIN_RUN.search(value)) and _is_mojibake(found[0]):
            wrong.setdefault(index, Wrong(Reason.MOJIBAKE, {"column": word, "character": found.start()}))
        elif word in TEXTS and _LOST.search(value) and value.count("?") > len(_WORD.findall(value)):
            # what a US7ASCII database makes of Chinese
            wrong.setdefault(index, Wrong(Reason.LOST, {"column": word, "character": value.index("?")}))


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _may_be_accented(text: str) -> bool:
    """Whether a text of whole characters holds four Latin letters with accents in a row, or some apart; × alone, which every second report holds, is
    none. In UTF-8 the two bytes that they begin with begin nothing else, and bytes are looked for faster than characters."""
    encoded = text.encode().replace("×".encode(), b"")
    return b"\xc2" in encoded or b"\xc3" in encoded or "××××" in text


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
