"""Cheap evidence from small luma images: unchanged since the last inferred frame, a cut, the camera's shift.

Costs one comparison with the last inferred frame and one with the previous frame; the camera's shift is
estimated only while the picture changes. All of it is compared at the size of the given luma image, or at
about SMALL_WIDTH_PX for cuts and shifts.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from edge_vision.core.frame import block_mean
from edge_vision.core.geometry.boxes import NO_REGIONS
from edge_vision.core.geometry.homography import IDENTITY, scaled
from edge_vision.core.geometry.zones import NO_ZONES, Zones

SMALL_WIDTH_PX = 160
MIN_THRESHOLD_GREY, MAX_THRESHOLD_GREY = 8, 24
NOISE_FACTOR = 6.0
"""A pixel has changed where it leaves the 3x3 minimum and maximum of the reference by more than this many
times the median absolute difference of the whole picture, which follows sensor noise and slow light. Bounded,
as a picture that moves as a whole has a large median too."""
UNCHANGED_SHARE = 0.0002
"""Below this share of changed pixels the picture counts as unchanged: 12 of 320 x 180."""
MIN_CUT_GREY = 15.0
CUT_RATIO = 2.5
"""A cut: the mean change that no shift explains exceeds MIN_CUT_GREY and so many times its running mean."""
MOVED_GREY = 8.0
MIN_MOVED_SHARE = 0.05
"""Share of the pixels that must change by MOVED_GREY from one frame to the next for a camera motion to be
estimated: objects that move change less, a camera changes every edge."""
MIN_SHIFT_PX = 0.15
_FAST_WIDTH_PX = 32
MAX_SHIFT_SHARE = 0.2
MAX_RESIDUAL = 0.85
"""A shift is accepted only if it reduces the mean change at least to this share."""
_RUNNING_MEAN_STEP = 0.2
MAX_REGIONS = 16
_CELL_PX = 4
"""Regions are found on a grid of cells of so many pixels of the luma image."""
_KERNEL, _PAIR = np.ones((3, 3), np.uint8), np.ones((2, 2), np.uint8)
BOX_MARGIN, MIN_MARGIN_PX = 0.15, 2
"""A box explains the change around it, to this share of its size at each side: limbs, shadows, blur."""


class Evidence(NamedTuple):
    """What a frame shows without inference.

    changed_share: share of the pixels that differ from the last inferred frame, 1.0 where there is none.
    cut: the picture shows another scene than the frame before. camera_motion: (3, 3) float64, maps a point of
    the frame before to this frame, in pixels of the luma image; None after a cut.
    """

    changed_share: float
    cut: bool
    camera_motion: np.ndarray | None

    @property
    def unchanged(self) -> bool:
        """True where nothing beyond noise differs from the last inferred frame."""
        return self.changed_share < UNCHANGED_SHARE

    @property
    def camera(self) -> str:
        """standing, moving, or unknown."""
        if self.camera_motion is None:
            return "unknown"
        return "standing" if self.camera_motion is IDENTITY else "moving"


class ImageEvidence:
    """Observes the frames of one camera in order. Not thread-safe."""

    def __init__(self) -> None:
        self._zones = NO_ZONES
        # At luma size and at the size for cuts and shifts; None without zones.
        self._watched: tuple[np.ndarray, np.ndarray] | None = None
        self.forget()

    @property
    def watched_share(self) -> float:
        """Share of the pixels whose changes count."""
        return float(cv2.countNonZero(self._watched[0])) / self._watched[0].size if self._watched else 1.0

    def watch(self, zones: Zones) -> None:
        """Ignore changes of pixels that lie wholly outside the zones, from the next frame on."""
        if zones is not self._zones:
            self._zones, self._watched = zones, None

    def forget(self) -> None:
        """Start again: the next frame has nothing to be compared with."""
        self._luma: np.ndarray | None = None
        self._small: np.ndarray | None = None
        self._reference: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self._window: np.ndarray | None = None
        self._running_mean: float | None = None
        self._mask: np.ndarray | None = None

    def observe(self, luma: np.ndarray, prior: np.ndarray | None = None) -> Evidence:
        """Compare an (h, w) uint8 image with the last inferred one and with the one before.

        prior: (3, 3) the camera's motion since the one before, from another sensor, in pixels of the image.
        """
        if self._luma is not None and self._luma.shape != luma.shape:
            self.forget()
        small = _small(luma)
        if self._zones and (self._watched is None or self._watched[0].shape != luma.shape):
            self._watched = self._zones.mask(luma.shape), self._zones.mask(small.shape)
        cut, camera_motion = self._against_previous(small, luma.shape[1] / small.shape[1], prior)
        evidence = Evidence(self._changed_share(luma), cut, camera_motion)
        self._luma, self._small = luma, small
        return evidence

    def mark_inferred(self) -> None:
        """Make the frame observed last the reference of `changed_share`."""
        if self._luma is not None:
            self._reference = (
                self._luma,
                cv2.erode(self._luma, _KERNEL),
                cv2.dilate(self._luma, _KERNEL),
            )

    def unexplained_share(self, xyxy: np.ndarray) -> float:
        """Share of the pixels that differ from the last inferred frame outside boxes and their margins.

        xyxy: (n, 4) in pixels of the luma image. Isolated pixels are noise, and do not count.
        """
        if self._mask is None:
            return 1.0
        rest = self._mask.copy()
        margin = BOX_MARGIN * np.tile(xyxy[:, 2:] - xyxy[:, :2], 2) + MIN_MARGIN_PX
        for x0, y0, x1, y1 in (xyxy + margin * (-1, -1, 1, 1)).astype(int).tolist():
            cv2.rectangle(rest, (x0, y0), (x1, y1), 0, cv2.FILLED)
        return float(cv2.countNonZero(cv2.erode(rest, _PAIR))) / rest.size

    def regions(self, width_px: int, height_px: int) -> np.ndarray:
        """Boxes of what has changed since the last inferred frame, (n, 4) float32 xyxy_px in a source image
        of that size. More than MAX_REGIONS become one box around all of them."""
        if self._mask is None:
            return NO_REGIONS
        height, width = self._mask.shape
        # Dilation joins the edges of one moving object and adds a margin to each box. External contours take
        # a tenth of the time of connectedComponentsWithStats.
        grid = (max(1, width // _CELL_PX), max(1, height // _CELL_PX))
        cells = cv2.threshold(
            cv2.resize(self._mask, grid, interpolation=cv2.INTER_AREA), 15, 255, cv2.THRESH_BINARY
        )[1]
        contours = cv2.findContours(cv2.dilate(cells, _KERNEL), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
        if not contours:
            return NO_REGIONS
        xyxy = np.array([cv2.boundingRect(contour) for contour in contours], np.float32)
        xyxy[:, 2:] += xyxy[:, :2]
        if len(xyxy) > MAX_REGIONS:
            xyxy = np.concatenate([xyxy[:, :2].min(0), xyxy[:, 2:].max(0)])[None]
        return xyxy * np.array([width_px / grid[0], height_px / grid[1]] * 2, np.float32)

    def pictures(self) -> dict[str, np.ndarray]:
        """For display, each (h, w) uint8: the last image, the last inferred one, and what differs (255)."""
        if self._luma is None or self._reference is None:
            return {}
        mask = np.zeros_like(self._luma) if self._mask is None else self._mask
        return {"image": self._luma, "last inferred": self._reference[0], "changed": mask}

    def _changed_share(self, luma: np.ndarray) -> float:
        self._mask = None
        if self._reference is None:
            return 1.0
        reference, low, high = self._reference
        outside = cv2.max(cv2.subtract(luma, high), cv2.subtract(low, luma))
        watched = self._watched and self._watched[0]
        noise = NOISE_FACTOR * _median(cv2.absdiff(luma, reference), watched)
        threshold = min(max(MIN_THRESHOLD_GREY, noise), MAX_THRESHOLD_GREY)
        _, self._mask = cv2.threshold(outside, threshold, 255, cv2.THRESH_BINARY)
        if watched is not None:
            self._mask &= watched
        return float(cv2.countNonZero(self._mask)) / luma.size

    def _against_previous(
        self, small: np.ndarray, scale: float, prior: np.ndarray | None
    ) -> tuple[bool, np.ndarray | None]:
        """Whether this is a cut, and the camera's motion since the frame before."""
        if self._small is None:
            return False, IDENTITY
        difference = cv2.absdiff(small, self._small)
        change = self._mean(difference)
        motion, residual = IDENTITY, change
        moved = cv2.countNonZero(cv2.threshold(difference, MOVED_GREY, 255, cv2.THRESH_BINARY)[1])
        if moved >= MIN_MOVED_SHARE * small.size:
            motion, residual = self._explained(small, change, scale, prior)
        # The second picture may already show another scene.
        usual = min(residual, MIN_CUT_GREY / CUT_RATIO) if self._running_mean is None else self._running_mean
        cut = residual > MIN_CUT_GREY and residual > CUT_RATIO * usual
        # A cut must not count as usual change, or the second of two would be missed.
        self._running_mean = usual + _RUNNING_MEAN_STEP * (min(residual, 3.0 * usual + 1.0) - usual)
        return cut, None if cut else motion

    def _mean(self, difference: np.ndarray) -> float:
        """The mean of an image at the size for cuts and shifts; that of its watched pixels if that is less.

        Neither a change outside the zones is a cut, nor an object that fills a small zone.
        """
        mean = cv2.mean(difference)[0]
        return min(mean, cv2.mean(difference, self._watched[1])[0]) if self._watched else mean

    def _explained(
        self, small: np.ndarray, change: float, scale: float, prior: np.ndarray | None
    ) -> tuple[np.ndarray, float]:
        """The camera's motion and the mean change that it leaves.

        The better one of the prior and the translation, if it explains a good part of the change; otherwise
        the identity and all of the change.
        """
        assert self._small is not None
        best, least = IDENTITY, MAX_RESIDUAL * change
        residual = change
        for motion in (self._translation(small), None if prior is None else scaled(prior, 1.0 / scale)):
            if motion is None:
                continue
            moved = cv2.warpPerspective(
                self._small, motion, small.shape[::-1], borderMode=cv2.BORDER_REPLICATE
            )
            left = self._mean(cv2.absdiff(moved, small))
            if left <= least:
                best, least, residual = scaled(motion, scale), left, left
        return best, residual

    def _translation(self, small: np.ndarray) -> np.ndarray | None:
        """(3, 3) by phase correlation (Kuglin and Hines 1975); None if there is none, or too large a one."""
        assert self._small is not None
        height, width = small.shape
        if min(height, width) < 2:
            return None
        # The Fourier transform of such a width takes three quarters of the time.
        width -= width % _FAST_WIDTH_PX if width > _FAST_WIDTH_PX else 0
        if self._window is None:
            self._window = cv2.createHanningWindow((width, height), cv2.CV_32F)
        before, now = np.float32(self._small[:, :width]), np.float32(small[:, :width])
        (x, y), _ = cv2.phaseCorrelate(before, now, self._window)
        too_far = abs(x) > MAX_SHIFT_SHARE * width or abs(y) > MAX_SHIFT_SHARE * height
        if too_far or abs(x) + abs(y) < MIN_SHIFT_PX:
            return None
        return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def _small(luma: np.ndarray) -> np.ndarray:
    """The image at SMALL_WIDTH_PX to twice as much; smaller ones as they are."""
    return block_mean(luma, max(1, luma.shape[1] // SMALL_WIDTH_PX))


def _median(image: np.ndarray, mask: np.ndarray | None = None) -> int:
    """The median of every sixth row and column of an 8-bit image, where the mask is not 0."""
    sample = image[::6, ::6]
    sample = sample.ravel() if mask is None else sample[mask[::6, ::6] > 0]
    if sample.size == 0:
        return 0
    middle = (sample.size - 1) // 2
    return int(np.partition(sample, middle)[middle])
