"""The last depth images: detections come later than the image that they belong to."""

from __future__ import annotations

from bisect import bisect_left

from edge_vision.errors import LocalizationError
from edge_vision.localize.depth import DepthImage

MAX_IMAGES = 256


class DepthHistory:
    """Depth images by stamp, at most `max_bytes` of them and always the newest."""

    def __init__(self) -> None:
        self._images: list[DepthImage] = []

    def add(self, image: DepthImage, max_bytes: float) -> None:
        """Add an image. One that is older than all others clears them: the clock was set back."""
        stamps_ns = [one.stamp_ns for one in self._images]
        if stamps_ns and image.stamp_ns < stamps_ns[0]:
            self._images, stamps_ns = [], []
        self._images.insert(bisect_left(stamps_ns, image.stamp_ns), image)
        while len(self._images) > 1 and (self.bytes > max_bytes or len(self._images) > MAX_IMAGES):
            del self._images[0]

    @property
    def bytes(self) -> int:
        return sum(image.values.nbytes for image in self._images)

    def nearest(self, stamp_ns: int, max_difference_ns: float) -> tuple[DepthImage, bool]:
        """The image with the nearest stamp, and whether none to come can be nearer. Raises
        LocalizationError(no_depth_image, stamps_apart)."""
        if not self._images:
            raise LocalizationError(
                "no_depth_image",
                "expected depth images, got none: is the driver running, is the topic right?",
            )
        best = min(self._images, key=lambda image: abs(image.stamp_ns - stamp_ns))
        apart_ns = abs(best.stamp_ns - stamp_ns)
        if apart_ns > max_difference_ns:
            raise LocalizationError(
                "stamps_apart",
                f"expected a depth image within {max_difference_ns / 1e6:g} ms of the image, got one "
                f"{apart_ns / 1e6:.0f} ms away: synchronise the cameras, or raise max_stamp_difference_ms or "
                "depth_buffer_mb",
            )
        return best, apart_ns == 0 or self._images[-1].stamp_ns >= stamp_ns
