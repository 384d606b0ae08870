"""Turns a file of JSON lines into another one, line by line, over all cores, in the order of the lines.

Memory stays bounded however long the file and its lines are. The target appears when it is complete, never half of it. A line that
does not fit is named by its number and left out; the others are worked through.
"""

import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from admin.bar import Bar
from core.errors import Broken, Invalid, NotFound, Refused

if TYPE_CHECKING:
    from clinical.department import Words

CHUNK = 128
CHUNK_BYTES = 1 << 20
LONGEST_LINE = 4 * 1024 * 1024
NAMED = 100
"""Lines that do not fit and are told one by one; of further ones only the number is."""
TOTALS = 200_000
"""Names that are counted at most; beyond it those that came once only are forgotten."""

Work = Callable[[dict[str, Any]], dict[str, Any]]
"""One line's object to another's; a function at a module's top level, since other processes have to find it."""
Tally = Callable[[dict[str, Any]], Mapping[str, float]]
"""What one line that was made adds to the totals."""


@dataclass(frozen=True, slots=True)
class Done:
    """What was worked through, what did not fit, what the lines come to together, and how long it took."""

    lines: int
    refused: int
    first: str
    totals: dict[str, float]
    seconds: float

    def demand_all(self) -> None:
        """Raises Refused when a line was left out, so that no pipeline takes a part for the whole."""
        if self.refused:
            every = self.lines + self.refused
            raise Refused(
                f"{self.refused:,} of {every:,} lines did not fit and were left out. {self.first}",
                code="lines_left_out",
            )


def convert(source: Path, target: Path, work: Work, tally: Tally, title: str) -> Done:
    """Writes `work` of every line of `source` to `target`.

    Raises:
        Refused: there is no such file, source and target are the same, or no line of it fits.
        Broken: one of the processes that do the work was killed.
    """
    if target.exists() and source.exists() and target.samefile(source):
        raise Refused("The result may not replace the file it is made from; name another one.", code="same_file")
    if not target.absolute().parent.is_dir():
        raise NotFound(f"There is no folder {target.absolute().parent}.", code="no_folder")
    with ExitStack() as stack:
        stack.enter_context(_ended_by_term())
        folder = tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=f".{target.name[:60]}.")
        draft = Path(stack.enter_context(folder)) / "draft"
        with draft.open("wb") as output:
            done = _through(stack, source, work, tally, title, output)
        draft.replace(target)
    return done


def count(source: Path, work: Work, tally: Tally, title: str) -> Done:
    """What the lines of `source` come to together; nothing is written. Raises as `convert` does."""
    with ExitStack() as stack:
        stack.enter_context(_ended_by_term())
        return _through(stack, source, work, tally, title, None)


def _through(stack: ExitStack, source: Path, work: Work, tally: Tally, title: str, output: BinaryIO | None) -> Done:
    if not source.is_file():
        raise NotFound(f"There is no file {source}.", code="no_file")
    began = time.monotonic()
    done = refused = 0
    first = ""
    totals: dict[str, float] = {}
    lines = stack.enter_context(source.open("rb"))
    bar = stack.enter_context(Bar(title, source.stat().st_size))
    try:
        for read, made in _worked(stack, _chunks(lines), work, tally):
            if output is not None:
                output.writelines(made.lines)
            done += len(made.lines)
            for name, value in made.totals.items():
                totals[name] = totals.get(name, 0) + value
            if len(totals) > TOTALS:
                totals = {name: value for name, value in totals.items() if value > 1}
            first = first or next(iter(made.faults), "")
            for sentence in made.faults[: max(0, NAMED - refused)]:
                bar.say(sentence)
            refused += len(made.faults)
            bar.advance(read, done)
    except KeyboardInterrupt:
        bar.say("Stopped; nothing was written.")
        raise
    if refused and not done:
        raise Refused(f"Not one of the {refused:,} lines fits; nothing was written. {first}", code="no_line_fits")
    return Done(done, refused, first, totals, time.monotonic() - began)


