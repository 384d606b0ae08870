"""How long one draft may take: by what the last ones of this worker took, and never longer than the setting says.

A model that has stood still is given up in tens of seconds where drafts take one, instead of after the time that the slowest machine may need.
What happens then is the desk's to decide.
"""

import threading
from collections import deque
from statistics import median

LAST, ENOUGH = 50, 10
TIMES = 10.0
"""How much slower than the middle of the last drafts one may be: a whole ladder of long texts in a burst stays within it."""
LEAST_S = 30.0


class Deadline:
    """Of one worker. Safe to use from several threads."""

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._took: deque[float] = deque(maxlen=LAST)
        self._lock = threading.Lock()

    def took(self, seconds: float) -> None:
        """A draft, with all its tries, took this long."""
        with self._lock:
            self._took.append(seconds)

    def seconds(self) -> float:
        """Ten times the median of the last fifty drafts, at least half a minute; until ten have been measured, and at most, the setting."""
        with self._lock:
            if len(self._took) < ENOUGH:
                return self._longest_s
            return min(self._longest_s, max(LEAST_S, TIMES * median(self._took)))

    def forget(self) -> None:
        """A draft was given up: what was measured says nothing of what comes, and the next one gets all the time there is."""
        with self._lock:
            self._took.clear()
