"""Bounds of memory and time for a part of this process, which the main thread runs."""

from __future__ import annotations

import _thread
import contextlib
import math
import threading
import time
from collections.abc import Iterator

import psutil

_PERIOD_S = 0.2


class MemoryBoundExceeded(Exception):
    """This process took more memory than it may."""


class TimeBoundExceeded(Exception):
    """The time ended."""


@contextlib.contextmanager
def bounds(limit_gb: float, left_s: float = math.inf) -> Iterator[None]:
    """Interrupt the main thread, as Ctrl-C does, if this process takes more resident memory or longer.

    Raises MemoryBoundExceeded, TimeBoundExceeded.
    """
    ended, process, deadline_s = threading.Event(), psutil.Process(), time.monotonic() + left_s
    exceeded: list[Exception] = []

    def watch() -> None:
        while not ended.wait(_PERIOD_S):
            if process.memory_info().rss > limit_gb * 1e9:
                text = f"the training took more than {limit_gb:g} GB of memory"
                exceeded.append(MemoryBoundExceeded(text))
            elif time.monotonic() > deadline_s:
                exceeded.append(TimeBoundExceeded())
            if exceeded:
                _thread.interrupt_main()
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    except KeyboardInterrupt:
        if not exceeded:
            raise
        raise exceeded[0] from None
    finally:
        ended.set()
        thread.join()
