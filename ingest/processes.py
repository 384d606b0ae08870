"""How a process of ingest ends with the one that started it, whatever becomes of that one. What they do is `ingest.child` and `ingest.cleaner`."""

import multiprocessing
import os
import threading


def die_with_parent() -> None:
    """From now on this process ends at once when the one that started it is gone, in the middle of a statement too."""
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
