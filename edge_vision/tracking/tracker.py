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

from edge_vision.core.detections import Detections
from edge_vision.tracking.association import common_shift, matched
from edge_vision.tracking.kalman import (
    BOX,
    CLASS_ID,
    COV,
    DOUBTED,
    FACT_ROWS,
    ID,
    MISSED,
    NO_TRACKS,
    SCORE,
    SEEN_NS,
    SPEED,
    SPEED_DRIFT_SD,
    SPEED_VAR,
    UNKNOWN_CAMERA_SD,
    TrackSet,
    centres,
    corners,
    corrected,
    follow_camera,
    is_identity,
    move_on,
    new_state,
)

MIN_VISIBLE = 0.3
"""Share of a box that must be within the picture."""
MIN_DOUBTED = 0.5
"""Share of a box that must lie in a region for what is said of that to be said of it."""
FEW_MATCHES = 0.6
"""Where a smaller share finds its like, all may have moved alike."""
STATIC_SCENE_REASONS = ("still",)
"""The gate's reasons to skip a frame that say for sure: nothing moves by itself. With a camera that moves,
`compensated` is less sure: a small thing that walks may differ too little from what moves with the camera. To
let objects rest on that too took a constructed sequence with cuts from frame F1 0.89 to 0.83 (with the gate's
defaults 0.975 to 0.963), and made at most 0.005 of difference either way on ten others."""
_INSIDE = np.array([[1.0, 0, -0.5, 0], [0, 1.0, 0, -0.5], [-1.0, 0, -0.5, 0], [0, -1.0, 0, -0.5]])
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
    """All that a tracker knows at one moment: the tracks, and the stamps of the last calls."""

    tracks: TrackSet
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
        self.resize(width_px, height_px)
        self._stamp_ns = 0
        self._inferred_ns = 0
        self._next_id = 1

    def reset(self) -> None:
        """Forget all objects: after a cut, or with another camera. Ids are not given again."""
        self._tracks = NO_TRACKS

    def resize(self, width_px: int, height_px: int) -> None:
        """Go on with pictures of another size. All tracks end."""
        self._corner_px = np.array([[width_px], [height_px]], np.float64)
        self._edges = np.array([[0.0], [0.0], [width_px], [height_px]])
        self.reset()

    def state(self) -> TrackerState:
        """What is known now, to come back to with `restore`."""
        return TrackerState(self._tracks, self._stamp_ns, self._inferred_ns)

    def restore(self, state: TrackerState) -> None:
        """Go on from a state. Ids that were given since are not given again."""
        self._tracks, self._stamp_ns, self._inferred_ns = state.tracks, state.stamp_ns, state.inferred_ns

    def update(self, found: Detections, stamp_ns: int, camera_motion: np.ndarray | None) -> Tracks:
        """Tell what the detector found on this frame. Returns just that, in its order, with ids."""
        self.move(stamp_ns, camera_motion)
        measured = centres(found.xyxy_px)
        old, at = self._match(measured, found.class_ids, stamp_ns)
        known = self._tracks
        state = new_state(measured, found.scores)
        if len(at):
            state[:SCORE, at] = corrected(known.state[:SCORE].take(old, 1), measured.take(at, 1))
            _start_like(state, at)
        facts = np.zeros((FACT_ROWS, len(found)), np.int64)
        facts[CLASS_ID], facts[SEEN_NS] = found.class_ids, stamp_ns
        facts[ID] = self._ids(len(found), known.facts[ID].take(old).tolist(), at.tolist())
        self._tracks = self._with_missed(TrackSet(state, facts), old)
        age_ms = np.zeros(len(found), np.float32)
        return Tracks(found.xyxy_px, found.scores, found.class_ids, facts[ID], age_ms)

    def predict(self, stamp_ns: int, camera_motion: np.ndarray | None, at_rest: bool = False) -> Tracks:
        """All live tracks, moved on to a frame that the detector does not see.

        at_rest: the gate saw that nothing moves by itself on this frame: what walked has stopped.
        """
        self.move(stamp_ns, camera_motion, at_rest)
        return self.shown()

    def move(self, stamp_ns: int, camera_motion: np.ndarray | None, at_rest: bool = False) -> None:
        """As `predict`, without a look at the tracks."""
        seconds = (stamp_ns - self._stamp_ns) * 1e-9
        self._stamp_ns = stamp_ns
        if seconds < 0.0:
            self.reset()
        still = camera_motion is not None and is_identity(camera_motion)
        if len(self._tracks) == 0 or (seconds == 0.0 and still and not at_rest):
            return
        state = self._tracks.state.copy()
        if at_rest:
            state[SPEED], state[COV], state[SPEED_VAR] = 0.0, 0.0, 0.0
        if camera_motion is not None and not still:
            follow_camera(state, camera_motion)
        move_on(state, seconds, SPEED_DRIFT_SD + (UNKNOWN_CAMERA_SD if camera_motion is None else 0.0))
        self._tracks = self._alive(TrackSet(state, self._tracks.facts))

    def doubt(self, regions_px: np.ndarray) -> None:
        """Objects whose place, one of these (n, 4) xyxy_px, looks otherwise than when they were last seen:
        they are not shown until the detector has looked."""
        if len(self._tracks) == 0 or len(regions_px) == 0:
            return
        low, high = corners(self._tracks.state[BOX])
        regions = regions_px.T[:, :, None]
        sides = np.maximum(
            np.minimum(regions[2:], high[:, None]) - np.maximum(regions[:2], low[:, None]), 0.0
        )
        covered = (sides[0] * sides[1]).max(axis=0) > MIN_DOUBTED * np.prod(high - low, axis=0)
        if covered.any():
            facts = self._tracks.facts.copy()
            facts[DOUBTED] |= covered
            self._tracks = TrackSet(self._tracks.state, facts)

    def shown(self) -> Tracks:
        """All live tracks that are not doubted, where they were when last told of a frame."""
        facts = self._tracks.facts
        shown = self._tracks.where((facts[MISSED] <= self.config.max_missed) & (facts[DOUBTED] == 0))
        shown = shown.where(np.argsort(-shown.state[SCORE], kind="stable"))
        state, facts = shown.state, shown.facts
        low, high = corners(state[BOX])
        xyxy = np.concatenate((np.maximum(low, 0.0), np.minimum(high, self._corner_px)), dtype=np.float32)
        age_ms = ((self._stamp_ns - facts[SEEN_NS]) * 1e-6).astype(np.float32)
        scores, class_ids = state[SCORE].astype(np.float32), facts[CLASS_ID].astype(np.int32)
        return Tracks(np.ascontiguousarray(xyxy.T), scores, class_ids, facts[ID], age_ms)

    def doubted(self) -> int:
        """How many objects are known that are not shown, because their place has changed its looks."""
        facts = self._tracks.facts
        return int(np.count_nonzero((facts[MISSED] <= self.config.max_missed) & (facts[DOUBTED] != 0)))

    def _match(
        self, measured: np.ndarray, class_ids: np.ndarray, stamp_ns: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `matched`. Where most find nothing, they are tried again where a common shift takes them."""
        old, at = matched(self._tracks, measured, class_ids)
        seconds = (stamp_ns - self._inferred_ns) * 1e-9
        self._inferred_ns = stamp_ns
        if len(at) >= FEW_MATCHES * min(len(self._tracks), len(class_ids)) or seconds <= 0.0:
            return old, at
        shift = common_shift(self._tracks, measured, class_ids)
        if shift is None:
            return old, at
        state = self._tracks.state.copy()
        state[:2] += shift
        state[4:6] += shift / seconds
        shifted = TrackSet(state, self._tracks.facts)
        again = matched(shifted, measured, class_ids)
        if len(again[0]) <= len(old):
            return old, at
        self._tracks = shifted
        return again

    def _alive(self, tracks: TrackSet) -> TrackSet:
        """Those that are sure enough where they are, and within the picture."""
        box = tracks.state[BOX]
        limit = self.config.max_uncertainty * box[2:]
        slack = limit * limit - tracks.state[8:10]
        # Most are within the picture as a whole, and only the others need the exact test.
        if _least(slack) >= 0.0 and _least(_INSIDE @ box + self._edges) >= 0.0:
            return tracks
        low, high = corners(box)
        sides = np.maximum(np.minimum(high, self._corner_px) - np.maximum(low, 0.0), 0.0)
        visible = sides[0] * sides[1] > MIN_VISIBLE * (box[2] * box[3])
        return tracks.where((slack[0] >= 0.0) & (slack[1] >= 0.0) & visible)

    def _ids(self, count: int, known: list[int], at: list[int]) -> list[int]:
        """The known ids where known, and next ones."""
        ids = dict(zip(at, known, strict=True))
        out = []
        for i in range(count):
            if i in ids:
                out.append(ids[i])
            else:
                out.append(self._next_id)
                self._next_id += 1
        return out

    def _with_missed(self, seen: TrackSet, found: np.ndarray) -> TrackSet:
        """Also the tracks that the detector did not find and that are not forgotten yet."""
        if len(found) == len(self._tracks):
            return seen
        at, most = set(found.tolist()), self.config.max_missed + REMEMBERED
        before = self._tracks.facts[MISSED].tolist()
        lost = [i for i, missed in enumerate(before) if i not in at and missed < most]
        if not lost:
            return seen
        left = self._tracks.where(np.array(lost))
        left.facts[MISSED] += 1
        state = np.concatenate((seen.state, left.state), axis=1)
        return TrackSet(state, np.concatenate((seen.facts, left.facts), axis=1))


def _start_like(state: np.ndarray, known: np.ndarray) -> None:
    """Start new tracks with the speed of the known ones where those agree: so the camera moves."""
    if not 2 <= len(known) < state.shape[1]:
        return
    speeds = state[4:6].take(known, 1)
    speed = _median(speeds)
    if _median(np.abs(speeds - speed).max(axis=0)) < 0.5 * np.abs(speed).max():
        is_new = np.ones(state.shape[1], bool)
        is_new[known] = False
        state[4:6, is_new] = speed


def _median(values: np.ndarray) -> np.ndarray:
    """Along the last axis, which stays: as np.median, in an eighth of its time."""
    values, middle = np.sort(values), values.shape[-1] // 2
    if values.shape[-1] % 2:
        return values[..., middle : middle + 1]
    return (values[..., middle - 1 : middle] + values[..., middle : middle + 1]) / 2


def _least(values: np.ndarray) -> float:
    """As `values.min()`, in half of its time; NaN where there is one."""
    return float(np.minimum.reduce(values.ravel()))
