"""What differs between two aligned luma images, beyond light, noise and misregistration.

All images are (h, w) uint8. Light is a gain and an offset for the whole picture, fitted robustly. A pixel
has changed when it lies outside what the reference shows in its 3 x 3 neighbourhood by more than a threshold
that follows the noise: a sub-pixel misalignment moves a value only within that envelope. Single changed
pixels and lines one pixel wide are opened away.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from edge_vision.core.geometry.boxes import NO_REGIONS

# Robust statistics are taken from every fourth pixel of every fourth row.
STEP = 4
# A normal distribution's standard deviation in median absolute deviations (Rousseeuw and Croux, JASA 1993).
SIGMA_PER_MAD = 1.4826
# Less light than this is within rounding; leaving it saves a pass over the picture.
NO_LIGHT = 0.75
# Where the pixels differ by no more than this standard deviation, no light has changed.
NO_LIGHT_SIGMA = 1.0
MIN_FITTED = 64
MAX_REGIONS = 16
_NEIGHBOURS = np.ones((3, 3), np.uint8)
_JOIN = np.ones((7, 7), np.uint8)
_GREYS = np.arange(256, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class LightFit:
    """The current image's grey is gain * reference + offset."""

    gain: float = 1.0
    offset: float = 0.0

    @property
    def step(self) -> float:
        """The largest change that it makes to a dark, middle or bright grey, in grey levels."""
        return max(abs((self.gain - 1.0) * grey + self.offset) for grey in (48.0, 112.0, 176.0))

    def relative_to(self, other: LightFit) -> LightFit:
        """The light against the moment at which the light against the same reference was `other`."""
        gain = self.gain / other.gain
        return LightFit(gain, self.offset - gain * other.offset)

    def undone(self, image: np.ndarray) -> np.ndarray:
        """The image as it would be without this light."""
        return LightFit(1.0 / self.gain, -self.offset / self.gain).applied(image)

    def applied(self, image: np.ndarray) -> np.ndarray:
        """The image under this light; itself where the difference is none."""
        if self.step < NO_LIGHT:
            return image
        return cv2.LUT(image, np.clip(_GREYS * self.gain + self.offset + 0.5, 0, 255).astype(np.uint8))


NO_CHANGE = LightFit()


def fit_light(reference: np.ndarray, current: np.ndarray, valid: np.ndarray | None) -> LightFit:
    """Gain and offset between two aligned images from the pixels that agree, refitted twice.

    valid: (h, w) uint8, 0 where the reference shows nothing; None = it shows everything.
    """
    before, after = _sampled(reference, valid), _sampled(current, valid)
    if before.size < MIN_FITTED:
        return NO_CHANGE
    # Clipped greys say nothing of gain.
    usable = (before > 2) & (before < 253) & (after > 2) & (after < 253)
    if np.count_nonzero(usable) < MIN_FITTED:
        return NO_CHANGE
    before, after = before[usable], after[usable]
    keep = _alike(before, after)
    before, after = before.astype(np.float32), after.astype(np.float32)
    if np.count_nonzero(keep) < MIN_FITTED:
        return NO_CHANGE
    light = _line(before[keep], after[keep])
    rest = after - (light.gain * before + light.offset)
    keep = np.abs(rest) <= max(4.0, 2.5 * _spread(rest))
    return _line(before[keep], after[keep]) if np.count_nonzero(keep) >= MIN_FITTED else light


def _alike(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(n,) bool: which of some uint8 pixels changed about as much as most. Medians are read from counts: a
    selection takes several times as long."""
    change = after.astype(np.int16) - before
    off = np.abs(change - (_counted_median(change + 255, 511) - 255))
    return off <= max(6.0, 3.0 * SIGMA_PER_MAD * _counted_median(off, 766))


def _counted_median(values: np.ndarray, n: int) -> int:
    """The upper median of integers in 0..n-1."""
    below = np.cumsum(np.bincount(values, minlength=n))
    return int(np.searchsorted(below, values.size // 2, side="right"))


def _line(before: np.ndarray, after: np.ndarray) -> LightFit:
    """The reduced major axis (W. Teissier 1948): both images have noise, and where they are misaligned a
    regression of the one on the other finds too small a gain."""
    mean, spread = (value.item() for value in cv2.meanStdDev(before))
    mean_after, spread_after = (value.item() for value in cv2.meanStdDev(after))
    # A picture of one grey fixes the offset only.
    gain = 1.0 if spread < 5.0 else min(max(spread_after / spread, 0.25), 4.0)
    return LightFit(gain, mean_after - gain * mean)


def _spread(values: np.ndarray) -> float:
    return SIGMA_PER_MAD * float(_median(np.abs(values - _median(values))))


def _median(values: np.ndarray) -> np.floating:
    """The upper median of (n,) float32, in a tenth of np.median's time."""
    return np.partition(values, values.size // 2)[values.size // 2]


def _sampled(image: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    sample = image[::STEP, ::STEP]
    return sample.ravel() if valid is None else sample[valid[::STEP, ::STEP] != 0]


def noise_sigma(difference: np.ndarray, valid: np.ndarray | None) -> float:
    """The noise in grey levels from the median of an absolute difference (h, w) uint8.

    The median is read from the histogram between two integers: whole grey levels are too coarse for it.
    """
    sample = _sampled(difference, valid)
    if sample.size == 0:
        return 0.0
    below = np.cumsum(np.bincount(sample, minlength=256)) / sample.size
    level = int(np.searchsorted(below, 0.5))
    before = float(below[level - 1]) if level else 0.0
    share = (0.5 - before) / max(1e-9, float(below[level]) - before)
    # Differences of 0 stand for 0 to 0.5, those of n for n - 0.5 to n + 0.5.
    median = share * 0.5 if level == 0 else level - 0.5 + share
    return SIGMA_PER_MAD * median


def envelope(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest grey in each pixel's 3 x 3 neighbourhood, each (h, w) uint8."""
    return cv2.erode(image, _NEIGHBOURS), cv2.dilate(image, _NEIGHBOURS)


def beyond(low: np.ndarray, high: np.ndarray, current: np.ndarray) -> np.ndarray:
    """(h, w) uint8: by how much current lies outside an envelope."""
    return cv2.max(cv2.subtract(current, high), cv2.subtract(low, current))


def changed_mask(difference: np.ndarray, threshold: float, opened: bool = True) -> np.ndarray:
    """(h, w) uint8, 255 where a difference is above threshold; opened: and not a thin line or a speck."""
    mask = cv2.threshold(difference, min(254, round(threshold)), 255, cv2.THRESH_BINARY)[1]
    return cv2.morphologyEx(mask, cv2.MORPH_OPEN, _NEIGHBOURS) if opened else mask


def regions_of(mask: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
    """Boxes of the blobs of a mask in source pixels, (n, 4) float32 xyxy_px; one around all when there are
    too many."""
    # Dilation joins the edges of one moving thing, and gives each box a margin.
    joined = cv2.dilate(mask, _JOIN)
    # Outer contours give the boxes of the blobs in a tenth of the time of connectedComponentsWithStats.
    contours = cv2.findContours(joined, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
    if not contours:
        return NO_REGIONS
    xyxy = np.array([cv2.boundingRect(contour) for contour in contours], np.float32)
    xyxy[:, 2:] += xyxy[:, :2]
    if len(xyxy) > MAX_REGIONS:
        xyxy = np.concatenate([xyxy[:, :2].min(0), xyxy[:, 2:].max(0)])[None]
    scale = np.array([width_px / mask.shape[1], height_px / mask.shape[0]] * 2, np.float32)
    return xyxy * scale
