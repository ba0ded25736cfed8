"""A node that frames go through: intake, books, one worker with a newest-wins mailbox, hand-off."""

from __future__ import annotations

import copy
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image

from edge_vision.core.concurrency.mailbox import MailboxClosed
from edge_vision.core.concurrency.worker import Worker
from edge_vision.core.frame import Frame, check_size
from edge_vision.core.frame_event import FrameEvent
from edge_vision.core.frame_event_join import FrameEventJoin
from edge_vision.core.geometry.boxes import NO_REGIONS
from edge_vision.core.latency import LatencyWindow, RateMeter
from edge_vision.core.running_clock import running_s
from edge_vision.core.stamp_check import StampCheck
from edge_vision.errors import EdgeVisionError, ImageError
from edge_vision.nodes.base_node import ERROR, WARN, BaseNode, latency_values
from edge_vision.nodes.interface.frame_event_messages import frame_event_from_message, frame_event_message
from edge_vision.nodes.interface.headers import stamp_to_ns
from edge_vision.nodes.interface.image_messages import ImageWriter, frame_from_message
from edge_vision.nodes.lazy_publisher import LazyPublisher
from edge_vision.nodes.qos import FRAME_EVENTS, LATEST_IMAGE

Job = tuple[Frame, FrameEvent | None]
# A tick's camera_motion: (3, 3), or None where it is not known.
Motion = np.ndarray | None

JOIN_TIMEOUT_S = 1.5
# Failures and silence are told in the status for this long, or after this long.
FRESH_S = 3.0


