"""A slot for one item between two threads: the newest wins.

There is no queue: under overload the older item is handed back to whoever put the newer one, so that it
can be counted as superseded, and the age of what comes out stays flat.
"""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class MailboxClosed(Exception):
    """Raised by `put` after `close`: nobody will take the item."""


class Mailbox(Generic[T]):
    """One slot, newest wins. Any number of threads may put, one takes.

    The taker sleeps on a bare lock that whoever fills the empty slot releases: half the wake-up of a
    `threading.Condition`, which is written in Python.
    """

    def __init__(self) -> None:
        self._item: T | None = None
        self._closed = False
        self._slot = threading.Lock()
        self._filled = threading.Lock()
        self._filled.acquire()

    def put(self, item: T) -> T | None:
        """Leave the item and return the one that it supersedes, if any. Never blocks on the taker."""
        with self._slot:
            if self._closed:
                raise MailboxClosed
            superseded, self._item = self._item, item
            if superseded is None:
                self._filled.release()
            return superseded

    def take(self, timeout_s: float | None = None) -> T | None:
        """Wait for an item and take it. None after the time-out, or once closed."""
        if not self._closed and not self._filled.acquire(timeout=-1 if timeout_s is None else timeout_s):
            return None
        with self._slot:
            item, self._item = self._item, None
            return item

    def close(self) -> T | None:
        """Wake the taker for good and return what was left in the slot."""
        with self._slot:
            left, self._item = self._item, None
            if not self._closed and left is None:
                self._filled.release()
            self._closed = True
            return left

    @property
    def closed(self) -> bool:
        """True after `close`."""
        return self._closed
