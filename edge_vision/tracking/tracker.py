"""Multi-object tracker that predicts boxes between inferences.

The box of a track is its last detection, moved by the camera's motion (as in BoT-SORT, N. Aharon et al.
2022) and by its own speed in the scene. A Kalman filter (R. E. Kalman 1960) with white acceleration noise
estimates the speed of its centre; sizes change with the camera only. Two rules keep predictions from being
worse than held boxes: a speed is used only as far as the last measured one agrees (`kalman.correct`), and of
all displacements only the share that has lately occurred is shown (`kalman.PredictionTrust`).

If too few detections match, matching is repeated with the whole displacement, then with a common displacement
of all boxes, which an unknown camera motion causes; new objects start with the common speed.

A track ends when its position is too uncertain, when it has left the image, or when an inference misses it.

Measured: docs/tracking.md. Predicting a missed object until the next inference lowers frame F1: on vtest.avi
and on bikes.mp4, of the objects that an inference misses, at most 17 % are found again on the skipped frames
that follow, however often they were detected before: hence a missed object is hidden. Optimal assignment
differed from greedy by at most .003.
vtest.avi through a window of 480 x 400 pixels that pans by 100 pixels per second, N = 2, 3, 4:
    last boxes held                      .708 .539 .438
    these tracks                         .832 .704 .587
    these tracks, camera motion known    .877 .808 .742
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.tracking.association import common_shift, match, set_common_speed
from edge_vision.tracking.kalman import (
    BOX,
    CLASS_ID,
    ID,
    INFO_ROWS,
    MISSED,
    NO_TRACKS,
    SCORE,
    SEEN_NS,
    SPEED_DRIFT_SD,
    STATIC_ROWS,
    UNKNOWN_CAMERA_SD,
    VAR,
    PredictionTrust,
    TrackSet,
    compensate_camera,
    corners,
    correct,
    initial_state,
    is_identity,
    predict,
    shift_tracks,
    to_centre_size,
)

MAX_UNCERTAINTY = 3.0
"""A track ends when the standard deviation of its centre exceeds this many widths or heights; for an object
detected once that takes about as many seconds."""
MIN_VISIBLE = 0.3
"""Share of a box that must be within the image."""
MIN_MATCHED = 0.6
"""If a smaller share of the objects is matched, the camera may have moved."""
STATIC_SCENE_REASONS = ("still",)
"""The gate's reasons to skip a frame on which certainly no object moves."""
MAX_TRACKED = 300
"""Detections of a frame that become tracks, the best ones: association compares all pairs."""
_EDGE_DISTANCES = np.array([[1.0, 0, -0.5, 0], [0, 1.0, 0, -0.5], [-1.0, 0, -0.5, 0], [0, -1.0, 0, -0.5]])
REMEMBERED_INFERENCES = 1
"""A hidden track keeps its id and speed for this many more inferences, in case the object reappears."""


@dataclass(frozen=True, slots=True, eq=False)
class Tracks:
    """Known objects on one frame, sorted by descending score.

    xyxy_px: (n, 4) float32 in source pixels, clipped to the image. scores: (n,) float32, class_ids: (n,)
    int32, as last detected. ids: (n,) int64, one per object, never reused. age_ms: (n,) float32, time since
    the last detection, 0 on its own frame.
    """

    xyxy_px: np.ndarray
    scores: np.ndarray
    class_ids: np.ndarray
    ids: np.ndarray
    age_ms: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, which: np.ndarray) -> Tracks:
        """The subset given by a mask."""
        return Tracks(*(getattr(self, field.name)[which] for field in fields(self)))

    def detections(self) -> Detections:
        """The boxes without ids and ages."""
        return Detections(self.xyxy_px, self.scores, self.class_ids)


_NONE = np.zeros(0, np.float32)
EMPTY_TRACKS = Tracks(_NONE.reshape(0, 4), _NONE, _NONE.astype(np.int32), _NONE.astype(np.int64), _NONE)


