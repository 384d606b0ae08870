"""A small engine that says what it is told: for tests of everything around an engine."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from core.errors import Broken, EngineRestarting, InputTooLong, ValuerError
from worker.engine.protocol import Generation, Health, Job

Answer = Callable[[Job], str]


class StandIn:
    """Answers each job with `answer(job)` after `seconds`, or fails with what that raises; keeps every job that it saw."""

    def __init__(self, answer: Answer | str = "1、右肺上叶小结节；\n2、左侧胸腔积液。", seconds: float = 0.0) -> None:
        self._answer: Answer = answer if callable(answer) else lambda _: answer
        self.seconds = seconds
        self.jobs: list[Job] = []
        self.fatal: str | None = None
        self.refuse: set[str] = set()
        self._adapter: str | None = None
        self._futures: dict[str, tuple[Job, Future[Generation]]] = {}
        self._lock = threading.Lock()

    def submit(self, job: Job) -> Future[Generation]:
        if self.fatal:
            raise EngineRestarting("dead")
        if len(job.prompt) > 6_000:
            raise InputTooLong("too long")
        future: Future[Generation] = Future()
        with self._lock:
            self.jobs.append(job)
            self._futures[job.id] = (job, future)
        threading.Thread(target=self._work, args=(job, future, self._adapter), daemon=True).start()
        return future

    def _work(self, job: Job, future: Future[Generation], adapter: str | None) -> None:
        time.sleep(self.seconds)
        failure, text = None, ""
        try:
            text = self._answer(job).replace("{adapter}", str(adapter))
        except ValuerError as error:
            failure = error
        with self._lock:
            if self._futures.pop(job.id, None) is None:
                return
        if failure is not None:
            future.set_exception(failure)
            return
        future.set_result(Generation(text, "stop", 10, len(text), self.seconds, job.options, None))

    def cancel(self, job_id: str) -> None:
        with self._lock:
            found = self._futures.pop(job_id, None)
        if found is not None:
            found[1].set_result(Generation("", "cancelled", 10, 0, 0.0, found[0].options, None))

    def health(self) -> Health:
        return Health(self.fatal is None, self.fatal, len(self._futures))

    def drain(self, timeout_s: float) -> None:
        for job_id in list(self._futures):
            self.cancel(job_id)

    def count(self, prompt: str) -> int:
        return len(prompt)

    def swap(self, adapter: Path | None) -> None:
        name = None if adapter is None else adapter.name
        if name in self.refuse:
            raise Broken(f"{name} is corrupt.")
        self._adapter = name

    @property
    def adapter(self) -> str | None:
        return self._adapter
