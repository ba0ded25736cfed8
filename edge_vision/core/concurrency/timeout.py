"""Work of a library that may never come back: waited for so long, then left to itself."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class WorkTimeout(Exception):
    """The work did not end in time."""


def run_with_timeout(limit_s: float, work: Callable[[], T], late: Callable[[T | None], None]) -> T:
    """What `work` returns or raises, done by another thread.

    Raises Patience after limit_s seconds. What it returns after all goes to `late`, in that thread; None
    where it raised.
    """
    errand = _Errand(work, late)
    try:
        hand = _IDLE.pop()
    except IndexError:
        hand = _Hand()
    hand.errands.put(errand)
    return errand.wait(limit_s)


class _Hand(threading.Thread):
    """Does one errand after the other: memory that each new thread takes from the system, glibc does not give
    back with it."""

    def __init__(self) -> None:
        super().__init__(name="edge_vision errand", daemon=True)
        self.errands: SimpleQueue[_Errand[Any]] = SimpleQueue()
        self.start()

    def run(self) -> None:
        while True:
            errand = self.errands.get()
            errand.do()
            # First: who is told of the end may have the next errand at once.
            _IDLE.append(self)
            errand.end()
            # Nothing of it may live on until the next one.
            del errand


_IDLE: deque[_Hand] = deque()


class _Errand(Generic[T]):
    def __init__(self, work: Callable[[], T], late: Callable[[T | None], None]) -> None:
        self._work, self._late = work, late
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._left = False
        self._result: T | None = None
        self._error: BaseException | None = None

    def do(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:
            self._error = error

    def end(self) -> None:
        with self._lock:
            self._ended.set()
            left = self._left
        if left:
            self._error = None
            self._late(self._result)

    def wait(self, limit_s: float) -> T:
        try:
            self._ended.wait(limit_s)
        finally:  # A Ctrl-C leaves it as well.
            with self._lock:
                self._left = not self._ended.is_set()
        if self._left:
            raise WorkTimeout(f"no end after {limit_s:g} s")
        # An error knows the frames that it went through, and so this errand: kept here, the two would keep
        # each other, and a session, until the garbage collector comes.
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error
        return self._result  # type: ignore[return-value]
