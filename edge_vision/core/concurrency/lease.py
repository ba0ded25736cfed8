"""Lease of a shared resource that may be replaced, or abandoned while it hangs, at any time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from edge_vision.core.running_clock import running_s

T = TypeVar("T")
J = TypeVar("J")


class _Holder(NamedTuple, Generic[T, J]):
    resource: T
    job: J
    since_s: float


class Lease(Generic[T, J]):
    """Lends a resource to one holder at a time. Any thread may replace it.

    A replaced resource is closed once it is released. One that hangs in use is never closed by another
    thread.
    """

    def __init__(self, close: Callable[[T], None]) -> None:
        self._close = close
        self._lock = threading.Lock()
        self._current: T | None = None
        self._holder: _Holder[T, J] | None = None

    @property
    def current(self) -> T | None:
        """The resource, or None if there is none."""
        return self._current

    def acquire(self, job: J) -> T | None:
        """Borrow the resource for a job, until `release`; None if there is none."""
        with self._lock:
            if self._current is None:
                return None
            self._holder = _Holder(self._current, job, running_s())
            return self._current

    def release(self, resource: T) -> bool:
        """Return the resource. False if the lease was revoked: the job belongs to another holder."""
        with self._lock:
            valid = self._holder is not None and self._holder.resource is resource
            if valid:
                self._holder = None
            replaced = resource is not self._current
        if replaced:
            self._close(resource)
        return valid

    def replace(self, new: T | None) -> None:
        """Lend another resource, or none, from the next `acquire` on."""
        with self._lock:
            old, self._current = self._current, new
            in_use = self._holder is not None and self._holder.resource is old
        if old is not None and old is not new and not in_use:
            self._close(old)

    def revoke(self, after_s: float, matches: Callable[[J], bool] = lambda job: True) -> tuple[T, J] | None:
        """Revoke a lease that is older than this: returns the resource that hangs, and its job.

        There is no resource afterwards. None if no lease is that old, or `matches` is false for its job.
        """
        with self._lock:
            holder = self._holder
            if holder is None or running_s() - holder.since_s < after_s or not matches(holder.job):
                return None
            self._holder = None
            if self._current is holder.resource:
                self._current = None
            return holder.resource, holder.job
