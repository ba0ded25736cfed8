"""The figures of one method on one condition. Conditions are never pooled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_vision.core.confidence_intervals import clopper_pearson_lower
from edge_vision.core.geometry.boxes import overlaps_object, true_positives
from edge_vision.evaluate.chains.simulate import Published
from edge_vision.evaluate.reference.detector import Reference, TruthBoxes
from edge_vision.evaluate.reference.events import Entry, Event

SOON_MS, LATER_MS = 100.0, 300.0
_ROUNDING_MS = 0.001
MOST_LISTED = 40


@dataclass(frozen=True, slots=True)
class Delay:
    """How long after its first frame an event was told of. missed: never; ms is the time until it left."""

    ms: float
    missed: bool

    def within(self, limit_ms: float) -> bool:
        """Told of in time. Three periods of 30 Hz are 100 ms, whatever the stamps were rounded to."""
        return not self.missed and self.ms <= limit_ms + _ROUNDING_MS


@dataclass(frozen=True, slots=True, eq=False)
class Cost:
    """What deciding took. ms: (n,) wall time of each, empty for none; cpu_s: of all of them."""

    ms: Sequence[float] = ()
    cpu_s: float = 0.0


def event_delay(
    event: Event, boxes: Sequence[Any], truth: Sequence[TruthBoxes], stamps_ns: np.ndarray
) -> Delay:
    """The delay of the entry of an event that was told of last: nobody of a group may be forgotten."""
    delays = [_entry_delay(entry, boxes, truth, stamps_ns) for entry in event.entries]
    return Delay(max(delay.ms for delay in delays), any(delay.missed for delay in delays))


def _entry_delay(
    entry: Entry, boxes: Sequence[Any], truth: Sequence[TruthBoxes], stamps_ns: np.ndarray
) -> Delay:
    for at in range(entry.first, entry.last + 1):
        box = truth[at].get(entry.object_id)
        if box is not None and overlaps_object(boxes[at], box):
            return Delay(float(stamps_ns[at] - stamps_ns[entry.first]) * 1e-6, False)
    return Delay(float(stamps_ns[entry.last] - stamps_ns[entry.first]) * 1e-6, True)


def frame_f1(published: Published, reference: Reference) -> float | None:
    """F1 of all published boxes against the every-frame detector's; None where neither has any."""
    right = ours = theirs = 0
    for look, boxes, found in zip(published.passed.tolist(), published.boxes, reference.found, strict=True):
        ours += len(boxes)
        theirs += len(found)
        right += len(found) if look else true_positives(boxes, found)
    return 2 * right / (ours + theirs) if ours + theirs else None


def worst_gap_ms(passed: np.ndarray, stamps_ns: np.ndarray) -> float:
    """The longest time between two frames that the detector saw, and from the last one to the end."""
    seen = stamps_ns[passed]
    ends = np.concatenate([stamps_ns[:1], seen, stamps_ns[-1:]])
    return float(np.diff(ends).max()) * 1e-6


def worst_gap_moving_ms(passed: np.ndarray, stamps_ns: np.ndarray, moving: np.ndarray) -> float | None:
    """The longest time without the detector while the camera moved on every frame; None if it never did."""
    worst_ns, since_ns = 0, int(stamps_ns[0])
    for looked, moved, stamp_ns in zip(passed.tolist(), moving.tolist(), stamps_ns.tolist(), strict=True):
        if moved:
            worst_ns = max(worst_ns, stamp_ns - since_ns)
        if looked or not moved:
            since_ns = stamp_ns
    return worst_ns * 1e-6 if moving.any() else None


def figures(
    published: Published,
    reference: Reference,
    truth: Sequence[TruthBoxes],
    events: Sequence[Event],
    cost: Cost,
    reasons: Counter[str] | None = None,
    moving: np.ndarray | None = None,
) -> dict[str, Any]:
    """All figures of the report for one method; None where there is nothing to measure.

    moving: (n,) bool, whether the camera moved since the frame before, where that is known.
    """
    stamps_ns, n, passed = reference.stamps_ns, len(reference), published.passed
    delays = [event_delay(event, published.boxes, truth, stamps_ns) for event in events]
    share = float(passed.mean())
    cpu_s = cost.cpu_s + published.tracker_cpu_s
    result: dict[str, Any] = {
        **_recalls(delays),
        **_quantiles("delay_ms", [delay.ms for delay in delays], (50, 95)),
        "delay_ms_max": max((delay.ms for delay in delays), default=None),
        "calls_share": share,
        "worst_gap_ms": worst_gap_ms(passed, stamps_ns),
        "worst_gap_moving_ms": None if moving is None else worst_gap_moving_ms(passed, stamps_ns, moving),
        "frame_f1": frame_f1(published, reference),
        **_quantiles("gate_ms", list(cost.ms), (50, 95)),
        "cpu_s_per_1000": (cpu_s / n + share * reference.detector_cpu_s) * 1000,
        "missed_frames": [e.first for e, d in zip(events, delays, strict=True) if d.missed][:MOST_LISTED],
        "late_frames": [
            e.first for e, d in zip(events, delays, strict=True) if not d.missed and not d.within(SOON_MS)
        ][:MOST_LISTED],
    }
    if reasons is not None:
        result["reasons"] = dict(sorted(reasons.items()))
    return result


def _recalls(delays: list[Delay]) -> dict[str, float | None]:
    n = len(delays)
    soon = sum(delay.within(SOON_MS) for delay in delays)
    later = sum(delay.within(LATER_MS) for delay in delays)
    return {
        "recall_100ms": soon / n if n else None,
        "recall_100ms_lower95": clopper_pearson_lower(soon, n),
        "recall_300ms": later / n if n else None,
    }


def _quantiles(name: str, values: list[float], percents: tuple[int, ...]) -> dict[str, float | None]:
    """Quantiles that were measured: the next higher value, not one between two."""
    if not values:
        return {f"{name}_p{percent}": None for percent in percents}
    found = np.percentile(values, percents, method="higher")
    return {f"{name}_p{percent}": float(value) for percent, value in zip(percents, found, strict=True)}
