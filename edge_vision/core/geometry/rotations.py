"""Rotations as (3, 3) float64 matrices, and their quaternions (4,), x, y, z, w."""

from __future__ import annotations

import cv2
import numpy as np


def rotation_of_vector(vector_rad: np.ndarray) -> np.ndarray:
    """The rotation about an axis by the vector's length (Rodrigues)."""
    return np.asarray(cv2.Rodrigues(np.asarray(vector_rad, np.float64))[0])


def rotation_of_quaternion(xyzw: np.ndarray) -> np.ndarray:
    """The rotation of a quaternion of any length but zero."""
    x, y, z, w = xyzw / np.linalg.norm(xyzw)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def quaternion_of_rotation(rotation: np.ndarray) -> np.ndarray:
    """The unit quaternion of a rotation, with w >= 0."""
    vector_rad = cv2.Rodrigues(rotation)[0].ravel()
    angle_rad = float(np.linalg.norm(vector_rad))
    axis = vector_rad / angle_rad if angle_rad else vector_rad
    return np.array([*(axis * np.sin(angle_rad / 2)), np.cos(angle_rad / 2)])


def interpolated(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """The rotation at this share of the way from the first to the second, at constant speed (slerp)."""
    return np.asarray(first @ rotation_of_vector(share * cv2.Rodrigues(first.T @ second)[0].ravel()))
