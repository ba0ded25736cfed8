"""A calibrated camera: directions in which pixels lie."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from edge_vision.errors import LocalizationError

_PINHOLE = (4, 5, 8, 12, 14)
COEFFICIENTS = {"plumb_bob": _PINHOLE, "rational_polynomial": _PINHOLE, "equidistant": (4,)}
"""sensor_msgs/CameraInfo's distortion models -> numbers of coefficients that OpenCV accepts."""
ITERATIONS = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-10)
"""OpenCV's default of five leaves 1 % at the corners of a wide lens."""
MAX_TANGENT = 20.0
"""87 degrees: a fisheye's wider angles have no place on a plane."""


@dataclass(frozen=True, slots=True, eq=False)
class CameraModel:
    """A pinhole camera with distortion, in its optical frame (REP 103: x right, y down, z forward).

    matrix: (3, 3) float64, pixels. distortion: (k,) float64 in OpenCV's order, empty without. model: a key of
    COEFFICIENTS. Raises LocalizationError(bad_camera_info).
    """

    matrix: np.ndarray
    distortion: np.ndarray
    width_px: int
    height_px: int
    model: str = "plumb_bob"

    def __post_init__(self) -> None:
        focal_px = self.matrix[0, 0], self.matrix[1, 1]
        finite = np.isfinite(self.matrix).all() and np.isfinite(self.distortion).all()
        if not finite or min(focal_px) <= 0 or min(self.width_px, self.height_px) < 1:
            text = f"{self.width_px}x{self.height_px} with focal lengths {focal_px[0]:g}, {focal_px[1]:g}"
            raise bad_calibration(f"expected an image size and positive focal lengths, got {text}")
        if self.distortion.any() and len(self.distortion) not in COEFFICIENTS.get(self.model, ()):
            known = "; ".join(f"{name}: {counts}" for name, counts in COEFFICIENTS.items())
            text = f"'{self.model:.40}' with {len(self.distortion)}"
            raise bad_calibration(f"expected a distortion model and its coefficients ({known}), got {text}")

    def rays(self, points_px: np.ndarray) -> np.ndarray:
        """(n, 3) directions with z = 1 of points (n, 2), in pixels from the image's corner: the first pixel
        extends from 0 to 1. Raises LocalizationError(bad_box) where the calibration gives none."""
        points = np.asarray(points_px, np.float64).reshape(-1, 1, 2) - 0.5  # OpenCV: its centre is at 0.
        if self.model == "equidistant":
            distortion = self.distortion if self.distortion.any() else np.zeros(4)
            normal = cv2.fisheye.undistortPoints(points, self.matrix, distortion)[:, 0]
        elif not self.distortion.any():
            normal = (points[:, 0] - self.matrix[:2, 2]) / self.matrix.diagonal()[:2]
        else:
            given = points, self.matrix, self.distortion
            normal = cv2.undistortPointsIter(*given, np.eye(3), np.eye(3), ITERATIONS)[:, 0]
            # Beyond the radius at which the polynomial turns, there is no solution.
            seen = cv2.projectPoints(_with_depth(normal), np.zeros(3), np.zeros(3), *given[1:])[0]
            normal[np.abs(seen - points).max(axis=(1, 2)) > 1] = np.nan
        if not np.abs(normal).max() < MAX_TANGENT:
            raise LocalizationError(
                "bad_box", "expected an object where the lens is calibrated, got one outside of that"
            )
        return _with_depth(normal)


def _with_depth(normal: np.ndarray) -> np.ndarray:
    return np.column_stack((normal, np.ones(len(normal))))


def bad_calibration(text: str) -> LocalizationError:
    """The error for an unusable camera_info."""
    return LocalizationError("bad_camera_info", f"camera_info: {text}: calibrate the camera")
