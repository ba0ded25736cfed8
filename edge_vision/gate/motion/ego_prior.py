"""How the camera turned between two frames, from the robot's gyroscope or odometry, in source pixels.

A camera that turns about its centre moves every point x of its picture to H x with H = K R K^-1, whatever
the point's distance (Hartley and Zisserman, Multiple View Geometry, 2nd ed., section 8.4). Translation moves
near points further than far ones: without depth it gives no such H, so it is left out, of odometry too.
The gate takes H as a first guess, and measures the rest in the picture.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence

import cv2
import numpy as np

IMU_GAP_NS = 100_000_000
ODOMETRY_GAP_NS = 300_000_000
# A frame may be judged before the sample after it came: the last turn is then held on for this long.
HOLD_NS = 50_000_000
# A sample that lies further back than this is a new time line, not a late one.
JUMP_NS = 1_000_000_000
# At this cosine between the two optical axes (75 degrees) two pictures have nothing in common.
LEAST_COSINE = 0.26


class OrientationHistory:
    """The last orientations of a body by stamp: a ring of `size`. Any thread adds, any thread reads.

    max_gap_ns: samples further apart than this say nothing about the time between them. Samples that repeat,
    come late or are no numbers are left out; after a gap or a jump of the clock the history starts anew.
    """

    def __init__(self, max_gap_ns: int, size: int = 1024) -> None:
        self._max_gap_ns = max_gap_ns
        self._samples: deque[tuple[int, np.ndarray]] = deque(maxlen=size)
        self._rate = np.zeros(3)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._samples)

    def add_rate(self, stamp_ns: int, rate_rad_s: Sequence[float]) -> bool:
        """Note an angular velocity, (3,) rad/s in the body's own axes. False where it was left out."""
        rate = np.array(rate_rad_s, np.float64)
        if rate.shape != (3,) or not np.isfinite(rate).all():
            return False
        with self._lock:
            if not self._takes(stamp_ns):
                return False
            orientation = np.eye(3)
            if self._samples:
                last_ns, last = self._samples[-1]
                # The mean of both ends: exact for a steady axis and a rate that changes evenly.
                orientation = last @ _rotation((rate + self._rate) / 2 * (stamp_ns - last_ns) / 1e9)
            self._rate = rate
            self._samples.append((stamp_ns, orientation))
            return True

    def add_orientation(self, stamp_ns: int, xyzw: Sequence[float]) -> bool:
        """Note the body's orientation in a fixed frame, a quaternion. False where it was left out."""
        quaternion = np.array(xyzw, np.float64)
        if quaternion.shape != (4,) or not np.isfinite(quaternion).all() or np.linalg.norm(quaternion) < 1e-6:
            return False
        with self._lock:
            if not self._takes(stamp_ns):
                return False
            self._samples.append((stamp_ns, _of_quaternion(quaternion)))
            return True

    def turn(self, from_ns: int, to_ns: int) -> np.ndarray | None:
        """(3, 3): takes a fixed direction from the body's axes at from_ns to its axes at to_ns.

        None where the samples do not cover that time.
        """
        with self._lock:
            if from_ns > to_ns:
                return None
            first, last = self._at(from_ns), self._at(to_ns)
        return None if first is None or last is None else last.T @ first

    def clear(self) -> None:
        """Forget all samples."""
        with self._lock:
            self._samples.clear()

    def _takes(self, stamp_ns: int) -> bool:
        """True for a sample that goes on from the last one; a new time line starts an empty history."""
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
        """The orientation at a time, turning evenly between two samples and, for HOLD_NS, after the last."""
        samples = self._samples
        if len(samples) < 2 or not samples[0][0] <= stamp_ns <= samples[-1][0] + HOLD_NS:
            return None
        after = min(bisect_right(samples, stamp_ns, key=lambda sample: sample[0]), len(samples) - 1)
        (t0_ns, before), (t1_ns, then) = samples[after - 1], samples[after]
        share = (stamp_ns - t0_ns) / (t1_ns - t0_ns)
        return before @ _rotation(share * cv2.Rodrigues(before.T @ then)[0].ravel())


