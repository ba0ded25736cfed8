"""What all methods on a condition are compared with: the reference, its events and its noise ceiling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edge_vision.evaluate.conditions import Condition
from edge_vision.evaluate.reference.clips import ClipSource, without_removed
from edge_vision.evaluate.reference.detector import (
    Reference,
    ReferenceDetector,
    StepCallback,
    reference_of,
)
from edge_vision.evaluate.reference.events import (
    Event,
    clip_entries,
    clustered,
    constructed_entries,
    overlaps_object,
    track_ids,
)
from edge_vision.evaluate.reference.noise_ceiling import noise_ceiling
from edge_vision.evaluate.reference.storage import ObjectBoxes


@dataclass(frozen=True, eq=False)
class ConditionData:
    """Reference data of a condition. object_boxes: the boxes of the objects of its events, per frame.

    noise_ceiling: None if the detector finds nothing. notes: remarks for the reader of the report.
    """

    reference: Reference
    events: Sequence[Event]
    object_boxes: Sequence[ObjectBoxes]
    noise_ceiling: float | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def track_ids(self) -> list[np.ndarray]:
        """See `events.track_ids`."""
        return track_ids(self.reference)

    def visible_share(self) -> float:
        """Share of frames with an object in view."""
        return float(np.mean([len(boxes) > 0 for boxes in self.object_boxes]))

    def detected_share(self) -> float:
        """Share of frames on which the every-frame detector finds one of the objects."""
        pairs = zip(self.reference.detections, self.object_boxes, strict=True)
        return float(
            np.mean([any(overlaps_object(found, box) for box in boxes.values()) for found, boxes in pairs])
        )


def load_condition_data(
    condition: Condition, n: int, detector: ReferenceDetector, on_step: StepCallback
) -> ConditionData:
    """The data of the first n frames. on_step: see `reference_of`. Raises EvaluateError."""
    reference = reference_of(condition, n, detector, on_step)
    events, object_boxes, notes = events_of(condition, reference)
    ceiling = noise_ceiling(condition, reference, detector, on_step)
    return ConditionData(reference, events, object_boxes, ceiling, notes)


def events_of(
    condition: Condition, reference: Reference
) -> tuple[list[Event], Sequence[ObjectBoxes], tuple[str, ...]]:
    """The events of a condition, the boxes of its objects per frame, and notes on the review of a clip."""
    if condition.constructed:
        entries = constructed_entries(reference)
        return clustered(entries, reference.stamps_ns), reference.ground_truth, ()
    entries, object_boxes = clip_entries(reference)
    notes: tuple[str, ...] = ()
    source = condition.make()
    if isinstance(source, ClipSource):
        entries, note = without_removed(source.path, entries, object_boxes)
        notes = (note,)
    return clustered(entries, reference.stamps_ns), object_boxes, notes
