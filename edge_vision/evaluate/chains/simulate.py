"""What a subscriber gets, frame by frame, when only some frames go to the detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import thread_time

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.evaluate.reference.detector import Reference
from edge_vision.tracking.tracker import Tracker
from edge_vision.tracking.tracking_history import TrackingHistory

STANDS = np.eye(3)
"""Camera motion for a method that knows of none: the tracks' own speeds must do."""
NOTHING = Detections.empty()


@dataclass(frozen=True, slots=True, eq=False)
class Published:
    """One entry per frame: whether the detector looked, and the boxes that were published.

    tracker_cpu_s: what the tracker took for all frames. ids: (n,) int64 of a frame's boxes, the same number
    for the same object; None where nobody tracks.
    """

    passed: np.ndarray
    boxes: list[Detections]
    tracker_cpu_s: float = 0.0
    ids: list[np.ndarray] | None = None


def without_tracker(passed: np.ndarray, reference: Reference) -> Published:
    """Frames that are skipped tell nothing."""
    boxes = [found if look else NOTHING for look, found in zip(passed.tolist(), reference.found, strict=True)]
    return Published(passed, boxes)


def with_tracker(
    passed: np.ndarray,
    reference: Reference,
    motions: Sequence[np.ndarray | None] | None = None,
    at_rest: Sequence[bool] | None = None,
) -> Published:
    """Frames that are skipped show the tracks.

    motions: of the camera since the frame before, per frame. at_rest: whether nothing moves by itself, per
    frame; None = not known.
    """
    tracker = Tracker(*reference.size_px)
    boxes, ids = [], []
    started = thread_time()
    for at, (look, stamp_ns) in enumerate(zip(passed.tolist(), reference.stamps_ns.tolist(), strict=True)):
        motion = STANDS if motions is None else motions[at]
        if look:
            tracks = tracker.update(reference.found[at], stamp_ns, motion)
            boxes.append(reference.found[at])
        else:
            rests = at_rest is not None and bool(at_rest[at])
            tracks = tracker.predict(stamp_ns, motion, rests)
            boxes.append(tracks.detections())
        ids.append(tracks.ids)
    return Published(passed, boxes, thread_time() - started, ids)


def with_line(
    passed: np.ndarray,
    reference: Reference,
    motions: Sequence[np.ndarray | None],
    at_rest: Sequence[bool],
) -> Published:
    """As the detector node publishes it: its own `TrackingHistory`, which shows nothing after a cut."""
    line = TrackingHistory()
    boxes, ids = [], []
    started = thread_time()
    for at, (look, stamp_ns) in enumerate(zip(passed.tolist(), reference.stamps_ns.tolist(), strict=True)):
        line.add_frame(stamp_ns, motions[at], at, at_rest[at])
        if look:
            ids.append(line.add_detections(stamp_ns, reference.found[at], reference.size_px))
            boxes.append(reference.found[at])
            continue
        tracks = line.tracks_at(stamp_ns)
        assert tracks is not None
        ids.append(tracks.ids)
        boxes.append(tracks.detections())
    return Published(passed, boxes, thread_time() - started, ids)
