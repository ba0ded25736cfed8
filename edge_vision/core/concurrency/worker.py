"""Worker thread that processes the newest item of its mailbox."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from edge_vision.core.concurrency.mailbox import Mailbox

T = TypeVar("T")


class Worker(Generic[T]):
    """Calls `work` with one item after the other. `work` must not raise."""

    def __init__(self, name: str, work: Callable[[T], None]) -> None:
        self._mailbox: Mailbox[T] = Mailbox()
        self._work = work
        self._current: T | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: T) -> T | None:
        """Submit an item and return the one that it supersedes. Raises MailboxClosed after `stop`."""
        return self._mailbox.put(item)

    def stop(self, timeout_s: float) -> list[T]:
        """Stop the thread and return the items that it does not finish: the waiting one, and the current one
        if it
        is still in work after the timeout."""
        left = [self._mailbox.close()]
        self._thread.join(timeout_s)
        if self.alive:
            left.append(self._current)
        return [item for item in left if item is not None]

    @property
    def alive(self) -> bool:
        """True while the thread runs; after `stop`, if it hangs in `work`."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._mailbox.closed:
            self._current = self._mailbox.take()
            if self._current is not None:
                self._work(self._current)
            self._current = None
