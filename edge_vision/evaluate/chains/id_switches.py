"""Whether published ids stay with their objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.geometry.boxes import SAME_BOX_IOU, iou_matrix


def id_switches(
    boxes: Sequence[Detections],
    ids: Sequence[np.ndarray],
    found: Sequence[Detections],
    track_ids: Sequence[np.ndarray],
) -> int:
    """How often an object is published under another id than the last time: the mismatches of MOTA.

    K. Bernardin and R. Stiefelhagen (2008), "Evaluating multiple object tracking performance: the CLEAR MOT
    metrics", section 2.1.2. On each frame an object keeps the id that it had where a box of that id is still
    on it (IoU 0.5, same class); what is left is paired by overlap, best first, each once (the paper minimizes
    the sum of distances: a difference only where boxes compete at IoU 0.5). An object of which nothing was
    published for some frames is compared with its last id before them.

    boxes, ids: what is published on each frame. found, track_ids: what the every-frame detector found there,
    and of which object each box is, -1 for none.
    """
    last: dict[int, int] = {}
    switches = 0
    for shown, shown_ids, there, objects in zip(boxes, ids, found, track_ids, strict=True):
        if not len(shown) or not len(there):
            continue
        for thing, number in _pairs(shown, shown_ids.tolist(), there, objects.tolist(), last):
            switches += last.get(thing, number) != number
            last[thing] = number
    return switches


def _pairs(
    shown: Detections, shown_ids: list[int], there: Detections, objects: list[int], last: dict[int, int]
) -> list[tuple[int, int]]:
    """(object, id) of the boxes of a frame that belong together."""
    iou = iou_matrix(there.xyxy_px, shown.xyxy_px)
    iou[there.class_ids[:, None] != shown.class_ids[None]] = 0.0
    iou[np.asarray(objects) < 0] = 0.0
    near = np.argwhere(iou >= SAME_BOX_IOU).tolist()
    # Those that held before come first.
    near.sort(key=lambda pair: (last.get(objects[pair[0]]) != shown_ids[pair[1]], -iou[pair[0], pair[1]]))
    taken: dict[int, int] = {}
    taken_columns: set[int] = set()
    for row, column in near:
        if row not in taken and column not in taken_columns:
            taken[row] = column
            taken_columns.add(column)
    return [(objects[row], shown_ids[column]) for row, column in taken.items()]
