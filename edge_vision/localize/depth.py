"""Depth images, the last of them, and the nearest surface among scattered depths."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

from edge_vision.errors import LocalizationError

WINDOW = 1.1
"""Depths within this ratio belong to one surface: a background closer behind the object is not separated."""
SURFACE_SHARE = 0.25
"""Of the valid pixels: fewer are an occluder's, or scatter."""
MIN_PIXELS, MIN_VALID_SHARE = 8, 0.05
MAD_TO_SIGMA = 1.4826
"""Median absolute deviation of a normal distribution -> its standard deviation."""


MAX_IMAGES, MAX_BYTES, MAX_AGE_NS = 256, 128e6, 2_000_000_000


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


class DepthHistory:
    """The last depth images, because detections come later than the image that they belong to."""

    def __init__(self) -> None:
        self._images: list[DepthImage] = []

    def add(self, image: DepthImage, max_bytes: float = MAX_BYTES) -> None:
        """Add an image. One that is older than all others clears them: the clock was set back."""
        stamps_ns = [one.stamp_ns for one in self._images]
        if stamps_ns and image.stamp_ns < stamps_ns[0]:
            self._images, stamps_ns = [], []
        self._images.insert(bisect_left(stamps_ns, image.stamp_ns), image)
        oldest_ns = self._images[-1].stamp_ns - MAX_AGE_NS
        while len(self._images) > 1 and (
            self._images[0].stamp_ns < oldest_ns or self.bytes > max_bytes or len(self._images) > MAX_IMAGES
        ):
            del self._images[0]

    @property
    def bytes(self) -> int:
        return sum(image.values.nbytes for image in self._images)

    def nearest(self, stamp_ns: int, max_difference_ns: float) -> tuple[DepthImage, bool]:
        """The image with the nearest stamp, and whether none to come can be nearer. Raises
        LocalizationError(no_depth_image, stamps_apart)."""
        if not self._images:
            text = (
                "expected depth images, got none: start the driver, or remap depth or disparity to its topic"
            )
            raise LocalizationError("no_depth_image", text)
        best = min(self._images, key=lambda image: abs(image.stamp_ns - stamp_ns))
        apart_ns = abs(best.stamp_ns - stamp_ns)
        if apart_ns > max_difference_ns:
            limit, apart = f"{max_difference_ns / 1e6:g} ms of the image", f"{apart_ns / 1e6:.0f} ms away"
            text = f"expected a depth image within {limit}, got one {apart}: synchronise the cameras"
            raise LocalizationError("stamps_apart", f"{text}, or raise max_stamp_difference_ms")
        return best, apart_ns == 0 or self._images[-1].stamp_ns >= stamp_ns


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
    center = valid[first + count[first] // 2]
    for _ in range(10):
        low, high = np.searchsorted(valid, (center / window, center * window))
        center = valid[(low + high) // 2]
    return float(center / window), float(center * window)


def median_and_spread(values: np.ndarray) -> tuple[float, float]:
    """The median, and the standard deviation estimated from the median absolute deviation."""
    median = np.median(values)
    return float(median), float(MAD_TO_SIGMA * np.median(np.abs(values - median)))
