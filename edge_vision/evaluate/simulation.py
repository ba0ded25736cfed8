"""What a subscriber receives on each frame if only some frames are inferred."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import thread_time

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.evaluate.reference.detector import Reference
from edge_vision.tracking.tracker import Tracker
from edge_vision.tracking.tracking_history import TrackingHistory

NO_MOTION = np.eye(3)
"""Camera motion for a method that does not measure it: only the velocities of the tracks count."""


@dataclass(frozen=True, slots=True, eq=False)
class Published:
    """What is published, one entry per frame.

    inferred: (n,) bool, whether the detector ran. detections: inferred or predicted boxes. tracker_cpu_s: of
    all frames. ids: (k,) int64 track ids of each frame's detections; None without a tracker.
    """

    inferred: np.ndarray
    detections: list[Detections]
    tracker_cpu_s: float = 0.0
    ids: list[np.ndarray] | None = None


def without_tracker(inferred: np.ndarray, reference: Reference) -> Published:
    """Nothing is published on skipped frames."""
    pairs = zip(inferred.tolist(), reference.detections, strict=True)
    return Published(inferred, [found if ran else Detections.empty() for ran, found in pairs])


def with_tracker(
    inferred: np.ndarray,
    reference: Reference,
    motions: Sequence[np.ndarray | None] | None = None,
    at_rest: Sequence[bool] | None = None,
) -> Published:
    """A plain tracker predicts the boxes of skipped frames; it keeps them where the camera motion is unknown.

    motions: (3, 3) camera motion since the previous frame, source pixels; None for a method that does not
    measure it. at_rest: whether no object moves by itself; None if unknown.
    """
    tracker = Tracker(*reference.size_px)
    detections, ids = [], []
    started = thread_time()
    for at, (ran, stamp_ns) in enumerate(zip(inferred.tolist(), reference.stamps_ns.tolist(), strict=True)):
        motion = NO_MOTION if motions is None else motions[at]
        if ran:
            tracks = tracker.update(reference.detections[at], stamp_ns, motion)
            detections.append(reference.detections[at])
        else:
            tracks = tracker.predict(stamp_ns, motion, at_rest is not None and bool(at_rest[at]))
            detections.append(tracks.detections())
        ids.append(tracks.ids)
    return Published(inferred, detections, thread_time() - started, ids)


def with_tracking_history(
    inferred: np.ndarray,
    reference: Reference,
    motions: Sequence[np.ndarray | None],
    at_rest: Sequence[bool],
) -> Published:
    """As the detector node publishes: `TrackingHistory` hides tracks while camera motion is unknown."""
    history = TrackingHistory()
    detections, ids = [], []
    started = thread_time()
    for at, (ran, stamp_ns) in enumerate(zip(inferred.tolist(), reference.stamps_ns.tolist(), strict=True)):
        history.add_frame(stamp_ns, motions[at], at, at_rest[at])
        if ran:
            ids.append(history.add_detections(stamp_ns, reference.detections[at], reference.size_px))
            detections.append(reference.detections[at])
            continue
        tracks = history.tracks_at(stamp_ns)
        assert tracks is not None
        ids.append(tracks.ids)
        detections.append(tracks.detections())
    return Published(inferred, detections, thread_time() - started, ids)
