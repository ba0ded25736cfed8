"""Agreement of published boxes with the every-frame detector's."""

from __future__ import annotations

from collections.abc import Sequence

from edge_vision.core.detections import Detections
from edge_vision.core.geometry.boxes import SAME_OBJECT_IOU, best_iou, true_positives


def pooled_f1(published: Sequence[Detections], expected: Sequence[Detections]) -> float | None:
    """F1 of the boxes of all frames: same class, IoU 0.5; None without any box."""
    matched = sum(map(true_positives, published, expected))
    boxes = sum(map(len, published)) + sum(map(len, expected))
    return 2 * matched / boxes if boxes else None


def ghost_boxes(
    published: Sequence[Detections],
    inferred: Sequence[bool],
    expected: Sequence[Detections],
    cuts: Sequence[int],
) -> int:
    """Number of predicted boxes on the frames from a cut to the next inference that overlap no object there.

    cuts: the first frame of each scene. expected: the every-frame detector's boxes.
    """
    ghosts = 0
    for cut in cuts:
        for at in range(cut, len(published)):
            if inferred[at]:
                break
            iou = best_iou(published[at].xyxy_px, expected[at].xyxy_px)
            ghosts += int((iou < SAME_OBJECT_IOU).sum())
    return ghosts
