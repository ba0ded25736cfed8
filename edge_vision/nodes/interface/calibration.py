"""The calibration in a camera_info message."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import CameraInfo

from edge_vision.gate.ego_prior import scaled_camera_matrix


def calibration_of(message: CameraInfo, rectified: bool = False) -> tuple[np.ndarray, int, int] | None:
    """(camera matrix, width_px, height_px) of a CameraInfo's images, after its ROI and binning. rectified: of
    the rectified images.

    None if the horizontal and vertical binning differ.
    """
    given = np.array(message.p, np.float64).reshape(3, 4) if rectified else np.array(message.k, np.float64)
    matrix = given[:, :3].copy() if rectified else given.reshape(3, 3)
    roi = message.roi
    width_px, height_px = roi.width or message.width, roi.height or message.height
    matrix[0, 2] -= roi.x_offset
    matrix[1, 2] -= roi.y_offset
    small_px = width_px // max(1, message.binning_x), height_px // max(1, message.binning_y)
    if min(small_px) < 1:
        return None
    binned = scaled_camera_matrix(matrix, width_px, height_px, *small_px)
    return None if binned is None else (binned, *small_px)
