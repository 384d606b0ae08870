"""Reports out of a folder of exported files: CSV with a header line, or one JSON object a line.

Each file is a stream. A file that has neither grown nor changed since it was read is not opened again; one that has is read whole, and rows that
are known already are recognised by their content. Structure is found in the bytes: GBK and GB18030 never use the bytes of a comma, a quote or a
line end inside a character, so that one broken cell costs one cell and not the file. UTF-16 is refused.
"""

import csv
import hashlib
import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from core.errors import Broken
from ingest.cursor import Position
from ingest.mapping import FileConfig
from ingest.mapping import Mapping as InstitutionMapping
from ingest.sources import BATCH, Batch, Misfit, Resume

LONGEST_CELL = 16 * 1024 * 1024
_MARKS = (b"\xef\xbb\xbf", b"\x84\x31\x95\x33")
"""Byte order marks of UTF-8 and GB18030."""
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class FileSource:
    """One institution's folder."""

    def __init__(self, mapping: InstitutionMapping) -> None:
        """Looks at the folder. Raises Broken when there is none."""
        assert isinstance(mapping.source, FileConfig)  # noqa: S101 - the caller chose by kind
        self._mapping, self._config = mapping, mapping.source
        self._folder = mapping.file.parent / self._config.path
        if not self._folder.is_dir():
            raise Broken(f"{mapping.file.name}: there is no folder {self._config.path}.", code="no_folder")
        self._words = tuple(self._config.columns)
        self._fingerprints: dict[str, str] = {}
        csv.field_size_limit(LONGEST_CELL)

    def clock(self) -> datetime:
        """This machine's clock: a folder has no other."""
        return datetime.now(UTC)

    def streams(self) -> Mapping[str, str]:
        """The files that were opened, with a fingerprint of their header."""
        return self._fingerprints

    def batches(
        self, positions: Mapping[str, Position], clock: datetime, resume: Resume
    ) -> Generator[Batch, None, None]:
        """The rows of every new or changed file, oldest file first. `resume` is how many rows of a file are done."""
        settled = clock - timedelta(seconds=self._config.settle_s)
        files = [(path.stat(), path) for path in self._folder.glob(self._config.pattern) if path.is_file()]
        for stat, path in sorted(files, key=lambda pair: (pair[0].st_mtime_ns, pair[1].name)):
            stream = f"file:{path.name}"
            position = Position(datetime.fromtimestamp(stat.st_mtime, UTC), f"{stat.st_size}-{stat.st_mtime_ns}")
            if position == positions.get(stream) or position.at > settled:
                continue
            yield from self._file(path, stream, position, int(resume.get(stream, 0)))

    def _file(self, path: Path, stream: str, position: Position, done: int) -> Iterator[Batch]:
        with path.open("rb") as file:
            if file.read(4).startswith(_UTF16):
                raise Broken(
                    f"{self._mapping.file.name}: a file of the folder is UTF-16, which is not read.", code="utf16"
                )
        read = self._csv_rows if self._config.format == "csv" else self._json_rows
        rows: list[tuple[Any, ...]] = []
        misfits: list[Misfit] = []
        taken = 0
        for item in read(path, stream):
            taken += 1
            if taken <= done:
                continue
            if isinstance(item, Misfit):
                misfits.append(item)
            else:
                rows.append(item)
            if len(rows) + len(misfits) == BATCH:
                yield Batch(stream, self._words, rows, None, taken, position.at, misfits)
                rows, misfits = [], []
        yield Batch(stream, self._words, rows, position, taken, position.at, misfits)

    def _csv_rows(self, path: Path, stream: str) -> Iterator[tuple[Any, ...] | Misfit]:
        # Latin-1 carries every byte through the csv module unchanged; ingest.rows decodes each cell strictly
        with path.open(encoding="latin-1", newline="") as file:
            reader = csv.reader(file, delimiter=self._config.delimiter)
            header = [self._heading(cell) for cell in next(reader, [])]
            places = self._places(header, stream)
            width = len(header)
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != width:
                    raw = self._config.delimiter.join(cells).encode("latin-1")
                    yield Misfit("bad_row", raw, {"line": reader.line_num, "cells": len(cells), "columns": width})
                    continue
                yield tuple([cells[place].encode("latin-1") for place in places])

    def _heading(self, cell: str) -> str:
        raw = cell.encode("latin-1")
        for mark in _MARKS:
            raw = raw.removeprefix(mark)
        with suppress(UnicodeDecodeError):
            return raw.decode(self._config.charset).strip()
        return ""

    def _places(self, header: list[str], stream: str) -> list[int]:
        self._fingerprints[stream] = hashlib.sha256("\x1f".join(header).encode()).hexdigest()[:16]
        missing = [word for word, name in self._config.columns.items() if name not in header]
        if missing:
            raise Broken(
                f"{self._mapping.file.name}: a file has no column for {', '.join(missing)}.", code="missing_column"
            )
        return [header.index(name) for name in self._config.columns.values()]

    def _json_rows(self, path: Path, stream: str) -> Iterator[tuple[Any, ...] | Misfit]:
        self._fingerprints[stream] = "jsonl"
        with path.open("rb") as file:
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
                yield tuple([item.get(name) for name in self._config.columns.values()])

    def close(self) -> None:
        """Nothing is held open between batches."""
