"""Log lines hold ids, counts and durations, whatever was being worked on when something went wrong."""

import json
import logging
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator

import pytest

from core import logs
from core.errors import Broken

CANARY = "张三右肺上叶结节"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, hooks = root.handlers[:], root.level, (sys.excepthook, threading.excepthook)
    yield
    sys.excepthook, threading.excepthook = hooks
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)


def _lines(captured: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in captured.readouterr().err.splitlines()]


def test_an_event_is_one_line_of_json_with_its_process(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", "clerk")
    identity = uuid.uuid4()
    logs.event("rung", request=identity, seconds=0.5, waiting=None)
    (line,) = _lines(capsys)
    assert line.pop("at")
    assert line == {
        "level": "info",
        "process": "clerk",
        "event": "rung",
        "request": str(identity),
        "seconds": 0.5,
        "waiting": None,
    }


def test_a_foreign_exception_that_quotes_a_report_leaves_only_its_type_and_place(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("INFO", "worker")
    try:
        int(CANARY)
    except ValueError as error:
        logs.event("failed", level=logging.ERROR, error=error)
        logging.getLogger("some.library").exception("could not parse %s", CANARY)
    text = capsys.readouterr().err
    assert CANARY not in text
    ours, theirs = (json.loads(line) for line in text.splitlines())
    assert ours["error"] == theirs["error"] == "ValueError"
    assert "test_logs.py" in ours["where"][0]
    assert theirs["event"] == "could not parse %s"
    assert theirs["logger"] == "some.library"


def test_what_nobody_catches_is_told_the_same_way_in_every_thread() -> None:
    script = (
        "import threading; from core import logs; logs.configure('INFO', 'x');"
        f"thread = threading.Thread(target=int, args=({CANARY!r},)); thread.start(); thread.join(); int({CANARY!r})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert CANARY not in done.stderr
    assert [json.loads(line)["event"] for line in done.stderr.splitlines()] == ["uncaught", "uncaught"]


def test_our_own_errors_tell_their_code_and_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", "worker")
    logs.event("failed", error=Broken("The key file is missing.", code="no_key"))
    logs.event("failed", error="no_key")
    first, second = _lines(capsys)
    assert (first["code"], first["message"]) == ("no_key", "The key file is missing.")
    assert second["error"] == "no_key"


def test_chatter_of_libraries_and_of_lower_levels_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("WARNING", "worker")
    logs.event("detail")
    logging.getLogger("some.library").info(CANARY)
    assert _lines(capsys) == []


def test_a_value_that_is_as_long_as_a_text_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", "worker")
    logs.event("odd", value="肺" * 10_000)
    assert len(str(_lines(capsys)[0]["value"])) == 200