class EgoPrior:
    """The camera's motion between two frames from a body's orientations and how the camera sits on that body.

    mounting: (3, 3), the camera's optical axes (z ahead, x right, y down) in the body's axes, see
    `mounting_rotation`. focal_px: in source pixels; 0 = from `calibrate`. One thread asks, any thread adds.
    """

    def __init__(self, history: OrientationHistory, mounting: np.ndarray, focal_px: float = 0.0) -> None:
        self.history = history
        self._mounting = mounting
        self._focal_px = focal_px
        self._calibration: tuple[np.ndarray, int, int] | None = None
        self.missing = "no frame yet"

    def calibrate(self, matrix: np.ndarray, width_px: int, height_px: int) -> None:
        """Take a camera matrix, (3, 3), of pictures of this size. One without focal lengths is ignored."""
        good = matrix.shape == (3, 3) and np.isfinite(matrix).all() and min(matrix[0, 0], matrix[1, 1]) > 0
        if good and width_px > 0 and height_px > 0:
            self._calibration = (matrix, width_px, height_px)

    def motion(self, from_ns: int, to_ns: int, width_px: int, height_px: int) -> np.ndarray | None:
        """(3, 3) float64: where a point of the picture at from_ns lies in that at to_ns, source pixels.

        None where it is not known; `missing` then says why, and is "" otherwise.
        """
        matrix = self._matrix(width_px, height_px)
        turn = self.history.turn(from_ns, to_ns)
        motion = None
        if matrix is None:
            self.missing = "no focal length for this size: set ego_focal_px, or have camera_info published"
        elif turn is None:
            self.missing = "no samples around the frames' stamps"
        else:
            motion = rotation_homography(self._mounting.T @ turn @ self._mounting, matrix)
            self.missing = "the camera turned away from what it saw" if motion is None else ""
        return motion

    def _matrix(self, width_px: int, height_px: int) -> np.ndarray | None:
        if self._focal_px > 0:
            return camera_matrix(self._focal_px, width_px, height_px)
        if self._calibration is None:
            return None
        return scaled_camera_matrix(*self._calibration, width_px, height_px)


def rotation_homography(turn: np.ndarray, matrix: np.ndarray) -> np.ndarray | None:
    """K R K^-1, (3, 3), with a 1 in its corner. turn: (3, 3), from the camera's axes before to those after.

    None where the camera turned so far that the two pictures share nothing.
    """
    if turn[2, 2] < LEAST_COSINE:
        return None
    homography = matrix @ turn @ np.linalg.inv(matrix)
    return np.asarray(homography / homography[2, 2], np.float64)


def camera_matrix(focal_px: float, width_px: int, height_px: int) -> np.ndarray:
    """(3, 3) of a camera with square pixels that looks through the middle of its picture."""
    return np.array([[focal_px, 0, (width_px - 1) / 2], [0, focal_px, (height_px - 1) / 2], [0, 0, 1.0]])


def scaled_camera_matrix(
    matrix: np.ndarray, from_width_px: int, from_height_px: int, width_px: int, height_px: int
) -> np.ndarray | None:
    """The camera matrix for pictures of another size; None where the shape differs: they were cropped."""
    x_scale, y_scale = width_px / from_width_px, height_px / from_height_px
    if abs(x_scale / y_scale - 1) > 0.02:
        return None
    scaled = np.diag([x_scale, y_scale, 1.0]) @ matrix
    # Whole numbers are the middles of pixels, so the picture's corner is at -0.5.
    scaled[0, 2] += (x_scale - 1) / 2
    scaled[1, 2] += (y_scale - 1) / 2
    return scaled


def mounting_rotation(roll_deg: float, pitch_deg: float, yaw_deg: float) -> np.ndarray:
    """(3, 3): a direction in the camera's optical axes, told in the body's. Angles as in a URDF: about the
    body's fixed x, then y, then z. (-90, 0, -90) looks ahead from a body with x ahead and z up (REP 103)."""
    roll, pitch, yaw = np.radians([roll_deg, pitch_deg, yaw_deg])
    about_x, about_y, about_z = np.diag([roll, pitch, yaw])
    return _rotation(about_z) @ _rotation(about_y) @ _rotation(about_x)


def _rotation(vector_rad: np.ndarray) -> np.ndarray:
    """(3, 3) of a turn about an axis by the vector's length (Rodrigues)."""
    return np.asarray(cv2.Rodrigues(np.asarray(vector_rad, np.float64))[0])


def _of_quaternion(xyzw: np.ndarray) -> np.ndarray:
    x, y, z, w = xyzw / np.linalg.norm(xyzw)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
