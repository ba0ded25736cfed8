"""Structured log output, one JSON object per line, and the rate limit of its messages."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Mapping
from datetime import datetime, timezone

from edge_vision.core.printable import printable
from edge_vision.core.redaction import redact_text, redact_values

STDOUT = "stdout"


class JsonLog:
    """Appends to a file, or to standard output for the path "stdout".

    The file is opened for each line, so it may be rotated by renaming, and shared by nodes and processes.
    """

    def __init__(self, path: str) -> None:
        """Raises OSError if the file cannot be written."""
        self._path = path
        self._put(b"")

    def write(self, time_ns: int, *lines: Mapping[str, object]) -> None:
        """Write all lines or none, with `time`, ISO 8601 in UTC. time_ns: since 1970. Raises OSError."""
        at = datetime.fromtimestamp(time_ns // 1000 / 1e6, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        self._put(b"".join(_line({"time": at, **redact_values(fields)}) for fields in lines))

    def _put(self, text: bytes) -> None:
        """A single write, so that lines of several writers do not interleave."""
        if self._path == STDOUT:
            os.write(1, text)
            return
        # Non-blocking: a pipe without a reader must not stop the node.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        number = os.open(os.path.expanduser(self._path), flags, 0o644)
        try:
            written = os.write(number, text)
            if written < len(text):  # An almost full disk.
                _remove_end(number, written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(number)


def _line(fields: Mapping[str, object]) -> bytes:
    text = json.dumps(fields, ensure_ascii=False, default=lambda value: redact_text(str(value)))
    return printable(text).encode() + b"\n"


def _remove_end(number: int, size_bytes: int) -> None:
    """Remove what was just written, unless another writer has appended a line."""
    with contextlib.suppress(OSError):  # A pipe.
        end = os.lseek(number, 0, os.SEEK_CUR)
        if os.fstat(number).st_size == end:
            os.ftruncate(number, end - size_bytes)


class LogRateLimit:
    """Token bucket per kind of message: a `burst`, then one message per `refill_s`."""

    def __init__(self, burst: int = 5, refill_s: float = 600.0) -> None:
        self._burst, self._refill_s = burst, refill_s
        # Kind -> tokens, time of the last message, messages suppressed since the last admitted one.
        self._kinds: dict[str, tuple[float, float, int]] = {}

    def admit(self, kind: str, mono_s: float) -> int | None:
        """Number of messages suppressed since the last admitted one; None if this one is suppressed too."""
        tokens, then_s, suppressed = self._kinds.get(kind, (float(self._burst), mono_s, 0))
        tokens = min(float(self._burst), tokens + (mono_s - then_s) / self._refill_s)
        admitted = tokens >= 1.0
        self._kinds[kind] = (tokens - 1.0, mono_s, 0) if admitted else (tokens, mono_s, suppressed + 1)
        return suppressed if admitted else None
