"""Runs one module as a process of the supervisor: `python -m admin.child DESCRIPTOR MODULE [ARGUMENT …]`.

The descriptor is the reading end of a pipe whose other end only the supervisor holds. When the supervisor is gone, even by
kill -9, the pipe ends and this process stops itself; no process outlives its supervisor. Works wherever pipes do.
"""

import os
import runpy
import signal
import sys
import threading
import time

PATIENCE_S = 20.0
"""How long a process that lost its supervisor may take to stop by itself."""


def _watch(descriptor: int) -> None:
    while os.read(descriptor, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE_S)
    os.killpg(os.getpgid(0), signal.SIGKILL)  # with what it may have started itself; the supervisor made it a group


def main() -> None:
    """Watches the pipe and becomes the module."""
    descriptor, module, *arguments = sys.argv[1:]
    os.set_inheritable(int(descriptor), False)
    threading.Thread(target=_watch, args=(int(descriptor),), name="supervisor-gone", daemon=True).start()
    sys.argv[:] = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
