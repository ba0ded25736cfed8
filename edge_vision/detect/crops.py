"""Parts of a frame for the detector: which, and what was found on them as one result.

A detector sees a frame at its input's size. On a crop, small objects are larger: that is what crops are for.
Each costs a run of the model, so they are few, and fewer crops are larger crops: all that is wanted is within
one always. As in "Slicing Aided Hyper Inference" (F. C. Akyon et al. 2022), but only where something is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.geometry.nms import overlaps
from edge_vision.core.preprocess import resizable

# What is around an object helps to find it; and a region is often a part of what moves.
MARGIN_SHARE = 0.3
MARGIN_PX = 12.0
# Crops that together show more than this of the frame show nothing larger enough to pay.
MAX_SHARE = 0.5
# More boxes than this are taken together by the cell of a grid that they are in, before pairs are compared.
MAX_BOXES, GRID = 32, 5
# A box that ends this close to a crop's border goes on beyond it, as a share of the crop's side.
EDGE_SHARE = 0.015
# Boxes of two looks at one frame that overlap this much are one object, seen at two sizes.
SAME_IOU = 0.45
# A cut box that is covered by a whole one this much is that one's part.
PART_SHARE = 0.6


def plan_crops(
    wanted_px: np.ndarray, size_px: tuple[int, int], aspect: float, min_width_px: int, max_crops: int
) -> np.ndarray | None:
    """Crops, (k, 4) int xyxy_px, so that each wanted box lies within one; None where the frame is as good.

    wanted_px: (n, 4), in any order; what is not finite or outside the frame is left out. size_px: the frame's
    width and height. aspect: of each crop, width by height, but for a crop as high or wide as the frame.
    """
    boxes = _clean(wanted_px, size_px)
    if len(boxes) == 0 or max_crops < 1:
        return None
    if len(boxes) > MAX_BOXES:
        boxes = _by_cell(boxes, size_px)
    boxes = _joined(boxes, max_crops, size_px, aspect, min_width_px)
    crops = _fitted(boxes, size_px, aspect, min_width_px)
    share = _area(crops).sum() / (size_px[0] * size_px[1])
    if share > MAX_SHARE:
        return None
    # The closest look first.
    return np.rint(crops[np.argsort(_area(crops), kind="stable")]).astype(int)


def _clean(boxes: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    """Those of the boxes that show something, with a margin, within the frame."""
    boxes = boxes[np.isfinite(boxes).all(axis=1)].astype(np.float64)
    size = np.array(size_px * 2, np.float64)
    shown = np.clip(boxes, 0.0, size)
    boxes = shown[(shown[:, 2:] > shown[:, :2]).all(axis=1)]
    margin = MARGIN_SHARE * (boxes[:, 2:] - boxes[:, :2]) + MARGIN_PX
    return np.clip(np.concatenate((boxes[:, :2] - margin, boxes[:, 2:] + margin), axis=1), 0.0, size)


def _by_cell(boxes: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    """One box around all whose centre is in the same cell of a grid."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    cell = np.minimum((centre / size_px * GRID).astype(int), GRID - 1)
    number = cell[:, 1] * GRID + cell[:, 0]
    return np.array([_around(boxes[number == one]) for one in np.unique(number)])


def _joined(
    boxes: np.ndarray, most: int, size_px: tuple[int, int], aspect: float, min_width_px: int
) -> np.ndarray:
    """Boxes joined two by two, while there are too many, or one crop around two is no larger than two."""
    while len(boxes) > 1:
        first, second = np.triu_indices(len(boxes), 1)
        union = np.concatenate(
            (
                np.minimum(boxes[first, :2], boxes[second, :2]),
                np.maximum(boxes[first, 2:], boxes[second, 2:]),
            ),
            axis=1,
        )
        alone = _area(_fitted(boxes, size_px, aspect, min_width_px))
        more = _area(_fitted(union, size_px, aspect, min_width_px)) - alone[first] - alone[second]
        best = int(np.argmin(more))
        if len(boxes) <= most and more[best] > 0.0:
            break
        rest = np.delete(boxes, [first[best], second[best]], axis=0)
        boxes = np.concatenate((rest, union[best][None]))
    return boxes


def _fitted(boxes: np.ndarray, size_px: tuple[int, int], aspect: float, min_width_px: int) -> np.ndarray:
    """The least crops of this aspect around boxes, moved into the frame; (n, 4) of whole pixels."""
    frame = np.array(size_px, np.float64)
    sides = boxes[:, 2:] - boxes[:, :2]
    width = np.maximum(np.maximum(sides[:, 0], sides[:, 1] * aspect), min_width_px)
    size = np.minimum(np.ceil(np.stack((width, width / aspect), axis=1)) + 1.0, frame)
    low = np.floor((boxes[:, :2] + boxes[:, 2:] - size) / 2)
    low = np.clip(low, 0.0, frame - size)
    return np.concatenate((low, low + size), axis=1)