class StageNode(BaseNode):
    """One stage of the chain. Subclasses give the topics and `process`.

    The first stage of the chain (no events_in) opens each frame's account; every stage settles it or hands
    the frame on. An unforeseen error settles it as failed, so the books balance whatever happens.
    """

    image_in: str
    events_in: str | None = None
    image_out: str | None = None
    events_out: str | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._active = False
        self._worker: Worker[Job] | None = None
        self._image_s, self._done_s, self._failed_s, self._failed_text = 0.0, 0.0, float("-inf"), ""
        # Of the two newest images that opened an account here, when they came: a clock may jump until the
        # report, or just before an image that was sent before.
        self._input_ages_ms: deque[float] = deque(maxlen=2)
        self._busy_since_s: float | None = None
        self._subscriptions_made: list[Any] = []
        self._outlets: list[LazyPublisher] = []
        self._image_publisher: LazyPublisher | None = None
        self._event_publisher: LazyPublisher | None = None
        self._writer = ImageWriter()
        self._join = FrameEventJoin()
        self._stamps = StampCheck()
        self.rate_in, self.rate_out = RateMeter(), RateMeter()
        self.process_ms = LatencyWindow()
        self._in_topic = self.resolve_topic_name(self.image_in)
        self._out_topic = self.resolve_topic_name(self.image_out) if self.image_out else ""
        self._ticks_topic = self.resolve_topic_name(self.events_out) if self.events_out else ""
        self.hub.register_receiver(self._in_topic, self.accept)
        if self.events_in:
            self.hub.subscribe(self.resolve_topic_name(self.events_in), self._hear)
        if self._out_topic:
            self.hub.advertise(self._out_topic)

    @property
    def stage(self) -> str:
        """The name that the books use for this stage."""
        return self.spec.name

    # Hooks.
    def process(self, frame: Frame, tick: FrameEvent | None) -> None:
        """Settle the frame or hand it on. What it raises settles the frame as failed."""
        raise NotImplementedError

    def needs_worker(self) -> bool:
        """False for a stage that only passes frames through: it then runs in its caller's thread, which must
        not be the executor's where frames have yet to be decoded."""
        return True

    def on_time_jump(self) -> None:
        """The stamps have started anew: forget what was learnt from the frames before."""

    def on_frame_event(self, tick: FrameEvent) -> None:
        """A stage before has decided on a frame. Any thread calls it, also while inactive; it must be quick.
        A frame without a fate is told so and comes, in either order; the same may be told twice."""

    # Life cycle.
    def activate(self) -> None:
        if self.image_out:
            self._image_publisher = self.open_publisher(Image, self.image_out, LATEST_IMAGE)
        if self.events_out:
            self._event_publisher = self.open_publisher(DiagnosticArray, self.events_out, FRAME_EVENTS)
        self._stamps.reset()
        self._worker = self._new_worker() if self.needs_worker() else None
        self._active = True
        self._image_s = running_s()
        self._subscribe()

    def deactivate(self) -> None:
        self._active = False
        for subscription in self._subscriptions_made:
            self.destroy_subscription(subscription)
        self.hub.set_dds_subscriptions(self._in_topic, 0)
        self._subscriptions_made = []
        for frame, tick in self._worker.stop(JOIN_TIMEOUT_S) if self._worker else []:
            self.settle_if_open(frame, "failed", "deactivated", camera_motion_of(tick))
        for seq in self._join.close():
            self.hub.ledger.settle(seq, "failed", "transport")
        # Forgotten before they are closed: another thread may be about to look at them.
        outlets, self._outlets, self._image_publisher, self._event_publisher = self._outlets, [], None, None
        for outlet in outlets:
            outlet.close()

    def _new_worker(self) -> Worker[Job]:
        return Worker(f"edge_vision {self.stage}", self._do)

    def replace_worker(self, job: Job) -> None:
        """Leave a worker that hangs to itself, and go on with the frame that it hung on, or a newer one."""
        left, self._worker = self._worker, self._new_worker()
        waiting = left.stop(0.0)[:1] if left else []
        for frame, tick in (job, *(one for one in waiting if one[0] is not job[0])):
            self._enqueue(frame, tick)

    @property
    def worker_hangs(self) -> bool:
        """True where the worker did not come back from its work when the node was deactivated."""
        return not self._active and self._worker is not None and self._worker.alive

    def open_publisher(self, kind: type, topic: str, qos: Any) -> LazyPublisher:
        """A publisher that lives until the node is deactivated."""
        self._outlets.append(LazyPublisher(self, kind, topic, qos))
        return self._outlets[-1]

    def _subscribe(self) -> None:
        """Listen on DDS unless a node of this process sends the frames anyway."""
        if self.hub.has_sender(self._in_topic):
            return
        raw = self.params["image_transport"] == "raw"
        kind, topic = (Image, self.image_in) if raw else (CompressedImage, f"{self.image_in}/compressed")
        options = QoSOverridingOptions.with_default_policies()
        self._subscriptions_made = [
            self.create_subscription(
                kind, topic, self._on_image, copy.copy(LATEST_IMAGE), qos_overriding_options=options
            )
        ]
        self.hub.set_dds_subscriptions(self._in_topic, int(raw))
        if self.events_in:
            ticks = self.create_subscription(DiagnosticArray, self.events_in, self._on_tick, FRAME_EVENTS)
            self._subscriptions_made.append(ticks)

    # Intake.
    def accept(self, frame: Frame, tick: FrameEvent | None) -> None:
        """Take a frame by reference from a node of this process. Any thread calls it."""
        # A node may listen to DDS as well: its source came up in this process only later.
        self._image_s = running_s()
        if self.events_in is None:
            if self._active:
                self.rate_in.count()
                self.hub.ledger.receive(frame.seq, self.stage)
                self._admit(frame, None)
        elif not self._active:
            self.settle(frame, "failed", f"{self.stage}_inactive", camera_motion_of(tick))
        else:
            self.rate_in.count()
            self._enqueue(frame, tick)

    def _on_image(self, message: Image | CompressedImage) -> None:
        if not self._active or self.hub.has_sender(self._in_topic):
            return
        self.rate_in.count()
        self._image_s = running_s()
        seq, tick = self._open_account(message)
        try:
            frame = frame_from_message(message, seq, self._max_pixels)
        except ImageError as error:
            self._refuse(_blank(message, seq), error)
            return
        if tick is None:
            self._admit(frame, None)
        else:
            self._enqueue(frame, tick)

    def _open_account(self, message: Image | CompressedImage) -> tuple[int, FrameEvent | None]:
        """The account of an image that came over a transport, and its tick where it had one."""
        if self.events_in:
            stamp = message.header.stamp
            joined = self._join.add_image(stamp.sec * 1_000_000_000 + stamp.nanosec, message.header.frame_id)
            for lost in joined.lost:
                self.hub.ledger.settle(lost, "failed", "transport")
            if joined.seq is not None:
                return joined.seq, joined.event
        seq = self.hub.next_seq()
        self.hub.ledger.receive(seq, self.stage)
        return seq, None

    @property
    def _max_pixels(self) -> float:
        return float(self.params["max_image_megapixels"]) * 1e6

    def _refuse(self, frame: Frame, error: ImageError) -> None:
        self._note_failure(error.reason, f"image refused ({error.reason}): {error}")
        self.settle(frame, "failed", error.reason)

    def _admit(self, frame: Frame, tick: FrameEvent | None) -> None:
        """Check the size and the stamp of a frame that no stage has seen before."""
        try:
            check_size(frame.width_px, frame.height_px, self._max_pixels)
        except ImageError as error:
            self._refuse(frame, error)
            return
        self._input_ages_ms.append((self.get_clock().now().nanoseconds - frame.stamp_ns) / 1e6)
        wrong = self._stamps.check(frame.stamp_ns)
        if not wrong:
            self._enqueue(frame, tick)
            return
        self._note_failure(wrong, self._stamp_trouble(wrong, frame.stamp_ns))
        if wrong == "stamp_backwards":
            self.on_time_jump()
        self.settle(frame, "failed", wrong)

    def _stamp_trouble(self, wrong: str, stamp_ns: int) -> str:
        """What is wrong with a stamp, and why, as far as this node can know."""
        listens = self._subscriptions_made
        publishers = self.count_publishers(listens[0].topic_name) if listens else 0
        if wrong == "stamp_zero" and self.get_clock().now().nanoseconds == 0:
            wrong = "no_clock"
        elif wrong != "stamp_zero" and publishers > 1:
            return _SEVERAL.format(stamp_ns / 1e9, publishers, listens[0].topic_name)
        return _STAMP_HELP[wrong].format(stamp_ns / 1e9)

    def _enqueue(self, frame: Frame, tick: FrameEvent | None) -> None:
        worker = self._worker
        if worker is None:
            self._do((frame, tick))
            return
        self.hub.ledger.advance(frame.seq, self.stage)
        try:
            superseded = worker.put((frame, tick))
        except MailboxClosed:
            if self._active and self._worker is not worker:  # It was replaced just now.
                self._enqueue(frame, tick)
            else:
                self.settle(frame, "failed", "deactivated", camera_motion_of(tick))
            return
        if superseded:
            self.settle(superseded[0], "superseded", self.stage, camera_motion_of(superseded[1]))

    def _on_tick(self, message: DiagnosticArray) -> None:
        """Keep the books of the stages before, which run in other processes."""
        if not self._active:
            return
        try:
            tick = frame_event_from_message(message)
        except (ValueError, TypeError, AttributeError) as error:
            text = f"a message on {self.events_in} is no tick: {error}. Who else publishes there?"
            self.log_throttled("error", text, "no tick")
            return
        seq = self.hub.next_seq()
        tick = tick._replace(seq=seq)
        if tick.fate:
            self.hub.ledger.receive(seq, tick.stage)
            self.hub.ledger.settle(seq, tick.fate, tick.reason)
        elif self._join.add_event(tick, seq, time.monotonic_ns()):
            self.hub.ledger.receive(seq, "transport")
        self._hear(tick)

    def _hear(self, tick: FrameEvent) -> None:
        """Pass the tick of a stage before on to those after this one; that of a frame which comes here too
        only within this process, as on DDS this stage's own one says that it has come."""
        try:
            self.on_frame_event(tick)
            if tick.fate:
                self._emit(tick)
            elif self._ticks_topic:
                self.hub.notify(self._ticks_topic, tick)
        except Exception as error:  # It must not cost the stage that tells its frame.
            self.log_throttled("error", f"a tick was not taken up: {error}. Please report this", "tick")

    # Work.
    def _do(self, job: Job) -> None:
        frame, tick = job
        started_s = self._busy_since_s = running_s()
        try:
            self.process(frame, tick)
            self._done_s = started_s
        except Exception as error:  # The frame is lost, not the pipeline: counted, told, and on.
            reason = getattr(error, "reason", "") or type(error).__name__
            if not isinstance(error, EdgeVisionError):
                reason = f"{self.stage}_error"
            self._note_failure(reason, f"frame failed ({reason}): {error}")
            self.settle_if_open(frame, "failed", reason, camera_motion_of(tick))
        if self._busy_since_s == started_s:  # Else it hung, and another worker is busy by now.
            self.process_ms.add((running_s() - started_s) * 1e3)
            self._busy_since_s = None

    def _note_failure(self, reason: str, text: str) -> None:
        self._failed_s, self._failed_text = running_s(), text
        self.log_throttled("error", text, reason)

    # Ends.
    def settle(self, frame: Frame, fate: str, reason: str, motion: Motion = None) -> None:
        """Close the frame's account, and tell the stages after this one. motion: the tick's camera_motion."""
        self.hub.ledger.settle(frame.seq, fate, reason)
        self._emit(self._tick(frame, fate, reason, NO_REGIONS, motion))

    def settle_if_open(self, frame: Frame, fate: str, reason: str, motion: Motion = None) -> None:
        """As `settle`, where an error may have come after the settling, or another thread may settle too."""
        if self.hub.ledger.settle_if_open(frame.seq, fate, reason):
            self._emit(self._tick(frame, fate, reason, NO_REGIONS, motion))

    def _tick(self, frame: Frame, fate: str, reason: str, regions: np.ndarray, motion: Motion) -> FrameEvent:
        return FrameEvent(
            frame.stamp_ns, frame.frame_id, self.stage, fate, reason, regions, frame.seq, motion
        )

    def forward(
        self, frame: Frame, reason: str, regions: np.ndarray = NO_REGIONS, motion: Motion = None
    ) -> None:
        """Give the frame to the next stage: by reference in this process, else over DDS."""
        tick = self._tick(frame, "", reason, regions, motion)
        self.rate_out.count()
        receive = self.hub.receiver(self._out_topic)
        if receive is None:
            # The tick first: it announces the image to the next stage, which misses it if it is lost.
            self._show_outside(frame, tick)
            self.hub.ledger.settle(frame.seq, "handed_on", reason)
        else:
            # The next stage first: who listens outside costs time that the frame need not wait for.
            receive(frame, tick)
            self._show_outside(frame, tick)

    def _show_outside(self, frame: Frame, tick: FrameEvent) -> None:
        """Publish the tick and the image where somebody outside this process listens."""
        self._emit(tick)
        outlet = self._image_publisher
        if outlet is not None and self.hub.has_outside_subscribers(
            outlet.subscription_count, self._out_topic
        ):
            self.publish_safely(outlet, lambda: self._writer.message(frame))

    def _emit(self, tick: FrameEvent) -> None:
        """Tell the stages after this one, in this process and outside."""
        if self._ticks_topic:
            self.hub.notify(self._ticks_topic, tick)
        outlet = self._event_publisher
        if outlet is not None and outlet.subscription_count:
            self.publish_safely(outlet, lambda: frame_event_message(tick))

    def publish_safely(self, outlet: LazyPublisher, message: Callable[[], Any]) -> None:
        """What goes wrong for those outside must not touch the frame, which others hold by now."""
        try:
            outlet.publish(message())
        except Exception as error:  # A closed publisher or a failing middleware; the frame is safe.
            self.log_throttled("error", f"cannot publish: {error}", "publish")

    # Reports.
    def publish_status(self) -> None:
        for seq in self._join.expire(time.monotonic_ns()):
            self.hub.ledger.settle(seq, "failed", "transport")
        if self._active and not self._subscriptions_made:
            self._subscribe()  # The node that sent the frames in this process may have stopped to.
        super().publish_status()

    def health(self) -> tuple[int, str]:
        now_s = running_s()
        if now_s - self._failed_s < FRESH_S:
            return (WARN if self._done_s > self._failed_s else ERROR), self._failed_text
        silent_s = now_s - self._image_s
        if self._subscriptions_made and self._is_first() and silent_s > FRESH_S:
            topic = self._subscriptions_made[0].topic_name
            return WARN, _SILENCE.format(topic, silent_s, self.count_publishers(topic))
        return super().health()

    def _is_first(self) -> bool:
        """True where no stage comes before this one. Behind a gate, silence is what one wants."""
        return self.events_in is None or self.count_publishers(self.events_in) == 0

    def _intake_values(self) -> dict[str, Any]:
        """What tells why nothing comes in, or out."""
        now_s, busy_since_s = running_s(), self._busy_since_s
        listens = bool(self._subscriptions_made)
        return {
            "image_topic": self._subscriptions_made[0].topic_name if listens else "",
            "first_stage": self._is_first(),
            "silent_ms": (now_s - self._image_s) * 1e3 if listens else None,
            "input_age_ms": min(tuple(self._input_ages_ms), key=abs, default=None),
            "busy_ms": (now_s - busy_since_s) * 1e3 if busy_since_s else 0.0,
            "last_failure": self._failed_text,
        }

    def status_values(self) -> dict[str, Any]:
        books = self.hub.ledger.snapshot()
        return {
            "stage": self.stage,
            "rate_in_hz": self.rate_in.read_hz(),
            "rate_out_hz": self.rate_out.read_hz(),
            **self._intake_values(),
            **latency_values("process_ms", self.process_ms.percentiles()),
            **{f"ledger.{key}": value for key, value in books.flat().items()},
            "ledger.balanced": books.balanced,
        }

    def reset_stats(self) -> None:
        self.process_ms.reset()


