"""The Kalman filters of all tracks at once: see `edge_vision.tracking.tracker` for the model.

One row for each quantity, one column for each track: with the ten objects of a usual picture a step costs
what numpy takes to be called, so the steps are few and over whole blocks of rows. Each inferred frame of
vtest.avi costs the tracker 0.10 ms so, each skipped one 0.05 ms; with a structured array 0.23 and 0.10 ms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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

# Rows of TrackSet.state: centre x, y, width, height in px; the same per second; of each coordinate its
# variance, the covariance with its speed, the speed's variance; the score.
BOX, SPEED, VAR, COV, SPEED_VAR, SCORE = slice(4), slice(4, 8), slice(8, 12), slice(12, 16), slice(16, 20), 20
ALL_VAR = slice(8, 20)
STATE_ROWS = 21
# Rows of TrackSet.facts. MISSED: inferences in a row that did not find it. DOUBTED: 1 where its place has
# changed its looks since.
CLASS_ID, ID, SEEN_NS, MISSED, DOUBTED = range(5)
FACT_ROWS = 5

_SHARES2 = np.array([[1.0], [1.0], [SIZE_SHARE**2], [SIZE_SHARE**2]])
_FIRST_SPEED_VAR = FIRST_SPEED_SD**2 * _SHARES2
_TO_CENTRES = np.array([[0.5, 0, 0.5, 0], [0, 0.5, 0, 0.5], [-1, 0, 1, 0], [0, -1, 0, 1]])
_STILL = np.eye(3).tobytes()


@dataclass(frozen=True, slots=True, eq=False)
class TrackSet:
    """n tracks at one moment: state (21, n) float64, facts (5, n) int64. Nobody writes into it."""

    state: np.ndarray
    facts: np.ndarray

    def __len__(self) -> int:
        return int(self.state.shape[1])

    def where(self, which: np.ndarray) -> TrackSet:
        """Those of a mask (n,) bool or of indices."""
        at = which.nonzero()[0] if which.dtype == bool else which
        return TrackSet(self.state.take(at, 1), self.facts.take(at, 1))


NO_TRACKS = TrackSet(np.zeros((STATE_ROWS, 0)), np.zeros((FACT_ROWS, 0), np.int64))


def centres(xyxy_px: np.ndarray) -> np.ndarray:
    """(4, n) float64 centre x, y, width, height of (n, 4); sides of a pixel at least: all have a scale."""
    box = _TO_CENTRES @ xyxy_px.T
    np.maximum(box[2:], 1.0, out=box[2:])
    return box


def corners(box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left and top, right and bottom of boxes (4, n) given by centre and size; (2, n) each."""
    half = box[2:4] / 2
    return box[:2] - half, box[:2] + half


def new_state(measured: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(21, n) of objects seen for the first time, (4, n) centre and size: standing, as far as is known."""
    state = np.zeros((STATE_ROWS, measured.shape[1]))
    side2 = measured[2] * measured[3]
    state[BOX] = measured
    state[VAR] = MEASURED_SD**2 * side2
    np.multiply(_FIRST_SPEED_VAR, side2, out=state[SPEED_VAR])
    state[SCORE] = scores
    return state


def move_on(state: np.ndarray, seconds: float, drift_sd: float) -> None:
    """The filter's prediction, in place."""
    box = state[BOX]
    box += state[SPEED] * seconds
    np.maximum(box[2:], 1.0, out=box[2:])
    noise = drift_sd**2 * _SHARES2 * (box[2] * box[3])
    cov, speed_var = state[COV], state[SPEED_VAR]
    # The integrals of white noise over the time: thirds, halves, whole.
    state[VAR] += seconds * (2 * cov + seconds * (speed_var + noise * (seconds / 3)))
    noise *= seconds
    cov += seconds * (speed_var + noise / 2)
    speed_var += noise


def corrected(state: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """The filter's correction with one measurement (4, n) for each track. Overwrites the state."""
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
    """True for a camera that stands: most do, and then nothing is to be computed."""
    return motion.tobytes() == _STILL


def follow_camera(state: np.ndarray, motion: np.ndarray) -> None:
    """Move boxes as the still scene moved, in place. Where that is nowhere, they become NaN, and end.

    A box stays upright: it grows by the root of the area's growth at its centre.
    """
    at = state[:2]
    depth = motion[2, :2] @ at + motion[2, 2]
    depth = np.where(depth > 0.0, depth, np.nan)
    moved = (motion[:2, :2] @ at + motion[:2, 2:]) / depth
    # The derivative of the projection: what it does to a small step at the centre.
    slope = (motion[:2, :2, None] - moved[:, None] * motion[2, :2, None]) / depth
    growth = np.abs(slope[0, 0] * slope[1, 1] - slope[0, 1] * slope[1, 0])
    side = np.sqrt(growth)
    state[:2] = moved
    state[2:4] *= side
    state[4:6] = (slope * state[4:6]).sum(axis=1)
    state[6:8] *= side
    state[ALL_VAR] *= growth
