"""Columns of values as cells of PostgreSQL's COPY text format. Joins no lines and sends nothing (that is `ingest.load`)."""

from collections.abc import Sequence
from datetime import UTC, datetime
from types import NoneType
from typing import Any

NULL = "\\N"
_TWO_DIGITS = [f"{number:02}" for number in range(60)]
_ESCAPES = (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r"))


def copy_cells(column: Sequence[Any]) -> list[str]:
    """A column as cells of PostgreSQL's COPY text format: texts without NUL, numbers, times in UTC, tuples of plain words; None is null."""
    kinds = set(map(type, column))
    if kinds <= {datetime, NoneType}:
        return [NULL if value is None else _moment(value) for value in column]
    if kinds <= {str, NoneType}:
        return text_cells(column)
    return coded_cells(column)


def _moment(value: datetime) -> str:
    """What `isoformat` writes, which takes three times as long."""
    if value.tzinfo is not UTC or value.microsecond or value.year < 1000:
        return value.isoformat(" ")
    two = _TWO_DIGITS
    return f"{value.year}-{two[value.month]}-{two[value.day]} {two[value.hour]}:{two[value.minute]}:{two[value.second]}+00:00"


def coded_cells(column: Sequence[Any]) -> list[str]:
    """The same for a column of few different values, each of which is looked at once."""
    cells = {value: _cell(value) for value in set(column)}
    return list(map(cells.__getitem__, column))


def text_cells(column: Sequence[str | None]) -> list[str]:
    """The same for a column of texts."""
    cells = [NULL if text is None else text for text in column]
    together = "".join(filter(None, column))
    for raw, escaped in _ESCAPES:
        if raw in together:  # nearly always only a line end is
            cells = [
                cell.replace(raw, escaped) if raw in cell and text is not None else cell
                for cell, text in zip(cells, column, strict=True)
            ]
    return cells


def _cell(value: Any) -> str:
    if isinstance(value, tuple):
        return f"{{{','.join(value)}}}"
    return text_cells([value if value is None else str(value)])[0]
