"""Sheets of an Excel file (.xlsx, .xls and what else calamine opens) as rows in our words.

The header may stand below titles; merged cells count in every row that they cover; dates that lost their format are serial numbers. A sheet whose columns
do not fit is told as a misfit and never dropped. Decides nothing about a row's meaning.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from python_calamine import CalamineError, CalamineSheet, CalamineWorkbook, PasswordError

from core.errors import Broken
from ingest.origin import SHEET, FileConfig
from ingest.sources import Misfit

HEADER_ROWS = 20
"""A header line stands among the first so many lines: exports put titles and dates above it."""
_TIMES = frozenset({"examined_at", "reported_at", "signed_at", "modified_at"})
_KEYS = frozenset({"source_id", "accession", "patient"})
_EPOCH = datetime(1899, 12, 30)  # noqa: DTZ001 - Excel's day 0, in the source's own zone; day 60, 1900-02-29, never was
_SERIALS = (20_000, 80_000)
"""Serial numbers that are dates of examinations: 1954 to 2119."""
_DIGITS = 10**15
"""Excel keeps 15 digits: a longer number has lost its last ones."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """One sheet: every row from the first on, merged cells filled in."""

    name: str
    cells: list[list[Any]]

    def is_empty(self) -> bool:
        """Whether no cell holds anything."""
        return not any(_is_there(cell) for row in self.cells for cell in row)


@dataclass(frozen=True, slots=True)
class Header:
    """The header line: its number from 0, its names, and where each word's column stands."""

    row: int
    names: list[str]
    places: dict[str, int | None]


def heading(cell: Any) -> str:
    """A column's name without what a sheet puts around it: line breaks, doubled and outer spaces."""
    return re.sub(r"\s+", " ", str(cell)).strip()


def kept(cell: str) -> str:
    """A cell of a text file without the form by which Excel is told to keep its zeros: `="0012"` is 0012."""
    return cell[2:-1] if cell[:2] == '="' and cell[-1:] == '"' and len(cell) > 2 else cell


def sheets(path: Path, told_by: str) -> Iterator[Sheet]:
    """Every sheet of a file, in the file's order, hidden ones too.

    Raises:
        Broken: it is no Excel file, or one with a password; the message begins with `told_by`.
    """
    try:
        with CalamineWorkbook.from_path(path) as book:
            for name in book.sheet_names:
                sheet = book.get_sheet_by_name(name)
                yield Sheet(name, _filled(sheet))
    except PasswordError:
        raise Broken(f"{told_by}: a file has a password; save it without one.", code="password") from None
    except CalamineError:
        raise Broken(f"{told_by}: a file is no Excel file, or a broken one.", code="not_excel") from None


def find_header(sheet: Sheet, config: FileConfig) -> Header | Misfit:
    """The first line that has every column, or what is missing as a misfit."""
    best: tuple[list[str], list[str]] | None = None
    for number, cells in enumerate(sheet.cells[:HEADER_ROWS]):
        names = [heading(cell) for cell in cells]
        places, missing = config.places(names)
        if not missing:
            return Header(number, names, places)
        if best is None or len(missing) < len(best[0]):
            best = (missing, names)
    missing, names = best or ([], [])
    context = {"sheet": sheet.name, "rows": len(sheet.cells), "missing": missing}
    return Misfit("bad_sheet", json.dumps([sheet.name, *names], ensure_ascii=False).encode(), context)


def rows(sheet: Sheet, header: Header, config: FileConfig) -> Iterator[tuple[Any, ...] | Misfit]:
    """The rows below the header, blank ones left out."""
    for number, cells in enumerate(sheet.cells[header.row + 1 :], header.row + 2):
        if not any(_is_there(cell) for cell in cells):
            continue
        found: list[Any] = []
        cut: str | None = None
        for word, place in header.places.items():
            if place is None:
                found.append(sheet.name if SHEET in config.names_of(word) else None)
                continue
            cell = cells[place] if place < len(cells) else None
            if word in _KEYS and isinstance(cell, int | float) and abs(cell) >= _DIGITS:
                cut = word
            found.append(_value(word, cell))
        if cut is None:
            yield tuple(found)
        else:
            raw = json.dumps(found, ensure_ascii=False, default=str).encode()
            yield Misfit("bad_row", raw, {"sheet": sheet.name, "row": number, "column": cut, "digits": "lost"})


def _filled(sheet: CalamineSheet) -> list[list[Any]]:
    cells: list[list[Any]] = sheet.to_python(skip_empty_area=False)
    for (top, left), (bottom, right) in sheet.merged_cell_ranges or ():
        if bottom - top > 0 and top < len(cells) and left < len(cells[top]):
            for row in cells[top + 1 : bottom + 1]:
                for place in range(left, min(right + 1, len(row))):
                    row[place] = cells[top][left]
    return cells


def _value(word: str, cell: Any) -> Any:
    """A cell as its source would have given it. Times that are numbers are serial numbers, in whole seconds."""
    if not _is_there(cell):
        return None
    if word in _TIMES and isinstance(cell, int | float) and _SERIALS[0] <= cell < _SERIALS[1]:
        return _EPOCH + timedelta(seconds=round(cell * 86_400))
    return cell if isinstance(cell, str | int | float | date) and not isinstance(cell, bool) else str(cell)


def _is_there(cell: Any) -> bool:
    return cell is not None and cell != ""
