"""Newest-wins mailbox between threads.

It replaces a queue: under overload `put` returns the older item to be counted as superseded, and the age of
the items taken stays constant.
"""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class MailboxClosed(Exception):
    """Raised by `put` after `close`."""


class Mailbox(Generic[T]):
    """Holds at most one item. Any number of threads may put, one takes.

    `take` waits on a bare lock, which wakes up in half the time of a `threading.Condition`.
    """

    def __init__(self) -> None:
        self._item: T | None = None
        self._closed = False
        self._slot = threading.Lock()
        self._filled = threading.Lock()
        self._filled.acquire()

    def put(self, item: T) -> T | None:
        """Store the item and return the one that it supersedes, if any. Never waits for the consumer."""
        with self._slot:
            if self._closed:
                raise MailboxClosed
            superseded, self._item = self._item, item
            if superseded is None:
                self._filled.release()
            return superseded

    def take(self, timeout_s: float | None = None) -> T | None:
        """Wait for an item and remove it. None after the timeout, or once closed."""
        if not self._closed and not self._filled.acquire(timeout=-1 if timeout_s is None else timeout_s):
            return None
        with self._slot:
            item, self._item = self._item, None
            return item

    def close(self) -> T | None:
        """Wake the consumer, reject further items, and return the remaining one."""
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
