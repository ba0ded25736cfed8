"""Passes the frames of a condition to gates and baselines, and measures the detector between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.evaluate.conditions import Condition
from edge_vision.evaluate.process_pool import check_frame_count
from edge_vision.evaluate.reference.detector import Reference, ReferenceDetector, StepCallback, frame_of

FrameConsumer = Callable[[Frame, Detections, Detections], None]
"""Takes a frame, and the detections and low-score detections that an inference on it finds."""
DETECTOR_SAMPLES = 80
"""Inferences per condition that measure the detector's cost, under the load of the consumers."""


def observe(
    condition: Condition,
    reference: Reference,
    consumers: Sequence[FrameConsumer],
    on_step: StepCallback,
    detector: ReferenceDetector | None = None,
) -> float:
    """Pass each frame of the reference to all consumers, alternating which is first.

    detector: measured on DETECTOR_SAMPLES frames; None: not measured. Returns its median CPU seconds, else
    those of the reference. Raises EvaluateError.
    """
    sample_every = max(1, len(reference) // DETECTOR_SAMPLES)
    detector_cpu_s: list[float] = []
    processed = 0
    frames = islice(condition.frames(), len(reference))
    for scene, found, low_score in zip(frames, reference.detections, reference.low_score, strict=False):
        for consume in consumers if processed % 2 else reversed(consumers):
            consume(frame_of(scene), found, low_score)
        if detector is not None and processed % sample_every == 0:
            detector_cpu_s.append(detector.detect(scene)[2])
        processed += 1
        on_step("analyse")
    check_frame_count(condition, len(reference), processed)
    return float(np.median(detector_cpu_s)) if detector_cpu_s else reference.detector_cpu_s
