"""Conversions between frame events and diagnostic messages."""

from __future__ import annotations

import json

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from edge_vision.core.frame_event import FrameEvent
from edge_vision.core.ledger import FATES
from edge_vision.nodes.interface.headers import NS_PER_S, header_of


def frame_event_message(tick: FrameEvent) -> DiagnosticArray:
    """A tick under its frame's header."""
    values = [
        KeyValue(key="fate", value=tick.fate),
        KeyValue(key="regions", value=json.dumps(tick.regions.tolist())),
    ]
    if tick.camera_motion is not None:
        values.append(KeyValue(key="camera_motion", value=json.dumps(tick.camera_motion.ravel().tolist())))
    status = DiagnosticStatus(name=tick.stage, message=tick.reason, values=values)
    return DiagnosticArray(header=header_of(tick.stamp_ns, tick.frame_id), status=[status])


def frame_event_from_message(message: DiagnosticArray) -> FrameEvent:
    """The inverse of `frame_event_message`. Raises ValueError on a message that is no tick."""
    if len(message.status) != 1:
        raise ValueError(f"expected one status in a tick, got {len(message.status)}")
    status = message.status[0]
    values = {pair.key: pair.value for pair in status.values}
    if values.get("fate", "") not in ("", *FATES):
        raise ValueError(f"'{values['fate']}' is no fate: expected one of {', '.join(FATES)}")
    regions = np.array(json.loads(values.get("regions", "[]")), np.float32).reshape(-1, 4)
    stamp_ns = message.header.stamp.sec * NS_PER_S + message.header.stamp.nanosec
    return FrameEvent(
        stamp_ns,
        message.header.frame_id,
        status.name,
        values.get("fate", ""),
        status.message,
        regions,
        camera_motion=_motion(values.get("camera_motion")),
    )


def _motion(text: str | None) -> np.ndarray | None:
    """(3, 3) of nine numbers. Raises ValueError where it is something else."""
    if text is None:
        return None
    motion = np.array(json.loads(text), np.float64).reshape(3, 3)
    if not np.isfinite(motion).all():
        raise ValueError(f"expected nine finite numbers of camera motion, got {text}")
    return motion
