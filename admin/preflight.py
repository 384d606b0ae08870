"""Looks whether this machine can hold the installation, before anything is installed. Standard library only.

Runs under whatever `python3` the machine has, so it keeps to a syntax that Python 3.6 reads. One sentence per check;
exit status 2 when the installation cannot work.
"""

import platform
import shutil
import socket
import sys
from pathlib import Path

NEEDED_GB = 5
WITH_CUDA_GB = 12


def system():
    # type: () -> tuple[bool, str]
    """Wheels exist for Linux with glibc 2.28 or newer and for macOS on Apple silicon."""
    name, machine = platform.system(), platform.machine().lower()
    if name == "Linux" and machine in ("x86_64", "amd64", "aarch64", "arm64"):
        library, version = platform.libc_ver()
        if library == "glibc" and tuple(int(part) for part in version.split(".")[:2]) >= (2, 28):
            return True, f"Linux on {machine} with glibc {version} will do."
        return False, "This Linux has {} {}; glibc 2.28 or newer is needed (Debian 10, Ubuntu 20.04, RHEL 8).".format(
            library or "no glibc", version
        )
    if name == "Darwin" and machine == "arm64":
        return True, "macOS on Apple silicon will do."
    return False, f"{name} on {machine} is not supported: use Linux (on Windows: WSL 2) or macOS on Apple silicon."


def python():
    # type: () -> tuple[bool, str]
    """The release, and the modules that make virtual environments (Debian packs them apart)."""
    version = "{}.{}".format(*sys.version_info[:2])
    if sys.version_info < (3, 11):  # noqa: UP036  # an older one may well be what runs this file
        return False, f"Python {version} is too old: install Python 3.11 or newer, or name one: make PYTHON=python3.12"
    try:
        import ensurepip  # noqa: F401  # only whether they are there
        import venv  # noqa: F401
    except ImportError:
        return (
            False,
            f"Python {version} cannot make virtual environments: install its venv package (python{version}-venv).",
        )
    return True, f"Python {version} will do."


def disk(folder):
    # type: (Path) -> tuple[bool, str]
    """Room for the virtual environment, the imported model and a first home."""
    free = shutil.disk_usage(str(folder)).free / 1e9
    if free < NEEDED_GB:
        return (
            False,
            f"{free:.1f} GB are free here; {NEEDED_GB} GB are needed ({WITH_CUDA_GB} GB where torch comes with CUDA).",
        )
    if free < WITH_CUDA_GB:
        return True, f"{free:.0f} GB are free: enough unless torch comes with CUDA, which needs {WITH_CUDA_GB} GB."
    return True, f"{free:.0f} GB are free: enough."


def port(number):
    # type: (int) -> tuple[bool, str]
    """The worklist's port. A taken one stops no installation, only a later start on it."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", number))
        except OSError:
            return True, f"Port {number} is taken at the moment; choose another one with make demo PORT=8090."
    return True, f"Port {number} is free."


def main(arguments):
    # type: (list[str]) -> int
    """Prints every sentence; 2 when one of them forbids the installation."""
    checks = [system(), python(), disk(Path(__file__).resolve().parent.parent), port(int(arguments[0]))]
    for good, sentence in checks:
        sys.stdout.write("{} {}\n".format("  ok" if good else "STOP", sentence))
    return 0 if all(good for good, _ in checks) else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
