"""Real walkers, cut out of vtest.avi by their difference from the empty court.

`data/walkers.json` lists them: the first frame, and the box on each frame from there on. They were found by
tracking blobs of the difference and selected by eye: whole persons, alone, without parts of the background.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from edge_vision.evaluate.sequences.source_clips import vtest_empty, vtest_frames

WALKERS = Path(__file__).parent / "data" / "walkers.json"
UPSCALE = 2
MARGIN_PX = 3
_DIFFERENCE = 26
_HOLE_PX = 14
_OPEN = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
_CLOSE = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 9))


@dataclass(frozen=True, slots=True, eq=False)
class Cutout:
    """One picture of an object. color: (h, w, 3) uint8 BGR, multiplied by alpha; alpha: (h, w) uint8.

    box_px: left, top, right, bottom of what is more than half opaque, in pixels of this picture.
    """

    color: np.ndarray
    alpha: np.ndarray
    box_px: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Sprite:
    """A walking object: its pictures at 10 Hz. faces: -1 left, 1 right. height_px: median height.

    fingerprint: a hash of its pictures.
    """

    name: str
    label: str
    pictures: tuple[Cutout, ...]
    faces: int
    height_px: float
    fingerprint: str

    def __repr__(self) -> str:
        return f"Sprite({self.name})"


def cutout(image: np.ndarray, alpha: np.ndarray) -> Cutout:
    """A cut-out from a (h, w, 3) uint8 image and its (h, w) float32 alpha in 0..1."""
    rows, columns = np.flatnonzero((alpha > 0.5).any(1)), np.flatnonzero((alpha > 0.5).any(0))
    box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    color = np.rint(image * alpha[:, :, None]).astype(np.uint8)
    return Cutout(color, np.rint(alpha * 255).astype(np.uint8), box)


def _walker_mask(image: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """(h, w) uint8, 1 on the largest object that is not in the empty scene, without gaps between legs."""
    difference = cv2.GaussianBlur(cv2.absdiff(image, empty).max(axis=2), (0, 0), 0.8)
    sure = cv2.morphologyEx((difference > _DIFFERENCE).astype(np.uint8), cv2.MORPH_OPEN, _OPEN)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(cv2.morphologyEx(sure, cv2.MORPH_CLOSE, _CLOSE))
    largest = 1 + int(np.argmax(stats[1:count, cv2.CC_STAT_AREA]))
    body = ((parts == largest) & (difference > _DIFFERENCE)).astype(np.uint8)
    return _without_small_holes(cv2.morphologyEx(body, cv2.MORPH_CLOSE, _OPEN))


def _without_small_holes(mask: np.ndarray) -> np.ndarray:
    """Fill small holes, where clothes have the court's colour; a gap between legs is larger."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(1 - mask, connectivity=4)
    small = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] < _HOLE_PX)
    return np.asarray(np.where(np.isin(parts, small[small > 0]), 1, mask).astype(np.uint8))


def _walker_picture(image: np.ndarray, empty: np.ndarray, box: list[int]) -> Cutout:
    left, top, right, bottom = box[0] - MARGIN_PX, box[1] - MARGIN_PX, box[2] + MARGIN_PX, box[3] + MARGIN_PX
    window = np.s_[max(0, top) : bottom, max(0, left) : right]
    mask = _walker_mask(image[window], empty[window]).astype(np.float32)
    size = (mask.shape[1] * UPSCALE, mask.shape[0] * UPSCALE)
    hard = cv2.resize(mask, size, interpolation=cv2.INTER_LINEAR)
    # The threshold keeps a rim of the court around the walker: a smaller mask with a soft edge leaves it out.
    alpha = np.clip((cv2.GaussianBlur(hard, (0, 0), 1.5) - 0.5) * 2.2, 0, 1)
    return cutout(cv2.resize(image[window], size, interpolation=cv2.INTER_CUBIC), alpha)


@lru_cache(maxsize=2)
def walkers(split: str) -> tuple[Sprite, ...]:
    """The walkers of a split, "tune" or "holdout", which have none in common."""
    frames, empty = vtest_frames(), vtest_empty()
    found = []
    for entry in json.loads(WALKERS.read_text())[split]:
        first, boxes = entry["first_frame"], entry["boxes"]
        pictures = tuple(_walker_picture(frames[first + i], empty, box) for i, box in enumerate(boxes))
        height_px = float(np.median([picture.box_px[3] - picture.box_px[1] for picture in pictures]))
        moved_px = (boxes[-1][0] + boxes[-1][2]) - (boxes[0][0] + boxes[0][2])
        digest = hashlib.sha256(b"".join(picture.color.tobytes() for picture in pictures)).hexdigest()
        faces = -1 if moved_px < 0 else 1
        found.append(Sprite(f"walker{first}", "person", pictures, faces, height_px, digest))
    return tuple(found)
