"""The look at a fresh machine needs nothing but some Python."""

import ast
import socket
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "admin" / "preflight.py"


def _preflight(port: int) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-I", "-S", str(SCRIPT), str(port)]  # without any installed package
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_machine_that_runs_these_tests_will_do() -> None:
    done = _preflight(0)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("  ok ") and line.endswith(".") for line in lines)


def test_a_taken_port_is_told_and_stops_no_installation() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        done = _preflight(port)
    assert done.returncode == 0
    assert f"Port {port} is taken" in done.stdout


def test_a_python_that_is_too_old_can_read_the_script_that_refuses_it() -> None:
    ast.parse(SCRIPT.read_text("utf-8"), feature_version=(3, 7))