def _around(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate((boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)))


def _area(boxes: np.ndarray) -> np.ndarray:
    area: np.ndarray = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return area


def detect_on(
    detect: Callable[[Frame], Detections], frame: Frame, crops: np.ndarray
) -> tuple[list[Detections], Detections]:
    """What is on each crop of a frame, in the frame's pixels; and the parts of what goes on beyond them.

    A box that a crop's border cuts is left out. It is no loss where a whole one of its class covers it. The
    others are the second result: there must be a look around them. Raises what detect raises.
    """
    whole, cut = [], []
    image, encoding = resizable(frame)
    size_px = (frame.width_px, frame.height_px)
    for left, top, right, bottom in crops.tolist():
        part = Frame(image[top:bottom, left:right], frame.stamp_ns, frame.frame_id, encoding, frame.seq)
        here = _shifted(detect(part), left, top)
        is_cut = _is_cut(here.xyxy_px, (left, top, right, bottom), size_px)
        whole.append(_selected(here, ~is_cut))
        cut.append(_selected(here, is_cut))
    return whole, uncovered(_joined_up(cut), whole)


def uncovered(cut: Detections, whole: list[Detections]) -> Detections:
    """Those of the cut ones that no whole one of their class covers."""
    return _selected(cut, ~_are_parts(cut, _joined_up(whole)))


def around(parts: Detections) -> np.ndarray:
    """(n, 4) xyxy_px in which what is cut lies as a whole, if its longer half was seen."""
    xyxy_px = parts.xyxy_px.astype(np.float64)
    sides = xyxy_px[:, 2:] - xyxy_px[:, :2]
    return np.concatenate((xyxy_px[:, :2] - sides, xyxy_px[:, 2:] + sides), axis=1)


def merged(looks: list[Detections], max_detections: int) -> Detections:
    """What several looks at one frame found, best score first, and each object once: as the first of them saw
    it, which so should be the closest. Within a look nothing is suppressed: the detector has done that."""
    found = _joined_up(looks)
    kept, start = np.zeros(0, np.intp), 0
    for look in looks:
        these = np.arange(start, start + len(look))
        again = overlaps(found.xyxy_px, found.class_ids, kept, these, SAME_IOU).any(axis=0)
        kept = np.concatenate((kept, these[~again]))
        start += len(look)
    best = np.argsort(-found.scores[kept], kind="stable")[:max_detections]
    return _selected(found, kept[best])


def _joined_up(found: list[Detections]) -> Detections:
    """All of them, one after the other."""
    found = [Detections.empty(), *found]
    return Detections(
        np.concatenate([one.xyxy_px for one in found]),
        np.concatenate([one.scores for one in found]),
        np.concatenate([one.class_ids for one in found]),
    )


def _shifted(found: Detections, left: int, top: int) -> Detections:
    xyxy_px = found.xyxy_px + np.array([left, top, left, top], np.float32)
    return Detections(xyxy_px, found.scores, found.class_ids)


def _selected(found: Detections, which: np.ndarray) -> Detections:
    return Detections(found.xyxy_px[which], found.scores[which], found.class_ids[which])


def _is_cut(xyxy_px: np.ndarray, crop: tuple[int, int, int, int], size_px: tuple[int, int]) -> np.ndarray:
    """(n,) bool: boxes that end at a border of the crop which is not one of the frame."""
    left, top, right, bottom = crop
    edge = np.array([right - left, bottom - top]) * EDGE_SHARE + 1.0
    low, high = xyxy_px[:, :2] - (left, top), np.array([right, bottom]) - xyxy_px[:, 2:]
    inner_low, inner_high = np.array([left > 0, top > 0]), np.array([right, bottom]) < size_px
    cut: np.ndarray = (((low < edge) & inner_low) | ((high < edge) & inner_high)).any(axis=1)
    return cut


def _are_parts(cut: Detections, whole: Detections) -> np.ndarray:
    """(n,) bool: cut boxes that are a part of a whole one of their class."""
    a, b = cut.xyxy_px[:, None], whole.xyxy_px[None]
    sides = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0.0)
    own = (a[..., 2:] - a[..., :2]).prod(axis=2)
    same = cut.class_ids[:, None] == whole.class_ids
    parts: np.ndarray = ((sides.prod(axis=2) > PART_SHARE * own) & same).any(axis=1)
    return parts
