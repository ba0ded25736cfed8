"""What the detector node knows of objects between its inferences: their ids, and `detections_tracked`."""

from __future__ import annotations

from typing import Any

import numpy as np
from vision_msgs.msg import Detection2DArray

from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.frame_event import FrameEvent
from edge_vision.core.geometry.boxes import NO_REGIONS
from edge_vision.core.latency import LatencyWindow
from edge_vision.detect.roi_planner import RoiInput
from edge_vision.nodes.base_node import BaseNode, latency_values
from edge_vision.nodes.interface import specs
from edge_vision.nodes.interface.cdr import best_encoder
from edge_vision.nodes.lazy_publisher import LazyPublisher
from edge_vision.nodes.qos import RESULTS
from edge_vision.tracking.tracker import STATIC_SCENE_REASONS, Tracks
from edge_vision.tracking.tracking_history import TrackingHistory

SKIPPED = ("gated", "rejected")
# How a box came to be: the detector saw it on this frame; it is moved on by its speed and the camera's
# motion; it rests where it was, as nothing moves by itself.
KINDS = ("inferred", "tracked", "cached")


class TrackPublisher:
    """Follows the objects of one detector along all judged frames, while somebody wants to know them.

    Any thread may call; nothing here raises but `publish`, which the executor calls. Each skipped frame is
    published by the thread that tells of it: it waits for no inference.
    """

    def __init__(self, node: BaseNode) -> None:
        self._node = node
        self._line = TrackingHistory()
        self._encode = best_encoder()
        self._outlet: LazyPublisher | None = None
        self._follows = False
        self._age_ms = LatencyWindow()
        self._frames, self._last_count = 0, 0
        self._kinds = {kind: _Kind() for kind in KINDS}
        self._last_kind = ""

    def reset(self, seq: int = 0) -> None:
        """End all tracks. Frames with numbers below seq, which are on their way, bring none back."""
        self._line.reset(seq)

    def publish(self, wanted: bool, follow: bool = False) -> None:
        """Offer `detections_tracked`, or withdraw it. follow: know the objects, published or not."""
        outlet, self._follows = self._outlet, wanted or follow
        if wanted and outlet is None:
            self._outlet = LazyPublisher(self._node, Detection2DArray, "detections_tracked", RESULTS)
        elif outlet is not None and not wanted:
            # Forgotten before it is closed: another thread may be about to look at it.
            self._outlet = None
            outlet.close()
        if not self._follows:
            self.reset()

    # What is told of frames.
    def judged(self, frame: Frame, tick: FrameEvent | None) -> None:
        """A frame comes to the detector."""
        if self._follows:
            motion, doubted = (tick.camera_motion, _doubted(tick)) if tick else (None, NO_REGIONS)
            self._line.add_frame(frame.stamp_ns, motion, frame.seq, changed_px=doubted)

    def prepare(self, frame: Frame) -> None:
        """The detector has a frame now: follow the objects to it meanwhile. It spares the time after the
        inference, when what was found waits for its ids."""
        if self._follows:
            try:
                self._line.advance_to(frame.stamp_ns)
            except Exception as error:  # It must not cost the stage before its frame.
                self._node.log_throttled("error", f"tracking failed: {error}. Please report this", "tracking")

    def told(self, tick: FrameEvent) -> None:
        """A stage before has decided on a frame."""
        if not self._follows:
            return
        if tick.reason == "stamp_backwards":
            self.reset(tick.seq)
        if tick.stage == specs.GATE.name and tick.fate in ("superseded", "failed"):
            return  # The gate has not judged it: the next motion is that from the frame before it.
        at_rest = tick.fate == "gated" and tick.reason in STATIC_SCENE_REASONS
        self._line.add_frame(tick.stamp_ns, tick.camera_motion, tick.seq, at_rest, _doubted(tick))
        outlet = self._outlet
        if outlet is None:
            return
        if tick.fate in SKIPPED and (tracks := self._line.tracks_at(tick.stamp_ns)) is not None:
            self._show(outlet, tracks, tick, "cached" if at_rest else "tracked")

    def ids(self, frame: Frame, found: Detections) -> np.ndarray | None:
        """(n,) int64, the ids of what was found on a frame; None where nobody tracks, or tracking failed."""
        self._note("inferred", len(found), np.zeros(0))
        if not self._follows:
            return None
        try:
            ids = self._line.add_detections(frame.stamp_ns, found, (frame.width_px, frame.height_px))
            return ids if self._outlet is not None else None
        except Exception as error:  # It must not cost the detector its frame.
            self._line.reset()
            self._node.log_throttled(
                "error", f"tracking failed, all tracks end: {error}. Please report this", "tracking"
            )
            return None

    def scene(self, frame: Frame, tick: FrameEvent | None, whole_stamp_ns: int | None) -> RoiInput:
        """What is told of a frame that the detector is about to look at. whole_stamp_ns: the stamp of the
        last frame that it looked at as a whole."""
        size_px, line = (frame.width_px, frame.height_px), self._line
        if tick is None or not self._follows:
            return RoiInput(size_px, NO_REGIONS, NO_REGIONS, None)
        try:
            tracks = line.tracks_at(frame.stamp_ns)
            since = None if whole_stamp_ns is None else line.motion_between(whole_stamp_ns, frame.stamp_ns)
        except Exception as error:  # It must not cost the detector its frame: a whole look needs none of it.
            self._node.log_throttled("error", f"tracking failed: {error}. Please report this", "tracking")
            return RoiInput(size_px, NO_REGIONS, NO_REGIONS, None)
        return RoiInput(size_px, tick.regions, tracks.xyxy_px if tracks else NO_REGIONS, since)

    def _show(self, outlet: LazyPublisher, tracks: Tracks, tick: FrameEvent, kind: str) -> None:
        try:
            outlet.publish(self._encode(tracks.detections(), tick, tracks.ids))
        except Exception as error:  # A closed publisher, or a middleware that fails.
            self._node.log_throttled("error", f"cannot publish: {error}", "publish")
            return
        self._frames += 1
        self._last_count = len(tracks)
        if len(tracks):
            self._age_ms.add(float(tracks.age_ms.max()))
        self._note(kind, len(tracks), tracks.age_ms)

    def _note(self, kind: str, boxes: int, age_ms: np.ndarray) -> None:
        self._last_kind = kind
        self._kinds[kind].add(boxes, age_ms)

    # Reports.
    def status_values(self) -> dict[str, Any]:
        """Frames with tracked boxes, and how old what they show is."""
        return {
            "tracked.frames": self._frames,
            "tracked.last_count": self._last_count,
            **latency_values("tracked.age_ms", self._age_ms.percentiles()),
            "published.last_kind": self._last_kind,
            **{
                f"published.{kind}.{key}": value
                for kind, counts in self._kinds.items()
                for key, value in counts.values(kind).items()
            },
        }

    def reset_stats(self) -> None:
        """Start new figures. Tracks go on."""
        self._frames = 0
        self._age_ms.reset()
        self._kinds = {kind: _Kind() for kind in KINDS}


class _Kind:
    """Messages and boxes of one kind, and how long ago the detector saw the oldest box of each message."""

    def __init__(self) -> None:
        self._frames = self._boxes = 0
        self._last_age_ms: float | None = None
        self._max_age_ms: float | None = None

    def add(self, boxes: int, age_ms: np.ndarray) -> None:
        self._frames += 1
        self._boxes += boxes
        if len(age_ms):
            self._last_age_ms = float(age_ms.max())
            self._max_age_ms = max(self._max_age_ms or 0.0, self._last_age_ms)

    def values(self, kind: str) -> dict[str, Any]:
        """Flat figures; what the detector has just seen has no age."""
        counts: dict[str, Any] = {"frames": self._frames, "boxes": self._boxes}
        if kind == "inferred":
            return counts
        return {**counts, "age_ms.last": self._last_age_ms, "age_ms.max": self._max_age_ms}


def _doubted(tick: FrameEvent) -> np.ndarray:
    """Where the gate saw that known objects look otherwise than when the detector saw them."""
    return tick.regions if tick.reason == "appearance_check" else NO_REGIONS
