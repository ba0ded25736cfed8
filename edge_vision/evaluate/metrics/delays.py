"""The delay from an event to the first published box that shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_vision.core.detections import Detections
from edge_vision.evaluate.condition_data import ConditionData
from edge_vision.evaluate.reference.events import Entry, Event, overlaps_object
from edge_vision.gate.scheduler import DELAY_TOLERANCE

SOON_MS, LATER_MS = 100.0, 300.0


@dataclass(frozen=True, slots=True)
class EventDelay:
    """Time from the first steady frame of an event until it is published; if missed, until it ended."""

    ms: float
    missed: bool

    def within(self, limit_ms: float) -> bool:
        """Whether it was published in time, by the schedule's own tolerance."""
        return not self.missed and self.ms <= limit_ms * DELAY_TOLERANCE


def event_delay(event: Event, published: Sequence[Detections], data: ConditionData) -> EventDelay:
    """The longest delay of the entries of an event; missed if one of them is."""
    delays = [_entry_delay(entry, published, data) for entry in event.entries]
    return EventDelay(max(delay.ms for delay in delays), any(delay.missed for delay in delays))


def _entry_delay(entry: Entry, published: Sequence[Detections], data: ConditionData) -> EventDelay:
    stamps_ns = data.reference.stamps_ns
    for at in range(entry.first, entry.last + 1):
        box = data.object_boxes[at].get(entry.object_id)
        if box is not None and overlaps_object(published[at], box):
            return EventDelay(max(0.0, float(stamps_ns[at] - stamps_ns[entry.steady]) * 1e-6), False)
    return EventDelay(float(stamps_ns[entry.last] - stamps_ns[entry.steady]) * 1e-6, True)
