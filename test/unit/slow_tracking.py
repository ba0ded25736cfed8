"""The tracker as it was first written, one field after the other: what the fast one must agree with."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.tracking import FEW_MATCHES, MIN_VISIBLE, REMEMBERED, TrackerConfig, Tracks

# All in sides of the object (the root of its area), which makes near and far objects alike.
MEASURED_SD = 0.05
FIRST_SPEED_SD = 0.7
"""Sides per second, of an object that was seen once."""
SPEED_DRIFT_SD = 0.3
"""How far a speed strays within one second, in sides per second."""
UNKNOWN_CAMERA_SD = 0.5
"""What is added to that where the camera's motion is not known."""
SIZE_SHARE = 0.3
"""A size changes more slowly than a place, by this factor."""

_SHARES = np.array([1.0, 1.0, SIZE_SHARE, SIZE_SHARE])
TRACK = np.dtype(
    [
        ("box", "f8", 4),  # centre x, y, width, height in px
        ("speed", "f8", 4),  # the same per second
        (
            "var",
            "f8",
            (3, 4),
        ),  # of each coordinate: variance, covariance with its speed, the speed's variance
        ("score", "f4"),
        ("class_id", "i4"),
        ("id", "i8"),
        ("seen_ns", "i8"),
        ("missed", "i4"),  # inferences in a row that did not find it
    ]
)


def centres(xyxy_px: np.ndarray) -> np.ndarray:
    """(n, 4) float64 centre x, y, width, height; sides of a pixel at least: all have a scale."""
    xyxy = xyxy_px.astype(np.float64)
    low, high = xyxy[:, :2], xyxy[:, 2:]
    return np.concatenate(((low + high) / 2, np.maximum(high - low, 1.0)), axis=1)


