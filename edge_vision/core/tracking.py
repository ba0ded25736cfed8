"""Known objects between inferences: boxes that move on as they were seen to move.

Each object is a constant-velocity Kalman filter (R. E. Kalman 1960) on the centre and the size of its box, as
in SORT (A. Bewley et al. 2016), with white noise for its acceleration; each coordinate on its own, so that
every step is a few lines over arrays of all tracks. The camera's motion is taken out first, as in BoT-SORT
(N. Aharon et al. 2022): a velocity is then the object's own, against the scene.

Where nobody tells the camera's motion, boxes that are all wrong alike tell it: they are tried again where the
common shift takes them, and objects that are new start with the common speed.

A track ends when it is too uncertain where it is, when it has left the picture, or when the detector has
looked and did not see it.

What was measured: frame F1 (same class, IoU 0.5) of "every N-th frame inferred, tracks between" against
SSDLite on every frame. vtest.avi (10 frames a second), N = 2, 4, 6, 8, 10, 15, 20, 30:
    last boxes held  .947 .799 .696 .625 .582 .515 .470 .426
    these tracks     .958 .871 .797 .727 .670 .556 .491 .441
bikes.mp4 (25 frames a second, cuts, few and flickering detections), N = 2, 3, 5, 7, 10:
    last boxes held  .870 .784 .668 .603 .498
    these tracks     .870 .784 .668 .608 .493
To show a missed object until the next inference costs F1 everywhere (N = 3: vtest .915 to .887, bikes .784 to
.720): hence max_missed = 0. Optimal assignment gave what greedy gives (within .003 either way), a decaying
velocity lost up to .04, and halving or doubling any noise cost at most .01: they are not tuned to a clip.
vtest.avi through a window of 480 pixels that pans by 100 (200) pixels a second, N = 2, 3, 5:
    last boxes held                      .741 .570 .402 (.601 .429 .291)
    these tracks without common shift    .787 .636 .449 (.607 .444 .293)
    these tracks                         .880 .758 .554 (.833 .636 .344)
    these tracks, camera motion known    .923 .846 .729 (.917 .839 .687)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_vision.core.association import common_shift, matched
from edge_vision.core.detections import Detections
from edge_vision.core.track_filter import (
    SPEED_DRIFT_SD,
    TRACK,
    UNKNOWN_CAMERA_SD,
    area,
    centres,
    corners,
    corrected,
    follow_camera,
    move_on,
    new_tracks,
)

MIN_VISIBLE = 0.3
"""Share of a box that must be within the picture."""
FEW_MATCHES = 0.6
"""Where a smaller share finds its like, all may have moved alike."""
AT_REST = ("still", "compensated")
"""The gate's reasons to skip a frame that say: nothing moves by itself."""
REMEMBERED = 1
"""For so many further inferences what is no longer shown keeps its id and speed, should it come back."""


@dataclass(frozen=True, slots=True)
class TrackerConfig:
    """When a track is shown, and when it ends.

    max_missed: how many inferences in a row may miss an object that skipped frames still show.
    max_uncertainty: a track ends where the standard deviation of its centre passes so many widths or heights.
    For an object that was seen once, that is about as many seconds.
    """

    max_missed: int = 0
    max_uncertainty: float = 3.0


@dataclass(frozen=True, slots=True, eq=False)
class Tracks:
    """Where known objects are on one frame, best score first.

    xyxy_px: (n, 4) float32 in source pixels, within the picture. scores: (n,) float32, class_ids: (n,) int32,
    as last detected. ids: (n,) int64, the same number for the same object, never given twice.
    age_ms: (n,) float32 since the detector last saw it, 0 where it saw it on this frame.
    """

    xyxy_px: np.ndarray
    scores: np.ndarray
    class_ids: np.ndarray
    ids: np.ndarray
    age_ms: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def detections(self) -> Detections:
        """The same boxes without ids and ages."""
        return Detections(self.xyxy_px, self.scores, self.class_ids)


@dataclass(frozen=True, slots=True, eq=False)
class TrackerState:
    """All that a tracker knows at one moment: tracks, (n,) TRACK, and the stamps of the last calls."""

    tracks: np.ndarray
    stamp_ns: int
    inferred_ns: int


