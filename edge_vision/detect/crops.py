"""Crops of a frame for the detector: where to put them, and how to merge what was found on them.

The model sees every image at its input size, so small objects appear larger on a crop. This is the idea of
"Slicing Aided Hyper Inference" (F. C. Akyon et al. 2022), applied only to regions of interest. Each crop
costs one inference. A lower limit on crops gives fewer but larger ones; they always cover all regions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.geometry.boxes import MAX_CANDIDATES, overlaps
from edge_vision.core.preprocess import resizable

# Context helps detection, and a region often shows only a part of a moving object.
MARGIN_SHARE = 0.3
MARGIN_PX = 12.0
# Crops that cover a larger share of the frame do not enlarge objects enough to be worthwhile.
MAX_SHARE = 0.5
# More boxes than this are first grouped by grid cell, to limit the number of pairs to compare.
MAX_BOXES, GRID = 32, 5
# A box that ends this close to a crop's border, as a share of the crop's side, extends beyond it.
EDGE_SHARE = 0.015
# Boxes of two passes on one frame that overlap this much show the same object at two scales.
SAME_IOU = 0.45
# A cut box is part of a whole one that covers this share of it.
PART_SHARE = 0.6


def plan_crops(
    wanted_px: np.ndarray, size_px: tuple[int, int], aspect: float, min_width_px: int, max_crops: int
) -> np.ndarray | None:
    """Crops, (k, 4) int xyxy_px, smallest first; each wanted box lies within one. None if the whole frame is
    as good.

    wanted_px: (n, 4) in any order; boxes that are not finite or outside the frame are ignored. size_px: width
    and height of the frame. aspect: width by height of each crop, unless it is as high or wide as the frame.
    """
    boxes = _with_margin(wanted_px, size_px)
    if len(boxes) == 0 or max_crops < 1:
        return None
    if len(boxes) > MAX_BOXES:
        boxes = _grouped_by_cell(boxes, size_px)
    boxes = _joined_pairwise(boxes, max_crops, size_px, aspect, min_width_px)
    crops = _fitted(boxes, size_px, aspect, min_width_px)
    share = _area(crops).sum() / (size_px[0] * size_px[1])
    if share > MAX_SHARE:
        return None
    return np.rint(crops[np.argsort(_area(crops), kind="stable")]).astype(int)


def _with_margin(boxes: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    """The valid boxes, enlarged by a margin and clipped to the frame."""
    boxes = boxes[np.isfinite(boxes).all(axis=1)].astype(np.float64)
    size = np.array(size_px * 2, np.float64)
    shown = np.clip(boxes, 0.0, size)
    boxes = shown[(shown[:, 2:] > shown[:, :2]).all(axis=1)]
    margin = MARGIN_SHARE * (boxes[:, 2:] - boxes[:, :2]) + MARGIN_PX
    return np.clip(np.concatenate((boxes[:, :2] - margin, boxes[:, 2:] + margin), axis=1), 0.0, size)


def _grouped_by_cell(boxes: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    """One box around all boxes whose centres are in the same grid cell."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    cell = np.minimum((centre / size_px * GRID).astype(int), GRID - 1)
    number = cell[:, 1] * GRID + cell[:, 0]
    return np.array([_enclosing(boxes[number == one]) for one in np.unique(number)])


def _joined_pairwise(
    boxes: np.ndarray, max_boxes: int, size_px: tuple[int, int], aspect: float, min_width_px: int
) -> np.ndarray:
    """Join pairs of boxes while there are too many, or while a common crop is no larger than two crops."""
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
        if len(boxes) <= max_boxes and more[best] > 0.0:
            break
        others = np.delete(boxes, [first[best], second[best]], axis=0)
        boxes = np.concatenate((others, union[best][None]))
    return boxes


def _fitted(boxes: np.ndarray, size_px: tuple[int, int], aspect: float, min_width_px: int) -> np.ndarray:
    """(n, 4) smallest crops of this aspect ratio around the boxes, moved into the frame, in whole pixels."""
    frame = np.array(size_px, np.float64)
    sides = boxes[:, 2:] - boxes[:, :2]
    width = np.maximum(np.maximum(sides[:, 0], sides[:, 1] * aspect), min_width_px)
    size = np.minimum(np.ceil(np.stack((width, width / aspect), axis=1)) + 1.0, frame)
    low = np.floor((boxes[:, :2] + boxes[:, 2:] - size) / 2)
    low = np.clip(low, 0.0, frame - size)
    return np.concatenate((low, low + size), axis=1)


