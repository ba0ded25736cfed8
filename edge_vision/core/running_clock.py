"""Monotonic clock that stops while the whole process is stopped: after SIGSTOP, or in a debugger.

A timeout must not blame a backend, camera or node for the time in which this process was stopped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

# Every node reads the clock at least once per second, so a longer gap means that the process was stopped.
MAX_READ_GAP_S = 2.5
_STEP_S = 1e-3


class RunningClock:
    """Thread-safe. read: the underlying clock."""

    def __init__(self, read: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._last_s, self._stopped_s = read(), 0.0

    def now_s(self) -> float:
        """Seconds since an arbitrary start, without the gaps in which no thread read this clock."""
        with self._lock:
            now_s = self._read()
            gap_s = now_s - self._last_s
            if gap_s > MAX_READ_GAP_S:
                self._stopped_s += gap_s - _STEP_S
            self._last_s = now_s
            return now_s - self._stopped_s


running_s = RunningClock().now_s
"""The clock of this process."""