class Tracker:
    """Gives every frame of one camera its boxes. One call of `update` or `predict` for each, in order.

    camera_motion: (3, 3) float64, moves a point of the previous call's frame to this one, in source pixels;
    None where it is not known, which makes tracks uncertain sooner. np.eye(3) for a camera that stands, or to
    leave its motion to the speeds of the tracks.
    A stamp before that of the previous call is another time: all tracks end.
    """

    def __init__(self, width_px: int, height_px: int, config: TrackerConfig | None = None) -> None:
        self.config = config or TrackerConfig()
        self._corner_px = np.array([width_px, height_px], np.float64)
        self._tracks = np.zeros(0, TRACK)
        self._stamp_ns = 0
        self._inferred_ns = 0
        self._next_id = 1

    def reset(self) -> None:
        """Forget all objects: after a cut, or with another camera. Ids are not given again."""
        self._tracks = np.zeros(0, TRACK)

    def resize(self, width_px: int, height_px: int) -> None:
        """Go on with pictures of another size. All tracks end."""
        self._corner_px = np.array([width_px, height_px], np.float64)
        self.reset()

    def state(self) -> TrackerState:
        """What is known now, to come back to with `restore`."""
        return TrackerState(self._tracks.copy(), self._stamp_ns, self._inferred_ns)

    def restore(self, state: TrackerState) -> None:
        """Go on from a state. Ids that were given since are not given again."""
        self._tracks = state.tracks.copy()
        self._stamp_ns, self._inferred_ns = state.stamp_ns, state.inferred_ns

    def update(self, found: Detections, stamp_ns: int, camera_motion: np.ndarray | None) -> Tracks:
        """Tell what the detector found on this frame. Returns just that, in its order, with ids."""
        self.move(stamp_ns, camera_motion)
        measured = centres(found.xyxy_px)
        old, at = self._match(measured, found.class_ids, stamp_ns)
        seen = new_tracks(measured)
        seen["id"] = self._ids(seen, self._tracks["id"][old], at)
        if len(at):
            seen[at] = corrected(self._tracks[old], measured[at])
        _start_like(seen, at)
        seen["score"], seen["class_id"], seen["seen_ns"] = found.scores, found.class_ids, stamp_ns
        seen["missed"] = 0
        missed = self._missed(old)
        self._tracks = np.concatenate((seen, missed)) if len(missed) else seen
        age_ms = np.zeros(len(found), np.float32)
        return Tracks(found.xyxy_px, found.scores, found.class_ids, seen["id"].copy(), age_ms)

    def predict(self, stamp_ns: int, camera_motion: np.ndarray | None, at_rest: bool = False) -> Tracks:
        """All live tracks, moved on to a frame that the detector does not see.

        at_rest: the gate saw that nothing moves by itself on this frame: what walked has stopped.
        """
        self.move(stamp_ns, camera_motion, at_rest)
        return self.shown()

    def move(self, stamp_ns: int, camera_motion: np.ndarray | None, at_rest: bool = False) -> None:
        """As `predict`, without a look at the tracks."""
        if at_rest:
            self._tracks["speed"] = 0.0
            self._tracks["var"][:, 1:] = 0.0
        seconds = (stamp_ns - self._stamp_ns) * 1e-9
        self._stamp_ns = stamp_ns
        if seconds < 0.0:
            self.reset()
        tracks = self._tracks
        if len(tracks) == 0:
            return
        if camera_motion is not None:
            follow_camera(tracks, camera_motion)
        move_on(tracks, seconds, SPEED_DRIFT_SD + (UNKNOWN_CAMERA_SD if camera_motion is None else 0.0))
        keep = self._is_sure(tracks) & self._is_visible(tracks)
        if not keep.all():
            self._tracks = tracks[keep]

    def shown(self) -> Tracks:
        """All live tracks, where they were when last told of a frame."""
        shown = self._tracks[self._tracks["missed"] <= self.config.max_missed]
        shown = shown[np.argsort(-shown["score"], kind="stable")]
        low, high = corners(shown["box"])
        xyxy = np.concatenate(
            (np.maximum(low, 0.0), np.minimum(high, self._corner_px)), axis=1, dtype=np.float32
        )
        age_ms = ((self._stamp_ns - shown["seen_ns"]) * 1e-6).astype(np.float32)
        return Tracks(xyxy, shown["score"], shown["class_id"], shown["id"], age_ms)

    def _match(
        self, measured: np.ndarray, class_ids: np.ndarray, stamp_ns: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `matched`. Where most find nothing, they are tried again where a common shift takes them."""
        old, at = matched(self._tracks, measured, class_ids)
        seconds = (stamp_ns - self._inferred_ns) * 1e-9
        self._inferred_ns = stamp_ns
        if len(at) >= FEW_MATCHES * min(len(self._tracks), len(measured)) or seconds <= 0.0:
            return old, at
        shift = common_shift(self._tracks, measured, class_ids)
        if shift is None:
            return old, at
        shifted = self._tracks.copy()
        shifted["box"][:, :2] += shift
        shifted["speed"][:, :2] += shift / seconds
        again = matched(shifted, measured, class_ids)
        if len(again[0]) <= len(old):
            return old, at
        self._tracks = shifted
        return again

    def _is_sure(self, tracks: np.ndarray) -> np.ndarray:
        limit = self.config.max_uncertainty * tracks["box"][:, 2:]
        sure: np.ndarray = np.all(tracks["var"][:, 0, :2] <= limit * limit, axis=1)
        return sure

    def _is_visible(self, tracks: np.ndarray) -> np.ndarray:
        low, high = corners(tracks["box"])
        sides = np.maximum(np.minimum(high, self._corner_px) - np.maximum(low, 0.0), 0.0)
        visible: np.ndarray = sides[:, 0] * sides[:, 1] > MIN_VISIBLE * area(tracks["box"])
        return visible

    def _ids(self, seen: np.ndarray, known: np.ndarray, at: np.ndarray) -> np.ndarray:
        """(n,) the known ids where known, and next ones."""
        is_new = np.ones(len(seen), bool)
        is_new[at] = False
        ids = np.cumsum(is_new) + (self._next_id - 1)
        self._next_id += int(np.count_nonzero(is_new))
        ids[at] = known
        return ids

    def _missed(self, found: np.ndarray) -> np.ndarray:
        """The tracks that the detector did not find and that are not forgotten yet."""
        is_lost = np.ones(len(self._tracks), bool)
        is_lost[found] = False
        lost = self._tracks[is_lost]
        lost["missed"] += 1
        return lost[lost["missed"] <= self.config.max_missed + REMEMBERED]


def _start_like(seen: np.ndarray, known: np.ndarray) -> None:
    """Start new tracks with the speed of the known ones where those agree: so the camera moves."""
    if not 2 <= len(known) < len(seen):
        return
    speeds = seen["speed"][known, :2]
    speed = np.median(speeds, axis=0)
    if np.median(np.abs(speeds - speed).max(axis=1)) < 0.5 * np.abs(speed).max():
        is_new = np.ones(len(seen), bool)
        is_new[known] = False
        seen["speed"][is_new, :2] = speed
