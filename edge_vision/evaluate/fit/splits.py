"""What is fitted on, and what is judged on: long blocks of a clip with gaps, never neighbouring frames.

Two neighbouring frames show the same; a head that has seen one knows the other. So each clip is cut into
blocks, some seconds between two blocks belong to neither, and an object that comes in during a calibration
block is kept out of the fit wherever else it is seen.
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
"""A short clip has shorter blocks."""
GAP_S = 1.0
SEED = 11


@dataclass(frozen=True, slots=True, eq=False)
class EventCrop:
    """One event's look: the frame and the box (4,) of an object that came in."""

    frame: int
    box: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """part: (n,) of each frame, FIT, CALIBRATE or NEITHER. trials: one of each event of the calibration.

    held_out: of each frame the boxes of objects of the calibration, for the fit to leave alone.
    """

    part: np.ndarray
    trials: list[EventCrop]
    held_out: list[np.ndarray]


def parts(n: int, fps_hz: float) -> np.ndarray:
    """(n,) FIT, CALIBRATE, CALIBRATE, FIT, ... in blocks, with gaps between the two.

    The larger part calibrates: a head needs few examples, and a confidence many events.
    """
    block = int(min(BLOCK_S * fps_hz, max(1, n // MIN_BLOCKS)))
    part = np.where((np.arange(n) // block) % 3 == 0, FIT, CALIBRATE)
    gap = min(max(1, round(GAP_S * fps_hz)), max(1, block // 4))
    for border in np.flatnonzero(part[1:] != part[:-1]) + 1:
        part[max(0, border - gap // 2) : border - gap // 2 + gap] = NEITHER
    return part


def split(reference: Reference, fps_hz: float) -> Split:
    """Cut a clip by the wanted boxes of its reference."""
    part = parts(len(reference), fps_hz)
    entries, truth = clip_entries(reference)
    events = [event for event in clustered(entries, reference.stamps_ns) if part[event.first] == CALIBRATE]
    rng = np.random.default_rng(SEED)
    trials = [trial for event in events if (trial := _trial(event, reference, truth, part, rng)) is not None]
    kept_out = {entry.object_id for entry in entries if part[entry.first] != FIT}
    held_out = [
        np.array([box for object_id, box in boxes.items() if object_id in kept_out]).reshape(-1, 4)
        for boxes in truth
    ]
    return Split(part, trials, held_out)


def _trial(
    event: Event,
    reference: Reference,
    truth: list[ObjectBoxes],
    part: np.ndarray,
    rng: np.random.Generator,
) -> EventCrop | None:
    """A random frame of a random object of the event, of those in its block on which the teacher saw it."""
    entry = event.entries[int(rng.integers(len(event.entries)))]
    frames = []
    for at in range(entry.first, entry.last + 1):
        if part[at] != CALIBRATE:
            break
        box = truth[at][entry.object_id]
        if len(reference.detections[at]) and bool(
            (reference.detections[at].xyxy_px == box).all(axis=1).any()
        ):
            frames.append(at)
    if not frames:
        return None
    at = frames[int(rng.integers(len(frames)))]
    return EventCrop(at, truth[at][entry.object_id])
