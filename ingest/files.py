"""Reports out of a folder of exported files: CSV with a header line, one JSON object a line, or Excel (`ingest.excel`).

Each file is a stream, and each sheet of an Excel file beside it. A file that has neither grown nor changed since it was read is not opened again; one
that has is read whole, and rows that are known already are recognised by their content. Structure is found in the bytes: GBK and GB18030 never use the
bytes of a comma, a quote or a line end inside a character, so that one broken cell costs one cell and not the file. Excel's "Unicode text" (UTF-16 with
its mark) is decoded strictly, as a whole.
"""

import csv
import hashlib
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from core.errors import Broken
from ingest import excel
from ingest.cursor import Position
from ingest.mapping import Mapping as InstitutionMapping
from ingest.origin import FileConfig
from ingest.sources import BATCH, Batch, Misfit, Resume, Unknown

LONGEST_CELL = 16 * 1024 * 1024
_MARKS = (b"\xef\xbb\xbf", b"\x84\x31\x95\x33")
"""Byte order marks of UTF-8 and GB18030."""
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_ABSENT = object()


class FileSource:
    """One institution's folder."""

    def __init__(self, mapping: InstitutionMapping) -> None:
        """Looks at the folder. Raises Broken when there is none."""
        assert isinstance(mapping.source, FileConfig)  # noqa: S101 - the caller chose by kind
        self._mapping, self._config = mapping, mapping.source
        self._folder = mapping.file.parent / self._config.path
        if not self._folder.is_dir():
            raise Broken(f"{mapping.file.name}: there is no folder {self._config.path}.", code="no_folder")
        self._words = (*self._config.columns, *self._config.constants)
        self._constants = tuple(self._config.constants.values())
        self._names = [self._config.names_of(word) for word in self._config.columns]
        self._fingerprints: dict[str, str] = {}
        csv.field_size_limit(LONGEST_CELL)

    def clock(self) -> datetime:
        """This machine's clock: a folder has no other."""
        return datetime.now(UTC)

    def streams(self) -> Mapping[str, str]:
        """The files and sheets that were opened, with a fingerprint of their header."""
        return self._fingerprints

    def batches(
        self, positions: Mapping[str, Position], clock: datetime, resume: Resume, unknown: Unknown | None = None
    ) -> Generator[Batch, None, None]:
        """The rows of every new or changed file, oldest file first. `resume` is how many rows of a file are done."""
        settled = clock - timedelta(seconds=self._config.settle_s)
        files = [(path.stat(), path) for path in self._folder.glob(self._config.pattern) if path.is_file()]
        for stat, path in sorted(files, key=lambda pair: (pair[0].st_mtime_ns, pair[1].name)):
            stream = f"file:{path.name}"
            position = Position(datetime.fromtimestamp(stat.st_mtime, UTC), f"{stat.st_size}-{stat.st_mtime_ns}")
            if position == positions.get(stream) or position.at > settled:
                continue
            if self._config.format == "excel":
                yield from self._workbook(path, stream, position, resume)
            else:
                read = self._csv_rows if self._config.format == "csv" else self._json_rows
                yield from self._batched(read(path, stream), stream, position, position.at, int(resume.get(stream, 0)))

    def _batched(
        self,
        items: Iterator[tuple[Any, ...] | Misfit],
        stream: str,
        position: Position | None,
        as_of: datetime,
        done: int,
    ) -> Iterator[Batch]:
        """Items in batches; the last one carries the position."""
        rows: list[tuple[Any, ...]] = []
        misfits: list[Misfit] = []
        taken = 0
        for item in items:
            taken += 1
            if taken <= done:
                continue
            if isinstance(item, Misfit):
                misfits.append(item)
            else:
                rows.append(item + self._constants)
            if len(rows) + len(misfits) == BATCH:
                yield Batch(stream, self._words, rows, None, taken, as_of, misfits)
                rows, misfits = [], []
        yield Batch(stream, self._words, rows, position, taken, as_of, misfits)

    def _workbook(self, path: Path, stream: str, position: Position, resume: Resume) -> Iterator[Batch]:
        """Every sheet that fits, and what does not fit as misfits of the file, which is done once all sheets are."""
        strange: list[Misfit] = []
        fitting = 0
        for sheet in excel.sheets(path, self._mapping.file.name):
            if sheet.name in self._config.skip_sheets or sheet.is_empty():
                continue
            header = excel.find_header(sheet, self._config)
            if isinstance(header, Misfit):
                strange.append(header)
                continue
            fitting += 1
            name = f"{stream}#{sheet.name}"
            self._fingerprints[name] = _fingerprint(header.names)
            items = excel.rows(sheet, header, self._config)
            yield from self._batched(items, name, None, position.at, int(resume.get(name, 0)))
        if strange and not fitting:
            missing = ", ".join(strange[0].context["missing"])
            raise Broken(f"{self._mapping.file.name}: a file has no column for {missing}.", code="missing_column")
        yield Batch(stream, self._words, [], position, 0, position.at, strange)

    def _csv_rows(self, path: Path, stream: str) -> Iterator[tuple[Any, ...] | Misfit]:
        with path.open("rb") as file:
            wide = file.read(2) in _UTF16
        # Latin-1 carries every byte through the csv module unchanged; ingest.rows decodes each cell strictly
        with path.open(encoding="utf-16" if wide else "latin-1", newline="") as file:
            reader = csv.reader(file, delimiter=self._config.delimiter)
            try:
                places, width = self._header(reader, stream, wide=wide)
                for cells in reader:
                    if not cells:
                        continue
                    if len(cells) != width:
                        raw = self._config.delimiter.join(cells).encode("utf-8" if wide else "latin-1")
                        yield Misfit("bad_row", raw, {"line": reader.line_num, "cells": len(cells), "columns": width})
                        continue
                    found = [None if place is None else excel.kept(cells[place]) for place in places]
                    yield tuple(found if wide else [cell and cell.encode("latin-1") for cell in found])
            except UnicodeError:
                raise Broken(
                    f"{self._mapping.file.name}: a file of the folder begins as UTF-16 and does not go on as such.",
                    code="utf16",
                ) from None

    def _header(self, reader: Iterator[list[str]], stream: str, *, wide: bool) -> tuple[list[int | None], int]:
        """Where each word's column stands, and how many columns there are."""
        lacking: list[str] | None = None
        for cells in islice(reader, excel.HEADER_ROWS):
            header = [excel.heading(cell.strip("\ufeff")) if wide else self._heading(cell) for cell in cells]
            places, missing = self._config.places(header)
            if not missing:
                self._fingerprints[stream] = _fingerprint(header)
                return list(places.values()), len(header)
            lacking = missing if lacking is None or len(missing) < len(lacking) else lacking
        words = ", ".join(self._config.columns if lacking is None else lacking)
        raise Broken(f"{self._mapping.file.name}: a file has no column for {words}.", code="missing_column")

    def _heading(self, cell: str) -> str:
        raw = cell.encode("latin-1")
        for mark in _MARKS:
            raw = raw.removeprefix(mark)
        with suppress(UnicodeDecodeError):
            return excel.heading(raw.decode(self._config.charset))
        return ""

    def _json_rows(self, path: Path, stream: str) -> Iterator[tuple[Any, ...] | Misfit]:
        self._fingerprints[stream] = "jsonl"
        with path.open("rb") as file:
            if file.read(2) in _UTF16:
                raise Broken(
                    f"{self._mapping.file.name}: a file of the folder is UTF-16; JSON lines are read as UTF-8 or GB18030.",
                    code="utf16",
                )
            file.seek(0)
            for number, line in enumerate(file, 1):
                raw = line.strip()
                if number == 1:
                    for mark in _MARKS:
                        raw = raw.removeprefix(mark)
                if not raw:
                    continue
                try:
                    item = json.loads(raw.decode(self._config.charset))
                except UnicodeDecodeError as error:
                    yield Misfit("undecodable", raw, {"line": number, "byte": error.start})
                    continue
                except ValueError:
                    yield Misfit("bad_row", raw, {"line": number})
                    continue
                if not isinstance(item, dict):
                    yield Misfit("bad_row", raw, {"line": number})
                    continue
                found = [_of_object(item, names) for names in self._names]
                nested = next((at for at, value in enumerate(found) if isinstance(value, dict | list)), None)
                if nested is None:
                    yield tuple(found)
                else:  # a mapping that stops half-way on the path to a text
                    yield Misfit("bad_row", raw, {"line": number, "column": self._words[nested]})

    def close(self) -> None:
        """Nothing is held open between batches."""


def _of_object(item: dict[str, Any], names: tuple[str, ...]) -> Any:
    """The value of the first name that is there; `report.findings` is `findings` inside of `report`."""
    for name in names:
        if name in item:
            return item[name]
        inside: Any = item
        for step in name.split("."):
            inside = inside.get(step, _ABSENT) if isinstance(inside, dict) else _ABSENT
        if inside is not _ABSENT:
            return inside
    return None


def _fingerprint(header: Sequence[str]) -> str:
    return hashlib.sha256("\x1f".join(header).encode()).hexdigest()[:16]
