"""Identity switches: whether published track ids stay with their objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.geometry.boxes import SAME_BOX_IOU, iou_matrix


def id_switches(
    published: Sequence[Detections],
    ids: Sequence[np.ndarray],
    detections: Sequence[Detections],
    track_ids: Sequence[np.ndarray],
) -> int:
    """How often an object is published under another id than before: the mismatches of MOTA.

    K. Bernardin and R. Stiefelhagen (2008), "Evaluating multiple object tracking performance: the CLEAR MOT
    metrics", section 2.1.2. On each frame, an object keeps its id if a box with that id still overlaps it
    (IoU 0.5, same class); the remaining boxes are matched greedily by IoU (the paper minimizes the sum of
    distances, which differs only where boxes compete at IoU 0.5). After frames on which an object was not
    published, it is compared with its last id before them.

    published, ids: the boxes on each frame and their track ids. detections, track_ids: those of the
    every-frame detector; -1 for no confirmed track.
    """
    last_id: dict[int, int] = {}
    switches = 0
    for shown, shown_ids, found, objects in zip(published, ids, detections, track_ids, strict=True):
        if not len(shown) or not len(found):
            continue
        for object_id, track_id in _matches(shown, shown_ids.tolist(), found, objects.tolist(), last_id):
            switches += last_id.get(object_id, track_id) != track_id
            last_id[object_id] = track_id
    return switches


def _matches(
    shown: Detections, shown_ids: list[int], found: Detections, objects: list[int], last_id: dict[int, int]
) -> list[tuple[int, int]]:
    """(object, track id) of the matching boxes of a frame."""
    iou = iou_matrix(found.xyxy_px, shown.xyxy_px)
    iou[found.class_ids[:, None] != shown.class_ids[None]] = 0.0
    iou[np.asarray(objects) < 0] = 0.0
    pairs = np.argwhere(iou >= SAME_BOX_IOU).tolist()
    # Pairs that matched before come first.
    pairs.sort(key=lambda pair: (last_id.get(objects[pair[0]]) != shown_ids[pair[1]], -iou[pair[0], pair[1]]))
    matched: dict[int, int] = {}
    matched_columns: set[int] = set()
    for row, column in pairs:
        if row not in matched and column not in matched_columns:
            matched[row] = column
            matched_columns.add(column)
    return [(objects[row], shown_ids[column]) for row, column in matched.items()]
