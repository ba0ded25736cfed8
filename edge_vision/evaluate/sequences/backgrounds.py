"""Large real backgrounds for a moving camera, and foreground pieces.

Each background is an enlarged part of a real frame. Parts in which the detector finds objects are excluded or
inpainted, except in the backgrounds that are used for their objects (FIXTURES).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np

from edge_vision.evaluate.sequences.cutouts import Cutout, cutout
from edge_vision.evaluate.sequences.source_clips import still, vtest_empty

Box = tuple[int, int, int, int]

# Inpainted: the sign, clothes and stones on the lawn, the lamp, a bag, a manhole.
_INPAINTED: tuple[Box, ...] = (
    (408, 198, 450, 248),
    (62, 490, 166, 532),
    (318, 444, 358, 474),
    (314, 318, 330, 334),
    (244, 126, 262, 142),
    (156, 244, 200, 282),
    (392, 12, 444, 46),
    (190, 56, 218, 80),
    (46, 286, 84, 306),
    (10, 308, 54, 334),
    (588, 34, 618, 78),
)


def _enlarged(image: np.ndarray, box: Box, scale: float) -> np.ndarray:
    left, top, right, bottom = box
    part = cv2.resize(image[top:bottom, left:right], None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    # Sharpen: enlarging blurs more than a robot's camera does.
    return cv2.addWeighted(part, 1.7, cv2.GaussianBlur(part, (0, 0), 1.5), -0.7, 0)


@lru_cache(maxsize=1)
def _tidy_court() -> np.ndarray:
    court = vtest_empty()
    mask = np.zeros(court.shape[:2], np.uint8)
    for left, top, right, bottom in _INPAINTED:
        mask[top:bottom, left:right] = 255
    return np.asarray(cv2.inpaint(court, mask, 5, cv2.INPAINT_TELEA))


def _court() -> np.ndarray:
    return _enlarged(_tidy_court(), (0, 226, 768, 576), 2.0)


def _yard() -> np.ndarray:
    return _enlarged(_tidy_court(), (0, 0, 590, 226), 3.0)


def _houses() -> np.ndarray:
    return _enlarged(still("bikes.mp4", 184), (0, 0, 640, 100), 3.75)


def _garden() -> np.ndarray:
    return _enlarged(still("bigbuckbunny.mp4", 0), (540, 0, 1280, 330), 2.0)


def _street() -> np.ndarray:
    return _enlarged(still("bikes.mp4", 176), (0, 0, 640, 272), 3.0)


def _car_park() -> np.ndarray:
    return _enlarged(vtest_empty(), (250, 0, 768, 330), 3.0)


BACKGROUNDS: dict[str, Callable[[], np.ndarray]] = {
    "court": _court,
    "houses": _houses,
    "yard": _yard,
    "garden": _garden,
    "street": _street,
    "car_park": _car_park,
}
FIXTURES: dict[str, tuple[tuple[str, Box], ...]] = {
    "street": (("car", (1137, 347, 1345, 485)), ("car", (1570, 298, 1826, 446))),
    "car_park": (("car", (1209, 135, 1416, 294)), ("car", (1455, 150, 1554, 276))),
}
"""Backgrounds with objects that the detector finds: label and xyxy in background pixels, measured by hand."""


@lru_cache(maxsize=4)
def background(name: str) -> np.ndarray:
    """A background by its name, (h, w, 3) uint8 BGR. Shared: do not modify."""
    return BACKGROUNDS[name]()


def _soft(mask: np.ndarray, sigma_px: float) -> np.ndarray:
    return np.clip((cv2.GaussianBlur(mask.astype(np.float32), (0, 0), sigma_px) - 0.5) * 2 + 0.1, 0, 1)


def _trunk() -> Cutout:
    """The trunk of a tree, from bikes.mp4."""
    image = cv2.resize(
        still("bikes.mp4", 130)[:, 296:344], None, fx=1.9, fy=1.9, interpolation=cv2.INTER_CUBIC
    )
    mask = np.zeros(image.shape[:2], np.uint8)
    edges = np.array([[17, 0], [72, 0], [74, image.shape[0]], [17, image.shape[0]]])
    cv2.fillPoly(mask, [edges], (1,))
    return cutout(image, _soft(mask, 2.0))


def _hedge() -> Cutout:
    """Yellow bushes and grass, with an uneven upper edge, from bigbuckbunny.mp4."""
    image = still("bigbuckbunny.mp4", 0)[470:720, 560:1120]
    x = np.arange(image.shape[1])
    edge = 70 + 30 * np.sin(x / 55.0) + 14 * np.sin(x / 17.0 + 1) + 5 * np.sin(x / 5.0)
    edge += 190 * np.abs((x - 280) / 280.0) ** 5
    mask = np.arange(image.shape[0])[:, None] > edge
    return cutout(image, _soft(mask, 2.5))


def _ruin() -> Cutout:
    """The stone ruin of bigbuckbunny.mp4."""
    top = [(790, 342), (832, 303), (874, 273), (1098, 274), (1150, 322), (1166, 334)]
    foot = [(1166, 392), (1060, 392), (1000, 414), (880, 410), (830, 380)]
    outline = np.array([*top, *foot])
    image = cv2.resize(still("bigbuckbunny.mp4", 0)[260:420, 780:1180], None, fx=1.2, fy=1.2)
    mask = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.rint((outline - (780, 260)) * 1.2).astype(np.int32)], (1,))
    return cutout(image, _soft(mask, 1.5))


def _lawn() -> Cutout:
    """A mound of lawn, from vtest.avi."""
    image = cv2.resize(vtest_empty()[330:480, 0:300], None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    edge = 40 + 270 * np.abs((x - 300) / 300.0) ** 2.5 + 2 * np.sin(x / 3.0) + 2 * np.sin(x / 1.3)
    return cutout(image, _soft(y > edge, 2.5))


PROPS: dict[str, tuple[Callable[[], Cutout], ...]] = {"tune": (_trunk, _lawn), "holdout": (_ruin, _hedge)}


@lru_cache(maxsize=2)
def props(split: str) -> tuple[Cutout, ...]:
    """The foreground pieces of a split's parallax sequences."""
    return tuple(make() for make in PROPS[split])
