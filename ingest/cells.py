"""Columns of values as cells of PostgreSQL's COPY text format. Joins no lines and sends nothing (that is `ingest.load`)."""

from collections.abc import Sequence
from datetime import datetime
from types import NoneType
from typing import Any

NULL = "\\N"
_ESCAPES = (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r"))


def copy_cells(column: Sequence[Any]) -> list[str]:
    """A column as cells of PostgreSQL's COPY text format: texts without NUL, numbers, times in UTC, tuples of plain words; None is null."""
    kinds = set(map(type, column))
    if kinds <= {datetime, NoneType}:
        return [NULL if value is None else value.isoformat(" ") for value in column]
    if kinds <= {str, NoneType}:
        return text_cells(column)
    return coded_cells(column)


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
