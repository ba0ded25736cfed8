"""Draws detections into an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.geometry.zones import Zones
from edge_vision.core.object_shapes import KeyPoints, Masks, OrientedBoxes

DASH_PX = 8
MIN_POINT_SCORE = 0.3
"""Key points with a lower score are not drawn. The value that MoveNet's authors recommend."""
POINT_PX = 3
BONES = {17: "15-13 13-11 16-14 14-12 11-12 5-11 6-12 5-6 5-7 6-8 7-9 8-10 1-2 0-1 0-2 1-3 2-4 3-5 4-6"}
"""By the number of key points: the pairs that a line connects. COCO's 17 as its annotations define them."""
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def class_color(class_id: int) -> tuple[int, int, int]:
    """A fixed bright BGR colour per class. Golden-ratio steps give neighbouring ids distinct hues."""
    hue = int((class_id * 0.618034 % 1.0) * 180)
    b, g, r = cv2.cvtColor(np.array([[[hue, 200, 255]]], np.uint8), cv2.COLOR_HSV2BGR)[0, 0].tolist()
    return b, g, r


def label_of(labels: Sequence[str], class_id: int) -> str:
    """The label of a class, or its number if there is no label."""
    return labels[class_id] if 0 <= class_id < len(labels) else str(class_id)


def caption(label: str, score: float, track: str = "") -> str:
    """The text at a box. track: the id of its track."""
    return f"{label} #{track} {score:.2f}" if track else f"{label} {score:.2f}"


def dashes(box: np.ndarray) -> np.ndarray:
    """(n, 2, 2) int32, the start and end of each dash along the sides of a box, (4,) xyxy_px."""
    left, top, right, bottom = box.round().astype(int)
    x, y = np.arange(left, right, 2 * DASH_PX), np.arange(top, bottom, 2 * DASH_PX)
    to_x, to_y = np.minimum(x + DASH_PX, right), np.minimum(y + DASH_PX, bottom)
    across = [np.stack((x, x * 0 + side, to_x, x * 0 + side), axis=1) for side in (top, bottom)]
    down = [np.stack((y * 0 + side, y, y * 0 + side, to_y), axis=1) for side in (left, right)]
    return np.concatenate(across + down).reshape(-1, 2, 2).astype(np.int32)


def shape_lines(found: Detections) -> Iterator[tuple[int, np.ndarray, bool]]:
    """Lines that show the shapes: the index of the detection, (k, 2) float xy_px, whether it is closed."""
    shapes = found.shapes
    if isinstance(shapes, Masks):
        outlines = (region.outline() for region in shapes.regions(found.xyxy_px))
        yield from ((at, outline, True) for at, outline in enumerate(outlines) if outline is not None)
    elif isinstance(shapes, OrientedBoxes):
        yield from ((at, corners, True) for at, corners in enumerate(shapes.corners()))
    elif isinstance(shapes, KeyPoints):
        for at, points in enumerate(shapes.rows):
            yield from ((at, *line) for line in _skeleton(points))


def _skeleton(points: np.ndarray) -> Iterator[tuple[np.ndarray, bool]]:
    """(k, 3) key points -> a diamond at each visible one, and the lines between them."""
    diamond = np.array([(POINT_PX, 0), (0, POINT_PX), (-POINT_PX, 0), (0, -POINT_PX)])
    visible = points[:, 2] >= MIN_POINT_SCORE
    yield from ((point + diamond, True) for point in points[visible, :2])
    for bone in BONES.get(len(points), "").split():
        ends = list(map(int, bone.split("-")))
        if visible[ends].all():
            yield points[ends, :2], False


def draw_detections(
    image: np.ndarray,
    found: Detections,
    labels: Sequence[str],
    ids: np.ndarray | None = None,
    predicted: bool = False,
) -> np.ndarray:
    """Draw boxes with labels and scores into a (h, w, 3) uint8 BGR image, in place, and return it.

    ids: (n,) of the tracks. predicted: boxes are dashed, because the frame was not inferred.
    """
    tracks = [""] * len(found) if ids is None else map(str, ids.tolist())
    for box, score, class_id, track in zip(
        found.xyxy_px, found.scores, found.class_ids.tolist(), tracks, strict=True
    ):
        color = class_color(class_id)
        left, top, right, bottom = (round(float(v)) for v in box)
        if predicted:
            cv2.polylines(image, list(dashes(box)), False, color, 2)
        else:
            cv2.rectangle(image, (left, top), (right, bottom), color, 2)
        _draw_caption(image, caption(label_of(labels, class_id), score, track), left, max(0, top), color)
    for at, points, closed in shape_lines(found):
        color = class_color(int(found.class_ids[at]))
        cv2.polylines(image, [np.rint(points).astype(np.int32)], closed, color, 2)
    return image


def draw_zones(image: np.ndarray, zones: Zones) -> np.ndarray:
    """Draw the borders and names of zones into a (h, w, 3) uint8 BGR image, in place, and return it.

    Include zones are green, exclude zones red.
    """
    height, width = image.shape[:2]
    for zone in zones.all:
        color = (0, 0, 255) if zone.exclude else (0, 200, 0)
        border = (zone.vertices * (width - 1, height - 1)).round().astype(np.int32)
        cv2.polylines(image, [border], True, color, 2)
        left, top = border[border[:, 1].argmin()].tolist()
        _draw_caption(image, f"{'exclude' if zone.exclude else 'include'} {zone.name}", left, top, color)
    return image


def _draw_caption(image: np.ndarray, text: str, left: int, top: int, color: tuple[int, int, int]) -> None:
    (width, height), _ = cv2.getTextSize(text, _FONT, 0.45, 1)
    left = max(0, min(left, image.shape[1] - width - 4))
    text_top = top - height - 6 if top > height + 6 else top
    cv2.rectangle(image, (left, text_top), (left + width + 4, text_top + height + 6), color, -1)
    cv2.putText(image, text, (left + 2, text_top + height + 2), _FONT, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
