"""Cleaning beside reading: while one batch is read and mapped, the one before it is cleaned by a second process on a second core.

Only batches of a large reading go there, full ones and what follows them; what a live poll brings is cleaned where it was read. Nothing is stored here,
so a process that dies loses nothing: the poll fails and the next one reads again. How a text is cleaned is `ingest.cleaning`.
"""

import gc
import marshal
import multiprocessing
import signal
import traceback
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from core.errors import Broken, Retryable
from core.states import ReportStatus
from ingest.cleaning import (
    STANDARD,
    Cleaned,
    Cleaning,
    Derived,
    Texts,
    Uncleaned,
    cleaned_batch,
    derived,
    texts_of,
    with_texts,
)
from ingest.processes import die_with_parent

_processes = multiprocessing.get_context("fork")
_STATUSES = {status.value: status for status in ReportStatus}
_FORM = 2
"""marshal's format without references: what is sent shares nothing, and looking for it takes half the time."""


class Cleaner:
    """Cleans the batches of one reading after the other, in order. For one thread at a time."""

    def __init__(self, *inherited: Connection, beside: bool = True) -> None:
        """Forks the process that waits for large batches, which costs some milliseconds and, until there is one, hardly any memory. So this is called
        before there are threads or connections to databases; `inherited` are pipes of ours that it must not hold. Without `beside` there is none.
        """
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._apart = False
        self._told: Cleaning | None = None
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="clean")
        if beside:
            here, there = _processes.Pipe()
            self._process = _processes.Process(
                target=_clean, args=(there, here, *inherited), name="ingest-cleaner", daemon=True
            )
            self._process.start()
            there.close()
            self._pipe = here

    def close(self) -> None:
        """Ends the process, whatever it is at."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
        self._sender.shutdown(cancel_futures=True)
        if self._pipe is not None:
            self._pipe.close()

    def reading(self) -> None:
        """Another reading begins, and nobody knows yet how large it is."""
        self._apart = False

    def begin(self, rows: Sequence[Uncleaned], cleaning: Cleaning, *, more: bool) -> Future[list[Cleaned]]:
        """The derived texts of each row, soon. `more` says that this will not have been the last batch.

        The future raises Retryable when the process went away, and Broken when a text could not be cleaned.
        """
        self._apart = self._pipe is not None and (more or self._apart)
        if self._apart:
            return self._sender.submit(self._cleaned, rows, cleaning)
        here: Future[list[Cleaned]] = Future()
        here.set_result(cleaned_batch(rows, cleaning))
        return here

    def _cleaned(self, rows: Sequence[Uncleaned], cleaning: Cleaning) -> list[Cleaned]:
        assert self._pipe is not None  # noqa: S101 - `begin` has looked
        texts = texts_of(rows)
        try:
            if cleaning != self._told:
                self._pipe.send(cleaning)
                self._told = cleaning
            self._pipe.send(_packed(texts))
            answer = marshal.loads(self._pipe.recv_bytes())  # noqa: S302 - from a process of our own
        except (EOFError, OSError):
            raise Retryable(
                "The process that cleans texts went away; nothing of its batch was stored.", code="cleaner_away"
            ) from None
        if isinstance(answer, str):
            raise Broken(f"A batch could not be cleaned ({answer}).", code="cleaning_failed")
        return with_texts(texts, Derived(*answer), cleaning.version)


def _clean(pipe: Connection, *inherited: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the poll decides about us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other in inherited:
        other.close()  # or nobody would see that it was closed elsewhere
    die_with_parent()
    gc.freeze()
    gc.set_threshold(100_000)  # as in `ingest.poll`: many objects and no cycles
    cleaning = STANDARD
    with suppress(EOFError):
        while True:
            said = pipe.recv()
            if isinstance(said, Cleaning):
                cleaning = said
                continue
            try:
                answer = marshal.dumps(tuple(derived(_unpacked(said), cleaning)), _FORM)
            except Exception as error:  # its message may quote a text and stays here
                at = traceback.extract_tb(error.__traceback__)[-1]
                answer = marshal.dumps(f"{type(error).__name__} at {Path(at.filename).name}:{at.lineno}", _FORM)
            pipe.send_bytes(answer)


# --- what goes over the pipe: a column of texts that are all there as one text, which is copied and not looked at; none of them holds a NUL -----


def _packed(texts: Texts) -> bytes:
    findings, impressions, histories, priors, statuses, known = texts
    columns = ("\0".join(findings), "\0".join(impressions), histories, priors, "\0".join(statuses), known)
    return marshal.dumps(columns, _FORM)


def _unpacked(packed: bytes) -> Texts:
    findings, impressions, histories, priors, statuses, known = marshal.loads(packed)  # noqa: S302
    if not known:
        return Texts([], [], [], [], [], [])
    stands = [_STATUSES[status] for status in statuses.split("\0")]
    return Texts(findings.split("\0"), impressions.split("\0"), histories, priors, stands, known)
