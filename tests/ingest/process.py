"""The ingest process as it is started, on a hospital's home."""

import os
import subprocess
import sys
import time
from collections.abc import Callable

from core import db, processes
from tests.ingest.hospital import Hospital


def wait_for(true: Callable[[], bool], seconds: float = 60) -> None:
    """Waits until something is so."""
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.1)


def start(hospital: Hospital, broker_url: str, **settings: str) -> "subprocess.Popen[str]":
    """`python -m ingest.service`, as `valuer up` starts it; its log is `ingest.log` in the home."""
    environment = {
        **os.environ,
        "VALUER_HOME": str(hospital.settings.home),
        "VALUER_DATABASE_URL": hospital.ours.url.set(drivername="postgresql").render_as_string(hide_password=False),
        "VALUER_BROKER_URL": broker_url,
        **settings,
    }
    with (hospital.settings.home / "ingest.log").open("a") as log:
        return subprocess.Popen([sys.executable, "-m", "ingest.service"], env=environment, stderr=log, text=True)


def running(hospital: Hospital, pid: int) -> bool:
    """Whether that process says that it is ready."""
    with db.transaction(hospital.ours) as session:
        return any(each.pid == pid and each.state == "ready" for each in processes.alive(session, "ingest"))
