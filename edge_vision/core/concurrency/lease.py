"""Who serves now: one of several things that may be replaced between two uses, or left to itself in one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from edge_vision.core.running_clock import running_s

T = TypeVar("T")
J = TypeVar("J")


class _Use(NamedTuple, Generic[T, J]):
    value: T
    job: J
    since_s: float


class Lease(Generic[T, J]):
    """Hands what it holds to one user at a time. Any thread may replace it: what was replaced is closed as
    soon as nobody uses it, and what hangs in a use is never closed under its user."""

    def __init__(self, close: Callable[[T], None]) -> None:
        self._close = close
        self._lock = threading.Lock()
        self._current: T | None = None
        self._use: _Use[T, J] | None = None

    @property
    def current(self) -> T | None:
        """What serves; None where nothing does."""
        return self._current

    def acquire(self, job: J) -> T | None:
        """Begin a use for a job; None where nothing serves. End it with `done`."""
        with self._lock:
            if self._current is None:
                return None
            self._use = _Use(self._current, job, running_s())
            return self._current

    def release(self, value: T) -> bool:
        """End the use. False where it was abandoned meanwhile: the job is somebody else's by now."""
        with self._lock:
            mine = self._use is not None and self._use.value is value
            if mine:
                self._use = None
            unwanted = value is not self._current
        if unwanted:
            self._close(value)
        return mine

    def replace(self, new: T | None) -> None:
        """Serve another one, or nothing, from the next use on."""
        with self._lock:
            old, self._current = self._current, new
            in_use = self._use is not None and self._use.value is old
        if old is not None and old is not new and not in_use:
            self._close(old)

    def revoke(self, after_s: float) -> tuple[T, J] | None:
        """Give up a use that lasts longer than that: returns what hangs, and the job, which is the caller's
        now. Nothing serves then. None where no use lasts so long."""
        with self._lock:
            use = self._use
            if use is None or running_s() - use.since_s < after_s:
                return None
            self._use = None
            if self._current is use.value:
                self._current = None
            return use.value, use.job
