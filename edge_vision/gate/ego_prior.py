"""The camera's rotation between two frames, from the robot's gyroscope or odometry, as a homography.

A rotation about the camera centre maps every image point x to H x with H = K R K^-1, whatever its distance
(Hartley and Zisserman, Multiple View Geometry, 2nd ed., section 8.4). Translation depends on depth, and is
ignored, that of odometry too. The gate uses H as an initial estimate, which it refines in the image.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence

import numpy as np

from edge_vision.core.geometry.rotations import interpolated, rotation_of_quaternion, rotation_of_vector

IMU_GAP_NS = 100_000_000
ODOMETRY_GAP_NS = 300_000_000
# A frame may be analysed before the next sample arrives: the last orientation is extrapolated for this long.
HOLD_NS = 50_000_000
# A sample older than the last one by more than this starts a new time line; it is not late.
JUMP_NS = 1_000_000_000
MAX_RATE_RAD_S = 1000.0  # Gyroscopes measure up to 70; 1e300 would leave orientations that are not numbers.
LEAST_COSINE = 0.26  # Two images with this cosine between their optical axes (75 degrees) do not overlap.
MAX_CONDITION = 1e12  # Of a camera matrix: one with a last row of zeros cannot be inverted.


class OrientationHistory:
    """The last `size` orientations of a body by stamp. Thread-safe.

    max_gap_ns: longest interval between samples that is interpolated. Repeated, late and impossible samples
    are rejected; a longer gap or a clock jump clears the history.
    """

    def __init__(self, max_gap_ns: int, size: int = 1024) -> None:
        self._max_gap_ns = max_gap_ns
        self._samples: deque[tuple[int, np.ndarray]] = deque(maxlen=size)
        self._rate = np.zeros(3)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._samples)

    def add_rate(self, stamp_ns: int, rate_rad_s: Sequence[float]) -> bool:
        """Add an angular velocity, (3,) rad/s in the body frame. False if it was rejected."""
        rate = np.array(rate_rad_s, np.float64)
        if rate.shape != (3,) or not (np.abs(rate) <= MAX_RATE_RAD_S).all():
            return False
        with self._lock:
            if not self._accepts(stamp_ns):
                return False
            orientation = np.eye(3)
            if self._samples:
                last_ns, last = self._samples[-1]
                # The trapezoidal rule: exact for a fixed axis and a rate that changes linearly.
                orientation = last @ rotation_of_vector((rate + self._rate) / 2 * (stamp_ns - last_ns) / 1e9)
            self._rate = rate
            self._samples.append((stamp_ns, orientation))
            return True

    def add_orientation(self, stamp_ns: int, xyzw: Sequence[float]) -> bool:
        """Add the body's orientation in a fixed frame, a quaternion. False if it was rejected."""
        quaternion = np.array(xyzw, np.float64)
        if quaternion.shape != (4,) or not 1e-6 < np.abs(quaternion).max() < 1e6:
            return False
        with self._lock:
            if not self._accepts(stamp_ns):
                return False
            self._samples.append((stamp_ns, rotation_of_quaternion(quaternion)))
            return True

    def rotation(self, from_ns: int, to_ns: int) -> np.ndarray | None:
        """(3, 3): maps a fixed direction from the body frame at from_ns to that at to_ns.

        None if the samples do not cover that time.
        """
        with self._lock:
            if from_ns > to_ns:
                return None
            first, last = self._at(from_ns), self._at(to_ns)
        return None if first is None or last is None else last.T @ first

    def clear(self) -> None:
        with self._lock:
            self._samples.clear()

    def _accepts(self, stamp_ns: int) -> bool:
        """True for a sample that follows the last one; one on a new time line clears the history."""
        if stamp_ns <= 0:
            return False
        if self._samples:
            step_ns = stamp_ns - self._samples[-1][0]
            if -JUMP_NS <= step_ns <= 0:
                return False
            if not 0 < step_ns <= self._max_gap_ns:
                self._samples.clear()
        return True

    def _at(self, stamp_ns: int) -> np.ndarray | None:
        """The orientation at a time, interpolated, or extrapolated by up to HOLD_NS after the last sample."""
        samples = self._samples
        if len(samples) < 2 or not samples[0][0] <= stamp_ns <= samples[-1][0] + HOLD_NS:
            return None
        after = min(bisect_right(samples, stamp_ns, key=lambda sample: sample[0]), len(samples) - 1)
        (t0_ns, first), (t1_ns, second) = samples[after - 1], samples[after]
        share = (stamp_ns - t0_ns) / (t1_ns - t0_ns)
        return interpolated(first, second, share)


