"""The teacher: an accurate detector on every frame, restricted to the wanted classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edge_vision.bundles.schema import nearest
from edge_vision.bundles.store import load_bundle
from edge_vision.core.detections import Detections
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.reference.detector import Reference, ReferenceDetector


class Teacher(ReferenceDetector):
    """A reference detector with any bundle. Its detections are cached like a reference."""

    def __init__(self, name: str, labels: Sequence[str]) -> None:
        """Raises BundleError, and EvaluateError for an unknown label."""
        super().__init__()
        self.bundle = load_bundle(name)
        if self.bundle.manifest.task != "detect":
            raise EvaluateError(f"expected a detector as --teacher, got {name}, which is a classifier")
        known = {label: at for at, label in enumerate(self.bundle.labels)}
        for label in labels:
            if label not in known:
                raise EvaluateError(
                    f"expected labels of {name}, got '{label}'{nearest(label, known)}; it knows "
                    f"{', '.join(list(known)[:8])}, ..."
                )
        self._wanted_ids = [known[label] for label in labels]

    def wanted(self, reference: Reference) -> Reference:
        """The reference with only the detections of the wanted classes."""
        return replace(reference, detections=[self._only_wanted(found) for found in reference.detections])

    def _only_wanted(self, found: Detections) -> Detections:
        keep = np.isin(found.class_ids, self._wanted_ids)
        return Detections(found.xyxy_px[keep], found.scores[keep], found.class_ids[keep])