def _blank(message: Image | CompressedImage, seq: int) -> Frame:
    """What stands for an image that cannot be used."""
    try:
        stamp_ns = stamp_to_ns(message.header.stamp)
    except ImageError:
        stamp_ns = 0
    return Frame(_NO_IMAGE, stamp_ns, message.header.frame_id, "mono8", seq)


def camera_motion_of(tick: FrameEvent | None) -> Motion:
    """The camera's motion that came with a frame."""
    return tick.camera_motion if tick else None


_SILENCE = (
    "no image on {} for {:.0f} s ({} publishers): is the camera driver running, is the topic's name right, "
    "is its QoS compatible?"
)
_NO_IMAGE = np.zeros((1, 1), np.uint8)
_SEVERAL = (
    "frame refused: its stamp {:.3f} s does not lie after the last one's, and there are {} publishers on {}: "
    "give each camera a topic of its own"
)
_STAMP_HELP = {
    "no_clock": "frame refused: its stamp is {:.3f} s; use_sim_time is set and no time has come on /clock",
    "stamp_zero": "frame refused: its stamp is {:.3f} s; the camera driver must stamp its images",
    "stamp_backwards": "frame refused: its stamp {:.3f} s lies before the last one's; the clock jumped, or a "
    "bag started anew. The next frame starts a new time line",
    "stamp_repeated": "frame refused: its stamp {:.3f} s is that of the frame before",
}
