"""Conversions between diagnostic statuses and plain values."""

from __future__ import annotations

import math
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from edge_vision.core.diagnostic_status import StatusEntry
from edge_vision.core.printable import bounded_text, printable

MAX_STATUS_CHARS = 1 << 16
"""Of a received status. The ledger needs up to 30 KiB."""


def status_message(
    name: str, hardware_id: str, level: int, text: str, values: dict[str, Any]
) -> DiagnosticStatus:
    """One diagnostic status, without secrets and control characters; None and NaN become "unavailable"."""
    pairs = [KeyValue(key=printable(key), value=_as_text(value)) for key, value in values.items()]
    message = bounded_text(" ".join(text.split()))
    return DiagnosticStatus(
        name=name, hardware_id=hardware_id, level=bytes([level]), message=message, values=pairs
    )


def _as_text(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "unavailable"
    if isinstance(value, (int, float)):
        return f"{value:.3f}" if isinstance(value, float) else str(value)
    return bounded_text(str(value))


def status_chars(status: DiagnosticStatus) -> int:
    """The length of all texts of a status."""
    texts = sum(len(pair.key) + len(pair.value) + 8 for pair in status.values)
    return texts + len(status.name) + len(status.hardware_id) + len(status.message)


def status_values(status: DiagnosticStatus) -> dict[str, str]:
    """The key-value pairs of a status."""
    return {pair.key: pair.value for pair in status.values}


def status_entry(status: DiagnosticStatus) -> StatusEntry:
    """A received status as a plain value."""
    return StatusEntry(
        status.name, status.hardware_id, status.level[0], status.message, status_values(status)
    )
