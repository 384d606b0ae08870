"""The embedded pair on real programs: start, stop, crash, hostile leftovers, awkward homes."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from core import embedded, place
from core.errors import Broken
from core.settings import Settings

ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def shared() -> Iterator[Path]:
    """A home that the service user can reach, unlike pytest's own folders; its servers ran once."""
    for folder in _folder():
        embedded.ensure(folder)
        embedded.stop(folder)
        yield folder


@pytest.fixture
def reachable(shared: Path) -> Iterator[Path]:
    """The same home for every test, since making a data directory is the slow part; its servers are stopped."""
    yield shared
    embedded.stop(shared)
    shutil.rmtree(shared / "log", ignore_errors=True)


@pytest.fixture
def fresh() -> Iterator[Path]:
    """A home, or a folder of homes, that never ran."""
    yield from _folder()


def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="valuer-embedded-"))
    folder.chmod(0o711)
    yield folder
    _clean(folder)


def _clean(folder: Path) -> None:
    for home in [folder, *folder.iterdir()]:
        if (home / "servers").exists():
            embedded.stop(home)
            shutil.rmtree(place.find(home).run, ignore_errors=True)
            shutil.rmtree((home / "servers").resolve(), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def _pids(home: Path) -> list[int]:
    return [server.pid for server in embedded.status(home) if server.pid is not None]


def _write(servers: embedded.Servers) -> None:
    with psycopg.connect(servers.database_url) as connection:
        connection.execute("DROP TABLE IF EXISTS kept")
        connection.execute("CREATE TABLE kept (word text)")
        connection.execute("INSERT INTO kept VALUES ('肺')")


def _read(servers: embedded.Servers) -> list[tuple[str]]:
    with psycopg.connect(servers.database_url) as connection:
        return connection.execute("SELECT word FROM kept").fetchall()


def test_a_second_start_changes_nothing_and_a_stop_leaves_no_process(reachable: Path) -> None:
    first = embedded.ensure(reachable)
    pids = _pids(reachable)
    assert len(pids) == 2
    assert embedded.ensure(reachable) == first
    assert _pids(reachable) == pids
    embedded.stop(reachable)
    assert _pids(reachable) == []
    assert [server.alive for server in embedded.status(reachable)] == [False, False]


def test_both_servers_are_unreachable_for_other_users_and_open_no_port(reachable: Path) -> None:
    servers = embedded.ensure(reachable)
    run = Path(servers.broker_url.removeprefix("redis+socket://")).parent
    assert run.stat().st_mode & 0o777 == 0o700
    with psycopg.connect(servers.database_url) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
    if sys.platform == "linux":
        for pid in _pids(reachable):
            sockets = {entry.readlink().name for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink()}
            listening = [line for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"]
            assert not [line for line in listening if f"socket:[{line.split()[9]}]" in sockets]


def test_what_was_committed_survives_kill_9_of_both(reachable: Path) -> None:
    servers = embedded.ensure(reachable)
    _write(servers)
    for pid in _pids(reachable):
        os.kill(pid, signal.SIGKILL)
    assert _read(embedded.ensure(reachable)) == [("肺",)]


def test_a_pid_file_that_names_somebody_elses_process_does_not_stop_a_start(reachable: Path) -> None:
    servers = embedded.ensure(reachable)
    _write(servers)
    for pid in _pids(reachable):
        os.kill(pid, signal.SIGKILL)
    data = place.find(reachable)
    lock = data.postgres_data / "postmaster.pid"
    lines = lock.read_text().split("\n")
    lock.write_text("\n".join([str(os.getpid()), *lines[1:]]))
    (data.valkey_data / "valkey.pid").write_text(str(os.getpid()))
    assert _read(embedded.ensure(reachable)) == [("肺",)]


def test_a_zombie_that_nobody_reaps_does_not_stop_a_start(reachable: Path) -> None:
    servers = embedded.ensure(reachable)
    _write(servers)
    embedded.stop(reachable)
    with subprocess.Popen(["sleep", "60"]) as zombie:
        zombie.kill()
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet reaped
        where = place.find(reachable)
        (where.postgres_data / "postmaster.pid").write_text(f"{zombie.pid}\n{where.postgres_data}\n0\n5432\n\n\n")
        assert _read(embedded.ensure(reachable)) == [("肺",)]


def test_a_server_whose_socket_was_removed_is_replaced(reachable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.daemon.HUNG_S", 0.5)  # time is the one thing that tests may change
    servers = embedded.ensure(reachable)
    _write(servers)
    before = _pids(reachable)
    for entry in list(place.find(reachable).run.iterdir()):
        entry.unlink()
    assert _read(embedded.ensure(reachable)) == [("肺",)]
    assert not set(before) & set(_pids(reachable))


def test_an_unreadable_doorbell_is_put_aside_and_starts_empty(reachable: Path) -> None:
    embedded.ensure(reachable, postgres=False)
    embedded.stop(reachable)
    data = place.find(reachable).valkey_data
    next(data.glob("appendonlydir/*.manifest")).write_text("no manifest at all\n")
    embedded.ensure(reachable, postgres=False)
    assert [server.alive for server in embedded.status(reachable)] == [False, True]
    assert len(list(data.parent.glob("valkey.unreadable-*"))) == 1


def test_a_doorbell_whose_data_is_wiped_under_kill_9_comes_back(reachable: Path) -> None:
    embedded.ensure(reachable, postgres=False)
    (pid,) = _pids(reachable)
    os.kill(pid, signal.SIGKILL)
    shutil.rmtree(place.find(reachable).valkey_data)
    embedded.ensure(reachable, postgres=False)
    assert len(_pids(reachable)) == 1


def test_six_processes_that_start_at_once_share_one_pair(reachable: Path) -> None:
    script = f"from pathlib import Path; from core import embedded; embedded.ensure(Path({str(reachable)!r}))"
    starters = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(6)]
    assert [starter.wait(60) for starter in starters] == [0] * 6
    assert len(_pids(reachable)) == 2
    assert (reachable / "log" / "postgres.log").read_text().count("starting PostgreSQL") == 1


@pytest.mark.parametrize("name", ["with a space", "影像科", "l" * 120, "quote'\"$(x)"])
def test_homes_with_awkward_names_work(fresh: Path, name: str) -> None:
    servers = embedded.ensure(fresh / name)
    _write(servers)
    assert _read(embedded.ensure(fresh / name)) == [("肺",)]
    assert len(servers.broker_url.removeprefix("redis+socket://")) <= place.SOCKET_LIMIT


def test_a_home_that_was_moved_keeps_its_data(fresh: Path) -> None:
    _write(embedded.ensure(fresh))
    embedded.stop(fresh)
    moved = fresh / "moved"
    moved.mkdir(mode=0o711)
    (fresh / "servers").rename(moved / "servers")
    assert _read(embedded.ensure(moved)) == [("肺",)]


def test_data_of_another_major_version_is_refused_and_left_alone(reachable: Path) -> None:
    version = place.find(reachable).postgres_data / "PG_VERSION"
    version.write_text("17\n")
    with pytest.raises(Broken, match="PostgreSQL 17"):
        embedded.ensure(reachable)
    assert version.read_text() == "17\n"
    version.write_text("18\n")


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO strict VALUES ('{}')",
        "SELECT '{}'::integer",
        "SELEKT '{}'",
    ],
)
def test_what_a_failing_statement_said_is_not_in_the_log(reachable: Path, statement: str) -> None:
    servers = embedded.ensure(reachable)
    canary = "右肺上叶结节金丝雀"
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute("CREATE TEMP TABLE strict (findings text CHECK (length(findings) < 5))")
        with pytest.raises(psycopg.Error) as caught:
            connection.execute(statement.format(canary).encode())
    assert canary in str(caught.value)
    assert canary not in (reachable / "log" / "postgres.log").read_text()


