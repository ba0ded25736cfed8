"""The source node: publishes a file, bag, device or stream as a camera, without a camera driver."""

from __future__ import annotations

import math
import threading
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import Image

from edge_vision.core.frame import Frame
from edge_vision.core.frame_event import FrameEvent
from edge_vision.core.latency import RateMeter
from edge_vision.core.redaction import redact_error, redact_url
from edge_vision.core.running_clock import running_s
from edge_vision.core.stamp_check import MAX_STAMP_NS
from edge_vision.errors import ImageError
from edge_vision.nodes import run
from edge_vision.nodes.base_node import OK, WARN, BaseNode
from edge_vision.nodes.interface import specs
from edge_vision.nodes.interface.frame_event_messages import frame_event_message
from edge_vision.nodes.interface.image_messages import ImageWriter
from edge_vision.nodes.transport.lazy_publisher import LazyPublisher
from edge_vision.nodes.transport.qos import FRAME_EVENTS, VIEWED_IMAGE
from edge_vision.source.image_source import ImageSource
from edge_vision.source.opening import open_source
from edge_vision.source.uri import SourceError, SourcePackageError, source_kind

FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.5, 10.0
MEDIA_START_NS = 1_000_000_000
# An image's time is known only after decoding, which therefore starts early after a long interval as well.
MAX_DECODE_DELAY_S = 0.04
JOIN_TIMEOUT_S = 1.0
# The status reports what the source waits for after this long without an image.
STALLED_S = 1.8


