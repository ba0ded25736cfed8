"""The log of a node: rclpy's logger, and JSON lines if a file is given."""

from __future__ import annotations

import time
from typing import Any

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.impl.logging_severity import LoggingSeverity
from rclpy.node import Node

from edge_vision.core.json_log import JsonLog, LogRateLimit
from edge_vision.core.printable import bounded_text

MESSAGE = "message"
_LEVELS = {"debug": "DEBUG", "info": "INFO", "warning": "WARN", "error": "ERROR"}


class StructuredLog:
    """The log of one node. Any thread may write."""

    def __init__(self, node: Node) -> None:
        self._node = node
        # Read now: an inference that hung may log after the node was destroyed.
        self._name = node.get_fully_qualified_name()
        self._budget = LogRateLimit()
        self._lines: JsonLog | None = None
        self._lost = 0
        # Lines logged before `open`.
        self._early: list[tuple[int, dict[str, Any]]] | None = []

    def open(self, path: str) -> str:
        """Write JSON lines to this file, "" = to none. Returns why it is not possible, or ""."""
        early, self._early = self._early or [], None
        if not path:
            return ""
        try:
            self._lines = JsonLog(path)
            for time_ns, fields in early:
                self._lines.write(time_ns, fields)
        except OSError as error:
            self._lines = None
            return f"json_log: cannot write to {path}: {error.strerror}. Set a writable file, or 'stdout'"
        return ""

    def log(self, level: str, text: str, event: str = MESSAGE, **values: Any) -> None:
        """Log one line. level: debug, info, warning or error. values: additional fields of the JSON line."""
        text = bounded_text(" ".join(text.split()))
        self._log(level, text)
        if level == "debug":
            return
        fields = {
            "level": _LEVELS[level],
            "node": self._name,
            "event": event,
            "text": text,
            # The node's clock: simulated with use_sim_time.
            "stamp_ns": self._node.get_clock().now().nanoseconds,
            **values,
        }
        if self._early is not None:
            self._early.append((time.time_ns(), fields))
        elif self._lines:
            self._write(self._lines, fields)

    def event(self, event: str, text: str, level: str = "info", about: str = "", **values: Any) -> None:
        """Log a change of state, rate-limited per event and `about`: suppressed lines are counted."""
        held = self._budget.admit(f"{event} {about}", time.monotonic())
        if held is None:
            self.log("debug", text)
        else:
            more = f" ({held} more changes since the last line)" if held else ""
            self.log(level, text + more, event, held_back=held, **values)

    def _log(self, level: str, text: str) -> None:
        """Log past rclpy's Python logger, which searches the stack and all modules for the caller's file and
        line: 50 ms of each start, and some ms with each line."""
        logger, severity = self._node.get_logger(), LoggingSeverity[_LEVELS[level]]
        if logger.is_enabled_for(severity):
            rclpy_implementation.rclpy_logging_rcutils_log(severity, logger.name, text, "_log", __file__, 0)

    def _write(self, lines: JsonLog, fields: dict[str, Any]) -> None:
        """Write a line. A full disk must not stop the pipeline: lines that it costs are reported once."""
        try:
            lines.write(time.time_ns(), *([self._lost_line(fields)] if self._lost else []), fields)
            self._lost = 0
        except OSError as error:
            if not self._lost and self._budget.admit("json_log", time.monotonic()) is not None:
                text = "Free space there, or set json_log to another file at the next start"
                self._log("error", f"json_log: lines are lost: {error.strerror}. {text}")
            self._lost += 1

    def _lost_line(self, following: dict[str, Any]) -> dict[str, Any]:
        same, lost = {name: following[name] for name in ("node", "stamp_ns")}, self._lost
        text = f"json_log: {lost} lines before this one were lost"
        return {**same, "level": "WARN", "event": "lines_lost", "text": text, "lost": lost}