@dataclass(frozen=True, slots=True, eq=False)
class TrackerState:
    """Snapshot of a tracker: its tracks, the stamps of the last frame and inference, the trust."""

    tracks: TrackSet
    stamp_ns: int
    inferred_ns: int
    trust: PredictionTrust


class Tracker:
    """Tracks the objects of one camera. Call `update` or `predict` once per frame, in order.

    camera_motion: (3, 3) float64, maps a point of the previous call's frame to this one, in source pixels;
    None if unknown, which makes tracks uncertain sooner. np.eye(3) for a static camera, or to leave its
    motion to the speeds of the tracks. If a stamp is before that of the previous call, all tracks end.
    """

    def __init__(self, width_px: int, height_px: int) -> None:
        self.resize(width_px, height_px)
        self._stamp_ns = 0
        self._inferred_ns = 0
        self._next_id = 1

    def reset(self) -> None:
        """End all tracks: after a cut, or with another camera. Ids are not reused."""
        self._tracks, self._trust = NO_TRACKS, PredictionTrust()

    def resize(self, width_px: int, height_px: int) -> None:
        """Continue with another image size. All tracks end."""
        self._corner_px = np.array([[width_px], [height_px]], np.float64)
        self._edges = np.array([[0.0], [0.0], [width_px], [height_px]])
        self.reset()

    def state(self) -> TrackerState:
        """A snapshot for `restore`."""
        return TrackerState(self._tracks, self._stamp_ns, self._inferred_ns, self._trust)

    def restore(self, state: TrackerState) -> None:
        """Return to a snapshot. Ids assigned since are not reused."""
        self._tracks, self._stamp_ns, self._inferred_ns = state.tracks, state.stamp_ns, state.inferred_ns
        self._trust = state.trust

    def update(self, found: Detections, stamp_ns: int, camera_motion: np.ndarray | None) -> Tracks:
        """Apply detections of this frame, MAX_TRACKED at most. Returns all as tracks, in the same order."""
        every, found = found, found.select(slice(MAX_TRACKED))
        self.advance(stamp_ns, camera_motion)
        measured = to_centre_size(found.xyxy_px)
        old, at = self._match(measured, found.class_ids, stamp_ns)
        known = self._tracks
        state = initial_state(measured, found.scores)
        if len(at):
            before, detected = known.state[:SCORE].take(old, 1), measured.take(at, 1)
            self._trust = self._trust.after(before, detected)
            state[:SCORE, at] = correct(before, detected, (stamp_ns - known.info[SEEN_NS].take(old)) * 1e-9)
            set_common_speed(state, at)
        info = np.zeros((INFO_ROWS, len(found)), np.int64)
        info[CLASS_ID], info[SEEN_NS] = found.class_ids, stamp_ns
        info[ID, at] = known.info[ID].take(old)
        is_new = info[ID] == 0
        info[ID, is_new] = self._new_ids(int(is_new.sum()))
        self._tracks = self._with_missed(TrackSet(state, info), old)
        ids = np.append(info[ID], self._new_ids(len(every) - len(found)))
        return Tracks(every.xyxy_px, every.scores, every.class_ids, ids, np.zeros(len(every), np.float32))

    def predict(self, stamp_ns: int, camera_motion: np.ndarray | None, static: bool = False) -> Tracks:
        """All visible tracks, predicted for a frame without inference.

        static: the gate found that nothing moves except the camera, so all speeds are zero.
        """
        self.advance(stamp_ns, camera_motion, static)
        return self.visible_tracks()

    def advance(self, stamp_ns: int, camera_motion: np.ndarray | None, static: bool = False) -> None:
        """As `predict`, without a result."""
        seconds = (stamp_ns - self._stamp_ns) * 1e-9
        self._stamp_ns = stamp_ns
        if seconds < 0.0:
            self.reset()
        same_view = camera_motion is not None and is_identity(camera_motion)
        if len(self._tracks) == 0 or (seconds == 0.0 and same_view and not static):
            return
        state = self._tracks.state.copy()
        if static:
            state[STATIC_ROWS] = 0.0
        if camera_motion is not None and not same_view:
            compensate_camera(state, camera_motion)
        predict(state, seconds, SPEED_DRIFT_SD + (UNKNOWN_CAMERA_SD if camera_motion is None else 0.0))
        self._tracks = self._alive(TrackSet(state, self._tracks.info))

    def visible_tracks(self) -> Tracks:
        """All tracks that are not hidden, on the last frame."""
        info = self._tracks.info
        tracks = self._tracks.select(info[MISSED] == 0)
        tracks = tracks.select(np.argsort(-tracks.state[SCORE], kind="stable"))
        state, info = tracks.state, tracks.info
        low, high = corners(self._trust.shown(state))
        xyxy = np.concatenate((np.maximum(low, 0.0), np.minimum(high, self._corner_px)), dtype=np.float32)
        age_ms = ((self._stamp_ns - info[SEEN_NS]) * 1e-6).astype(np.float32)
        scores, class_ids = state[SCORE].astype(np.float32), info[CLASS_ID].astype(np.int32)
        return Tracks(np.ascontiguousarray(xyxy.T), scores, class_ids, info[ID], age_ms)

    def _match(
        self, measured: np.ndarray, class_ids: np.ndarray, stamp_ns: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `match`; if too few are matched, repeated with the whole predicted displacement, and then with a
        common shift of all tracks."""
        tracks = self._tracks
        best = match(tracks, self._trust.shown(tracks.state), measured, class_ids)
        seconds = (stamp_ns - self._inferred_ns) * 1e-9
        self._inferred_ns = stamp_ns
        enough = MIN_MATCHED * min(len(tracks), len(class_ids))
        if len(best[0]) >= enough or seconds <= 0.0:
            return best
        best = max(
            best, match(tracks, tracks.state[BOX], measured, class_ids), key=lambda pairs: len(pairs[0])
        )
        if len(best[0]) >= enough or (shift := common_shift(tracks, measured, class_ids)) is None:
            return best
        shifted = TrackSet(shift_tracks(tracks.state, shift, seconds), tracks.info)
        again = match(shifted, shifted.state[BOX], measured, class_ids)
        if len(again[0]) <= len(best[0]):
            return best
        self._tracks = shifted
        return again

    def _alive(self, tracks: TrackSet) -> TrackSet:
        """The tracks that are certain enough and within the image."""
        box = self._trust.shown(tracks.state)
        limit = MAX_UNCERTAINTY * box[2:]
        slack = limit * limit - tracks.state[VAR]
        # Usually all boxes are completely within the image, which is faster to test.
        if _minimum(slack) >= 0.0 and _minimum(_EDGE_DISTANCES @ box + self._edges) >= 0.0:
            return tracks
        low, high = corners(box)
        sides = np.maximum(np.minimum(high, self._corner_px) - np.maximum(low, 0.0), 0.0)
        visible = sides[0] * sides[1] > MIN_VISIBLE * (box[2] * box[3])
        return tracks.select((slack[0] >= 0.0) & (slack[1] >= 0.0) & visible)

    def _new_ids(self, count: int) -> np.ndarray:
        """(count,) int64."""
        self._next_id += count
        return np.arange(self._next_id - count, self._next_id)

    def _with_missed(self, seen: TrackSet, found: np.ndarray) -> TrackSet:
        """The detected tracks, and the missed ones that are still remembered."""
        if len(found) == len(self._tracks):
            return seen
        at, limit = set(found.tolist()), REMEMBERED_INFERENCES
        before = self._tracks.info[MISSED].tolist()
        lost = [i for i, missed in enumerate(before) if i not in at and missed < limit]
        if not lost:
            return seen
        left = self._tracks.select(np.array(lost))
        left.info[MISSED] += 1
        state = np.concatenate((seen.state, left.state), axis=1)
        return TrackSet(state, np.concatenate((seen.info, left.info), axis=1))


def _minimum(values: np.ndarray) -> float:
    """`values.min()` in half of its time; NaN if any value is NaN."""
    return float(np.minimum.reduce(values.ravel()))
