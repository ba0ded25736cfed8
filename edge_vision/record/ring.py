"""Messages in memory, bounded in bytes: the oldest make room for the newest."""

from __future__ import annotations

import threading
from collections import deque
from itertools import islice
from typing import NamedTuple

ENTRY_BYTES = 256
"""What an entry takes beside its data: 200 to 250 bytes of Python objects."""


class RingEntry(NamedTuple):
    """A serialized message. number: consecutive, from 1. time_ns: monotonic time of its arrival."""

    number: int
    time_ns: int
    topic: str
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data) + ENTRY_BYTES


class Ring:
    """Thread-safe. added = entries in the ring + removed. refused: messages larger than the whole ring."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._entries: deque[RingEntry] = deque()
        self.bytes = self.added = self.removed = self.refused = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, topic: str, time_ns: int, data: bytes) -> int:
        """Add a message, and remove the oldest ones while the ring is over its bound. Returns its number, 0
        if refused."""
        with self._lock:
            entry = RingEntry(self.added + 1, time_ns, topic, data)
            if entry.size > self.max_bytes:
                self.refused += 1
                return 0
            self._shrink(self.max_bytes - entry.size)
            self._entries.append(entry)
            self.added += 1
            self.bytes += entry.size
            return self.added

    def resize(self, max_bytes: int) -> None:
        """Change the bound."""
        with self._lock:
            self.max_bytes = max_bytes
            self._shrink(max_bytes)

    def _shrink(self, max_bytes: int) -> None:
        while self.bytes > max_bytes:
            self._remove_first()

    def _remove_first(self) -> None:
        self.bytes -= self._entries.popleft().size
        self.removed += 1

    def first_since(self, time_ns: int) -> int:
        """The number of the first entry that arrived at this time or later; that of the next one if none
        has. Entries that were encoded late are somewhat out of order."""
        with self._lock:
            return next((one.number for one in self._entries if one.time_ns >= time_ns), self.added + 1)

    def take(self, number: int, max_bytes: int) -> list[RingEntry]:
        """Entries from this number on, or from the first that is left; stops at max_bytes, after one at
        least."""
        with self._lock:
            if not self._entries:
                return []
            taken: list[RingEntry] = []
            size = 0
            for one in islice(self._entries, max(0, number - self._entries[0].number), None):
                size += one.size
                if taken and size > max_bytes:
                    break
                taken.append(one)
            return taken

    def forget(self, before_ns: int) -> None:
        """Remove the entries at the old end that arrived before this time."""
        with self._lock:
            while self._entries and self._entries[0].time_ns < before_ns:
                self._remove_first()
