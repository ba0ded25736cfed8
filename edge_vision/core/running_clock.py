"""A monotonic clock that stands still while the whole process does: after SIGSTOP, in a debugger.

What a process finds overdue after it was stopped for 10 s is no fault of a backend, a camera or another node.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

# Every node reads the clock at least once a second; nobody reads it for longer only where nothing runs.
LONGEST_BEAT_S = 2.5
_STEP_S = 1e-3


class RunningClock:
    """Any thread reads it. read: the clock underneath."""

    def __init__(self, read: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._last_s, self._stopped_s = read(), 0.0

    def now_s(self) -> float:
        """Seconds from an arbitrary start, without the gaps in which no thread read this clock."""
        with self._lock:
            now_s = self._read()
            gap_s = now_s - self._last_s
            if gap_s > LONGEST_BEAT_S:
                self._stopped_s += gap_s - _STEP_S
            self._last_s = now_s
            return now_s - self._stopped_s


running_s = RunningClock().now_s
"""The clock of this process."""
