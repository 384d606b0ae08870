"""How a stranger's column is written: its values as texts, the forms of its times, the charset that was lost. Says nothing of what it means."""

import re
import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from clinical.lexicon import traditional

TIME_FORMATS = (
    "%Y%m%d", "%Y%m%d%H%M%S", "%Y%m%d%H%M", "%Y%m%d %H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d",
    "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M:%S.%f", "%Y/%m/%d %H:%M", "%Y/%m/%d", "%Y.%m.%d %H:%M:%S", "%Y.%m.%d", "%Y年%m月%d日 %H:%M:%S", "%Y年%m月%d日 %H:%M",
    "%Y年%m月%d日%H时%M分", "%Y年%m月%d日", "%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%d/%m/%Y", "%m/%d/%Y %H:%M", "%m/%d/%Y",
)  # fmt: skip
_AMBIGUOUS = re.compile(r"%[dm]/%[dm]/%Y")
_CJK = re.compile(r"[\u4e00-\u9fff]")
_WIDTHS = (200, 250, 255, 256, 300, 400, 500, 512, 600, 800, 1000, 1024, 1500, 2000, 2048, 3000, 4000)
"""Widths that people give to columns of texts."""
MOST_LINES, MOSTLY = 10_000, 0.9
"""Of a file with broken lines, so many are looked at, and so large a share has to be sound."""
SAMPLES = 400
"""Values of a column that are looked at."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, the database's type and width in characters where there are such, and some of its values."""

    name: str
    values: tuple[Any, ...]
    type: str | None = None
    width: int | None = None

    def texts(self) -> list[str]:
        """The values that are there, as text, bytes by the charset that fits."""
        return [text for value in self.values[:SAMPLES] if (text := _text(value))]


def plain(name: str) -> str:
    """A column's name as `headers.toml` writes names."""
    folded = unicodedata.normalize("NFKC", name).lower()
    simple = "".join(traditional().get(character, character) for character in folded)
    return re.sub(r"[\s_\-./()\[\]:#*·、,]+", "", simple)


def is_time(column: Column) -> bool:
    """Whether the column's values are times, and no texts of times; numbers of a sheet may be Excel's."""
    values = [value for value in column.values[:SAMPLES] if value is not None and value != ""]
    serials = sum(
        isinstance(value, int | float) and 20_000 <= value < 80_000 for value in values if column.type is None
    )
    return bool(values) and sum(isinstance(value, date) for value in values) + serials == len(values)


def time_formats(column: Column) -> tuple[str, ...] | None:
    """The formats in which the column's texts are written, none for ISO 8601 or for no texts; None when some fit no format we know."""
    found = [value for value in column.values[:SAMPLES] if value is not None and not isinstance(value, date)]
    if column.type is not None and not all(isinstance(value, str) for value in found):
        return None  # a database compares numbers as such: they have to be cast to times in the SELECT
    texts = [text for value in found if (text := _text(value)).strip(" 0:-/.")]
    if all(not text.isdigit() and _parses(text, None) for text in texts):
        return ()
    left, used = texts, list[str]()
    for form in TIME_FORMATS:
        rest = [text for text in left if not _parses(text, form)]
        if len(rest) < len(left):
            used.append(form)
            left = rest
        if not left:
            return tuple(used)
    return None


def is_ambiguous(form: str) -> bool:
    """Whether day and month of a format might be the other way round."""
    return _AMBIGUOUS.search(form) is not None


def lost_charset(column: Column) -> str | None:
    """`gb18030` when the column's texts are Chinese that was read as Latin-1 (右肺结节 as `ÓÒ·Î½á½Ú`), or bytes that are no UTF-8."""
    wrong = 0
    values = [value for value in column.values[:SAMPLES] if isinstance(value, str | bytes) and len(value) > 3]
    for value in values:
        with suppress(UnicodeError):
            if isinstance(value, bytes):
                wrong += not _decodes(value, "utf-8") and _decodes(value, "gb18030")
            elif not _CJK.search(value):
                raw = b"".join(_latin(character) for character in value)
                wrong += not raw.isascii() and len(_CJK.findall(raw.decode("gb18030"))) >= 2
    return "gb18030" if wrong > len(values) / 2 else None


def charset_of(content: bytes) -> str | None:
    """The charset of a text file: UTF-8 where all of it decodes, else GB18030 or Big5, of two that decode the one under which it reads as everyday
    characters; where none does, the one in which nearly all lines do. UTF-16 is known by its mark."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    if _decodes(content, "utf-8"):
        return "utf-8"
    able = [charset for charset in _EVERYDAY if _decodes(content, charset)]
    if not able:  # some lines are broken: they wait in quarantine, and the others need a charset all the same
        lines = content.splitlines()[:MOST_LINES]
        able = [
            each for each in ("utf-8", *_EVERYDAY) if sum(_decodes(line, each) for line in lines) >= MOSTLY * len(lines)
        ]
        return "utf-8" if "utf-8" in able else max(able, key=lambda charset: _everyday(content, charset), default=None)
    return max(able, key=lambda charset: _everyday(content, charset))


_EVERYDAY = {"gb18030": ("gb2312", range(0xB0, 0xD8)), "big5": ("big5", range(0xA4, 0xC7))}
"""First bytes of the characters that the standards sort apart as the frequent ones: level 1 of GB 2312 and of Big5."""


def _everyday(content: bytes, charset: str) -> float:
    """The share of a text's characters that are frequent ones, if that is its charset."""
    standard, frequent = _EVERYDAY[charset]
    found = _CJK.findall(content[:100_000].decode(charset, "ignore"))
    first = [character.encode(standard, "ignore")[:1] for character in found]
    return sum(bool(byte) and byte[0] in frequent for byte in first) / max(len(found), 1)


def cut_at(column: Column, charset: str) -> int | None:
    """The width, in characters or bytes, at which a column's texts seem to be cut off: a usual one, at which or one short of which many of them end."""
    texts = column.texts()
    for lengths in ([len(text) for text in texts], [len(text.encode(charset, "ignore")) for text in texts]):
        most = max(lengths, default=0)
        width = next((each for each in _WIDTHS if most in (each - 1, each)), None)
        pile = sum(length >= most - 1 for length in lengths)
        if width is not None and pile >= 5 and pile > len(texts) / 20:
            return width
    return None


def is_time_of_day(column: Column) -> bool:
    """Whether the values are times of day without a date."""
    texts = column.texts()
    return bool(texts) and all(re.fullmatch(r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?", text) for text in texts)


def _parses(text: str, form: str | None) -> bool:
    with suppress(ValueError):
        moment = datetime.fromisoformat(text) if form is None else datetime.strptime(text, form)  # noqa: DTZ007 - only whether
        return 1900 < moment.year < 2200
    return False


def _text(value: Any) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        for charset in ("utf-8", "gb18030"):
            with suppress(UnicodeDecodeError):
                return bytes(value).decode(charset).strip()
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value).strip()


def _decodes(content: bytes, charset: str) -> bool:
    with suppress(UnicodeDecodeError):
        content.decode(charset)
        return True
    return False


def _latin(character: str) -> bytes:
    """The byte that a database in latin1 (MySQL's is cp1252 with holes) made this character of. Raises UnicodeError for any other."""
    try:
        return character.encode("cp1252")
    except UnicodeEncodeError:
        return character.encode("latin-1")
