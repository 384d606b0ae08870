"""An engine that says what it is told, at once or after a while. What it is told stands in the findings, so that a request can be a poison."""

import ctypes
import os
import threading
import time
from concurrent.futures import Future
from pathlib import Path

from worker.engine.protocol import Finish, Generation, Health, Job

IMPRESSION = "1、右肺上叶小结节；\n2、左侧胸腔积液。"
BASE_DIGEST = "pretend"
SEGFAULT, DIES, HANGS, LOOPS = "内存越界标本", "进程退出标本", "无响应标本", "重复输出标本"
"""Words in the findings that make the engine crash the process, leave it, answer nothing for ever, or write nonsense."""


class Pretend:
    """Answers `IMPRESSION` after `seconds`. Runs no model, so that what is measured or broken is everything around one."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self._adapter: str | None = None
        self._open: dict[str, tuple[Job, Future[Generation]]] = {}
        self._lock = threading.Lock()

    def submit(self, job: Job) -> Future[Generation]:
        if SEGFAULT in job.prompt:
            ctypes.string_at(0)
        if DIES in job.prompt:
            os._exit(70)
        future: Future[Generation] = Future()
        with self._lock:
            self._open[job.id] = job, future
        if HANGS in job.prompt:
            return future
        text = "，" * 60 if LOOPS in job.prompt else IMPRESSION
        if self._seconds:
            timer = threading.Timer(self._seconds, self._end, (job.id, text, "stop"))
            timer.daemon = True
            timer.start()
        else:
            self._end(job.id, text, "stop")
        return future

    def _end(self, job_id: str, text: str, finish: Finish) -> None:
        with self._lock:
            found = self._open.pop(job_id, None)
        if found is not None:
            job, future = found
            future.set_result(
                Generation(text, finish, len(job.prompt), len(text), self._seconds, job.options, None, self._adapter)
            )

    def cancel(self, job_id: str) -> None:
        self._end(job_id, "", "cancelled")

    def health(self) -> Health:
        return Health(True, None, len(self._open))

    def drain(self, timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        while self._open and time.monotonic() < until:
            time.sleep(0.01)
        for job_id in list(self._open):
            self.cancel(job_id)

    def count(self, prompt: str) -> int:
        return len(prompt)

    def swap(self, adapter: Path | None) -> None:
        self._adapter = None if adapter is None else adapter.name

    @property
    def adapter(self) -> str | None:
        return self._adapter
