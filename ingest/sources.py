"""What every source of reports gives: its clock, and batches of rows in our words. The sources themselves are `ingest.sql` and `ingest.files`.

A source decides nothing about a row: it neither decodes text that arrives as bytes nor knows what a code means (that is `ingest.rows`).
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from ingest.cursor import Position

BATCH = 5000
"""Rows of one batch: one transaction, and what is held in memory at a time."""

Resume = Mapping[str, Any]
"""Where a poll that stopped early goes on, per stream. Only for the next poll of the same run; what is stored is the `Position`."""


Unknown = Callable[[Iterable[tuple[Any, str]]], list[Any]]
"""Given rows by their key and the source's own hash of them: the keys of those that are new or have changed since we took them."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """A piece of a file that is no row at all: its bytes, why, and where."""

    reason: str
    raw: bytes
    context: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one stream: values in the order of `columns`, which are our words. `position` is where the stream stands once they are stored,
    None when they do not move it; `resume` is where to go on after them; `as_of` dates the rows that bring no time of their own."""

    stream: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    position: Position | None
    resume: Any
    as_of: datetime
    misfits: list[Misfit] = field(default_factory=list)


class Source(Protocol):
    """One institution's database or folder, opened for one poll."""

    def clock(self) -> datetime:
        """The source's own clock, in UTC."""
        ...

    def streams(self) -> Mapping[str, str]:
        """Every stream that this poll looks at, with a fingerprint of its columns."""
        ...

    def batches(
        self, positions: Mapping[str, Position], clock: datetime, resume: Resume, unknown: Unknown | None = None
    ) -> Generator[Batch, None, None]:
        """What is new, or may be, since `positions`, in the source's order. With `unknown`, a source that can leaves out what we hold."""
        ...

    def close(self) -> None:
        """Lets go of the source at once, even in the middle of a result."""
        ...
