"""Events: entries of objects, as the every-frame detector sees them.

On a constructed sequence an entry is the first frame on which the detector has a box on a pasted object; an
object that it never sees is no entry. On a real clip it is the birth of a confirmed track of its boxes.
Entries within 200 ms are one event, counted once: whoever looks at the first of them sees the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.geometry.boxes import SAME_OBJECT_IOU, iou_matrix, overlaps_object
from edge_vision.evaluate.reference.detector import Reference, TruthBoxes

CLUSTER_MS = 200.0
SEEN, OF_FRAMES = 3, 5
"""A track is confirmed where the detector saw it on 3 of its first 5 frames: single ones are inventions."""
LOST_MS = 2000.0
"""Who was lost at this place within this time has not come in again."""
HELD_FRAMES = 15
SPEED_FRAMES = 10


@dataclass(frozen=True, slots=True)
class Entry:
    """An object that came in. first: the frame on which the detector first had it; last: its last frame."""

    object_id: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Event:
    """One or more entries at about one time."""

    entries: tuple[Entry, ...]

    @property
    def first(self) -> int:
        """The frame of its first entry."""
        return self.entries[0].first


def constructed_entries(reference: Reference) -> list[Entry]:
    """The entries of pasted objects, in order of their first frames."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for at, boxes in enumerate(reference.truth):
        for object_id, box in boxes.items():
            last[object_id] = at
            if object_id not in first and overlaps_object(reference.found[at], box):
                first[object_id] = at
    entries = [Entry(object_id, at, last[object_id]) for object_id, at in first.items()]
    return sorted(entries, key=lambda entry: (entry.first, entry.object_id))


def clustered(entries: list[Entry], stamps_ns: np.ndarray) -> list[Event]:
    """Entries in order, those within 200 ms of the first of a group as one event."""
    events: list[Event] = []
    for entry in entries:
        if events and stamps_ns[entry.first] - stamps_ns[events[-1].first] <= CLUSTER_MS * 1e6:
            events[-1] = Event((*events[-1].entries, entry))
        else:
            events.append(Event((entry,)))
    return events


@dataclass(slots=True, eq=False)
class _Track:
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

    def box_at(self, at: int) -> np.ndarray:
        """Where it would be on a later frame, had it gone on as it went in its last frames, (4,)."""
        seen = [frame for frame in self.boxes if frame < at]
        last = seen[-1]
        recent = [frame for frame in seen if frame >= last - SPEED_FRAMES]
        if len(recent) < 2:
            return self.boxes[last]
        step = (self.boxes[last] - self.boxes[recent[0]]) / (last - recent[0])
        # The whole box goes by the speed of its centre: its size flickers.
        shift = (step[:2] + step[2:]) / 2 * (at - last)
        return np.asarray(self.boxes[last] + np.tile(shift, 2))

    def confirmed(self) -> bool:
        return sum(at < self.first + OF_FRAMES for at in self.boxes) >= SEEN


def clip_entries(reference: Reference) -> tuple[list[Entry], list[TruthBoxes]]:
    """The births of confirmed tracks of a real clip, and where each object is on each frame.

    Between two frames on which the detector saw it, an object is where it was last seen.
    What is in view on the first frame has not come in.
    """
    tracks = [track for track in _tracks(reference) if track.confirmed()]
    truth: list[TruthBoxes] = [{} for _ in range(len(reference))]
    entries = []
    for track in tracks:
        if track.first == 0 or _is_back(track, tracks, reference.stamps_ns):
            continue
        entries.append(Entry(track.object_id, track.first, track.last))
        box = track.boxes[track.first]
        for at in range(track.first, track.last + 1):
            box = track.boxes.get(at, box)
            truth[at][track.object_id] = box
    return sorted(entries, key=lambda entry: (entry.first, entry.object_id)), truth


def track_ids(reference: Reference) -> list[np.ndarray]:
    """(n,) int64 per frame: of which confirmed track each box of the every-frame detector is, -1 for none."""
    ids = [np.full(len(found), -1, np.int64) for found in reference.found]
    for track in _tracks(reference):
        if track.confirmed():
            for at, column in track.columns.items():
                ids[at][column] = track.object_id
    return ids


def _tracks(reference: Reference) -> list[_Track]:
    """Boxes of one class that follow each other by overlap, best overlap first."""
    done: list[_Track] = []
    live: list[_Track] = []
    for at, found in enumerate(reference.found):
        done += [track for track in live if at - track.last > HELD_FRAMES]
        live = [track for track in live if at - track.last <= HELD_FRAMES]
        free = set(range(len(found)))
        if live and free:
            iou = iou_matrix(np.stack([track.box_at(at) for track in live]), found.xyxy_px)
            iou[np.array([track.class_id for track in live])[:, None] != found.class_ids[None]] = 0.0
            taken: set[int] = set()
            for flat in np.argsort(-iou, axis=None, kind="stable").tolist():
                row, column = divmod(flat, len(found))
                if iou[row, column] < SAME_OBJECT_IOU:
                    break
                if row not in taken and column in free:
                    taken.add(row)
                    free.remove(column)
                    live[row].add(at, found, column)
        for column in sorted(free):
            track = _Track(len(done) + len(live), at, int(found.class_ids[column]))
            track.add(at, found, column)
            live.append(track)
    return done + live


def _is_back(track: _Track, tracks: list[_Track], stamps_ns: np.ndarray) -> bool:
    """True where another track, of any class, was lost a short while ago here, or on its way to here."""
    box = track.boxes[track.first]
    for other in tracks:
        # Who is seen beside it on the same frame is somebody else.
        if other.first >= track.first or track.first in other.boxes:
            continue
        lost = max(at for at in other.boxes if at < track.first)
        if stamps_ns[track.first] - stamps_ns[lost] > LOST_MS * 1e6:
            continue
        if _near(box, other.boxes[lost]) or _near(box, other.box_at(track.first)):
            return True
    return False


def _near(box: np.ndarray, other: np.ndarray) -> bool:
    """True where the centres are less than the larger box's size apart."""
    apart = np.abs((box[:2] + box[2:]) - (other[:2] + other[2:])) / 2
    size = np.maximum(box[2:] - box[:2], other[2:] - other[:2])
    return bool((apart < size).all())
