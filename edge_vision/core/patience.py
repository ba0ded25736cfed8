"""Work of a library that may never come back: waited for so long, then left to itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Patience(Exception):
    """The work did not end in time."""


def within(limit_s: float, work: Callable[[], T], late: Callable[[T | None], None]) -> T:
    """What `work` returns or raises, done by a thread of its own.

    Raises Patience after limit_s seconds. What it returns after all goes to `late`, in that thread; None
    where it raised.
    """
    errand = _Errand(work, late)
    threading.Thread(target=errand.run, name="edge_vision errand", daemon=True).start()
    return errand.wait(limit_s)


class _Errand(Generic[T]):
    def __init__(self, work: Callable[[], T], late: Callable[[T | None], None]) -> None:
        self._work, self._late = work, late
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._left = False
        self._result: T | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:
            self._error = error
        with self._lock:
            self._ended.set()
            left = self._left
        if left:
            self._late(self._result)

    def wait(self, limit_s: float) -> T:
        try:
            self._ended.wait(limit_s)
        finally:  # A Ctrl-C leaves it as well.
            with self._lock:
                self._left = not self._ended.is_set()
        if self._left:
            raise Patience(f"no end after {limit_s:g} s")
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]
