"""Kalman filters of all tracks, vectorised: see `edge_vision.tracking.tracker` for the model.

One row per quantity, one column per track. With ten objects numpy's call overhead dominates, so each step is
a few operations on blocks of rows: 0.10 ms per inferred frame of vtest.avi and 0.04 ms per skipped one,
compared with 0.23 and 0.10 ms for a structured array.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

# In units of the object's side (the root of its area), so that near and far objects behave alike.
MEASURED_SD = 0.05
FIRST_SPEED_SD = 0.7
"""Sides per second, for an object detected once."""
SPEED_DRIFT_SD = 0.3
"""Change of speed within one second, in sides per second."""
UNKNOWN_CAMERA_SD = 0.5
"""Added to SPEED_DRIFT_SD if the camera's motion is unknown."""
MIN_SECONDS = 1e-3
"""Between two measurements, for their speed."""
# Rows of TrackSet.state: box as centre x, y, width, height in px, predicted; the same as last detected, where
# it was in that image; centre's speed in px per second, estimated; the one that predictions use; of each
# coordinate of the centre the covariance with its speed, the speed's variance, its variance; the score.
BOX, HELD, SPEED, USED_SPEED = slice(4), slice(4, 8), slice(8, 10), slice(10, 12)
COV, SPEED_VAR, VAR, SCORE = slice(12, 14), slice(14, 16), slice(16, 18), 18
STATIC_ROWS, ALL_VAR = slice(8, 16), slice(12, 18)
"""STATIC_ROWS: 0 for an object that certainly does not move."""
STATE_ROWS = 19
# Rows of TrackSet.info. SEEN_NS: stamp of the last detection. MISSED: consecutive inferences without a
# detection.
CLASS_ID, ID, SEEN_NS, MISSED = range(4)
INFO_ROWS = 4

_TO_CENTRE_SIZE = np.array([[0.5, 0, 0.5, 0], [0, 0.5, 0, 0.5], [-1, 0, 1, 0], [0, -1, 0, 1]])
_IDENTITY = np.eye(3).tobytes()


@dataclass(frozen=True, slots=True, eq=False)
class TrackSet:
    """n tracks on one frame: state (19, n) float64, info (4, n) int64. Immutable."""

    state: np.ndarray
    info: np.ndarray

    def __len__(self) -> int:
        return int(self.state.shape[1])

    def select(self, which: np.ndarray) -> TrackSet:
        """The subset given by a mask (n,) bool or by indices."""
        at = which.nonzero()[0] if which.dtype == bool else which
        return TrackSet(self.state.take(at, 1), self.info.take(at, 1))


NO_TRACKS = TrackSet(np.zeros((STATE_ROWS, 0)), np.zeros((INFO_ROWS, 0), np.int64))


def to_centre_size(xyxy_px: np.ndarray) -> np.ndarray:
    """(n, 4) xyxy -> (4, n) float64 centre x, y, width, height; sides are at least one pixel."""
    box = _TO_CENTRE_SIZE @ xyxy_px.T
    np.maximum(box[2:], 1.0, out=box[2:])
    return box


