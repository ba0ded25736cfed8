"""A stage of the chain: input, frame accounting, one worker with a newest-wins mailbox, output."""

from __future__ import annotations

from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import Image

from edge_vision.core.concurrency.worker import MailboxClosed, Worker, WorkerClient
from edge_vision.core.frame import Frame, check_size
from edge_vision.core.frame_event import FrameEvent
from edge_vision.core.geometry.boxes import NO_REGIONS
from edge_vision.core.stamp_check import StampCheck, silence_error, stamp_error
from edge_vision.errors import EdgeVisionError, ImageError
from edge_vision.nodes.base_node import WARN, BaseNode
from edge_vision.nodes.monitoring.stage_stats import StageStats
from edge_vision.nodes.transport.frame_input import FrameInput
from edge_vision.nodes.transport.frame_output import FrameOutput
from edge_vision.nodes.transport.lazy_publisher import LazyPublisher
from edge_vision.nodes.transport.qos import FRAME_EVENTS, LATEST_IMAGE

WorkItem = tuple[Frame, FrameEvent | None]
CameraMotion = np.ndarray | None
"""As `FrameEvent.camera_motion`: (3, 3), or None if unknown."""
JOIN_TIMEOUT_S = 1.5


class StageNode(BaseNode):
    """One stage of the chain. Subclasses define the topics and `process`.

    The first stage (without events_in) opens each frame's account in the ledger. Every stage settles the
    account or forwards the frame; an unexpected error settles it as failed, so the ledger always balances.
    """

    image_in: str
    events_in: str | None = None
    image_out: str | None = None
    events_out: str | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._active = False
        self._worker: WorkerClient[WorkItem] | None = None
        self._lazy_publishers: list[LazyPublisher] = []
        self._stamps = StampCheck()
        self.stats = StageStats()
        self.input = FrameInput(
            self, self.image_in, self.events_in, self._receive, self._refuse_unreadable, self._relay_event
        )
        self.output = FrameOutput(self.hub, self._resolved(self.image_out), self._resolved(self.events_out))
        self.hub.register_receiver(self._resolved(self.image_in), self.accept)
        if self.events_in:
            self.hub.subscribe(self._resolved(self.events_in), self._relay_event)

    def _resolved(self, topic: str | None) -> str:
        return str(self.resolve_topic_name(topic)) if topic else ""

    @property
    def stage(self) -> str:
        """The name of this stage in the ledger."""
        return self.spec.name

    # Hooks.
    def process(self, frame: Frame, event: FrameEvent | None) -> None:
        """Settle or forward a frame. An exception settles it as failed."""
        raise NotImplementedError

    def needs_worker(self) -> bool:
        """False if the stage only passes frames through: it then runs in its caller's thread, which must not
        be the executor's if frames have yet to be decoded."""
        return True

    def on_time_jump(self) -> None:
        """The stamps have jumped back: forget the state of previous frames."""

    def on_frame_event(self, event: FrameEvent) -> None:
        """A previous stage has decided on a frame. Any thread calls it, even while inactive; it must be
        quick. An event without a fate comes before or after its frame, and an event may be repeated."""

    # Life cycle.
    def activate(self) -> None:
        images = self.open_publisher(Image, self.image_out, LATEST_IMAGE) if self.image_out else None
        events = (
            self.open_publisher(DiagnosticArray, self.events_out, FRAME_EVENTS) if self.events_out else None
        )
        self.output.open(images, events)
        self._stamps.reset()
        self._worker = self._new_worker() if self.needs_worker() else None
        self._active = True
        self.stats.restart_silence()
        self.input.subscribe()

    def deactivate(self) -> None:
        self._active = False
        self.input.close()
        for frame, event in self._worker.stop(JOIN_TIMEOUT_S) if self._worker else []:
            self.settle_if_open(frame, "failed", "deactivated", camera_motion_of(event))
        # No longer referenced before they are closed: another thread may be about to publish.
        self.output.close()
        publishers, self._lazy_publishers = self._lazy_publishers, []
        for publisher in publishers:
            publisher.close()

    def open_publisher(self, kind: type, topic: str, qos: Any) -> LazyPublisher:
        """A publisher that is closed when the node is deactivated."""
        self._lazy_publishers.append(LazyPublisher(self, kind, topic, qos))
        return self._lazy_publishers[-1]

    def _new_worker(self) -> WorkerClient[WorkItem]:
        return Worker[WorkItem](f"edge_vision {self.stage}").join(self._work)

    def replace_worker(self, item: WorkItem) -> None:
        """Abandon a hanging worker, and continue with the frame it hangs on, or a newer one."""
        abandoned, self._worker = self._worker, self._new_worker()
        waiting = abandoned.stop(0.0)[:1] if abandoned else []
        for frame, event in (item, *(other for other in waiting if other[0] is not item[0])):
            self._enqueue(frame, event)

    @property
    def worker_hangs(self) -> bool:
        """True if the worker was still working when the node had been deactivated."""
        return not self._active and self._worker is not None and self._worker.alive

    # Input.
    def accept(self, frame: Frame, event: FrameEvent | None) -> None:
        """Receive a frame by reference from a node of this process. Any thread calls it."""
        if self._active:
            if self.events_in is None:
                self.hub.ledger.receive(frame.seq, self.stage)
            self._receive(frame, event, checked=self.events_in is not None)
        elif self.events_in is not None:
            self.settle(frame, "failed", f"{self.stage}_inactive", camera_motion_of(event))

    def _receive(self, frame: Frame, event: FrameEvent | None, checked: bool = False) -> None:
        """Enqueue a frame, after checks if no stage has checked it before."""
        self.stats.record_arrival()
        if checked or event is not None or self._passes_checks(frame):
            self._enqueue(frame, event)

    def _passes_checks(self, frame: Frame) -> bool:
        """False for a frame whose size or stamp is invalid, which is settled."""
        try:
            check_size(frame.width_px, frame.height_px, self.input.max_pixels)
        except ImageError as error:
            self._refuse(frame, error)
            return False
        now_ns = self.get_clock().now().nanoseconds
        self.stats.record_age((now_ns - frame.stamp_ns) / 1e6)
        reason = self._stamps.check(frame.stamp_ns)
        if reason:
            topic, publishers = self.input.topic, self.input.publisher_count
            self._log_failure(reason, stamp_error(reason, frame.stamp_ns, now_ns, topic, publishers))
            if reason == "stamp_backwards":
                self.on_time_jump()
            self.settle(frame, "failed", reason)
        return not reason

    def _refuse_unreadable(self, frame: Frame, error: ImageError) -> None:
        self.stats.record_arrival()
        self._refuse(frame, error)

    def _refuse(self, frame: Frame, error: ImageError) -> None:
        self._log_failure(error.reason, f"image refused ({error.reason}): {error}")
        self.settle(frame, "failed", error.reason)

    def _enqueue(self, frame: Frame, event: FrameEvent | None) -> None:
        worker = self._worker
        if worker is None:
            self._work((frame, event))
            return
        self.hub.ledger.advance(frame.seq, self.stage)
        try:
            superseded = worker.put((frame, event))
        except MailboxClosed:
            if self._active and self._worker is not worker:  # It has just been replaced.
                self._enqueue(frame, event)
            else:
                self.settle(frame, "failed", "deactivated", camera_motion_of(event))
            return
        if superseded:
            self.settle(superseded[0], "superseded", self.stage, camera_motion_of(superseded[1]))

    def _relay_event(self, event: FrameEvent) -> None:
        """Pass an event of a previous stage to the next ones. An event without fate stays in this process:
        over DDS, this stage's own event announces the frame."""
        try:
            self.on_frame_event(event)
            if event.fate:
                self.output.publish_event(event)
            else:
                self.output.notify(event)
        except Exception as error:  # It must not fail the frame of the stage that publishes the event.
            self.log_throttled("error", f"frame event ignored: {error}. Please report this", "event")

    # Work.
    def _work(self, item: WorkItem) -> None:
        frame, event = item
        started_s = self.stats.start_work()
        try:
            self.process(frame, event)
            self.stats.record_success(started_s)
        except Exception as error:  # It fails this frame, not the pipeline.
            reason = getattr(error, "reason", "") or type(error).__name__
            if not isinstance(error, EdgeVisionError):
                reason = f"{self.stage}_error"
            self._log_failure(reason, f"frame failed ({reason}): {error}")
            self.settle_if_open(frame, "failed", reason, camera_motion_of(event))
        self.stats.finish_work(started_s)

    def _log_failure(self, reason: str, text: str) -> None:
        self.stats.record_failure(text)
        self.log_throttled("error", text, reason)

    # Output.
    def settle(self, frame: Frame, fate: str, reason: str, motion: CameraMotion = None) -> None:
        """Close the frame's account, and publish its event. motion: the camera_motion of its event."""
        self.hub.ledger.settle(frame.seq, fate, reason)
        self.output.publish_event(self.event(frame, fate, reason, motion=motion))

    def settle_if_open(self, frame: Frame, fate: str, reason: str, motion: CameraMotion = None) -> None:
        """As `settle`, if the account is still open: another thread may have settled it."""
        if self.hub.ledger.settle_if_open(frame.seq, fate, reason):
            self.output.publish_event(self.event(frame, fate, reason, motion=motion))

    def forward(
        self, frame: Frame, reason: str, regions: np.ndarray = NO_REGIONS, motion: CameraMotion = None
    ) -> None:
        """Pass the frame to the next stage."""
        self.stats.rate_out.count()
        self.output.forward(frame, self.event(frame, "", reason, regions, motion))

    def event(
        self,
        frame: Frame,
        fate: str,
        reason: str,
        regions: np.ndarray = NO_REGIONS,
        motion: CameraMotion = None,
    ) -> FrameEvent:
        """The event of this stage on a frame. fate: "" = the frame goes on."""
        return FrameEvent(
            frame.stamp_ns, frame.frame_id, self.stage, fate, reason, regions, frame.seq, motion, frame
        )

    # Reports.
    def publish_status(self) -> None:
        self.input.settle_overdue()
        if self._active:
            self.input.subscribe()  # The node that sent the frames in this process may have stopped.
        super().publish_status()

    def health(self) -> tuple[int, str]:
        topic = self.input.topic
        if failure := self.stats.recent_failure:
            return failure
        if topic and self.stats.silent and self._is_first():
            return WARN, silence_error(topic, self.stats.silent_s, self.input.publisher_count)
        return super().health()

    def _is_first(self) -> bool:
        """True if no stage precedes this one. Behind a gate, silence is normal."""
        return self.events_in is None or self.count_publishers(self.events_in) == 0

    def status_values(self) -> dict[str, Any]:
        ledger = self.hub.ledger.snapshot()
        return {
            "stage": self.stage,
            "image_topic": self.input.topic,
            "format_changes": self.input.format_changes,
            "lost_images": self.input.lost_images,
            "image_bytes": self.input.image_bytes,
            "first_stage": self._is_first(),
            "silent_ms": self.stats.silent_s * 1e3 if self.input.topic else None,
            **self.stats.values(),
            **{f"ledger.{key}": value for key, value in ledger.flat().items()},
            "ledger.balanced": ledger.balanced,
        }

    def reset_stats(self) -> None:
        self.stats.process_ms.reset()


def camera_motion_of(event: FrameEvent | None) -> CameraMotion:
    """The camera motion of a frame's event."""
    return event.camera_motion if event else None
