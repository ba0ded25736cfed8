"""Depth images in metres, and the distance of the nearest surface among scattered depths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WINDOW = 1.1
"""Depths within this ratio belong to one surface: a background closer behind the object is not separated."""
SURFACE_SHARE = 0.25
"""Of the valid pixels: fewer are an occluder's, or scatter."""
MIN_PIXELS, MIN_VALID_SHARE = 8, 0.05
MAD_TO_SIGMA = 1.4826
"""Median absolute deviation of a normal distribution -> its standard deviation."""


@dataclass(frozen=True, slots=True, eq=False)
class DepthImage:
    """One depth or disparity image, aligned with the camera's.

    values: (h, w) uint16 or float32. scale: metres per value, or with `disparities` (least and greatest valid
    one, in pixels) focal length times baseline, as in stereo_msgs/DisparityImage.
    """

    values: np.ndarray
    stamp_ns: int
    frame_id: str
    scale: float = 1.0
    disparities: tuple[float, float] | None = None

    def metres(self, part: np.ndarray, max_range_m: float) -> np.ndarray:
        """float32 depths of a part of `values`; NaN where there is none: 0, NaN, infinite, out of range."""
        values = part.astype(np.float32)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            depth_m = values * self.scale if self.disparities is None else self.scale / values
            valid = (depth_m > 0) & (depth_m <= max_range_m)
            if self.disparities is not None:
                valid &= (values >= self.disparities[0]) & (values <= self.disparities[1])
        return np.where(valid, depth_m, np.float32(np.nan))


def nearest_surface(depth_m: np.ndarray, window: float = WINDOW) -> tuple[float, float] | None:
    """The nearest and greatest depth of the nearest surface; None if there are too few depths.

    depth_m: NaN = unknown. The surface is the nearest window of depths of this ratio that has SURFACE_SHARE
    of them, otherwise the densest, shifted to its own median until it rests (mean shift with a median). What
    is seen beside or through the object, and depths that a sensor mixes at edges, are outside.
    """
    valid = np.sort(depth_m[np.isfinite(depth_m)]).astype(np.float64)
    if len(valid) < max(MIN_PIXELS, MIN_VALID_SHARE * depth_m.size):
        return None
    count = np.searchsorted(valid, valid * window, "right") - np.arange(len(valid))
    enough = count >= SURFACE_SHARE * len(valid)
    first = int(np.argmax(enough if enough.any() else count))
    center = np.median(valid[first : first + count[first]])
    for _ in range(10):
        low, high = np.searchsorted(valid, (center / window, center * window))
        center = np.median(valid[low:high])
    return float(center / window), float(center * window)


def median_and_spread(values: np.ndarray) -> tuple[float, float]:
    """The median, and the standard deviation estimated from the median absolute deviation."""
    median = np.median(values)
    return float(median), float(MAD_TO_SIGMA * np.median(np.abs(values - median)))