class SourceNode(BaseNode):
    """Plays its `uri` in a thread of its own, and reopens it with back-off after a loss."""

    spec = specs.SOURCE

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._topic = self.resolve_topic_name("image_raw")
        self._stop = threading.Event()
        # Set to end a wait, or to compute it again.
        self._changed = threading.Event()
        self._player: threading.Thread | None = None
        self._writer = ImageWriter()
        self._rate = RateMeter()
        self._sent = 0
        self._stamped = ""  # What its images are stamped with, as `_stamps`.
        self._played_ns = 0  # Time span of the stamps of the rounds so far, of a loop or after a loss.
        self._situation = "idle"
        self._error = ""
        self._progress_s = running_s()  # Of the last image or change of the situation.
        self._due_s: float | None = None  # Due time of the next image of a file.
        self._awaits_pipeline = False

    def configure(self) -> None:
        self.hub.advertise(self._topic, bool(self.params["uri"]))

    def cleanup(self) -> None:
        self.hub.advertise(self._topic, False)

    def activate(self) -> None:
        if not self.params["uri"]:
            return
        self._images = LazyPublisher(self, Image, "image_raw", VIEWED_IMAGE)
        self._events = LazyPublisher(self, DiagnosticArray, "source_events", FRAME_EVENTS)
        self._stop = threading.Event()
        self._progress_s, self._error = running_s(), ""
        self._player = threading.Thread(
            target=self._run, args=(self._stop,), name="edge_vision source", daemon=True
        )
        self._player.start()

    def deactivate(self) -> None:
        self._stop.set()
        self._changed.set()
        player, self._player = self._player, None
        if player is None:
            return
        player.join(JOIN_TIMEOUT_S)
        self._situation = "stopped"
        self._images.close()
        self._events.close()

    def on_params(self, names: set[str]) -> None:
        self._changed.set()

    # The player's thread.
    def _enter(self, stop: threading.Event, situation: str) -> None:
        """Set the situation, unless this thread has been stopped."""
        if not stop.is_set():
            self._situation, self._progress_s = situation, running_s()

    def _run(self, stop: threading.Event) -> None:
        backoff_s = FIRST_BACKOFF_S
        while not stop.is_set():
            started_with = self._sent
            try:
                if self._play_once(stop):
                    return
            except SourcePackageError as error:
                self._error = str(error)
                self._enter(stop, "failed")
                self.structured_log.log("error", self._error, "failed")
                return
            except Exception as error:  # A driver may raise anything; the node reports it and retries.
                if stop.is_set():
                    return
                self._error = redact_error(error, self.params["uri"])
                if not isinstance(error, SourceError):
                    self._error = f"source failed: {self._error}"
            if self._sent > started_with:
                backoff_s = FIRST_BACKOFF_S
            if not self._error:
                continue
            self._enter(stop, "waiting")
            self.log_throttled("error", f"{self._error}; retrying with back-off", "lost")
            stop.wait(backoff_s)
            backoff_s = min(backoff_s * 2, LAST_BACKOFF_S)

    def _play_once(self, stop: threading.Event) -> bool:
        """Play to the end. Returns whether the source has finished."""
        shown_uri = redact_url(self.params["uri"])
        self._enter(stop, "opening")
        capture = open_source(
            self.params["uri"], self.params["open_timeout_ms"], stop.is_set, skip_unreadable=False
        )
        try:
            self._stamped = self._stamps()
            self._enter(stop, "playing")
            played = self._play(capture, stop)
        finally:
            capture.close()
        if stop.is_set():
            return True
        if not capture.kind.is_file:
            raise SourceError(f"source '{shown_uri}' was lost")
        if played == 0:
            raise SourceError(f"source '{shown_uri}' contains no image that can be read")
        self._error = capture.damage
        if self._error:
            self.log_throttled("error", self._error, "cut short")
        if not self.params["loop"]:
            self._enter(stop, "finished")
            self.structured_log.log(
                "info",
                f"end of {shown_uri} after {played} frames: Ctrl-C ends the process, `loop` repeats the file",
                "finished",
                frames=played,
            )
        return not self.params["loop"]

    def _play(self, capture: ImageSource, stop: threading.Event) -> int:
        """Publish images until the end, a loss or the stop. Returns how many."""
        played, due_s, is_file, stamps_ns = 0, None, capture.kind.is_file, [0, 0]
        while not stop.is_set():
            # Before decoding, which right after a frame was sent would compete with its next stage.
            if is_file:
                self._wait_until_due(due_s, capture.shortest_interval_s, stop, MAX_DECODE_DELAY_S)
            last_s = capture.time_s
            if not capture.grab():
                break
            if is_file:
                due_s = self._wait_until_due(due_s, capture.time_s - last_s, stop)
            frame = capture.frame()
            if frame is None:
                break
            self._error = ""
            stamps_ns = [stamps_ns[0] if played else frame.stamp_ns, frame.stamp_ns]
            self._send(self._with_header(frame, capture.time_s))
            played += 1
        if played:
            recorded_ns = stamps_ns[1] - stamps_ns[0] if self._stamped == "recorded" else 0
            time_ns = recorded_ns if recorded_ns > 0 else round(capture.time_s * 1e9)
            self._played_ns += time_ns + round(capture.shortest_interval_s * 1e9)
            if is_file:  # A loop keeps an interval between its last and its first image.
                self._wait_until_due(due_s, capture.shortest_interval_s, stop)
        return played

    def _wait_until_due(
        self, last_s: float | None, interval_s: float, stop: threading.Event, max_wait_s: float = math.inf
    ) -> float:
        """Wait until an image of a file is due, interval_s / playback_rate after the last one, or max_wait_s.

        Returns the due time. A change of playback_rate and the stop take effect at once.
        """
        try:
            while True:
                self._changed.clear()
                rate, now_s = self.params["playback_rate"], running_s()
                if stop.is_set():
                    return now_s
                if rate == 0:
                    self._awaits_pipeline, self._due_s = True, None
                    if self.hub.ledger.wait_idle(0.1):
                        return running_s()
                    continue
                due_s = now_s if last_s is None else last_s + min(interval_s / rate, max_wait_s)
                if due_s <= now_s:
                    # A machine that falls behind continues from now, without a burst of late images.
                    return max(due_s, now_s - 1.0)
                self._awaits_pipeline, self._due_s = False, due_s
                self._changed.wait(due_s - now_s)
        finally:
            self._awaits_pipeline, self._due_s = False, None

    def _stamps(self) -> str:
        """What images are stamped with: clock, media or recorded."""
        chosen = str(self.params["stamps"])
        if chosen != "auto":
            return chosen
        return "recorded" if source_kind(self.params["uri"]).name == "bag" else "clock"

    def _with_header(self, frame: Frame, time_s: float) -> Frame:
        """The image of a source with the header to publish. time_s: its position in the file.

        Where the rounds together exceed the range of stamps, they start again, as in a bag that is restarted.
        """
        seq, frame_id = self.hub.next_seq(), self.params["frame_id"]
        if self._stamped == "clock":
            return frame.with_header(self.get_clock().now().nanoseconds, frame_id, seq)
        stamp_ns = MEDIA_START_NS + round(time_s * 1e9)
        if self._stamped == "recorded":
            stamp_ns, frame_id = frame.stamp_ns, frame.frame_id
        if stamp_ns + self._played_ns > MAX_STAMP_NS:
            self._played_ns = 0
        return frame.with_header(stamp_ns + self._played_ns, frame_id, seq)

    def _send(self, frame: Frame) -> None:
        if self._events.subscription_count:
            event = FrameEvent(frame.stamp_ns, frame.frame_id, "source", "", str(self._sent))
            self._events.publish(frame_event_message(event))
        self._sent += 1
        self._progress_s = running_s()
        self._rate.count()
        if self.hub.has_outside_subscribers(self._images.subscription_count, self._topic):
            try:
                self._images.publish(self._writer.message(frame))
            except ImageError as error:  # In this process, the gate counts it.
                self.log_throttled("error", f"image not published ({error.reason}): {error}", error.reason)
        receive = self.hub.receiver(self._topic)
        if receive:
            receive(frame, None)

    # Reports.
    def health(self) -> tuple[int, str]:
        if not self.params["uri"]:
            return OK, "idle: uri is empty"
        error = self._error or self._stall()
        return (WARN, f"{self._situation}: {error}") if error else (OK, self._situation)

    def _stall(self) -> str:
        """Why no image has been read for a while; "" if one has, or if the source waits for the pipeline."""
        stalled_s, uri, next_s = running_s() - self._progress_s, redact_url(self.params["uri"]), self._due_s
        if stalled_s < STALLED_S or self._awaits_pipeline:
            return ""
        if self._situation == "opening":
            return (
                f"{uri} has not answered for {stalled_s:.0f} s: check the address, the network and the camera"
                "; a pipe needs a process that writes to it"
            )
        if self._situation == "playing" and next_s is not None:
            rate = self.params["playback_rate"]
            wait_s = max(0.0, next_s - running_s())
            return f"the next image of {uri} is due in {wait_s:.0f} s: raise playback_rate, now {rate:g}"
        return f"no image from {uri} for {stalled_s:.0f} s" if self._situation == "playing" else ""

    def status_values(self) -> dict[str, Any]:
        return {
            "uri": redact_url(self.params["uri"]),
            "stamps": self._stamps(),
            "situation": self._situation,
            "trouble": self._error or self._stall(),
            "asleep": self._due_s is not None,
            "sent": self._sent,
            "rate_out_hz": self._rate.read_hz(),
        }


def main(args: list[str] | None = None) -> int:
    return run.main([SourceNode], "source_node", args)
