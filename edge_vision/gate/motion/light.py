"""A change of light between two aligned luma images: one gain and offset, fitted robustly.

All images are (h, w) uint8.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

# Robust statistics are computed from every fourth pixel of every fourth row.
STEP = 4
# Standard deviation of a normal distribution per median absolute deviation (Rousseeuw and Croux, JASA 1993).
SIGMA_PER_MAD = 1.4826
# A smaller change is within rounding; ignoring it saves a pass over the image.
MIN_STEP = 0.75
MIN_FITTED = 64
_GREYS = np.arange(256, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class LightFit:
    """The current image's grey is gain * reference + offset."""

    gain: float = 1.0
    offset: float = 0.0

    @property
    def step(self) -> float:
        """The largest change of a dark, middle or bright grey, in grey levels."""
        return max(abs((self.gain - 1.0) * grey + self.offset) for grey in (48.0, 112.0, 176.0))

    def relative_to(self, other: LightFit) -> LightFit:
        """The change since the light against the same reference was `other`."""
        gain = self.gain / other.gain
        return LightFit(gain, self.offset - gain * other.offset)

    def undone(self, image: np.ndarray) -> np.ndarray:
        """The image without this change of light."""
        return LightFit(1.0 / self.gain, -self.offset / self.gain).applied(image)

    def applied(self, image: np.ndarray) -> np.ndarray:
        """The image under this light; the same object if the change is negligible."""
        if self.step < MIN_STEP:
            return image
        return cv2.LUT(image, np.clip(_GREYS * self.gain + self.offset + 0.5, 0, 255).astype(np.uint8))


NO_CHANGE = LightFit()


def fit_light(reference: np.ndarray, current: np.ndarray, valid: np.ndarray | None) -> LightFit:
    """Gain and offset from the pixels of two aligned images that agree, refitted once.

    valid: (h, w) uint8, 0 where the reference shows nothing; None = it shows everything.
    """
    before, after = sampled(reference, valid), sampled(current, valid)
    if before.size < MIN_FITTED:
        return NO_CHANGE
    # Clipped greys carry no information about the gain.
    usable = (before > 2) & (before < 253) & (after > 2) & (after < 253)
    if np.count_nonzero(usable) < MIN_FITTED:
        return NO_CHANGE
    before, after = before[usable], after[usable]
    inlier = _agree(before, after)
    before, after = before.astype(np.float32), after.astype(np.float32)
    if np.count_nonzero(inlier) < MIN_FITTED:
        return NO_CHANGE
    light = _fit_line(before[inlier], after[inlier])
    residual = after - (light.gain * before + light.offset)
    inlier = np.abs(residual) <= max(4.0, 2.5 * _mad_sigma(residual))
    return _fit_line(before[inlier], after[inlier]) if np.count_nonzero(inlier) >= MIN_FITTED else light


def sampled(image: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    """(n,): the valid pixels on a grid of STEP pixels."""
    sample = image[::STEP, ::STEP]
    return sample.ravel() if valid is None else sample[valid[::STEP, ::STEP] != 0]


def _agree(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(n,) bool: which uint8 pixels changed about as much as the median. Medians are read from counts, which
    is several times as fast as a selection."""
    change = after.astype(np.int16) - before
    deviation = np.abs(change - (_counted_median(change + 255, 511) - 255))
    return deviation <= max(6.0, 3.0 * SIGMA_PER_MAD * _counted_median(deviation, 766))


def _counted_median(values: np.ndarray, n: int) -> int:
    """The upper median of integers in 0..n-1."""
    cumulative = np.cumsum(np.bincount(values, minlength=n))
    return int(np.searchsorted(cumulative, values.size // 2, side="right"))


def _fit_line(before: np.ndarray, after: np.ndarray) -> LightFit:
    """The reduced major axis (W. Teissier 1948): as both images are noisy and slightly misaligned, a
    regression would underestimate the gain."""
    mean, sigma = (value.item() for value in cv2.meanStdDev(before))
    mean_after, sigma_after = (value.item() for value in cv2.meanStdDev(after))
    # A uniform image determines the offset only.
    gain = 1.0 if sigma < 5.0 else min(max(sigma_after / sigma, 0.25), 4.0)
    return LightFit(gain, mean_after - gain * mean)


def _mad_sigma(values: np.ndarray) -> float:
    return SIGMA_PER_MAD * float(_median(np.abs(values - _median(values))))


def _median(values: np.ndarray) -> np.floating:
    """The upper median of (n,) float32, in a tenth of np.median's time."""
    return np.partition(values, values.size // 2)[values.size // 2]
