"""How long work shows itself at a terminal: how far it is, how fast, how long it will take."""

import sys
import time
from typing import Self

from admin.console import aside


class Bar:
    """A bar on standard error with rate and time left, and sentences above it; without the bar where nobody looks."""

    def __init__(self, title: str, total: int) -> None:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self._began = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        rate = TextColumn("{task.fields[rate]}")
        self._console = aside()
        self._bar = Progress(*columns, rate, console=self._console, disable=not sys.stderr.isatty())
        self._task = self._bar.add_task(title, total=max(total, 1), rate="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, sentence: str) -> None:
        """A sentence for whoever looks, above the bar."""
        self._console.print(sentence, soft_wrap=True, highlight=False, markup=False)

    def advance(self, by: int, count: int, *, what: str = "lines") -> None:
        """`by` more of the total; `count` things are done."""
        rate = count / max(time.monotonic() - self._began, 1e-9)
        self._bar.update(self._task, advance=by, rate=f"{rate:,.0f} {what}/s")
