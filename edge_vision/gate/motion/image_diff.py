"""The difference between two aligned luma images beyond noise and misregistration, as a mask and regions.

All images are (h, w) uint8. A pixel has changed if it lies outside the range of the reference in its 3 x 3
neighbourhood by more than a threshold that follows the noise: a sub-pixel misalignment stays within that
range. Morphological opening removes single pixels and lines one pixel wide.
"""

from __future__ import annotations

import cv2
import numpy as np

from edge_vision.core.geometry.boxes import NO_REGIONS
from edge_vision.gate.motion.light import SIGMA_PER_MAD, sampled

MAX_REGIONS = 16
_NEIGHBOURS = np.ones((3, 3), np.uint8)
_JOIN = np.ones((7, 7), np.uint8)


def noise_sigma(difference: np.ndarray, valid: np.ndarray | None) -> float:
    """The standard deviation of the noise in grey levels, from the median of an absolute difference.

    The median is interpolated in the histogram, as whole grey levels are too coarse.
    """
    sample = sampled(difference, valid)
    if sample.size == 0:
        return 0.0
    cumulative = np.cumsum(np.bincount(sample, minlength=256)) / sample.size
    level = int(np.searchsorted(cumulative, 0.5))
    before = float(cumulative[level - 1]) if level else 0.0
    share = (0.5 - before) / max(1e-9, float(cumulative[level]) - before)
    # A difference of 0 stands for 0 to 0.5, one of n for n - 0.5 to n + 0.5.
    median = share * 0.5 if level == 0 else level - 0.5 + share
    return SIGMA_PER_MAD * median


def envelope(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The minimum and maximum grey in each pixel's 3 x 3 neighbourhood, each (h, w) uint8."""
    return cv2.erode(image, _NEIGHBOURS), cv2.dilate(image, _NEIGHBOURS)


def beyond(low: np.ndarray, high: np.ndarray, current: np.ndarray) -> np.ndarray:
    """(h, w) uint8: how far the current image lies outside an envelope."""
    return cv2.max(cv2.subtract(current, high), cv2.subtract(low, current))


def changed_mask(difference: np.ndarray, threshold: float, opened: bool = True) -> np.ndarray:
    """(h, w) uint8, 255 where a difference exceeds the threshold; opened: without thin lines and specks."""
    mask = cv2.threshold(difference, min(254, round(threshold)), 255, cv2.THRESH_BINARY)[1]
    return cv2.morphologyEx(mask, cv2.MORPH_OPEN, _NEIGHBOURS) if opened else mask


def mask_regions(mask: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
    """Boxes of the blobs of a mask in source pixels, (n, 4) float32 xyxy_px.

    More than MAX_REGIONS become one box around all of them.
    """
    # Dilation joins the edges of one moving object and adds a margin to each box.
    joined = cv2.dilate(mask, _JOIN)
    # External contours take a tenth of the time of connectedComponentsWithStats.
    contours = cv2.findContours(joined, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
    if not contours:
        return NO_REGIONS
    xyxy = np.array([cv2.boundingRect(contour) for contour in contours], np.float32)
    xyxy[:, 2:] += xyxy[:, :2]
    if len(xyxy) > MAX_REGIONS:
        xyxy = np.concatenate([xyxy[:, :2].min(0), xyxy[:, 2:].max(0)])[None]
    scale = np.array([width_px / mask.shape[1], height_px / mask.shape[0]] * 2, np.float32)
    return xyxy * scale
