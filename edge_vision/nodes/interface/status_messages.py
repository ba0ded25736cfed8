"""Conversions between diagnostic statuses and plain values."""

from __future__ import annotations

import math
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from edge_vision.core.printable import printable
from edge_vision.core.redaction import redact_text


def status_message(
    name: str, hardware_id: str, level: int, text: str, values: dict[str, Any]
) -> DiagnosticStatus:
    """One diagnostic status, without secrets and control characters; None and NaN become "unavailable"."""
    pairs = [KeyValue(key=printable(key), value=_as_text(value)) for key, value in values.items()]
    message = printable(redact_text(" ".join(text.split())))
    return DiagnosticStatus(
        name=name, hardware_id=hardware_id, level=bytes([level]), message=message, values=pairs
    )


def _as_text(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "unavailable"
    return f"{value:.3f}" if isinstance(value, float) else printable(redact_text(str(value)))


def status_values(status: DiagnosticStatus) -> dict[str, str]:
    """The key-value pairs of a status."""
    return {pair.key: pair.value for pair in status.values}
