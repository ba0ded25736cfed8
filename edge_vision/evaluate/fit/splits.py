"""Splits a clip into fit and calibration: long blocks with gaps, never adjacent frames.

Adjacent frames are nearly identical, so a head fitted on one has seen the other. Clips are cut into blocks, a
gap between two blocks belongs to neither, and an object that enters during a calibration block is excluded
from the fit on all other frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_vision.evaluate.reference.detector import Reference
from edge_vision.evaluate.reference.events import Event, clip_entries, clustered
from edge_vision.evaluate.reference.storage import ObjectBoxes

FIT, CALIBRATE, NEITHER = 0, 1, -1
BLOCK_S = 30.0
MIN_BLOCKS = 6
"""Minimum number of blocks; a short clip has shorter ones."""
GAP_S = 1.0
SEED = 11


@dataclass(frozen=True, slots=True, eq=False)
class EventCrop:
    """A random sighting of an event: the frame and the box (4,) of one of its objects."""

    frame: int
    box: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """part: (n,) per frame, FIT, CALIBRATE or NEITHER. events: one crop per calibration event.

    held_out: per frame, the boxes of calibration objects, which the fit must exclude.
    """

    part: np.ndarray
    events: list[EventCrop]
    held_out: list[np.ndarray]


def parts(n: int, fps_hz: float) -> np.ndarray:
    """(n,) FIT, CALIBRATE, CALIBRATE, FIT, ... in blocks, with gaps between the two.

    Calibration gets the larger part: a head needs few examples, a confidence many events.
    """
    block = int(min(BLOCK_S * fps_hz, max(1, n // MIN_BLOCKS)))
    part = np.where((np.arange(n) // block) % 3 == 0, FIT, CALIBRATE)
    gap = min(max(1, round(GAP_S * fps_hz)), max(1, block // 4))
    for border in np.flatnonzero(part[1:] != part[:-1]) + 1:
        part[max(0, border - gap // 2) : border - gap // 2 + gap] = NEITHER
    return part


def split(reference: Reference, fps_hz: float) -> Split:
    """Split a clip by the wanted boxes of its reference."""
    part = parts(len(reference), fps_hz)
    entries, object_boxes = clip_entries(reference)
    events = [event for event in clustered(entries, reference.stamps_ns) if part[event.first] == CALIBRATE]
    rng = np.random.default_rng(SEED)
    crops = [_event_crop(event, reference, object_boxes, part, rng) for event in events]
    kept_out = {entry.object_id for entry in entries if part[entry.first] != FIT}
    held_out = [
        np.array([box for object_id, box in boxes.items() if object_id in kept_out]).reshape(-1, 4)
        for boxes in object_boxes
    ]
    return Split(part, [crop for crop in crops if crop is not None], held_out)


def _event_crop(
    event: Event,
    reference: Reference,
    object_boxes: list[ObjectBoxes],
    part: np.ndarray,
    rng: np.random.Generator,
) -> EventCrop | None:
    """A random frame of a random object of the event, in its block and with a detection of the teacher."""
    entry = event.entries[int(rng.integers(len(event.entries)))]
    frames = []
    for at in range(entry.first, entry.last + 1):
        if part[at] != CALIBRATE:
            break
        box = object_boxes[at][entry.object_id]
        if len(reference.detections[at]) and bool(
            (reference.detections[at].xyxy_px == box).all(axis=1).any()
        ):
            frames.append(at)
    if not frames:
        return None
    at = frames[int(rng.integers(len(frames)))]
    return EventCrop(at, object_boxes[at][entry.object_id])
