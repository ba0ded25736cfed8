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
    """One slot, newest wins. Any number of threads may put, one takes."""

    def __init__(self) -> None:
        self._item: T | None = None
        self._closed = False
        self._changed = threading.Condition(threading.Lock())

    def put(self, item: T) -> T | None:
        """Leave the item and return the one that it supersedes, if any. Never blocks on the taker."""
        with self._changed:
            if self._closed:
                raise MailboxClosed
            superseded, self._item = self._item, item
            if superseded is None:
                self._changed.notify()
            return superseded

    def take(self, timeout_s: float | None = None) -> T | None:
        """Wait for an item and take it. None after the time-out, or once closed and empty."""
        with self._changed:
            if self._item is None and not self._closed:
                self._changed.wait(timeout_s)
            item, self._item = self._item, None
            return item

    def close(self) -> T | None:
        """Wake the taker for good and return what was left in the slot."""
        with self._changed:
            self._closed = True
            left, self._item = self._item, None
            self._changed.notify_all()
            return left

    @property
    def closed(self) -> bool:
        return self._closed
