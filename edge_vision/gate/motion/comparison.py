"""What differs between an image and an earlier one, moved to where its scene is now: one comparison.

earlier image -> moved -> under today's light -> difference -> threshold by the noise -> parallax -> mask
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from edge_vision.core.geometry.homography import warp
from edge_vision.gate.motion.ego_motion import EgoReference
from edge_vision.gate.motion.image_diff import (
    NO_CHANGE,
    NO_LIGHT_SIGMA,
    LightFit,
    beyond,
    changed_mask,
    envelope,
    fit_light,
    noise_sigma,
)
from edge_vision.gate.motion.parallax import without_parallax

# Grey levels of noise, at luma size, that are believed of the very first difference.
FIRST_NOISE = 6.0


@dataclass(frozen=True, slots=True)
class MotionConfig:
    """pixel_threshold: grey levels, at least; noise_factor: threshold in standard deviations of the noise;
    min_changed_area: share of the picture; ego_motion: align the anchor with the camera's motion; parallax:
    take near things that the camera's travel displaces for known."""

    pixel_threshold: float = 10.0
    noise_factor: float = 6.0
    min_changed_area: float = 0.0005
    ego_motion: bool = True
    parallax: bool = True


class ReferenceImage:
    """A luma image to compare with, sharp for the corners and smoothed for the differences."""

    def __init__(self, luma: np.ndarray, smooth: np.ndarray) -> None:
        self.ego = EgoReference(luma)
        self.smooth = smooth


@dataclass(frozen=True, slots=True, eq=False)
class ComparisonResult:
    """The light between two images, the mask of what else differs, and the noise in grey levels.

    mask: (h, w) uint8, 255 = differs.
    """

    light: LightFit
    mask: np.ndarray
    sigma: float


def compare(
    now: ReferenceImage,
    earlier: ReferenceImage,
    noise: float,
    transform: np.ndarray,
    config: MotionConfig,
    opened: bool = True,
) -> ComparisonResult:
    """What differs in an image from an earlier one, moved by a transform, (3, 3).

    noise: in grey levels, as far as it is known, 0.0 = not yet. opened: thin lines do not count.
    """
    light = NO_CHANGE
    reference, valid = warp(earlier.smooth, transform)
    difference = cv2.absdiff(now.smooth, reference)
    sigma = noise_sigma(difference, valid)
    if sigma > NO_LIGHT_SIGMA:
        light = fit_light(reference, now.smooth, valid)
        lit = light.applied(reference)
        if lit is not reference:
            reference, difference = lit, cv2.absdiff(now.smooth, lit)
            sigma = noise_sigma(difference, valid)
    threshold = _threshold(sigma, noise, config)
    if valid is None:
        return ComparisonResult(light, changed_mask(difference, threshold, opened), sigma)
    low, high = envelope(reference)
    mask = cv2.bitwise_and(changed_mask(beyond(low, high, now.smooth), threshold, opened), valid)
    if config.parallax and counts(mask, config):
        mask = without_parallax(mask, now.smooth, low, high, valid, transform, threshold)
    return ComparisonResult(light, mask, sigma)


def _threshold(sigma: float, noise: float, config: MotionConfig) -> float:
    # A misaligned picture looks noisy all over: the threshold follows such a jump in steps only.
    trusted = min(sigma, FIRST_NOISE if noise == 0.0 else 1.5 * noise + 0.5)
    return max(config.pixel_threshold, config.noise_factor * max(noise, trusted))


def counts(mask: np.ndarray, config: MotionConfig) -> bool:
    """True where so much has changed that it counts."""
    return cv2.countNonZero(mask) >= max(1.0, config.min_changed_area * mask.size)
