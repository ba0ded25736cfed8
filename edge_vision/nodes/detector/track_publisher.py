"""Tracks objects, and publishes them on `tracks`: one message per frame that was not lost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from vision_msgs.msg import Detection2DArray

from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.frame_event import FrameEvent
from edge_vision.core.geometry.boxes import NO_REGIONS
from edge_vision.core.latency import LatencyWindow
from edge_vision.detect.report_filter import ReportFilter
from edge_vision.detect.roi_planner import RoiInput
from edge_vision.nodes.base_node import BaseNode, latency_values
from edge_vision.nodes.interface import specs
from edge_vision.nodes.interface.cdr import best_encoder
from edge_vision.nodes.transport.lazy_publisher import OptionalPublisher
from edge_vision.nodes.transport.qos import RESULTS
from edge_vision.tracking.tracker import EMPTY_TRACKS, STATIC_SCENE_REASONS, Tracks
from edge_vision.tracking.tracking_history import TrackingHistory

SKIPPED = ("gated", "rejected")
KINDS = ("inferred", "tracked", "cached")
"""Kinds of published boxes: detected on this frame; predicted from the object's velocity and the camera's
motion; unchanged, because nothing in the scene moves by itself."""


class TrackPublisher:
    """Tracks the objects of one detector on every frame that the gate analysed.

    Any thread may call, except that only the executor calls `configure`; nothing but `configure` raises. The
    thread that delivers the event of a skipped frame publishes its boxes, and waits for no inference.
    """

    def __init__(self, node: BaseNode, report: ReportFilter) -> None:
        """report: applied to predicted boxes, which may leave a zone."""
        self._node, self._report = node, report
        self._size_px = (1, 1)
        self.history = TrackingHistory()
        self._encode = best_encoder()
        self._output = OptionalPublisher(node, Detection2DArray, "tracks", RESULTS)
        self._enabled = False
        self._stats = TrackStats()
        self.status_values, self.reset_stats = self._stats.values, self._stats.reset

    def reset(self, seq: int = 0) -> None:
        """End all tracks. Frames with numbers below seq, which are still on their way, restore none."""
        self.history.reset(seq)

    def configure(self, publish: bool, track: bool) -> None:
        """publish: publish `tracks`. track: track objects even if they are not published."""
        self._enabled = publish or track
        self._node.hub.tracks = self.history if self._enabled else None
        self._output.enable(publish)
        if not self._enabled:
            self.reset()

    # Input.
    def add_frame(self, frame: Frame, event: FrameEvent | None) -> None:
        """A frame has reached the detector."""
        if self._enabled:
            self.history.add_frame(frame.stamp_ns, event.camera_motion if event else None, frame.seq)

    def add_event(self, event: FrameEvent) -> Tracks | None:
        """A previous stage has decided on a frame. Returns the tracks that were published."""
        if not self._enabled:
            return None
        if event.reason == "stamp_backwards":
            self.reset(event.seq)
        if event.stage == specs.GATE.name and event.fate in ("superseded", "failed"):
            return None  # The gate has not analysed it: the next camera motion starts at the frame before it.
        static = event.fate == "gated" and event.reason in STATIC_SCENE_REASONS
        self.history.add_frame(event.stamp_ns, event.camera_motion, event.seq, static)
        return (
            self._publish_predicted(event, "cached" if static else "tracked")
            if event.fate in SKIPPED
            else None
        )

    # Results.
    def assign_ids(self, frame: Frame, found: Detections) -> np.ndarray | None:
        """(n,) int64, the track ids of a frame's detections; None if they are not published."""
        self._stats.count("inferred", len(found), np.zeros(0))
        self._size_px = frame.width_px, frame.height_px
        if not self._enabled:
            return None
        try:
            ids = self.history.add_detections(frame.stamp_ns, found, self._size_px)
            return None if self._output.current is None else ids
        except Exception as error:  # It must not fail the detector's frame.
            self.history.reset()
            self._log_failure(error, ", all tracks end")
            return None

    def roi_input(self, frame: Frame, event: FrameEvent | None, whole_stamp_ns: int | None) -> RoiInput:
        """What is known about a frame before its inference. whole_stamp_ns: the stamp of the last frame that
        was inferred as a whole."""
        unknown = RoiInput((frame.width_px, frame.height_px), NO_REGIONS, NO_REGIONS, None)
        if event is None or not self._enabled:
            return unknown
        try:
            tracks, since = self.history.tracks_at(frame.stamp_ns) or EMPTY_TRACKS, None
            if whole_stamp_ns is not None:
                since = self.history.motion_between(whole_stamp_ns, frame.stamp_ns)
        except Exception as error:  # The whole frame can be inferred without tracks.
            self._log_failure(error)
            return unknown
        return replace(unknown, regions=event.regions, known=tracks.xyxy_px, since_whole=since)

    def publish_inferred(self, message: Any) -> None:
        """Publish the message of `detections` on `tracks`, too."""
        if output := self._output.current:
            output.try_publish(lambda: message)

    def _publish_predicted(self, event: FrameEvent, kind: str) -> Tracks | None:
        if (output := self._output.current) is None:
            return None
        tracks = self._tracks_at(event.stamp_ns)
        tracks = tracks.select(self._report.keeps(tracks.xyxy_px, tracks.class_ids, self._size_px))
        if output.try_publish(lambda: self._encode(tracks.detections(), event, tracks.ids)):
            self._stats.count(kind, len(tracks), tracks.age_ms)
        return tracks

    def _tracks_at(self, stamp_ns: int) -> Tracks:
        """Empty if nothing is known about the frame, for example after a reset."""
        try:
            return self.history.tracks_at(stamp_ns) or EMPTY_TRACKS
        except Exception as error:  # The frame's message is due all the same.
            self._log_failure(error)
            return EMPTY_TRACKS

    def _log_failure(self, error: Exception, consequence: str = "") -> None:
        text = f"tracking failed{consequence}: {error}. Please report this"
        self._node.log_throttled("error", text, "tracking")


