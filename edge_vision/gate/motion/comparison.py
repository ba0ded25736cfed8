"""Compares an image with an earlier one that is aligned with it.

earlier image -> aligned -> relighted -> difference -> threshold by the noise -> parallax removed -> mask
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from edge_vision.core.geometry.homography import warp
from edge_vision.gate.motion.ego_motion import EgoReference
from edge_vision.gate.motion.image_diff import beyond, changed_mask, envelope, noise_sigma
from edge_vision.gate.motion.light import NO_CHANGE, LightFit, fit_light
from edge_vision.gate.motion.parallax import without_parallax

# Largest noise in grey levels, at luma size, that is accepted from the first difference.
FIRST_NOISE = 6.0
# Below this standard deviation of the difference the light has not changed.
SAME_LIGHT_SIGMA = 1.0


@dataclass(frozen=True, slots=True)
class MotionConfig:
    """pixel_threshold: minimum in grey levels; noise_factor: threshold in standard deviations of the noise;
    min_changed_area: share of the image; ego_motion: align the anchor with the camera's motion; parallax:
    ignore near objects that the camera's translation displaces."""

    pixel_threshold: float = 10.0
    noise_factor: float = 6.0
    min_changed_area: float = 0.0005
    ego_motion: bool = True
    parallax: bool = True


class ReferenceImage:
    """A luma image to compare with: sharp for the corners, smoothed for the difference."""

    def __init__(self, luma: np.ndarray) -> None:
        self.ego = EgoReference(luma)
        self.smooth = cv2.blur(luma, (3, 3))


@dataclass(frozen=True, slots=True, eq=False)
class ComparisonResult:
    """The light between two images, the mask of other changes, and the noise in grey levels.

    mask: (h, w) uint8, 255 = changed. changed_area: its share of the image. changed: it reaches
    min_changed_area.
    """

    light: LightFit
    mask: np.ndarray
    sigma: float
    changed_area: float
    changed: bool


def compare(
    now: ReferenceImage,
    earlier: ReferenceImage,
    noise: float,
    transform: np.ndarray,
    config: MotionConfig,
    opened: bool = True,
) -> ComparisonResult:
    """The change from an earlier image, aligned by a transform, (3, 3).

    noise: standard deviation in grey levels, 0.0 = unknown. opened: ignore thin lines.
    """
    light = NO_CHANGE
    reference, valid = warp(earlier.smooth, transform)
    difference = cv2.absdiff(now.smooth, reference)
    sigma = noise_sigma(difference, valid)
    if sigma > SAME_LIGHT_SIGMA:
        light = fit_light(reference, now.smooth, valid)
        relighted = light.applied(reference)
        if relighted is not reference:
            reference, difference = relighted, cv2.absdiff(now.smooth, relighted)
            sigma = noise_sigma(difference, valid)
    threshold = _threshold(sigma, noise, config)
    if valid is None:
        return _result(light, changed_mask(difference, threshold, opened), sigma, config)
    low, high = envelope(reference)
    mask = cv2.bitwise_and(changed_mask(beyond(low, high, now.smooth), threshold, opened), valid)
    if config.parallax and is_significant(mask, config):
        mask = without_parallax(mask, now.smooth, low, high, valid, transform, threshold)
    return _result(light, mask, sigma, config)


def _threshold(sigma: float, noise: float, config: MotionConfig) -> float:
    # A misaligned image appears noisy everywhere: the threshold follows such a jump slowly.
    trusted = min(sigma, FIRST_NOISE if noise == 0.0 else 1.5 * noise + 0.5)
    return max(config.pixel_threshold, config.noise_factor * max(noise, trusted))


def _result(light: LightFit, mask: np.ndarray, sigma: float, config: MotionConfig) -> ComparisonResult:
    changed_px = cv2.countNonZero(mask)
    return ComparisonResult(light, mask, sigma, changed_px / mask.size, _suffices(changed_px, mask, config))


def is_significant(mask: np.ndarray, config: MotionConfig) -> bool:
    """True if the changed area reaches min_changed_area."""
    return _suffices(cv2.countNonZero(mask), mask, config)


def _suffices(changed_px: int, mask: np.ndarray, config: MotionConfig) -> bool:
    return changed_px >= max(1.0, config.min_changed_area * mask.size)
