"""Conversions between frame events and diagnostic messages."""

from __future__ import annotations

import json

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from edge_vision.core.detections import MAX_COORDINATE_PX
from edge_vision.core.frame_event import FrameEvent
from edge_vision.core.ledger import FATES, OTHER
from edge_vision.nodes.interface.headers import NS_PER_S, header_of

STAGES = ("source", "gate", "cascade", "detector")
MAX_REASON_CHARS = 64
MAX_FRAME_ID_CHARS = 1024
MAX_REGIONS, MAX_ARRAY_CHARS = 512, 49_152
"""Of another gate; ours sends at most 16. Each needs up to 80 characters of JSON."""


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
    """The inverse of `frame_event_message`. A reason that is not short printable ASCII becomes "other".

    Raises ValueError, with a short text, for a message that is not a frame event.
    """
    if len(message.status) != 1:
        raise ValueError(f"expected one status in a frame event, got {len(message.status)}")
    header, status = message.header, message.status[0]
    values = {pair.key: pair.value for pair in status.values}
    fate, reason = values.get("fate", ""), status.message
    # A stage does not report the frames that it hands on to another process as settled.
    _check_choice("stage", status.name, STAGES)
    _check_choice("fate", fate, ("", *FATES[:-1]))
    if len(header.frame_id) > MAX_FRAME_ID_CHARS:
        raise ValueError(f"expected a frame_id of at most {MAX_FRAME_ID_CHARS} characters")
    if len(reason) > MAX_REASON_CHARS or not (reason.isascii() and reason.isprintable()):
        reason = OTHER
    regions = _numbers("regions", values.get("regions", "[]"), (-1, 4)).astype(np.float32)
    motion = values.get("camera_motion")
    if header.stamp.nanosec >= NS_PER_S:
        raise ValueError(f"expected nanosec below 1e9 in the stamp, got {header.stamp.nanosec}")
    return FrameEvent(
        header.stamp.sec * NS_PER_S + header.stamp.nanosec,
        header.frame_id,
        status.name,
        fate,
        reason,
        regions,
        camera_motion=None if motion is None else _numbers("camera_motion", motion, (3, 3)),
    )


def _check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"expected one of the {what}s {', '.join(filter(None, choices))}, got {value!r:.40}")


def _numbers(key: str, text: str, shape: tuple[int, ...]) -> np.ndarray:
    """A JSON array of pixel coordinates or matrix elements, float64. Raises ValueError for anything else."""
    try:
        if len(text) > MAX_ARRAY_CHARS:
            raise ValueError(f"{len(text)} characters")
        values = np.array(json.loads(text), np.float64).reshape(shape)
        if len(values) > MAX_REGIONS:
            raise ValueError(f"{len(values)} rows")
        if not (np.abs(values) <= MAX_COORDINATE_PX).all():
            raise ValueError("a number out of range")
        return values
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(
            f"{key}: expected a JSON array of numbers, got {text!r:.40} ({error!s:.80})"
        ) from None
