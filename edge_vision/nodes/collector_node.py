"""The collector node: keeps frames that are worth a label, as a component in the pipeline's process.

Frames and results come by reference. A frame that is not selected costs a comparison of its scores; one that
is goes through a newest-wins mailbox to a thread of low priority, which hashes, encodes and writes it.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from sensor_msgs.msg import CompressedImage
from vision_msgs.msg import LabelInfo, VisionInfo

from edge_vision.bundles.store import cache_dir
from edge_vision.core.concurrency.worker import MailboxClosed, Worker, WorkerClient
from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.frame_event import FrameEvent
from edge_vision.core.stamp_check import stamp_to_ns
from edge_vision.dataset.collector import CandidateFrame, Collector, CollectorConfig, ProposingModel
from edge_vision.dataset.selection import (
    AUDIT_MISS,
    DISAGREEMENT,
    LOW_MARGIN,
    RANDOM,
    RandomTimes,
    uncertain,
    unmatched,
)
from edge_vision.errors import EdgeVisionError, ImageError
from edge_vision.nodes.base_node import OK, WARN, BaseNode
from edge_vision.nodes.interface import specs
from edge_vision.nodes.interface.image_messages import frame_from_message
from edge_vision.nodes.transport.qos import LATCHED, RESULTS

MAX_PASSED = 16
"""Frames that passed the gate and have no result yet."""
MAX_AUDITED = 4
"""Audited frames, until a later result confirms that an object was missed."""
MAX_RESULTS = 128
"""Results without their frames: for frames that come back from the updater."""
LOWEST_PRIORITY = 19
JOIN_TIMEOUT_S = 1.0
AUDIT_REASONS = ("audit", "audit_open")
T = TypeVar("T")
Result = tuple[Detections, Detections | None]


class CollectorNode(BaseNode):
    """Any thread calls the methods that receive frames and results; none of them may raise."""

    spec = specs.COLLECTOR

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._collector: Collector | None = None
        self._worker: WorkerClient[Callable[[], object]] | None = None
        self._model = ProposingModel()
        self._random = RandomTimes()
        self._lock = threading.Lock()
        self._superseded = self._failed = 0
        self._trouble = ""
        self._opened: list[Any] = []
        self._forget()
        for topic, receive in (
            ("gate_events", self._on_gate_event),
            ("detections", self._on_detections),
            ("gate/audit_misses", self._on_audit_miss),
            ("detector/disagreements", self._on_disagreement),
        ):
            self.hub.subscribe(self.resolve_topic_name(topic), self._guarded(receive))

    def _forget(self) -> None:
        self._passed: dict[int, tuple[Frame, str]] = {}
        self._audited: dict[int, Frame] = {}
        self._results: dict[int, Result] = {}
        self._drawn: set[int] = set()
        self._submitted_s: dict[str, float] = {}
        self._submitted: deque[int] = deque(maxlen=MAX_RESULTS)

    def _guarded(self, receive: Any) -> Any:
        """Calls `receive` while active; an exception must not fail the frame of another node."""

        def call(*values: Any) -> None:
            if self._worker is None:
                return
            try:
                with self._lock:
                    receive(*values)
            except Exception as error:
                self.log_throttled("error", f"frame not examined: {error}. Please report this", "collector")

        return call

    # Life cycle.
    def configure(self) -> None:
        camera = self.camera.strip("/").replace("/", ".") or "default"
        given = self.params["folder"]
        path = Path(given.replace("{camera}", camera)) if given else cache_dir() / "dataset" / camera
        self._collector = Collector(path, self._config())

    def _config(self) -> CollectorConfig:
        params = self.params
        return CollectorConfig(
            self.camera,
            *(params[name] for name in ("daily_per_class", "max_mb", "blur_faces", "face_model")),
        )

    def activate(self) -> None:
        self._forget()
        subscribe = self.create_subscription
        self._opened = [
            subscribe(LabelInfo, "label_info", self._on_labels, LATCHED),
            subscribe(VisionInfo, "vision_info", self._on_model, LATCHED),
            subscribe(CompressedImage, "updater/disagreements", self._on_returned, RESULTS),
        ]
        self._worker = Worker[Callable[[], object]](f"edge_vision {self.spec.name}").join(self._work)

    def deactivate(self) -> None:
        worker, self._worker = self._worker, None
        for subscription in self._opened:
            self.destroy_subscription(subscription)
        self._opened = []
        if worker:
            worker.stop(JOIN_TIMEOUT_S)
        self._forget()

    def cleanup(self) -> None:
        collector, self._collector = self._collector, None
        if collector:
            collector.close()

    def on_params(self, names: set[str]) -> None:
        if self._collector:
            self._collector.config = self._config()

    # What the pipeline does.
    def _on_gate_event(self, event: FrameEvent) -> None:
        frame = event.frame
        if frame is None or event.fate not in ("", "gated"):
            return
        drawn = RANDOM in self.params["reasons"] and self._random.is_due(
            time.monotonic(), self.params["random_per_hour"]
        )
        if not event.fate:
            self._passed[frame.stamp_ns] = (frame, event.reason)
            if drawn:
                self._drawn.add(frame.stamp_ns)
            # The detector may be faster than the event.
            if frame.stamp_ns in self._results:
                self._examine(frame.stamp_ns, *self._results[frame.stamp_ns])
            elif len(self._passed) > MAX_PASSED:
                self._give_up(next(iter(self._passed)))
        elif drawn:
            self._submit_predicted(frame)

    def _give_up(self, stamp_ns: int) -> None:
        """A frame has no result: rejected, superseded or failed."""
        frame, _ = self._passed.pop(stamp_ns)
        if stamp_ns in self._drawn:
            self._drawn.discard(stamp_ns)
            self._submit_predicted(frame)

    def _submit_predicted(self, frame: Frame) -> None:
        tracks = self.hub.tracks and self.hub.tracks.tracks_at(frame.stamp_ns)
        found = tracks.detections() if tracks else Detections.empty()
        self._submit(CandidateFrame(frame, RANDOM, self._model, found=found, inferred=False))

    def _on_detections(self, stamp_ns: int, found: Detections, low_score: Detections | None) -> None:
        _remember(self._results, stamp_ns, (found, low_score), MAX_RESULTS)
        if stamp_ns in self._passed:
            self._examine(stamp_ns, found, low_score)

    def _examine(self, stamp_ns: int, found: Detections, low_score: Detections | None) -> None:
        """An inferred frame and its result."""
        frame, reason = self._passed.pop(stamp_ns)
        if reason in AUDIT_REASONS:
            _remember(self._audited, stamp_ns, frame, MAX_AUDITED)
        candidate = CandidateFrame(frame, RANDOM, self._model, found=found, low_score=low_score)
        if stamp_ns in self._drawn:
            self._drawn.discard(stamp_ns)
            self._submit(candidate)
        elif self._model.labels and self._is_open(LOW_MARGIN):
            near = uncertain(found, low_score, self._model.threshold, self.params["score_margin"])
            if len(near):
                self._submit(replace(candidate, reason=LOW_MARGIN, cause=near))

    def _on_audit_miss(self, stamp_ns: int, class_ids: set[int]) -> None:
        frame = self._audited.pop(stamp_ns, None)
        if frame is None:
            return
        found, low_score = self._results.get(stamp_ns, (Detections.empty(), None))
        cause = found.select(np.isin(found.class_ids, list(class_ids)))
        self._submit(CandidateFrame(frame, AUDIT_MISS, self._model, cause, found, low_score))

    def _on_disagreement(self, frame: Frame, ours: Detections, expected: Detections) -> None:
        threshold = self._model.threshold
        cause = Detections.joined(
            [unmatched(expected, ours, threshold), unmatched(ours, expected, threshold)]
        )
        self._submit(CandidateFrame(frame, DISAGREEMENT, self._model, cause, expected, other=ours))

    def _on_returned(self, message: CompressedImage) -> None:
        """A frame on which the updater's new model disagrees."""
        stamp_ns = stamp_to_ns(message.header.stamp)
        found, low_score = self._results.get(stamp_ns, (Detections.empty(), None))
        try:
            frame = frame_from_message(message, 0)
        except ImageError as error:
            self.refuse_message("updater/disagreements", error)
            return
        self._submit(CandidateFrame(frame, DISAGREEMENT, self._model, found, found, low_score))

    # The model.
    def _on_labels(self, message: LabelInfo) -> None:
        labels = tuple(one.class_name for one in message.class_map)
        self._model = replace(self._model, labels=labels, threshold=float(message.threshold))

    def _on_model(self, message: VisionInfo) -> None:
        sha256 = message.database_location.removeprefix("sha256:")
        self._model = replace(self._model, name=message.method, sha256=sha256)

    # Work.
    def _is_open(self, reason: str) -> bool:
        waited_s = time.monotonic() - self._submitted_s.get(reason, float("-inf"))
        return reason in self.params["reasons"] and waited_s >= self.params["min_interval_ms"] / 1e3

    def _submit(self, candidate: CandidateFrame) -> None:
        worker, collector, reason = self._worker, self._collector, candidate.reason
        if worker is None or collector is None or not self._is_open(reason):
            return
        stamp_ns = candidate.frame.stamp_ns
        if stamp_ns in self._submitted or not collector.wants(reason, candidate.classes):
            return
        self._submitted.append(stamp_ns)
        self._submitted_s[reason] = time.monotonic()
        with suppress(MailboxClosed):
            self._superseded += worker.put(partial(collector.keep, candidate)) is not None

    def _work(self, job: Callable[[], object]) -> None:
        """In the collector's own thread."""
        # Of this thread only, on Linux: the pipeline comes first.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)
        try:
            job()
            self._trouble = ""
        except (OSError, EdgeVisionError) as error:
            self._failed += 1
            self._trouble = f"picture not kept: {error}"
            self.log_throttled("warning", self._trouble, event="picture_not_kept")

    # Reports.
    def publish_status(self) -> None:
        worker, collector = self._worker, self._collector
        if worker and collector and collector.due and not (worker.item or worker.current):
            with suppress(MailboxClosed):
                worker.put(collector.write)
        super().publish_status()

    def health(self) -> tuple[int, str]:
        collector = self._collector
        if collector is None:
            return super().health()
        if self._trouble:
            return WARN, self._trouble
        if collector.damaged:
            return WARN, f"{len(collector.damaged)} pictures are damaged, as {collector.damaged[0]}"
        if collector.config.blur_faces and not collector.face_detector:
            return WARN, "no face detector: only the heads of detected persons are covered; set face_model"
        if collector.bytes > 0.99e6 * collector.config.max_mb and collector.counts["full"]:
            return WARN, "the folder is full of reviewed pictures: export and remove them, or raise max_mb"
        return OK, f"{collector.pictures} pictures"

    def status_values(self) -> dict[str, Any]:
        collector = self._collector
        if collector is None:
            return {"pictures": None}
        return {
            "pictures": collector.pictures,
            "bytes": collector.bytes,
            "superseded": self._superseded,
            "failed": self._failed,
            "face_detector": collector.face_detector,
            **{f"kept.{name}": collector.counts[name] for name in self.params["reasons"]},
            **{f"not_kept.{name}": collector.counts[name] for name in ("quota", "duplicate", "full")},
            "removed": collector.counts["removed"],
            "covered_faces": collector.counts["covered_faces"],
        }

    def reset_stats(self) -> None:
        self._superseded = self._failed = 0


def _remember(known: dict[int, T], stamp_ns: int, value: T, limit: int) -> None:
    known[stamp_ns] = value
    while len(known) > limit:
        del known[next(iter(known))]
