"""The noise ceiling of a condition: the detector's frame F1 against itself on images moved by 1 and 2 pixels.

A method that skips frames cannot be expected to agree better with the detector than the detector agrees with
itself, so fidelity is stated relative to the ceiling.
"""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

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
    """Frame F1 of the detector against itself on moved images, pooled; None if it finds nothing.

    Every SAMPLE_EVERY-th frame is moved right and down by each of SHIFTS_PX with a replicated border, and the
    boxes are moved back. Cached beside the reference.

    reference: its frames are measured; None: all frames of the condition. on_step: called with "detect" for
    each inference; may raise Stopped. Raises EvaluateError where the source has no frame.
    """
    detector = detector or ReferenceDetector()
    if reference is None:
        reference = reference_of(condition, condition.n_frames, detector, on_step)
    path = cache_path(condition, detector.bundle).with_suffix(".ceiling.json")
    counts = _read_counts(path)
    n_samples = -(-len(reference) // SAMPLE_EVERY)
    if len(counts) < n_samples:
        frames = islice(condition.frames(), len(counts) * SAMPLE_EVERY, len(reference), SAMPLE_EVERY)
        try:
            for scene in frames:
                found = reference.detections[len(counts) * SAMPLE_EVERY]
                counts.append(_agreement(scene, found, detector, on_step))
        finally:
            replace_file(path, lambda file: file.write(json.dumps(counts).encode()))
    matched, boxes = (sum(column) for column in zip(*counts[:n_samples], strict=True))
    return 2 * matched / boxes if boxes else None


def moved(image: np.ndarray, shift_px: int) -> np.ndarray:
    """The image moved right and down, its left and upper border replicated; same shape."""
    grown = cv2.copyMakeBorder(image, shift_px, 0, shift_px, 0, cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(grown[: image.shape[0], : image.shape[1]])


def _read_counts(path: Path) -> list[list[int]]:
    """Stored [matches, boxes] per sampled frame; empty if the file is missing or damaged."""
    try:
        counts = [[int(value) for value in pair] for pair in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError):
        return []
    return counts if all(len(pair) == 2 for pair in counts) else []


def _agreement(
    scene: ConditionFrame, found: Detections, detector: ReferenceDetector, on_step: StepCallback
) -> list[int]:
    """[matches, boxes of both sides] over all shifts of a frame."""
    matched = boxes = 0
    for shift_px in SHIFTS_PX:
        shifted, _, _ = detector.detect(ConditionFrame(moved(scene.image, shift_px), scene.stamp_ns, []))
        back = Detections(shifted.xyxy_px - np.float32(shift_px), shifted.scores, shifted.class_ids)
        matched += true_positives(back, found)
        boxes += len(back) + len(found)
        on_step("detect")
    return [matched, boxes]
