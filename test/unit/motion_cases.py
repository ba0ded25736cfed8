"""Images with an exactly known camera motion: a real background, warped by a given pose."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from model_cases import video_frame

WIDTH_PX, HEIGHT_PX = 640, 360


@lru_cache(maxsize=1)
def background() -> np.ndarray:
    """A real image, larger than the field of view, (864, 1152, 3) uint8."""
    return cv2.resize(video_frame("vtest.avi", 0).image, (1152, 864), interpolation=cv2.INTER_CUBIC)


def pose(x: float, y: float, zoom: float = 1.0, turn: float = 0.0) -> np.ndarray:
    """(3, 3) background to image pixels for a camera centred on x, y, rolled by `turn` rad."""
    cos, sin = zoom * np.cos(turn), zoom * np.sin(turn)
    rotation = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    to_centre = np.array([[1.0, 0.0, -x], [0.0, 1.0, -y], [0.0, 0.0, 1.0]])
    to_picture = np.array([[1.0, 0.0, WIDTH_PX / 2], [0.0, 1.0, HEIGHT_PX / 2], [0.0, 0.0, 1.0]])
    return to_picture @ rotation @ to_centre


def picture(
    at: np.ndarray,
    seed: int = 0,
    noise: float = 2.0,
    gain: float = 1.0,
    offset: float = 0.0,
    box: tuple[int, int, int, int] | None = None,
) -> np.ndarray:
    """The image at a pose, (360, 640, 3) uint8, with new noise.

    box: left, top, width, height of a textured object, image pixels.
    """
    image = cv2.warpPerspective(background(), at, (WIDTH_PX, HEIGHT_PX)).astype(np.float32)
    if box:
        left, top, width, height = box
        right, bottom = min(WIDTH_PX, left + width), min(HEIGHT_PX, top + height)
        texture = cv2.resize(background()[380:480, 500:560], (width, height)).astype(np.float32)
        visible = (255.0 - texture)[max(0, -top) : bottom - top, max(0, -left) : right - left]
        image[max(0, top) : bottom, max(0, left) : right] = visible
    noisy = np.random.default_rng(seed).standard_normal(image.shape, np.float32)
    noisy *= noise
    return cv2.addWeighted(image, gain, noisy, 1.0, offset, dtype=cv2.CV_8U)


def luma(image: np.ndarray) -> np.ndarray:
    """(180, 320) uint8."""
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return cv2.resize(gray, (WIDTH_PX // 2, HEIGHT_PX // 2), interpolation=cv2.INTER_AREA)


def luma_motion(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(3, 3) the exact motion between two poses, in pixels of `luma`, whose centres are at 2 x + 0.5."""
    half = np.array([[2.0, 0.0, 0.5], [0.0, 2.0, 0.5], [0.0, 0.0, 1.0]])
    step = np.linalg.inv(half) @ after @ np.linalg.inv(before) @ half
    return step / step[2, 2]
