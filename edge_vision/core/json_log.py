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
    """A file that gets one JSON object per line, or this process's standard output for "stdout".

    The file is opened anew for each line: it may be rotated by renaming at any time, and any number of nodes
    and processes may write to one. Lines are few, so this costs nothing.
    """

    def __init__(self, path: str) -> None:
        """Raises OSError where the file cannot be written to."""
        self._path = path
        self._put(b"")

    def write(self, time_ns: int, fields: Mapping[str, object]) -> None:
        """Write a line: time, as ISO 8601 in UTC of time_ns since 1970, and the fields. Raises OSError."""
        at = datetime.fromtimestamp(time_ns // 1000 / 1e6, timezone.utc)
        line = {"time": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), **redact_values(fields)}
        text = json.dumps(line, ensure_ascii=False, default=lambda value: redact_text(str(value)))
        self._put(printable(text).encode() + b"\n")

    def _put(self, line: bytes) -> None:
        """One write, so that lines of several writers do not mix."""
        if self._path == STDOUT:
            os.write(1, line)
            return
        # Not blocking: else a pipe that nobody reads would stop the node.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        number = os.open(os.path.expanduser(self._path), flags, 0o644)
        try:
            os.write(number, line)
        finally:
            os.close(number)