def corners(box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(4, n) centre and size -> (2, n) left and top, (2, n) right and bottom."""
    half = box[2:4] / 2
    return box[:2] - half, box[:2] + half


def initial_state(measured: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(19, n) state of new objects, given as (4, n) centre and size, with zero speed."""
    state = np.zeros((STATE_ROWS, measured.shape[1]))
    side2 = measured[2] * measured[3]
    state[BOX] = state[HELD] = measured
    state[VAR] = MEASURED_SD**2 * side2
    state[SPEED_VAR] = FIRST_SPEED_SD**2 * side2
    state[SCORE] = scores
    return state


def predict(state: np.ndarray, seconds: float, drift_sd: float) -> None:
    """Prediction step, in place."""
    box = state[BOX]
    box[:2] += state[USED_SPEED] * seconds
    noise = drift_sd**2 * (box[2] * box[3])
    cov, speed_var = state[COV], state[SPEED_VAR]
    # White acceleration noise, integrated over the interval.
    state[VAR] += seconds * (2 * cov + seconds * (speed_var + noise * (seconds / 3)))
    noise *= seconds
    cov += seconds * (speed_var + noise / 2)
    speed_var += noise


def correct(state: np.ndarray, measured: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Correction step with one measurement (4, n) per track. Overwrites and returns the state.

    seconds: (n,) since the last one. The box becomes the measurement itself, and only the speed is filtered:
    held boxes agree better with the next detection than smoothed ones. Predictions use the estimated speed,
    or the one since the last measurement if that is smaller, and none if their directions differ (minmod, as
    in the flux limiters of P. L. Roe 1986): an object that stops or turns is not carried on.
    """
    cov, seconds = state[COV], np.maximum(seconds, MIN_SECONDS)
    noise = MEASURED_SD**2 * (measured[2] * measured[3])
    gain = cov / (state[VAR] + noise)
    last = state[USED_SPEED] + (measured[:2] - state[:2]) / seconds
    speed = state[SPEED]
    speed += gain * seconds * (last - speed)
    state[SPEED_VAR] -= gain * cov
    np.multiply(gain, noise, out=cov)
    state[VAR] = noise
    state[BOX] = state[HELD] = measured
    state[USED_SPEED] = np.where(speed * last > 0.0, np.where(abs(speed) < abs(last), speed, last), 0.0)
    return state


def is_identity(motion: np.ndarray) -> bool:
    """True for a static camera, the most common case, which needs no computation."""
    return motion.tobytes() == _IDENTITY


def compensate_camera(state: np.ndarray, motion: np.ndarray) -> None:
    """Move boxes with the static scene, in place. Boxes behind the camera become NaN, and their tracks end.

    A box stays upright: its sides scale with the root of the change in area at its centre.
    """
    at = state[:2]
    depth = motion[2, :2] @ at + motion[2, 2]
    depth = np.where(depth > 0.0, depth, np.nan)
    moved = (motion[:2, :2] @ at + motion[:2, 2:]) / depth
    # Jacobian of the projection at the centre.
    jacobian = (motion[:2, :2, None] - moved[:, None] * motion[2, :2, None]) / depth
    area_scale = np.abs(jacobian[0, 0] * jacobian[1, 1] - jacobian[0, 1] * jacobian[1, 0])
    side = np.sqrt(area_scale)
    state[:2] = moved
    state[2:4] *= side
    for rows in (SPEED, USED_SPEED):
        state[rows] = (jacobian * state[rows]).sum(axis=1)
    state[ALL_VAR] *= area_scale


def shift_tracks(state: np.ndarray, shift_px: np.ndarray, seconds: float) -> np.ndarray:
    """The state of tracks that have all moved by (2, 1) px more than predicted, within so many seconds."""
    state = state.copy()
    state[BOX][:2] += shift_px
    state[HELD][:2] += shift_px
    state[SPEED] += shift_px / seconds
    state[USED_SPEED] += shift_px / seconds
    return state


FIRST_SHARE, FIRST_WEIGHT = 0.5, 0.1
"""Assumed before there are observations, and its weight in squared sides of a box."""
MEMORY = 0.8
"""Weight of an inference's observations after the next one."""


class PredictionTrust(NamedTuple):
    """The share of the predicted displacement by which boxes really move: a least-squares slope.

    It covers whatever is wrong with predictions: a wrong or unknown camera motion, parallax, a camera that
    follows an object, erratic objects. 0 shows boxes where they were detected, 1 where they are predicted.
    observed, predicted: sums over recent detections of predicted times observed displacement, and of the
    squared predicted one, both in squared sides of a box.
    """

    observed: float = 0.0
    predicted: float = 0.0

    @property
    def share(self) -> float:
        slope = (self.observed + FIRST_SHARE * FIRST_WEIGHT) / (self.predicted + FIRST_WEIGHT)
        return min(max(slope, 0.0), 1.0)

    def shown(self, state: np.ndarray) -> np.ndarray:
        """(4, n) centre and size of the boxes to show and to match."""
        held = state[HELD]
        return held + self.share * (state[BOX] - held)

    def after(self, state: np.ndarray, measured: np.ndarray) -> PredictionTrust:
        """The trust after tracks (21, n) were detected at (4, n) centre and size."""
        held = state[HELD][:2]
        predicted, observed = state[BOX][:2] - held, measured[:2] - held
        predicted_sides = predicted / (measured[2] * measured[3])
        return PredictionTrust(
            MEMORY * self.observed + float((predicted_sides * observed).sum()),
            MEMORY * self.predicted + float((predicted_sides * predicted).sum()),
        )
