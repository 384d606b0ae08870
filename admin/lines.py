"""Turns a file of JSON lines into another one, line by line, over all cores, in the order of the lines.

Memory stays bounded however long the file is. The target appears when it is complete; a line that does not fit ends the
work with its number and a sentence, and no target.
"""

import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from core.errors import Invalid, NotFound, Refused

CHUNK = 128
LONGEST_LINE = 4 * 1024 * 1024

Work = Callable[[dict[str, Any]], dict[str, Any]]
"""One line's object to another's; a function at a module's top level, since other processes have to find it."""


@dataclass(frozen=True, slots=True)
class Done:
    """What was worked through, and how long it took."""

    lines: int
    seconds: float


def convert(source: Path, target: Path, work: Work, title: str) -> Done:
    """Writes `work` of every line of `source` to `target`.

    Raises:
        Refused: there is no such file, source and target are the same, or a line does not fit.
    """
    if not source.is_file():
        raise NotFound(f"There is no file {source}.", code="no_file")
    if target.exists() and target.samefile(source):
        raise Refused("The result may not replace the file it is made from; name another one.", code="same_file")
    if not target.absolute().parent.is_dir():
        raise NotFound(f"There is no folder {target.absolute().parent}.", code="no_folder")
    began = time.monotonic()
    with ExitStack() as stack:
        draft = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=target.absolute().parent))) / target.name
        with source.open("rb") as lines, draft.open("wb") as output:
            count = 0
            advance = stack.enter_context(_progress(title, source.stat().st_size))
            for read, made in _worked(stack, _chunks(lines), work):
                output.writelines(made)
                count += len(made)
                advance(read, count)
        draft.replace(target)
    return Done(count, time.monotonic() - began)


def text(given: dict[str, Any], name: str, *, null: str | None = None) -> str:
    """A field that must be text; `null` is what a missing one stands for, where it may be missing.

    Raises:
        Invalid: it is missing or something else.
    """
    value = given.get(name)
    if value is None and null is not None:
        return null
    if not isinstance(value, str):
        raise Invalid(f"{name} must be text.")
    return value


def optional(given: dict[str, Any], name: str) -> str | None:
    """A field that may be missing."""
    return None if given.get(name) is None else text(given, name)


Chunk = tuple[int, int, list[bytes]]
"""Number of its first line, bytes, lines."""


def _chunks(lines: BinaryIO) -> Iterator[Chunk]:
    number = 1
    while True:
        chunk: list[bytes] = []
        while len(chunk) < CHUNK and (line := lines.readline(LONGEST_LINE + 1)):
            if len(line) > LONGEST_LINE:
                raise Invalid(f"Line {number + len(chunk)} is longer than {LONGEST_LINE} bytes.")
            chunk.append(line)
        if not chunk:
            return
        yield number, sum(map(len, chunk)), chunk
        number += len(chunk)


def _worked(stack: ExitStack, chunks: Iterator[Chunk], work: Work) -> Iterator[tuple[int, list[bytes]]]:
    """(bytes read, lines made) of each chunk in order; a short file is not worth other processes."""
    first = list(_take(chunks, 4))
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    if len(first) < 4 or cores == 1:
        for number, size, lines in chain(first, chunks):
            yield size, _chunk(work, number, lines)
        return
    pool = stack.enter_context(
        ProcessPoolExecutor(
            cores,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=signal.signal,
            initargs=(signal.SIGINT, signal.SIG_IGN),  # Ctrl-C is for us, who then end them
        )
    )
    stack.callback(pool.shutdown, wait=True, cancel_futures=True)
    waiting: deque[tuple[int, Future[list[bytes]]]] = deque()
    for number, size, lines in chain(first, chunks):
        waiting.append((size, pool.submit(_chunk, work, number, lines)))
        if len(waiting) > 3 * cores:
            size, future = waiting.popleft()
            yield size, future.result()
    for size, future in waiting:
        yield size, future.result()


def _take(chunks: Iterator[Chunk], count: int) -> Iterator[Chunk]:
    for _ in range(count):
        with suppress(StopIteration):
            yield next(chunks)


def _chunk(work: Work, number: int, lines: list[bytes]) -> list[bytes]:
    made = []
    for offset, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            given = json.loads(line.decode("utf-8-sig" if number + offset == 1 else "utf-8"))
            if not isinstance(given, dict) or "id" not in given:
                raise Invalid('not an object with an "id".')
            made.append(_encoded({"id": given["id"], **work(given)}))
        except Invalid as error:
            raise Invalid(f"Line {number + offset}: {error.message}") from None
        except (UnicodeDecodeError, ValueError, RecursionError):
            raise Invalid(f"Line {number + offset} is not JSON in UTF-8.") from None
    return made


def _encoded(made: dict[str, Any]) -> bytes:
    try:
        return json.dumps(made, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair, which only the escaped form can hold
        return json.dumps(made).encode() + b"\n"


class _progress:
    """A bar on standard error with rate and time left; nothing where nobody looks."""

    def __init__(self, title: str, size: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self._began = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        rate = TextColumn("{task.fields[rate]}")
        self._bar = Progress(*columns, rate, console=Console(stderr=True), disable=not sys.stderr.isatty())
        self._task = self._bar.add_task(title, total=max(size, 1), rate="")

    def __enter__(self) -> Callable[[int, int], None]:
        self._bar.start()
        return self._advance

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _advance(self, read: int, count: int) -> None:
        rate = count / max(time.monotonic() - self._began, 1e-9)
        self._bar.update(self._task, advance=read, rate=f"{rate:,.0f} lines/s")
