"""The noise ceiling of a clip: how well the detector agrees with itself on a picture moved by 1 or 2 pixels.

No scheduler that skips frames can be expected to agree better with the detector than the detector does with
itself, so fidelity targets are stated relative to it.
"""

from __future__ import annotations

import json
from itertools import islice

import cv2
import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.geometry.boxes import true_positives
from edge_vision.evaluate.conditions import Condition, ConditionFrame
from edge_vision.evaluate.reference.detector import (
    Reference,
    ReferenceDetector,
    StepCallback,
    cache_path,
    reference_of,
)
from edge_vision.evaluate.reference.storage import replace_file

SAMPLE_EVERY = 4
SHIFTS_PX = (1, 2)


def _ignore_step(phase: str) -> None:
    pass


def noise_ceiling(
    condition: Condition,
    reference: Reference | None = None,
    detector: ReferenceDetector | None = None,
    on_step: StepCallback = _ignore_step,
) -> float | None:
    """Frame F1 of the detector against itself on moved pictures, pooled; None where it finds nothing.

    Every SAMPLE_EVERY-th frame is moved right and down by each of SHIFTS_PX, its border replicated, and the
    boxes are moved back. Cached beside the reference.

    reference: its frames are measured; None: all frames of the condition. on_step: called with "detect" for
    each inference; may raise Stopped. Raises EvaluateError where the source has no frame.
    """
    detector = detector or ReferenceDetector()
    if reference is None:
        reference = reference_of(condition, condition.n_frames, detector, on_step)
    path = cache_path(condition, detector.bundle).with_suffix(".ceiling.json")
    n_samples = -(-len(reference) // SAMPLE_EVERY)
    try:
        counts: list[list[int]] = json.loads(path.read_text())
    except (OSError, ValueError):
        counts = []
    if len(counts) < n_samples:
        frames = islice(condition.frames(), 0, len(reference), SAMPLE_EVERY)
        for at, scene in enumerate(frames):
            if at >= len(counts):
                counts.append(_agreement(scene, reference.detections[at * SAMPLE_EVERY], detector))
                on_step("detect")
        replace_file(path, lambda file: file.write(json.dumps(counts).encode()))
    matched, boxes = (sum(column) for column in zip(*counts[:n_samples], strict=True))
    return 2 * matched / boxes if boxes else None


def moved(image: np.ndarray, shift_px: int) -> np.ndarray:
    """The picture moved right and down, its left and upper border replicated; same shape."""
    grown = cv2.copyMakeBorder(image, shift_px, 0, shift_px, 0, cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(grown[: image.shape[0], : image.shape[1]])


def _agreement(scene: ConditionFrame, found: Detections, detector: ReferenceDetector) -> list[int]:
    """Matching boxes, and boxes of both sides, over all shifts of a frame."""
    matched = boxes = 0
    for shift_px in SHIFTS_PX:
        shifted, _, _ = detector.detect(ConditionFrame(moved(scene.image, shift_px), scene.stamp_ns, []))
        back = Detections(shifted.xyxy_px - np.float32(shift_px), shifted.scores, shifted.class_ids)
        matched += true_positives(back, found)
        boxes += len(back) + len(found)
    return [matched, boxes]
