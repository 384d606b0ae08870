"""Telling somebody how a training run ended: a command that gets one JSON object on its standard input, or a webhook that gets the same.

It holds ids, states and the gate's rules, never text of a report. A notice that cannot be delivered is logged and never stops training.
"""

import json
import logging
import shlex
import subprocess
from dataclasses import asdict, dataclass

import httpx

from core import logs
from core.settings import TrainingSettings

TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Notice:
    """How a run ended. `outcome`: done (it may be promoted), held (the gate says no, and `rules` why), failed or cancelled."""

    run: str
    profile: str
    outcome: str
    model: str | None = None
    rules: tuple[str, ...] = ()
    error: str | None = None


def send(settings: TrainingSettings, notice: Notice) -> None:
    """Tells everybody who is configured. Never raises for what is at the other end."""
    body = json.dumps(asdict(notice))
    if settings.notice_command:
        try:
            command = shlex.split(settings.notice_command)
            subprocess.run(command, input=body.encode(), timeout=TIMEOUT_S, check=True, stdout=subprocess.DEVNULL)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            logs.event("notice_failed", level=logging.WARNING, way="command", error=type(error).__name__)
    if settings.notice_url:
        try:
            headers = {"Content-Type": "application/json"}
            httpx.post(settings.notice_url, content=body, headers=headers, timeout=TIMEOUT_S).raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            logs.event("notice_failed", level=logging.WARNING, way="webhook", error=type(error).__name__)
