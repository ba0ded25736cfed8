"""Events: entries of objects, as the every-frame detector observes them.

On a constructed sequence, an entry is the first frame on which a detection overlaps a pasted object; objects
that the detector never finds have no entry. On a real clip, an entry is the first frame of a confirmed track
of its detections. Entries within CLUSTER_MS count as one event, as one inference reveals them all.

The delay counts from the first frame from which the detector finds the object on every frame for STEADY_MS:
no schedule but every frame can promise anything about an object that flickers. Without such a frame an object
has no entry.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.geometry.boxes import SAME_OBJECT_IOU, iou_matrix
from edge_vision.evaluate.reference.detector import Reference
from edge_vision.evaluate.reference.storage import ObjectBoxes

CLUSTER_MS = 200.0
CONFIRM_HITS, CONFIRM_WINDOW = 3, 5
"""A track is confirmed by detections on 3 of its first 5 frames; isolated detections are false positives."""
STEADY_MS = 100.0
REENTRY_MS = 2000.0
"""An object that reappears near its last position within this time has not entered again."""
MAX_GAP_FRAMES = 15
"""A track ends after this many frames without a detection."""
SPEED_FRAMES = 10
_ROUNDING_MS = 0.001


@dataclass(frozen=True, slots=True)
class Entry:
    """An object that entered. Frames: of its first detection, the last in view, and the first steady one."""

    object_id: int
    first: int
    last: int
    steady: int


@dataclass(frozen=True, slots=True)
class Event:
    """One or more entries at nearly the same time."""

    entries: tuple[Entry, ...]

    @property
    def first(self) -> int:
        """The frame of its first entry."""
        return self.entries[0].first


def constructed_entries(reference: Reference) -> list[Entry]:
    """The entries of pasted objects, ordered by their first frames."""
    found: dict[int, list[int]] = {}
    last: dict[int, int] = {}
    for at, boxes in enumerate(reference.ground_truth):
        for object_id, box in boxes.items():
            last[object_id] = at
            if overlaps_object(reference.detections[at], box):
                found.setdefault(object_id, []).append(at)
    return _ordered(
        [
            Entry(object_id, frames[0], last[object_id], steady)
            for object_id, frames in found.items()
            if (steady := _steady(frames, reference.stamps_ns)) is not None
        ]
    )


def _steady(found: Sequence[int], stamps_ns: np.ndarray) -> int | None:
    """The first of these frames that starts a run without a gap of STEADY_MS and at least two frames."""
    start = 0
    for index, at in enumerate(found):
        if index and at != found[index - 1] + 1:
            start = index
        if index > start and stamps_ns[at] - stamps_ns[found[start]] >= (STEADY_MS - _ROUNDING_MS) * 1e6:
            return found[start]
    return None


def clustered(entries: list[Entry], stamps_ns: np.ndarray) -> list[Event]:
    """Ordered entries as events; those within CLUSTER_MS of the first entry of an event belong to it."""
    events: list[Event] = []
    for entry in entries:
        if events and stamps_ns[entry.first] - stamps_ns[events[-1].first] <= CLUSTER_MS * 1e6:
            events[-1] = Event((*events[-1].entries, entry))
        else:
            events.append(Event((entry,)))
    return events


def clip_entries(reference: Reference) -> tuple[list[Entry], list[ObjectBoxes]]:
    """The entries of a real clip, and the box of each object that entered, per frame.

    Between two detections, its box is interpolated linearly. Objects on frame 0 have not entered.
    """
    tracks = [track for track in _tracks(reference) if track.confirmed()]
    object_boxes: list[ObjectBoxes] = [{} for _ in range(len(reference))]
    entries = []
    for track in tracks:
        steady = _steady([*track.boxes], reference.stamps_ns)
        if track.first == 0 or steady is None or _reappears(track, tracks, reference.stamps_ns):
            continue
        entries.append(Entry(track.object_id, track.first, track.last, steady))
        for at, box in track.interpolated():
            object_boxes[at][track.object_id] = box
    return _ordered(entries), object_boxes


def track_ids(reference: Reference) -> list[np.ndarray]:
    """(n,) int64 per frame: the confirmed track of each detection of the reference, -1 for none."""
    ids = [np.full(len(found), -1, np.int64) for found in reference.detections]
    for track in _tracks(reference):
        if track.confirmed():
            for at, column in track.columns.items():
                ids[at][column] = track.object_id
    return ids


def _ordered(entries: list[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: (entry.first, entry.object_id))


@dataclass(slots=True, eq=False)
class _ReferenceTrack:
    """Detections of one object. boxes: frame -> box (4,); columns: frame -> index among its detections."""

    object_id: int
    first: int
    class_id: int
    boxes: dict[int, np.ndarray] = field(default_factory=dict)
    columns: dict[int, int] = field(default_factory=dict)

    def add(self, at: int, found: Detections, column: int) -> None:
        self.boxes[at] = found.xyxy_px[column]
        self.columns[at] = column

    @property
    def last(self) -> int:
        return next(reversed(self.boxes))

    def predicted_box(self, at: int) -> np.ndarray:
        """The box (4,) on a later frame, at the mean velocity of the last SPEED_FRAMES frames."""
        seen = [frame for frame in self.boxes if frame < at]
        last = seen[-1]
        recent = [frame for frame in seen if frame >= last - SPEED_FRAMES]
        if len(recent) < 2:
            return self.boxes[last]
        step = (self.boxes[last] - self.boxes[recent[0]]) / (last - recent[0])
        # Only the centre's velocity is used, as the size of detections flickers.
        shift = (step[:2] + step[2:]) / 2 * (at - last)
        return np.asarray(self.boxes[last] + np.tile(shift, 2))

    def interpolated(self) -> Iterator[tuple[int, np.ndarray]]:
        """(frame, box) from the first to the last detection, linear between two detections."""
        yield self.first, self.boxes[self.first]
        for (start, box), (end, next_box) in pairwise(self.boxes.items()):
            step = (next_box - box) / np.float32(end - start)
            yield from ((at, box + step * np.float32(at - start)) for at in range(start + 1, end))
            yield end, next_box

    def confirmed(self) -> bool:
        return sum(at < self.first + CONFIRM_WINDOW for at in self.boxes) >= CONFIRM_HITS


def _tracks(reference: Reference) -> list[_ReferenceTrack]:
    """Tracks of detections of one class, associated greedily by IoU."""
    ended: list[_ReferenceTrack] = []
    live: list[_ReferenceTrack] = []
    for at, found in enumerate(reference.detections):
        ended += [track for track in live if at - track.last > MAX_GAP_FRAMES]
        live = [track for track in live if at - track.last <= MAX_GAP_FRAMES]
        unmatched = set(range(len(found)))
        for row, column in _associated(live, at, found):
            live[row].add(at, found, column)
            unmatched.remove(column)
        for column in sorted(unmatched):
            track = _ReferenceTrack(len(ended) + len(live), at, int(found.class_ids[column]))
            track.add(at, found, column)
            live.append(track)
    return ended + live


def _associated(live: list[_ReferenceTrack], at: int, found: Detections) -> list[tuple[int, int]]:
    """(track, detection) pairs of one class with an IoU of at least SAME_OBJECT_IOU, highest IoU first."""
    if not live or not len(found):
        return []
    iou = iou_matrix(np.stack([track.predicted_box(at) for track in live]), found.xyxy_px)
    iou[np.array([track.class_id for track in live])[:, None] != found.class_ids[None]] = 0.0
    rows: set[int] = set()
    columns: set[int] = set()
    pairs = []
    for flat in np.argsort(-iou, axis=None, kind="stable").tolist():
        row, column = divmod(flat, len(found))
        if iou[row, column] < SAME_OBJECT_IOU:
            break
        if row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
            pairs.append((row, column))
    return pairs


def _reappears(track: _ReferenceTrack, tracks: list[_ReferenceTrack], stamps_ns: np.ndarray) -> bool:
    """Whether another track, of any class, was lost near this position, or on its way to it, recently."""
    box = track.boxes[track.first]
    for other in tracks:
        # A track that has a detection on the same frame is another object.
        if other.first >= track.first or track.first in other.boxes:
            continue
        lost = max(at for at in other.boxes if at < track.first)
        if stamps_ns[track.first] - stamps_ns[lost] > REENTRY_MS * 1e6:
            continue
        if _near(box, other.boxes[lost]) or _near(box, other.predicted_box(track.first)):
            return True
    return False


def _near(box: np.ndarray, other: np.ndarray) -> bool:
    """Whether the distance of the centres is less than the larger size, in both axes."""
    distance = np.abs((box[:2] + box[2:]) - (other[:2] + other[2:])) / 2
    size = np.maximum(box[2:] - box[:2], other[2:] - other[:2])
    return bool((distance < size).all())


def overlaps_object(found: Detections, box: np.ndarray) -> bool:
    """Whether a detection of any class overlaps an object's box (4,) by SAME_OBJECT_IOU."""
    return len(found) > 0 and bool(iou_matrix(found.xyxy_px, box[None]).max() >= SAME_OBJECT_IOU)