def corners(box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left and top, right and bottom of boxes (n, 4) given by centre and size; (n, 2) each."""
    half = box[:, 2:] / 2
    return box[:, :2] - half, box[:, :2] + half


def area(box: np.ndarray) -> np.ndarray:
    """(n,) of boxes (n, 4) given by centre and size."""
    return box[..., 2] * box[..., 3]


def new_tracks(measured: np.ndarray) -> np.ndarray:
    """(n,) TRACK of objects seen for the first time, (n, 4) centre and size: standing, as far as is known."""
    tracks = np.zeros(len(measured), TRACK)
    side2 = area(measured)[:, None]
    tracks["box"] = measured
    tracks["var"][:, 0] = MEASURED_SD**2 * side2
    tracks["var"][:, 2] = side2 * (FIRST_SPEED_SD * _SHARES) ** 2
    return tracks


def move_on(tracks: np.ndarray, seconds: float, drift_sd: float) -> None:
    """The filter's prediction, in place."""
    box, var = tracks["box"], tracks["var"]
    box += tracks["speed"] * seconds
    np.maximum(box[:, 2:], 1.0, out=box[:, 2:])
    noise = area(box)[:, None] * (drift_sd * _SHARES) ** 2
    var[:, 0] += seconds * (2 * var[:, 1] + seconds * (var[:, 2] + noise * (seconds / 3)))
    var[:, 1] += seconds * (var[:, 2] + noise * (seconds / 2))
    var[:, 2] += seconds * noise


def corrected(tracks: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """The filter's correction with one measurement (n, 4) for each track. Overwrites the tracks."""
    box, var = tracks["box"], tracks["var"]
    total = var[:, 0] + MEASURED_SD**2 * area(measured)[:, None]
    gain, gain_speed = var[:, 0] / total, var[:, 1] / total
    error = measured - box
    box += gain * error
    tracks["speed"] += gain_speed * error
    var[:, 2] -= gain_speed * var[:, 1]
    var[:, :2] *= (1.0 - gain)[:, None]
    return tracks


def follow_camera(tracks: np.ndarray, motion: np.ndarray) -> None:
    """Move boxes as the still scene moved, in place. Where that is nowhere, they become NaN, and end.

    A box stays upright: it grows by the root of the area's growth at its centre.
    """
    box, speed = tracks["box"], tracks["speed"]
    depth = (box[:, :2] @ motion[2, :2] + motion[2, 2])[:, None]
    depth = np.where(depth > 0.0, depth, np.nan)
    moved = (box[:, :2] @ motion[:2, :2].T + motion[:2, 2]) / depth
    # The derivative of the projection: what it does to a small step at the centre.
    slope = (motion[None, :2, :2] - moved[:, :, None] * motion[None, 2:, :2]) / depth[:, :, None]
    growth = np.abs(slope[:, 0, 0] * slope[:, 1, 1] - slope[:, 0, 1] * slope[:, 1, 0])[:, None]
    box[:, :2] = moved
    box[:, 2:] *= np.sqrt(growth)
    speed[:, :2] = (slope * speed[:, None, :2]).sum(axis=2)
    speed[:, 2:] *= np.sqrt(growth)
    tracks["var"] *= growth[:, :, None]


GATE = 9.21
"""Chi-square with 2 degrees of freedom at 99 %: what is further off is another object."""
SURE_IOU = 0.3
"""What overlaps this much may be the same object however unlikely its way."""
MAX_SIZE_RATIO = 2.0
SHIFT_SIZE_RATIO = 1.3
SHIFT_SIDES = 0.3
"""Displacements that differ by less than this share of a side are the same."""
SHIFT_VOTES = 2
MAX_SHIFTS = 400
"""Of more pairs, too many agree by chance, and it would take too long."""


def matched(tracks: np.ndarray, measured: np.ndarray, class_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which track is which detection: two (k,) index arrays. Most alike first, each once, within a class."""
    if len(tracks) == 0 or len(measured) == 0:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    rows, columns = np.nonzero(_within_reach(tracks, measured) & (tracks["class_id"][:, None] == class_ids))
    box, other = tracks["box"][rows], measured[columns]
    far = _distance(box, other, tracks["var"][rows, 0, :2])
    iou = _iou(box, other)
    ratio = box[:, 2:] / other[:, 2:]
    alike_size = (np.maximum(ratio, 1.0 / ratio) < MAX_SIZE_RATIO).all(axis=1)
    # Overlap alone says nothing of a small fast object after a second, distance alone nothing within a crowd.
    alike = np.where(alike_size & ((far < GATE) | (iou > SURE_IOU)), iou - far / GATE, -np.inf)
    order = np.argsort(-alike, kind="stable")[: np.count_nonzero(alike > -np.inf)]
    return _each_once(rows[order], columns[order])


def _within_reach(tracks: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """(n tracks, n measured) bool: a rough test that spares most pairs the exact one, and loses none."""
    side = np.sqrt(area(measured))[:, None]
    reach = tracks["box"][:, 2:] / 2 + np.sqrt(GATE * tracks["var"][:, 0, :2])
    other_reach = measured[:, 2:] / 2 + (math.sqrt(GATE) * MEASURED_SD) * side
    near = np.ones((len(tracks), len(measured)), bool)
    for i in (0, 1):
        step = np.abs(tracks["box"][:, i, None] - measured[:, i])
        near &= step <= reach[:, i, None] + other_reach[:, i]
    return near


def _distance(box: np.ndarray, measured: np.ndarray, var: np.ndarray) -> np.ndarray:
    """(k,) squared distance of the centres in standard deviations (Mahalanobis)."""
    step = box[:, :2] - measured[:, :2]
    return (step * step / (var + MEASURED_SD**2 * area(measured)[:, None])).sum(axis=1)


def _iou(box: np.ndarray, other: np.ndarray) -> np.ndarray:
    (low, high), (other_low, other_high) = corners(box), corners(other)
    sides = np.maximum(np.minimum(high, other_high) - np.maximum(low, other_low), 0.0)
    both = sides[:, 0] * sides[:, 1]
    return both / (area(box) + area(other) - both)


def _each_once(rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take pairs in their order, leaving out those of which one half was taken."""
    taken: dict[int, int] = {}
    taken_columns: set[int] = set()
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        if row not in taken and column not in taken_columns:
            taken[row] = column
            taken_columns.add(column)
    return np.array([*taken], np.intp), np.array([*taken.values()], np.intp)


def common_shift(tracks: np.ndarray, measured: np.ndarray, class_ids: np.ndarray) -> np.ndarray | None:
    """(2,) px by which most tracks are beside a detection of their class and size; None where no two agree.

    That is what a camera's motion does that nobody has told: all boxes are wrong alike, and none is within
    reach.
    """
    ratio = tracks["box"][:, None, 2:] / measured[None, :, 2:]
    alike = (np.maximum(ratio, 1.0 / ratio) < SHIFT_SIZE_RATIO).all(axis=2)
    rows, columns = np.nonzero(alike & (tracks["class_id"][:, None] == class_ids))
    if not SHIFT_VOTES <= len(rows) <= MAX_SHIFTS:
        return None
    step = measured[columns, :2] - tracks["box"][rows, :2]
    limit = SHIFT_SIDES * np.sqrt(area(measured[columns]))
    agree = (np.abs(step[:, None] - step) < limit[:, None, None]).all(axis=2)
    # A track votes once, however many detections are around it.
    votes = (agree @ (rows[:, None] == np.arange(len(tracks)))).astype(bool).sum(axis=1)
    best = int(np.argmax(votes))
    return np.median(step[agree[best]], axis=0) if votes[best] >= SHIFT_VOTES else None


@dataclass(frozen=True, slots=True, eq=False)
class TrackerState:
    """All that a tracker knows at one moment: tracks, (n,) TRACK, and the stamps of the last calls."""

    tracks: np.ndarray
    stamp_ns: int
    inferred_ns: int


class SlowTracker:
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