@contextmanager
def _ended_by_term() -> Iterator[None]:
    """An order to end cleans up as Ctrl-C does: half a result is no result."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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


def draft(given: dict[str, Any], name: str) -> str:
    """A field that must be there and may be null, for a draft that was not made: it stands for the empty text.

    Raises:
        Invalid: it is not there, since a misspelt name would be a figure of 0; or it is something else.
    """
    if name not in given:
        raise Invalid(f"there is no {name}.")
    return text(given, name, null="")


def optional(given: dict[str, Any], name: str) -> str | None:
    """A field that may be missing."""
    return None if given.get(name) is None else text(given, name)


LANGUAGES = ("zh-Hans", "zh-Hant", "en", "fr")


def language(given: dict[str, Any]) -> str:
    """The language that a line names, or simplified Chinese.

    Raises:
        Invalid: it is none that we know, and reading it as another would give wrong figures.
    """
    code = text(given, "language", null="zh-Hans")
    if code not in LANGUAGES:
        raise Invalid(f"language must be one of {', '.join(LANGUAGES)}.")
    return code


@cache
def own_words(institution: str) -> "Words":
    """The words of an institution (empty: of the whole installation), read once in each process that works on the file."""
    from core import vocabulary
    from core.settings import Settings

    return vocabulary.of(Settings().home, institution).words


Chunk = tuple[int, int, list[bytes | None]]
"""Number of its first line, bytes, lines; None stands for one that is too long to be read."""


@dataclass(frozen=True, slots=True)
class _Made:
    lines: list[bytes]
    faults: list[str]
    totals: dict[str, float]


def _chunks(lines: BinaryIO) -> Iterator[Chunk]:
    number = 1
    while True:
        chunk: list[bytes | None] = []
        size = 0
        while len(chunk) < CHUNK and size < CHUNK_BYTES and (line := lines.readline(LONGEST_LINE)):
            size += len(line)
            if len(line) < LONGEST_LINE or line.endswith(b"\n"):
                chunk.append(line)
                continue
            while line and not line.endswith(b"\n"):
                line = lines.readline(LONGEST_LINE)
                size += len(line)
            chunk.append(None)
        if not chunk:
            return
        yield number, size, chunk
        number += len(chunk)


def _worked(stack: ExitStack, chunks: Iterator[Chunk], work: Work, tally: Tally) -> Iterator[tuple[int, _Made]]:
    """(bytes read, what was made) of each chunk in order; a short file is not worth other processes."""
    first = list(islice(chunks, 4))
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    if len(first) < 4 or cores == 1:
        for number, size, lines in chain(first, chunks):
            yield size, _chunk(work, tally, number, lines)
        return
    pool = stack.enter_context(
        ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn"), initializer=_deaf_to_the_keyboard)
    )
    stack.callback(pool.shutdown, wait=True, cancel_futures=True)
    waiting: deque[tuple[int, Future[_Made]]] = deque()
    try:
        for number, size, lines in chain(first, chunks):
            waiting.append((size, pool.submit(_chunk, work, tally, number, lines)))
            if len(waiting) > 3 * cores:
                size, future = waiting.popleft()
                yield size, future.result()
        while waiting:
            size, future = waiting.popleft()
            yield size, future.result()
    except BrokenProcessPool:
        raise Broken(
            "A process that did the work was killed, most likely for want of memory. Nothing was written; run it again.",
            code="worker_killed",
        ) from None


def _deaf_to_the_keyboard() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who started them, and ends them


def _chunk(work: Work, tally: Tally, number: int, lines: list[bytes | None]) -> _Made:
    made = _Made([], [], {})
    for at, line in enumerate(lines, number):
        if line is not None and not line.strip():
            continue
        try:
            given = _object(at, line)
            result = {"id": given["id"], **work(given)}
            made.lines.append(_encoded(result))
            for name, value in tally(result).items():
                made.totals[name] = made.totals.get(name, 0) + value
        except Invalid as error:
            made.faults.append(f"Line {at}: {error.message}")
    return made


def _object(number: int, line: bytes | None) -> dict[str, Any]:
    if line is None:
        raise Invalid(f"longer than {LONGEST_LINE:,} bytes.")
    try:
        given = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"), parse_constant=_no_number)
    except (UnicodeDecodeError, ValueError, RecursionError):
        raise Invalid("not JSON in UTF-8.") from None
    if not isinstance(given, dict) or "id" not in given:
        raise Invalid('not an object with an "id".')
    return given


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _encoded(made: dict[str, Any]) -> bytes:
    try:
        return json.dumps(made, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair, which only the escaped form can hold
        return json.dumps(made, allow_nan=False).encode() + b"\n"
    except ValueError:
        raise Invalid("its id holds a number that JSON cannot hold.") from None
