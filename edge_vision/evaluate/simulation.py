"""What a subscriber receives on each frame if only some frames are inferred."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import thread_time

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.evaluate.reference.detector import Reference
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


def assumed(motions: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    """The camera motions for a method that keeps its tracks where the motion is unknown."""
    return [NO_MOTION if motion is None else motion for motion in motions]


def without_tracker(inferred: np.ndarray, reference: Reference) -> Published:
    """Nothing is published on skipped frames."""
    pairs = zip(inferred.tolist(), reference.detections, strict=True)
    return Published(inferred, [found if ran else Detections.empty() for ran, found in pairs])


def with_held_boxes(inferred: np.ndarray, reference: Reference) -> Published:
    """Skipped frames repeat the last detections."""
    detections: list[Detections] = []
    for ran, found in zip(inferred.tolist(), reference.detections, strict=True):
        detections.append(found if ran or not detections else detections[-1])
    return Published(inferred, detections)


def with_tracks(
    inferred: np.ndarray,
    reference: Reference,
    motions: Sequence[np.ndarray | None] | None = None,
    at_rest: Sequence[bool] | None = None,
) -> Published:
    """Skipped frames show predicted boxes, as the detector node publishes them.

    motions: (3, 3) camera motion since the previous frame, source pixels, None where it is unknown, which
    hides the tracks; without `motions` the velocities of the tracks alone count. at_rest: whether no object
    moves by itself.
    """
    history = TrackingHistory()
    detections, ids = [], []
    started = thread_time()
    for at, (ran, stamp_ns) in enumerate(zip(inferred.tolist(), reference.stamps_ns.tolist(), strict=True)):
        motion = NO_MOTION if motions is None else motions[at]
        history.add_frame(stamp_ns, motion, at, at_rest is not None and bool(at_rest[at]))
        if ran:
            ids.append(history.add_detections(stamp_ns, reference.detections[at], reference.size_px))
            detections.append(reference.detections[at])
            continue
        tracks = history.tracks_at(stamp_ns)
        assert tracks is not None
        ids.append(tracks.ids)
        detections.append(tracks.detections())
    return Published(inferred, detections, thread_time() - started, ids)