class TrackStats:
    """Counts of the published boxes by kind, and the ages of predicted ones."""

    def __init__(self) -> None:
        self._age_ms = LatencyWindow()
        self._last_count, self._last_kind = 0, ""
        self._kinds = {kind: _Counts() for kind in KINDS}

    def count(self, kind: str, boxes: int, age_ms: np.ndarray) -> None:
        """A message was published. age_ms: (boxes,), the time since each object was detected; empty for
        detections."""
        self._last_kind = kind
        self._kinds[kind].add(boxes, float(age_ms.max()) if len(age_ms) else None)
        if kind == "inferred":
            return
        self._last_count = boxes
        if len(age_ms):
            self._age_ms.add(float(age_ms.max()))

    def values(self) -> dict[str, Any]:
        values = {
            "tracked.frames": sum(self._kinds[kind].frames for kind in KINDS[1:]),
            "tracked.last_count": self._last_count,
            **latency_values("tracked.age_ms", self._age_ms),
            "published.last_kind": self._last_kind,
        }
        for kind, counts in self._kinds.items():
            values |= {f"published.{kind}.frames": counts.frames, f"published.{kind}.boxes": counts.boxes}
            if kind != "inferred":
                values[f"published.{kind}.age_ms.last"] = counts.last_age_ms
                values[f"published.{kind}.age_ms.max"] = counts.max_age_ms
        return values

    def reset(self) -> None:
        self._age_ms.reset()
        self._kinds = {kind: _Counts() for kind in KINDS}


@dataclass(slots=True)
class _Counts:
    """Messages and boxes of one kind, and the age of the oldest box of a message."""

    frames: int = 0
    boxes: int = 0
    last_age_ms: float | None = None
    max_age_ms: float | None = None

    def add(self, boxes: int, age_ms: float | None) -> None:
        self.frames += 1
        self.boxes += boxes
        if age_ms is not None:
            self.last_age_ms = age_ms
            self.max_age_ms = max(self.max_age_ms or 0.0, age_ms)
