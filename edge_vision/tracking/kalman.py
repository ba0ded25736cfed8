"""Kalman filters of all tracks, vectorised: see `edge_vision.tracking.tracker` for the model.

One row per quantity, one column per track. With ten objects numpy's call overhead dominates, so each step is
a few operations on blocks of rows: 0.10 ms per inferred frame of vtest.avi and 0.05 ms per skipped one,
compared with 0.23 and 0.10 ms for a structured array.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# In units of the object's side (the root of its area), so that near and far objects behave alike.
MEASURED_SD = 0.05
FIRST_SPEED_SD = 0.7
"""Sides per second, for an object detected once."""
SPEED_DRIFT_SD = 0.3
"""Change of speed within one second, in sides per second."""
UNKNOWN_CAMERA_SD = 0.5
"""Added to SPEED_DRIFT_SD if the camera's motion is unknown."""
SIZE_SHARE = 0.3
"""A size changes more slowly than a position, by this factor."""

# Rows of TrackSet.state: centre x, y, width, height in px; the same per second; of each coordinate its
# variance, the covariance with its speed, the speed's variance; the score.
BOX, SPEED, VAR, COV, SPEED_VAR, SCORE = slice(4), slice(4, 8), slice(8, 12), slice(12, 16), slice(16, 20), 20
ALL_VAR = slice(8, 20)
STATE_ROWS = 21
# Rows of TrackSet.info. SEEN_NS: stamp of the last detection. MISSED: consecutive inferences without a
# detection. HIDDEN: 1 if the appearance at its position changed since.
CLASS_ID, ID, SEEN_NS, MISSED, HIDDEN = range(5)
INFO_ROWS = 5

_SHARES2 = np.array([[1.0], [1.0], [SIZE_SHARE**2], [SIZE_SHARE**2]])
_FIRST_SPEED_VAR = FIRST_SPEED_SD**2 * _SHARES2
_TO_CENTRE_SIZE = np.array([[0.5, 0, 0.5, 0], [0, 0.5, 0, 0.5], [-1, 0, 1, 0], [0, -1, 0, 1]])
_IDENTITY = np.eye(3).tobytes()


@dataclass(frozen=True, slots=True, eq=False)
class TrackSet:
    """n tracks on one frame: state (21, n) float64, info (5, n) int64. Immutable."""

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
    """(21, n) state of new objects, given as (4, n) centre and size, with zero speed."""
    state = np.zeros((STATE_ROWS, measured.shape[1]))
    side2 = measured[2] * measured[3]
    state[BOX] = measured
    state[VAR] = MEASURED_SD**2 * side2
    np.multiply(_FIRST_SPEED_VAR, side2, out=state[SPEED_VAR])
    state[SCORE] = scores
    return state


def predict(state: np.ndarray, seconds: float, drift_sd: float) -> None:
    """Prediction step, in place."""
    box = state[BOX]
    box += state[SPEED] * seconds
    np.maximum(box[2:], 1.0, out=box[2:])
    noise = drift_sd**2 * _SHARES2 * (box[2] * box[3])
    cov, speed_var = state[COV], state[SPEED_VAR]
    # White acceleration noise, integrated over the interval.
    state[VAR] += seconds * (2 * cov + seconds * (speed_var + noise * (seconds / 3)))
    noise *= seconds
    cov += seconds * (speed_var + noise / 2)
    speed_var += noise


def correct(state: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Correction step with one measurement (4, n) per track. Overwrites and returns the state."""
    var, cov = state[VAR], state[COV]
    total = var + MEASURED_SD**2 * (measured[2] * measured[3])
    gain, gain_speed = var / total, cov / total
    error = measured - state[BOX]
    state[BOX] += gain * error
    state[SPEED] += gain_speed * error
    state[SPEED_VAR] -= gain_speed * cov
    gain *= -1.0
    gain += 1.0
    var *= gain
    cov *= gain
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
    state[4:6] = (jacobian * state[4:6]).sum(axis=1)
    state[6:8] *= side
    state[ALL_VAR] *= area_scale
