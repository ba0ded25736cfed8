"""Structured log output: one JSON object per line."""

from __future__ import annotations

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

    def write(self, time_ns: int, fields: Mapping[str, object]) -> None:
        """Write a line with the fields and `time`, ISO 8601 in UTC. time_ns: since 1970. Raises OSError."""
        at = datetime.fromtimestamp(time_ns // 1000 / 1e6, timezone.utc)
        line = {"time": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), **redact_values(fields)}
        text = json.dumps(line, ensure_ascii=False, default=lambda value: redact_text(str(value)))
        self._put(printable(text).encode() + b"\n")

    def _put(self, line: bytes) -> None:
        """A single write, so that lines of several writers do not interleave."""
        if self._path == STDOUT:
            os.write(1, line)
            return
        # Non-blocking: a pipe without a reader must not stop the node.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        number = os.open(os.path.expanduser(self._path), flags, 0o644)
        try:
            os.write(number, line)
        finally:
            os.close(number)
