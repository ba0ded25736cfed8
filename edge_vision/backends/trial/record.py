"""Graphs that have loaded and run on this device: one file of hashes in the cache.

A missing or damaged entry only costs another trial. An added hash skips one, but whoever can write to the
cache can do more than that.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from pathlib import Path

from edge_vision.backends.runtimes.engine_cache import write_file
from edge_vision.bundles.store import cache_dir

MAX_KEYS = 500
_MAX_BYTES = MAX_KEYS * 65
_LOCK = threading.Lock()
_HERE: set[str] = set()
"""Passed in this process: if the file cannot be written, each process tries a graph once."""

REFUSAL_S = 60.0
"""A refused graph is not tried again for this long: one load may request it several times."""
_REFUSED: dict[str, tuple[float, str]] = {}


def record_file() -> Path:
    """The file of hashes, one per line, the newest last."""
    return cache_dir() / "trials"


def passed(key: str) -> bool:
    """Whether a trial with this key, 64 hex digits, was passed."""
    return key in _HERE or key in _read(record_file())


def add(key: str) -> None:
    """Record a passed trial. The file is replaced atomically; a full disk loses the record."""
    file = record_file()
    with _LOCK:
        _HERE.add(key)
        keys = [*(kept for kept in _read(file) if kept != key), key][-MAX_KEYS:]
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_file(file, "".join(f"{kept}\n" for kept in keys).encode())


def refuse(key: str, reason: str) -> None:
    """Remember a refusal in this process for REFUSAL_S."""
    now_s = time.monotonic()
    with _LOCK:
        for old in [one for one, (at_s, _) in _REFUSED.items() if now_s - at_s > REFUSAL_S]:
            del _REFUSED[old]
        _REFUSED[key] = now_s, reason


def refused(key: str) -> str | None:
    """The reason of a recent refusal, None if there is none."""
    at_s, reason = _REFUSED.get(key, (float("-inf"), ""))
    return reason if time.monotonic() - at_s <= REFUSAL_S else None


def _read(file: Path) -> list[str]:
    """The hashes; none if the file was not written by `add`."""
    try:
        if not file.is_file():  # A FIFO would block.
            return []
        with file.open("rb") as opened:
            data = opened.read(_MAX_BYTES + 1)
    except OSError:
        return []
    lines = data.decode("latin-1").split("\n")
    sound = len(data) <= _MAX_BYTES and all(re.fullmatch("[0-9a-f]{64}", line) for line in lines[:-1])
    return lines[:-1] if sound and not lines[-1] else []
