"""JSON lines on standard error: what happened to which id and how long it took. Never content.

Our own events carry ids, states, counts and durations. Of records of other libraries only warnings are kept, as the
template of their message without its arguments; of exceptions, the type and the lines of code. A message may quote what
it choked on, and that is a patient's.
"""

import json
import logging
import sys
import threading
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Any
from uuid import UUID

from core.errors import ValuerError

_LOGGER = logging.getLogger("valuer")
_LONGEST = 200
"""Characters of one value; an id or a code is shorter, a text is not."""

Value = str | int | float | bool | UUID | None


def configure(level: str, process: str) -> None:
    """Sends all logging of this process to standard error; `process` is its name in every line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    _LOGGER.setLevel(level)
    logging.captureWarnings(True)
    sys.excepthook = lambda kind, error, at: _died(error)
    threading.excepthook = lambda died: _died(died.exc_value)


def event(
    name: str, /, *, level: int = logging.INFO, error: BaseException | str | None = None, **fields: Value
) -> None:
    """One line: the event's name and its ids, counts and durations. `error` is an exception, or the code of one."""
    raised = error if isinstance(error, BaseException) else None
    if isinstance(error, str):
        fields["error"] = error
    _LOGGER.log(level, name, extra={"fields": fields}, exc_info=raised)


def _died(error: BaseException | None) -> None:
    """What Python would print of an error that nobody caught, text and all, becomes a line like any other."""
    if not isinstance(error, KeyboardInterrupt):
        event("uncaught", level=logging.CRITICAL, error=error)


class _Lines(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "event": record.msg[:_LONGEST] if isinstance(record.msg, str) else type(record.msg).__name__,
        }
        if record.name == _LOGGER.name:
            fields: dict[str, Value] = getattr(record, "fields", {})
            line.update({key: _shown(value) for key, value in fields.items()})
        else:
            line["logger"] = record.name
        if record.exc_info and record.exc_info[1] is not None:
            line.update(_exception(record.exc_info[1], record.exc_info[2]))
        return json.dumps(line, ensure_ascii=False)


def _shown(value: Value) -> Value:
    if isinstance(value, UUID):
        return str(value)
    return value[:_LONGEST] if isinstance(value, str) else value


def _exception(error: BaseException, where: TracebackType | None) -> dict[str, Any]:
    frames = traceback.extract_tb(where)[-6:]
    shown: dict[str, Any] = {
        "error": type(error).__name__,
        "where": [f"{frame.filename.rsplit('site-packages/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in frames],
    }
    if isinstance(error, ValuerError):  # our own messages hold ids and rules only
        shown |= {"code": error.code, "message": error.message}
    return shown
