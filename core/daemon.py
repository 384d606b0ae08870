"""Starts and ends programs that outlive the process that starts them. Knows nothing about what they do.

A pid proves nothing: a zombie has one, and after a restart somebody else has it. So a server is alive when it answers,
and a pid is the server's when its process has that name and works in that directory.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from core.errors import Broken
from core.place import ENVIRONMENT, Place

START_S = 120.0
HUNG_S = 15.0
STOP_S = 30.0
LOG_LIMIT = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Daemon:
    """One server: how it is started, and how its life is told."""

    name: str
    process: str
    folder: Path
    pid_file: Path
    leftovers: tuple[Path, ...]
    answers: Callable[[], bool]
    listens: Callable[[], bool]
    stop_signal: signal.Signals
    tries: int

    def pid(self) -> int | None:
        """The pid of the running server; None when there is none, whatever its pid file says."""
        try:
            pid = int(self.pid_file.read_text().split("\n", 1)[0])
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE and process.name() == self.process:
                return pid if Path(process.cwd()).samefile(self.folder) else None
        except (OSError, ValueError, psutil.Error):
            pass
        return None

    def start(self, place: Place, command: list[str]) -> None:
        """Returns when the server answers.

        One that runs without answering is waited for while it recovers, and replaced when its socket is gone. A start
        that fails at once is tried again: after kill -9 the shared memory of the dead stays for some seconds.

        Raises:
            Broken: it does not come up; the message names its log.
        """
        log = log_file(place.home, self.name)
        began = time.monotonic()
        while (running := self.pid()) is not None:
            if self.answers():
                return
            if time.monotonic() - began > START_S:
                raise Broken(f"{self.name} runs as process {running} and does not answer; {log} says why.")
            if time.monotonic() - began > HUNG_S and not self.listens():
                end(running, self.stop_signal)
            time.sleep(0.05)
        for attempt in range(self.tries):
            for path in self.leftovers:
                path.unlink(missing_ok=True)
            started = _spawn(place, command, log)
            while is_alive(started):
                if self.answers():
                    return
                if time.monotonic() - began > START_S:
                    raise Broken(f"{self.name} does not answer after {START_S:.0f} s; {log} says why.")
                time.sleep(0.02)
            time.sleep(0.5 * (attempt + 1))
        raise Broken(f"{self.name} does not start; {log} says why.")

    def stop(self) -> None:
        """Ends the server if it runs."""
        pid = self.pid()
        if pid is not None:
            end(pid, self.stop_signal)


def end(pid: int, sign: signal.Signals) -> None:
    """Asks a process to end, orders it after a while, and returns when it is gone."""
    for send, patience in ((sign, STOP_S), (signal.SIGKILL, 5.0)):
        with suppress(ProcessLookupError):
            os.kill(pid, send)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if not is_alive(pid):
                return
            time.sleep(0.01)
    raise Broken(f"Process {pid} does not end.")


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def log_file(home: Path, name: str) -> Path:
    """The log of a program; what earlier starts left becomes NAME.log.1 when it is large."""
    folder = home / "log"
    folder.mkdir(mode=0o700, exist_ok=True)
    log = folder / f"{name}.log"
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        log.replace(folder / f"{name}.log.1")
    return log


def _spawn(place: Place, command: list[str], log: Path) -> int:
    """Starts a program as nobody's child in its own session, so that neither our Ctrl-C nor our end reaches it."""
    with log.open("ab") as output:
        shell = subprocess.run(
            ["sh", "-c", '"$@" >&2 & echo $!', "sh", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            env=ENVIRONMENT,
            cwd="/",
            user=place.uid,
            group=place.gid,
            extra_groups=None if place.uid is None else [],
            umask=0o077,
            start_new_session=True,
            check=True,
        )
    return int(shell.stdout)
