"""Conversions between frame events and diagnostic messages."""

from __future__ import annotations

import json

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from edge_vision.core.frame_event import FrameEvent
from edge_vision.core.ledger import FATES
from edge_vision.nodes.interface.headers import NS_PER_S, header_of


def frame_event_message(event: FrameEvent) -> DiagnosticArray:
    """A frame event as a message with the frame's header."""
    values = [
        KeyValue(key="fate", value=event.fate),
        KeyValue(key="regions", value=json.dumps(event.regions.tolist())),
    ]
    if event.camera_motion is not None:
        values.append(KeyValue(key="camera_motion", value=json.dumps(event.camera_motion.ravel().tolist())))
    status = DiagnosticStatus(name=event.stage, message=event.reason, values=values)
    return DiagnosticArray(header=header_of(event.stamp_ns, event.frame_id), status=[status])


def frame_event_from_message(message: DiagnosticArray) -> FrameEvent:
    """The inverse of `frame_event_message`. Raises ValueError for a message that is not a frame event."""
    if len(message.status) != 1:
        raise ValueError(f"expected one status in a frame event, got {len(message.status)}")
    status = message.status[0]
    values = {pair.key: pair.value for pair in status.values}
    if values.get("fate", "") not in ("", *FATES):
        raise ValueError(f"'{values['fate']}' is not a fate: expected one of {', '.join(FATES)}")
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
    """(3, 3) of nine numbers. Raises ValueError for anything else."""
    if text is None:
        return None
    motion = np.array(json.loads(text), np.float64).reshape(3, 3)
    if not np.isfinite(motion).all():
        raise ValueError(f"expected nine finite numbers of camera motion, got {text}")
    return motion