def _enclosing(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate((boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)))


def _area(boxes: np.ndarray) -> np.ndarray:
    area: np.ndarray = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return area


def detect_on_crops(
    detect: Callable[[Frame], Detections], frame: Frame, crops: np.ndarray
) -> tuple[list[Detections], Detections]:
    """The whole objects on each crop, and the objects that a crop's border cuts, in the frame's pixels.

    A cut box is dropped if a whole box of its class covers it; the remaining ones need another crop around
    them. Raises what `detect` raises.
    """
    whole, cut = [], []
    image, encoding = resizable(frame)
    size_px = (frame.width_px, frame.height_px)
    for left, top, right, bottom in crops.tolist():
        part = Frame(image[top:bottom, left:right], frame.stamp_ns, frame.frame_id, encoding, frame.seq)
        found = _shifted(detect(part), left, top)
        is_cut = _is_cut(found.xyxy_px, (left, top, right, bottom), size_px)
        whole.append(found.select(~is_cut))
        cut.append(found.select(is_cut))
    return whole, uncovered(Detections.joined(cut), whole)


def uncovered(cut: Detections, whole: list[Detections]) -> Detections:
    """The cut detections that no whole one of their class covers."""
    return cut.select(~_are_parts(cut, Detections.joined(whole)))


def enclosing_boxes(cut: Detections) -> np.ndarray:
    """(n, 4) xyxy_px that contain the objects of cut boxes, if at least half of each is visible."""
    xyxy_px = cut.xyxy_px.astype(np.float64)
    sides = xyxy_px[:, 2:] - xyxy_px[:, :2]
    return np.concatenate((xyxy_px[:, :2] - sides, xyxy_px[:, 2:] + sides), axis=1)


def merge_detections(passes: list[Detections], max_detections: int) -> Detections:
    """Detections of several passes on one frame without duplicates, sorted by descending score.

    The first pass that found an object wins: sort the passes from the smallest crop to the largest. Within a
    pass nothing is suppressed, because the detector has already done so. At most MAX_CANDIDATES are merged.
    """
    passes = [one.select(slice(MAX_CANDIDATES // len(passes))) for one in passes]
    found = Detections.joined(passes)
    kept, start = np.zeros(0, np.intp), 0
    for one in passes:
        candidates = np.arange(start, start + len(one))
        duplicate = overlaps(found.xyxy_px, found.class_ids, kept, candidates, SAME_IOU).any(axis=0)
        kept = np.concatenate((kept, candidates[~duplicate]))
        start += len(one)
    best = np.argsort(-found.scores[kept], kind="stable")[:max_detections]
    return found.select(kept[best])


def _shifted(found: Detections, left: int, top: int) -> Detections:
    xyxy_px = found.xyxy_px + np.array([left, top, left, top], np.float32)
    shapes = None if found.shapes is None else found.shapes.shifted(left, top)
    return Detections(xyxy_px, found.scores, found.class_ids, shapes)


def _is_cut(xyxy_px: np.ndarray, crop: tuple[int, int, int, int], size_px: tuple[int, int]) -> np.ndarray:
    """(n,) bool: boxes that touch a border of the crop which is not a border of the frame."""
    left, top, right, bottom = crop
    edge = np.array([right - left, bottom - top]) * EDGE_SHARE + 1.0
    low, high = xyxy_px[:, :2] - (left, top), np.array([right, bottom]) - xyxy_px[:, 2:]
    inner_low, inner_high = np.array([left > 0, top > 0]), np.array([right, bottom]) < size_px
    cut: np.ndarray = (((low < edge) & inner_low) | ((high < edge) & inner_high)).any(axis=1)
    return cut


def _are_parts(cut: Detections, whole: Detections) -> np.ndarray:
    """(n,) bool: cut boxes that are part of a whole box of their class."""
    a, b = cut.xyxy_px[:, None], whole.xyxy_px[None]
    sides = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0.0)
    own = (a[..., 2:] - a[..., :2]).prod(axis=2)
    same = cut.class_ids[:, None] == whole.class_ids
    parts: np.ndarray = ((sides.prod(axis=2) > PART_SHARE * own) & same).any(axis=1)
    return parts