class EgoPrior:
    """The camera's motion between two frames from the orientations of the body on which it is mounted.

    mounting: (3, 3), the optical frame (z forward, x right, y down) in the body frame, see
    `mounting_rotation`. focal_px: in source pixels; 0 = from `calibrate`. One thread reads `motion`.
    missing: why the last motion is unknown, "" if it is known.
    """

    def __init__(self, history: OrientationHistory, mounting: np.ndarray, focal_px: float = 0.0) -> None:
        self.history = history
        self._mounting = mounting
        self._focal_px = focal_px
        self._calibration: tuple[np.ndarray, int, int] | None = None
        self.missing = "no frame yet"

    def calibrate(self, matrix: np.ndarray, width_px: int, height_px: int) -> None:
        """Set the camera matrix, (3, 3), for images of this size. One without focal lengths, or without an
        inverse, is ignored."""
        good = matrix.shape == (3, 3) and np.isfinite(matrix).all() and min(matrix[0, 0], matrix[1, 1]) > 0
        if good and np.linalg.cond(matrix) < MAX_CONDITION and width_px > 0 and height_px > 0:
            self._calibration = (matrix, width_px, height_px)

    def motion(self, from_ns: int, to_ns: int, width_px: int, height_px: int) -> np.ndarray | None:
        """(3, 3) float64: maps the image at from_ns to that at to_ns, source pixels; None if unknown."""
        matrix = self._matrix(width_px, height_px)
        rotation = self.history.rotation(from_ns, to_ns)
        motion = None
        if matrix is None:
            self.missing = "no focal length for this image size: set ego_focal_px, or publish camera_info"
        elif rotation is None:
            self.missing = "no samples around the stamps of the frames"
        else:
            motion = rotation_homography(self._mounting.T @ rotation @ self._mounting, matrix)
            self.missing = "the camera rotated by more than 75 degrees" if motion is None else ""
        return motion

    def _matrix(self, width_px: int, height_px: int) -> np.ndarray | None:
        if self._focal_px > 0:
            return camera_matrix(self._focal_px, width_px, height_px)
        if self._calibration is None:
            return None
        return scaled_camera_matrix(*self._calibration, width_px, height_px)


def rotation_homography(rotation: np.ndarray, matrix: np.ndarray) -> np.ndarray | None:
    """K R K^-1, (3, 3), normalised to a last element of 1; None if the two images do not overlap.

    rotation: (3, 3), from the camera frame before to that after.
    """
    if rotation[2, 2] < LEAST_COSINE:
        return None
    homography = matrix @ rotation @ np.linalg.inv(matrix)
    return np.asarray(homography / homography[2, 2], np.float64)


def camera_matrix(focal_px: float, width_px: int, height_px: int) -> np.ndarray:
    """(3, 3) camera matrix with square pixels and the principal point in the image centre."""
    return np.array([[focal_px, 0, (width_px - 1) / 2], [0, focal_px, (height_px - 1) / 2], [0, 0, 1.0]])


def scaled_camera_matrix(
    matrix: np.ndarray, from_width_px: int, from_height_px: int, width_px: int, height_px: int
) -> np.ndarray | None:
    """The camera matrix for another image size; None if the aspect ratio differs (cropped images)."""
    x_scale, y_scale = width_px / from_width_px, height_px / from_height_px
    if abs(x_scale / y_scale - 1) > 0.02:
        return None
    scaled: np.ndarray = matrix * np.array([[x_scale], [y_scale], [1.0]])
    # Pixel centres are at integers, so the image corner is at -0.5.
    scaled[0, 2] += (x_scale - 1) / 2
    scaled[1, 2] += (y_scale - 1) / 2
    return scaled


def mounting_rotation(roll_deg: float, pitch_deg: float, yaw_deg: float) -> np.ndarray:
    """(3, 3): maps directions from the optical frame to the body frame.

    Angles as in a URDF: about the body's fixed x, then y, then z. (-90, 0, -90) is a camera facing forward
    on a body with x forward and z up (REP 103).
    """
    roll, pitch, yaw = np.radians([roll_deg, pitch_deg, yaw_deg])
    about_x, about_y, about_z = np.diag([roll, pitch, yaw])
    return rotation_of_vector(about_z) @ rotation_of_vector(about_y) @ rotation_of_vector(about_x)
