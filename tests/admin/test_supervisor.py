"""The supervisor over real processes of the product (those that need no model) and small commands that misbehave."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa

from admin import supervisor
from admin.supervisor import Service, Supervisor
from core import db, embedded, processes
from core.errors import Refused
from core.settings import Settings

CLERK = Service("clerk", ("core.clerk",), 2, 5.0)
SCORE = Service("score", ("worker.app", "score"), 1, 10.0)


@pytest.fixture
def given(servers: embedded.Servers, database_url: str, home: Path) -> tuple[Settings, embedded.Servers]:
    """Settings of an installation on the test's own database."""
    pair = embedded.Servers(database_url, servers.broker_url)
    settings = Settings(home=home, database_url=pair.database_url, broker_url=pair.broker_url)
    supervisor.prepare(settings, pair)
    return settings, pair


@contextmanager
def _running(given: tuple[Settings, embedded.Servers], *services: Service) -> Iterator[tuple[Supervisor, list[str]]]:
    said: list[str] = []
    made = Supervisor(*given, 8000, said.append, services)
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        yield made, said
    finally:
        made.stopping.set()
        thread.join(30)
        assert not thread.is_alive()


def _until(look: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def _pid(home: Path, name: str) -> int | None:
    try:
        state = json.loads(supervisor.state_file(home).read_text())
    except FileNotFoundError:
        return None
    return next((each["pid"] for each in state["processes"] if each["name"] == name), None)


def _misbehaving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str) -> Service:
    folder = tmp_path / "commands"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return Service(name, (name,), 0, 1.0)


def test_processes_come_up_are_announced_and_leave_nothing_behind(
    given: tuple[Settings, embedded.Servers], database: sa.Engine
) -> None:
    def ready() -> set[str]:
        with db.transaction(database) as session:
            return {each.kind for each in processes.alive(session) if each.state == "ready"}

    with _running(given, CLERK, SCORE):
        _until(lambda: ready() == {"clerk", "score"})
        pids = [_pid(given[0].home, name) for name in ("clerk", "score")]
        assert all(psutil.pid_exists(pid) for pid in pids if pid)
    assert not any(psutil.pid_exists(pid) for pid in pids if pid)
    assert ready() == set()
    assert not supervisor.state_file(given[0].home).exists()


def test_what_dies_starts_again(given: tuple[Settings, embedded.Servers]) -> None:
    home = given[0].home
    with _running(given, CLERK) as (_, said):
        _until(lambda: _pid(home, "clerk"))
        first = _pid(home, "clerk")
        assert first is not None
        os.kill(first, signal.SIGKILL)
        _until(lambda: _pid(home, "clerk") not in (None, first))
    assert said == ["clerk ended with signal SIGKILL; it starts again in 0.5 s."]


def test_what_fails_at_once_is_started_more_and_more_rarely(
    given: tuple[Settings, embedded.Servers], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = _misbehaving(tmp_path, monkeypatch, "fails", "raise SystemExit(3)")
    with _running(given, service) as (running, said):
        _until(lambda: len(said) == 3)
        assert running.failing() is None
    assert said == [f"fails ended with status 3; it starts again in {wait} s." for wait in (0.5, 1.0, 2.0)]


def test_a_process_that_will_not_stop_is_killed_with_what_it_started(
    given: tuple[Settings, embedded.Servers], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(tmp_path / 'grandchild')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    service = _misbehaving(tmp_path, monkeypatch, "stubborn", code)
    told = tmp_path / "grandchild"
    with _running(given, service):
        _until(lambda: told.exists() and told.read_text())
        pids = [int(told.read_text()), _pid(given[0].home, "stubborn")]
    _until(lambda: not any(psutil.pid_exists(pid) for pid in pids if pid), 5)


def test_no_process_outlives_a_supervisor_that_was_killed(
    given: tuple[Settings, embedded.Servers], tmp_path: Path
) -> None:
    settings, pair = given
    script = (
        "from pathlib import Path\n"
        "from admin.supervisor import Service, Supervisor\n"
        "from core import embedded\n"
        "from core.settings import Settings\n"
        f"settings = Settings(home=Path({str(settings.home)!r}))\n"
        f"pair = embedded.Servers({pair.database_url!r}, {pair.broker_url!r})\n"
        "services = (Service('clerk', ('core.clerk',), 2, 5.0), Service('score', ('worker.app', 'score'), 1, 10.0))\n"
        "Supervisor(settings, pair, 8000, print, services).run()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL) as process:
        _until(lambda: _pid(settings.home, "clerk") and _pid(settings.home, "score"))
        pids = [_pid(settings.home, name) for name in ("clerk", "score")]
        process.kill()
    _until(lambda: not any(psutil.pid_exists(pid) for pid in pids if pid), 25)


def test_an_embedded_server_that_dies_is_brought_back(monkeypatch: pytest.MonkeyPatch, server_home: Path) -> None:
    """On a home of its own, since the other tests need their servers."""
    home = server_home / "own"
    settings = Settings(home=home)
    monkeypatch.setattr(supervisor, "PROBE_S", 0.1)  # time is the one thing that tests may change
    with embedded.running(settings) as pair:
        supervisor.prepare(settings, pair)
        before = {each.name: each.pid for each in embedded.status(home)}
        with _running((settings, pair)) as (_, said):
            for pid in before.values():
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
            _until(lambda: len([each for each in embedded.status(home) if each.alive]) == 2)
        assert {each.pid for each in embedded.status(home)}.isdisjoint(before.values())
        assert "postgres" in said[0]
    assert not any(each.alive for each in embedded.status(home))


def test_a_home_has_one_supervisor(home: Path) -> None:
    assert supervisor.state(home) is None
    with supervisor.only_one(home):
        assert supervisor.state(home) is not None
        with pytest.raises(Refused, match="already running"), supervisor.only_one(home):
            pass
    assert supervisor.state(home) is None


def test_a_log_that_grows_is_set_aside(
    given: tuple[Settings, embedded.Servers], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "PROBE_S", 0.1)
    monkeypatch.setattr(supervisor, "LOG_LIMIT", 1000)
    code = "import time\nwhile True: print('a line', flush=True); time.sleep(0.01)"
    service = _misbehaving(tmp_path, monkeypatch, "talks", code)
    log = given[0].home / "log" / "talks.log"
    with _running(given, service):
        _until(lambda: log.with_name("talks.log.1").exists() and log.stat().st_size > 0)
    assert log.stat().st_size < 2000
