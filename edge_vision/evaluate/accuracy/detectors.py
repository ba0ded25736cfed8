"""Runs detectors on labelled images."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from time import thread_time
from typing import Any

from edge_vision.backends import open_session
from edge_vision.backends.base import BackendRequest
from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.detect.detector import Detector
from edge_vision.evaluate.accuracy.labels import LabelSet, labelled_frames
from edge_vision.evaluate.accuracy.scores import Scores, class_numbers, in_classes_of_labels, scores_of
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.offline.progress import ProgressLine
from edge_vision.optimize.data.ground_truth import SCORE_THRESHOLD


@dataclass(slots=True, eq=False)
class JudgedDetector:
    """A detector, what it finds on each labelled image, and the CPU time of each pass in s."""

    bundle: Bundle
    detector: Detector
    score_threshold: float
    found: list[Detections]
    cpu_s: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.bundle.name

    def scores(self, labels: LabelSet) -> Scores:
        """The figures against the labels, and how the detector ran.

        missing_classes: labelled ones that the model does not have; they do not count.
        """
        numbers = class_numbers(self.bundle.labels, labels)
        found = [in_classes_of_labels(one, numbers) for one in self.found]
        actual = self.detector.session.actual
        return {
            "bundle_sha256": self.bundle.sha256,
            "backend": f"{actual.backend} {actual.version}",
            "precision_of_arithmetic": actual.precision,
            "score_threshold": self.score_threshold,
            "cpu_ms": round(median(self.cpu_s) * 1e3, 2),
            "missing_classes": [
                name for i, name in enumerate(labels.classes) if i not in set(numbers.values())
            ],
            **scores_of(found, labels, numbers.values(), self.score_threshold),
        }


def open_detector(model: str, backend: str, precision: str, images: int) -> JudgedDetector:
    """A bundle's detector on one thread, without a limit to its scores.

    Raises BundleError, BackendError, and EvaluateError for a classifier.
    """
    bundle = load_bundle(model)
    if bundle.manifest.task != "detect":
        raise EvaluateError(f"{model}: expected a detector, got a bundle for task '{bundle.manifest.task}'")
    request = BackendRequest(precision=precision, threads=1)
    session, _ = open_session(bundle, backend, request, strict=backend != "auto")
    detector = Detector.from_bundle(bundle, session)
    detector.warm_up()
    threshold = bundle.manifest.thresholds.score_threshold
    lowest = min(SCORE_THRESHOLD, threshold)
    detector.thresholds = replace(detector.thresholds, score_threshold=lowest)
    return JudgedDetector(bundle, detector, threshold, [Detections.empty()] * images)


def run_detectors(judged: Sequence[JudgedDetector], labels: LabelSet) -> None:
    """Run all detectors on all images, each image being read once. Raises EvaluateError, BackendError."""
    line, done = ProgressLine(sys.stderr), 0
    total = len(labels.images) * len(judged)
    try:
        for position, image in labelled_frames(labels):
            frame = Frame(image, 0, "", "bgr8")
            for one in judged:
                started = thread_time()
                one.found[position] = one.detector.detect(frame).detections
                one.cpu_s.append(thread_time() - started)
                done += 1
                line.progress("detecting", done, total)
    finally:
        line.end()


def header(labels: LabelSet) -> dict[str, Any]:
    """What the figures are measured on."""
    return {
        "file": labels.file.name,
        "images": len(labels.images),
        "boxes": labels.boxes,
        "ignored_regions": sum(int(one.ignored.sum()) for one in labels.images),
        "clips": sorted({path.stem for path in labels.videos()}),
    }