@pytest.mark.skipif(not ROOT, reason="only root starts servers as somebody else")
def test_root_keeps_the_data_outside_a_home_that_the_service_user_cannot_reach(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    home = hidden / "home"
    try:
        servers = embedded.ensure(home)
        _write(servers)
        outside = (home / "servers").resolve()
        assert outside.parent == place.OUTSIDE
        assert hidden.stat().st_mode & 0o777 == 0o700  # nothing was opened to make it reachable
        assert (outside / "pg18").stat().st_mode & 0o777 == 0o700
        assert pwd.getpwuid((outside / "pg18").stat().st_uid).pw_name in ("postgres", "nobody")
        embedded.stop(home)
        shutil.rmtree(outside)
        with pytest.raises(Broken, match="is gone"):
            embedded.ensure(home)
        outside.mkdir()
    finally:
        _clean(hidden)


@pytest.mark.skipif(not ROOT, reason="an ordinary user is what every other test of this file then is")
def test_an_ordinary_user_starts_them_as_themselves(fresh: Path) -> None:
    fresh.chmod(0o777)
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            _write(embedded.ensure(fresh / "mine"))
            embedded.stop(fresh / "mine")
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    data = fresh / "mine" / "servers" / "pg18"
    assert data.stat().st_uid == 65534
    assert (fresh / "mine").stat().st_mode & 0o777 == 0o700


def test_the_last_user_stops_the_pair_and_no_earlier_one(reachable: Path) -> None:
    settings = Settings(home=reachable)
    with embedded.running(settings) as first:
        with embedded.running(settings) as second:
            assert first == second
        assert len(_pids(reachable)) == 2
    assert _pids(reachable) == []


def test_configured_servers_are_taken_as_they_are_and_start_nothing(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "none", database_url="postgresql://a@b/c", broker_url="redis://localhost/0")
    assert embedded.resolve(settings) == embedded.Servers("postgresql://a@b/c", "redis://localhost/0")
    assert not (tmp_path / "none").exists()


def test_only_the_missing_server_is_started(reachable: Path) -> None:
    settings = Settings(home=reachable, broker_url="redis://localhost/0")
    with embedded.running(settings) as servers:
        assert servers.broker_url == "redis://localhost/0"
        assert [server.alive for server in embedded.status(reachable)] == [True, False]
