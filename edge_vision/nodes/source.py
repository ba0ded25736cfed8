"""The source node: a file, device or stream as a camera, for machines without a camera driver."""

from __future__ import annotations

import threading
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import Image

from edge_vision.core.capture import Capture, SourceError
from edge_vision.core.frame import Frame
from edge_vision.core.health import RateMeter
from edge_vision.core.tick import Tick
from edge_vision.nodes import run, specs
from edge_vision.nodes.base import LATEST_IMAGE, OK, TICKS, WARN, EdgeNode
from edge_vision.nodes.conversions import ImageWriter, tick_message
from edge_vision.nodes.outlet import Outlet

FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.5, 10.0
MEDIA_START_NS = 1_000_000_000
JOIN_TIMEOUT_S = 1.0


class SourceNode(EdgeNode):
    """Plays its `uri` from a thread of its own, and opens it again with back-off when it is lost."""

    spec = specs.SOURCE

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._topic = self.resolve_topic_name("image_raw")
        self._stop = threading.Event()
        self._player: threading.Thread | None = None
        self._writer = ImageWriter()
        self._rate = RateMeter()
        self._sent = 0
        self._situation = "idle"
        self._trouble = ""

    def configure(self) -> None:
        self.hub.advertise(self._topic, bool(self.params["uri"]))

    def cleanup(self) -> None:
        self.hub.advertise(self._topic, False)

    def activate(self) -> None:
        if not self.params["uri"]:
            return
        self._images = Outlet(self, Image, "image_raw", LATEST_IMAGE)
        self._ticks = Outlet(self, DiagnosticArray, "source_ticks", TICKS)
        self._stop = threading.Event()
        self._player = threading.Thread(
            target=self._run, args=(self._stop,), name="edge_vision source", daemon=True
        )
        self._player.start()

    def deactivate(self) -> None:
        self._stop.set()
        player, self._player = self._player, None
        if player is None:
            return
        player.join(JOIN_TIMEOUT_S)
        self._situation = "stopped"
        self._images.close()
        self._ticks.close()

    # The player's thread.
    def _run(self, stop: threading.Event) -> None:
        backoff_s = FIRST_BACKOFF_S
        while not stop.is_set():
            started_with = self._sent
            try:
                if self._play_once(stop):
                    return
            except Exception as error:  # A driver can fail in any way; the node tries again and says why.
                self._trouble = str(error)
                if not isinstance(error, SourceError):
                    self._trouble = f"source failed: {error}"
            if self._sent > started_with:
                backoff_s = FIRST_BACKOFF_S
            if not self._trouble:
                continue
            self._situation = "waiting"
            self.log_throttled("error", f"{self._trouble}; trying again with back-off", "lost")
            stop.wait(backoff_s)
            backoff_s = min(backoff_s * 2, LAST_BACKOFF_S)

    def _play_once(self, stop: threading.Event) -> bool:
        """Play to the end. True when there is nothing more to do."""
        uri = self.params["uri"]
        self._situation = "opening"
        capture = Capture(uri, self.params["open_timeout_ms"])
        try:
            self._situation = "playing"
            shown = self._play(capture, stop)
        finally:
            capture.close()
        if stop.is_set():
            return True
        if not capture.kind.ends:
            raise SourceError(f"source '{uri}' was lost")
        if shown == 0:
            raise SourceError(f"source '{uri}' holds no image that OpenCV can read")
        if not self.params["loop"]:
            self._situation = "finished"
            self.journal.say("info", f"end of {uri} after {shown} frames", "finished", frames=shown)
        return not self.params["loop"]

    def _play(self, capture: Capture, stop: threading.Event) -> int:
        """Send images until the end, a loss or the stop; returns how many."""
        shown, due_s = 0, time.monotonic()
        while not stop.is_set():
            # Before reading: decoding right after a hand-off would compete with the frame's next stage.
            if capture.kind.ends:
                due_s = self._pace(due_s, capture.fps_hz, stop)
            image = capture.read()
            if image is None:
                break
            self._trouble = ""
            self._send(image, capture.fps_hz)
            shown += 1
        return shown

    def _pace(self, due_s: float, fps_hz: float, stop: threading.Event) -> float:
        """Wait until an image of a file is due; returns when the next one is."""
        rate = self.params["playback_rate"]
        if rate == 0:
            while not stop.is_set() and not self.hub.ledger.wait_idle(0.1):
                pass
            return time.monotonic()
        now_s = time.monotonic()
        if due_s > now_s:
            stop.wait(due_s - now_s)
        # A machine that falls behind goes on from now: a burst of late images helps nobody.
        return max(due_s, now_s - 1.0) + 1.0 / (fps_hz * rate)

    def _send(self, image: Any, fps_hz: float) -> None:
        if self.params["stamps"] == "media":
            stamp_ns = MEDIA_START_NS + round(self._sent * 1e9 / fps_hz)
        else:
            stamp_ns = self.get_clock().now().nanoseconds
        frame = Frame(image, stamp_ns, self.params["frame_id"], "bgr8", self.hub.next_seq())
        if self._ticks.listeners:
            self._ticks.publish(tick_message(Tick(stamp_ns, frame.frame_id, "source", "", str(self._sent))))
        self._sent += 1
        self._rate.tick()
        if self.hub.outside_listeners(self._images.listeners, self._topic):
            self._images.publish(self._writer.message(frame))
        receive = self.hub.receiver(self._topic)
        if receive:
            receive(frame, None)

    # Reports.
    def health(self) -> tuple[int, str]:
        if not self.params["uri"]:
            return OK, "idle: no uri, images are expected from elsewhere"
        if self._trouble:
            return WARN, f"{self._situation}: {self._trouble}"
        return OK, self._situation

    def status_values(self) -> dict[str, Any]:
        return {
            "uri": self.params["uri"],
            "stamps": self.params["stamps"],
            "situation": self._situation,
            "sent": self._sent,
            "rate_out_hz": self._rate.read_hz(),
        }


def main(args: list[str] | None = None) -> int:
    """Run the source alone."""
    return run.main([SourceNode], "source_node", args)
