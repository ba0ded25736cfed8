"""The Kalman filters of all tracks at once, in one array: see `edge_vision.core.tracking` for the model."""

from __future__ import annotations

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
