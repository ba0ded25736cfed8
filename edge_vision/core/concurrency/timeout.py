"""Runs blocking library calls with a timeout, in pooled daemon threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class WorkTimeout(Exception):
    """The call did not return in time."""


def run_with_timeout(limit_s: float, work: Callable[[], T], late: Callable[[T | None], None]) -> T:
    """What `work` returns or raises, run in another thread.

    Raises WorkTimeout after limit_s seconds. The thread is not interrupted: when the call returns after all,
    its result is passed to `late` in that thread, or None if it raised.
    """
    call = _Call(work, late)
    try:
        thread = _IDLE.pop()
    except IndexError:
        thread = _PooledThread()
    thread.calls.put(call)
    return call.wait(limit_s)


class _PooledThread(threading.Thread):
    """Runs one call after the other. Reused, because glibc does not return a thread's memory when it ends."""

    def __init__(self) -> None:
        super().__init__(name="edge_vision timeout", daemon=True)
        self.calls: SimpleQueue[_Call[Any]] = SimpleQueue()
        self.start()

    def run(self) -> None:
        while True:
            call = self.calls.get()
            call.run()
            # Before `finish`: the caller that it wakes may need a thread at once.
            _IDLE.append(self)
            call.finish()
            # Do not keep the result alive until the next call.
            del call


_IDLE: deque[_PooledThread] = deque()


class _Call(Generic[T]):
    def __init__(self, work: Callable[[], T], late: Callable[[T | None], None]) -> None:
        self._work, self._late = work, late
        self._lock = threading.Lock()
        self._finished = threading.Event()
        self._abandoned = False
        self._result: T | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:
            self._error = error

    def finish(self) -> None:
        with self._lock:
            self._finished.set()
            abandoned = self._abandoned
        if abandoned:
            self._error = None
            self._late(self._result)

    def wait(self, limit_s: float) -> T:
        try:
            self._finished.wait(limit_s)
        finally:  # Also after Ctrl-C.
            with self._lock:
                self._abandoned = not self._finished.is_set()
        if self._abandoned:
            raise WorkTimeout(f"no end after {limit_s:g} s")
        # An error references the frames of its traceback, and so this call. Without `del` the cycle would
        # keep a session alive until the next garbage collection.
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error
        return self._result  # type: ignore[return-value]
