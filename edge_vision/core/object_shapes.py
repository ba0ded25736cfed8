"""What some models report of each object in addition to its box: a mask, an oriented box, or key points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeVar

import numpy as np

S = TypeVar("S", bound="ObjectShapes")


@dataclass(frozen=True, slots=True, eq=False)
class ObjectShapes:
    """rows: (n, ...), one row per detection, in their order, in pixels of the source image."""

    kind: ClassVar[str]
    rows: np.ndarray

    def select(self: S, which: np.ndarray | slice) -> S:
        """The subset given by a mask, indices or a slice."""
        return type(self)(self.rows[which])

    def shifted(self: S, x_px: float, y_px: float) -> S:
        """Moved by this much, as from the pixels of a crop to those of its frame."""
        rows = self.rows.copy()
        rows[..., :2] += np.array([x_px, y_px], rows.dtype)
        return type(self)(rows)


def joined(parts: Sequence[ObjectShapes | None]) -> ObjectShapes | None:
    """The shapes of several passes of one model; None without any, or if they are missing for a part."""
    found = [part for part in parts if part is not None]
    if not found or len(found) < len(parts):
        return None
    return type(found[0])(np.concatenate([part.rows for part in found]))


class OrientedBoxes(ObjectShapes):
    """rows: (n, 5) float32, centre x, centre y, width, height, angle from the x to the y axis in radians."""

    kind = "oriented_boxes"

    def corners(self) -> np.ndarray:
        """(n, 4, 2) float32, clockwise as seen in the image."""
        return oriented_corners(self.rows)


class KeyPoints(ObjectShapes):
    """rows: (n, k, 3) float32, x, y and score of each point; a score of 1 if the model reports none."""

    kind = "keypoints"


class MaskPatch(NamedTuple):
    """Mask logits of one object around its box, above 0 within the object.

    logits: (h, w) float32. corner_px, step_px: (2,) float64, x and y of the patch's corner and of the size of
    one logit, in source pixels.
    """

    logits: np.ndarray
    corner_px: np.ndarray
    step_px: np.ndarray


class Masks(ObjectShapes):
    """rows: (n,) of MaskPatch."""

    kind = "masks"

    @staticmethod
    def of(patches: Sequence[MaskPatch]) -> Masks:
        rows = np.empty(len(patches), object)
        for row, patch in enumerate(patches):
            rows[row] = patch
        return Masks(rows)

    def shifted(self, x_px: float, y_px: float) -> Masks:
        by = np.array([x_px, y_px])
        return Masks.of([patch._replace(corner_px=patch.corner_px + by) for patch in self.rows])

    def regions(self, xyxy_px: np.ndarray) -> list[MaskRegion]:
        """The mask of each detection within its box, (n, 4) xyxy_px, clipped to the image.

        The logits are interpolated bilinearly to the pixels whose centres are in the box, as in Ultralytics'
        process_mask_native.
        """
        boxes = np.rint(xyxy_px).astype(int).tolist()
        with np.errstate(over="ignore", invalid="ignore"):  # Infinite logits leave gaps in a mask.
            return [_region(patch, *box) for patch, box in zip(self.rows, boxes, strict=True)]


class MaskRegion(NamedTuple):
    """A mask in source pixels: inside is (h, w) bool from (left, top)."""

    left: int
    top: int
    inside: np.ndarray

    def outline(self) -> np.ndarray | None:
        """(k, 2) int32 pixels around the largest part; None if it has fewer than three vertices."""
        import cv2  # Late: the heads are listed by commands that start faster without it.

        contours, _ = cv2.findContours(
            self.inside.view(np.uint8),
            cv2.RETR_EXTERNAL,
            cv2.CHAIN_APPROX_SIMPLE,
            offset=(self.left, self.top),
        )
        largest = max(contours, key=cv2.contourArea, default=None)
        return None if largest is None or len(largest) < 3 else largest[:, 0]


def instance_image(regions: Sequence[MaskRegion], size_px: tuple[int, int]) -> np.ndarray:
    """(h, w) uint16: 1 + the index of the first region that has the pixel, 0 for none."""
    image = np.zeros(size_px[::-1], np.uint16)
    for number in range(len(regions), 0, -1):
        left, top, inside = regions[number - 1]
        height, width = inside.shape
        np.copyto(image[top : top + height, left : left + width], np.uint16(number), where=inside)
    return image


def oriented_corners(boxes: np.ndarray) -> np.ndarray:
    """(n, 5) oriented boxes -> (n, 4, 2) corners."""
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    across = np.stack((cos, sin), axis=1) * boxes[:, 2:3] / 2
    down = np.stack((-sin, cos), axis=1) * boxes[:, 3:4] / 2
    steps = np.stack((-across - down, across - down, across + down, down - across), axis=1)
    return np.asarray(boxes[:, None, :2] + steps)


def _region(patch: MaskPatch, left: int, top: int, right: int, bottom: int) -> MaskRegion:
    corner, step = patch.corner_px.tolist(), patch.step_px.tolist()
    if all(value.is_integer() for value in (*corner, *step)):  # The same, in a third of the time.
        import cv2

        x, y = map(int, corner)
        whole = cv2.resize(patch.logits, None, fx=step[0], fy=step[1], interpolation=cv2.INTER_LINEAR)
        return MaskRegion(left, top, whole[top - y : bottom - y, left - x : right - x] > 0.0)
    across = _interpolated(patch.logits.T, left, right, corner[0], step[0])
    # As matrix products they would take longer: those wait for BLAS's other threads on a busy machine.
    logits = _interpolated(np.ascontiguousarray(across.T), top, bottom, corner[1], step[1])
    return MaskRegion(left, top, logits > 0.0)


def _interpolated(rows: np.ndarray, first: int, last: int, corner_px: float, step_px: float) -> np.ndarray:
    """(n, k) rows -> (last - first, k), interpolated at the centres of these pixels, the ends continued."""
    end = len(rows) - 1
    at = np.clip((np.arange(first, last) + (0.5 - corner_px)) / step_px - 0.5, 0.0, end)
    low = at.astype(np.intp)
    share = (at - low).astype(np.float32)[:, None]
    result, difference = rows.take(low, axis=0), rows.take(np.minimum(low + 1, end), axis=0)
    difference -= result
    difference *= share
    result += difference
    return result
