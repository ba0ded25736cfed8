"""Subscribes to what the live page shows: images, tracks and frame events while somebody watches."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import Any, Protocol

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from vision_msgs.msg import Detection2DArray, LabelInfo

from edge_vision.core.geometry.zones import Zones
from edge_vision.core.printable import bounded_text
from edge_vision.errors import ImageError
from edge_vision.nodes.interface.detection_messages import MAX_MESSAGE_BYTES
from edge_vision.nodes.interface.frame_event_messages import frame_event_from_message
from edge_vision.nodes.interface.image_messages import frame_from_message
from edge_vision.nodes.observers.cdr_reader import read_boxes, read_image
from edge_vision.nodes.observers.metrics_listener import Metrics, MetricsListener, stamp_of
from edge_vision.nodes.observers.shape_feed import LinesOf, ShapeFeed
from edge_vision.nodes.transport.qos import LATCHED, LATEST_IMAGE
from edge_vision.web.hub import Hub, pack_frame
from edge_vision.web.pairing import FramePairing, Shown
from edge_vision.web.picture import Jpeg, jpeg_of, jpeg_of_compressed

# Best effort: a page that is slow, or stopped, delays no publisher.
PER_FRAME = QoSProfile(depth=50, reliability=QoSReliabilityPolicy.BEST_EFFORT)
TURN_S = 0.2
"""Longest delay of a new watcher, and period of the timeline."""
TOPICS_S = 1.0
"""Period of the choice between raw and compressed images."""
MAX_BOXES, MAX_LABELS, MAX_ID_CHARS = 500, 5000, 64
SLOW_S, MAX_SHARE = 0.03, 0.25
"""A picture that takes longer than SLOW_S to encode, as one of 8K, comes less often: a share of one core."""


class PageState(Metrics, Protocol):
    """What the listener must know of the statuses; implemented by cli/web.py."""

    def image_topic(self, camera: str) -> str:
        """The topic that the pipeline's first stage subscribes to; its source's if that is unknown."""

    def ages_count(self, camera: str) -> bool:
        """Whether stamps are of this machine's clock, so that ages mean something."""


class WebListener(MetricsListener):
    """Passes pictures with their boxes, and what became of each frame, to the hub. Use it as a context
    manager, and call `turn` in a loop.

    rate_hz, max_width_px: of the pictures of each camera.
    """

    def __init__(
        self, state: PageState, hub: Hub, rate_hz: float, max_width_px: int, args: Sequence[str] = ()
    ) -> None:
        super().__init__(state, args)
        self._state, self._hub, self._period_s = state, hub, 1.0 / rate_hz
        self._feeds: dict[str, CameraFeed] = {}
        self._scenes: dict[str, dict[str, Any]] = {}
        self._encoder = PictureEncoder(hub, max_width_px)
        self._flushed_s = self._chosen_s = 0.0

    def __enter__(self) -> WebListener:
        super().__enter__()
        self._encoder.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._encoder.stop()
        super().__exit__(*exc)

    def turn(self) -> None:
        """Handle messages for a moment, follow the cameras that are watched, send what became of frames."""
        self.spin(TURN_S / 2)
        now_s = time.monotonic()
        if now_s - self._flushed_s < TURN_S:
            return
        self._flushed_s = now_s
        wanted = self._hub.watched & set(self._state.cameras)
        for camera in self._feeds.keys() - wanted:
            self._feeds.pop(camera).close()
        if now_s - self._chosen_s >= TOPICS_S:
            self._chosen_s = now_s
            for camera, feed in list(self._feeds.items()):
                if feed.topic != self._image_topic(camera):
                    self._feeds.pop(camera).close()
        for camera in wanted:
            if camera not in self._feeds:
                topic = self._image_topic(camera)
                self._feeds[camera] = CameraFeed(self, camera, topic, self._period_s)
            self._feeds[camera].flush(now_s)

    # For CameraFeed.
    def age_ms(self, camera: str, stamp_ns: int) -> float | None:
        """Of an image now, None if its stamp is not of this machine's clock."""
        return round(self._age_s(stamp_ns) * 1e3, 1) if self._state.ages_count(camera) else None

    def show(self, camera: str, shown: Shown, compressed: bool, lines_of: LinesOf | None) -> None:
        """Send a frame, once it is encoded."""
        age_ms = partial(self.age_ms, camera, shown.stamp_ns)
        self._encoder.put(camera, _Job(shown, compressed, age_ms, lines_of))

    def send_records(self, camera: str, records: Sequence[Any]) -> None:
        """Send what became of frames: [stamp in ms, outcome, reason, age in ms]."""
        self._hub.send_records(camera, records)

    def _image_topic(self, camera: str) -> str:
        """The compressed topic if it has a publisher: its JPEGs are passed on as they are."""
        topic = self._state.image_topic(camera)
        compressed = topic if topic.endswith("/compressed") else f"{topic}/compressed"
        return compressed if self.node.count_publishers(compressed) else topic

    # Latched topics, of all cameras.
    def _subscribe(self, camera: str) -> list[Any]:
        self._scenes[camera] = {"labels": {}, "zones": []}
        namespace, make = camera.rstrip("/"), self.node.create_subscription
        return [
            make(LabelInfo, f"{namespace}/label_info", partial(self._on_labels, camera), LATCHED),
            make(String, f"{namespace}/zones", partial(self._on_zones, camera), LATCHED),
        ]

    def _on_labels(self, camera: str, message: LabelInfo) -> None:
        classes = message.class_map[:MAX_LABELS]
        self._set_scene(camera, labels={one.class_id: bounded_text(one.class_name)[:100] for one in classes})

    def _on_zones(self, camera: str, message: String) -> None:
        try:
            zones = Zones.parse([line for line in message.data.splitlines() if line])
        except ValueError:
            return
        found = [
            {"name": one.name, "exclude": one.exclude, "vertices": one.vertices.tolist()} for one in zones.all
        ]
        self._set_scene(camera, zones=found)

    def _set_scene(self, camera: str, **values: Any) -> None:
        self._scenes[camera].update(values)
        self._hub.send_text("scene", camera, **self._scenes[camera])


class CameraFeed:
    """The subscriptions of one camera while somebody watches it."""

    def __init__(self, listener: WebListener, camera: str, topic: str, period_s: float) -> None:
        self._listener, self._camera, self.topic = listener, camera, topic
        self._compressed = topic.endswith("/compressed")
        self._pairing = FramePairing(period_s, time.monotonic())
        namespace, make = camera.rstrip("/"), listener.node.create_subscription
        kind = CompressedImage if self._compressed else Image
        self._shapes = ShapeFeed(listener.node, namespace)
        self._subscriptions = [
            # The last stage first: its topics announce an image.
            make(Detection2DArray, f"{namespace}/detections", self._on_detections, PER_FRAME, raw=True),
            make(Detection2DArray, f"{namespace}/tracks", self._on_tracks, PER_FRAME, raw=True),
            make(DiagnosticArray, f"{namespace}/cascade_events", self._on_event, PER_FRAME),
            make(DiagnosticArray, f"{namespace}/gate_events", self._on_event, PER_FRAME),
            make(kind, topic, self._on_image, LATEST_IMAGE, raw=True),
        ]

    def close(self) -> None:
        self._shapes.close()
        for one in self._subscriptions:
            self._listener.node.destroy_subscription(one)

    def flush(self, now_s: float) -> None:
        """Send what became of frames, and a picture that waits for no more tracks."""
        records = self._pairing.take_records(now_s)
        self._listener.send_records(
            self._camera, [[one.stamp_ns / 1e6, one.outcome, one.reason, one.age_ms] for one in records]
        )
        self._show(now_s)

    def _on_image(self, message: bytes) -> None:
        if (stamp_ns := stamp_of(message)) is not None:
            now_s = time.monotonic()
            self._pairing.add_image(stamp_ns, message, now_s)
            self._show(now_s)

    def _on_tracks(self, message: bytes) -> None:
        stamp_ns = stamp_of(message)
        if stamp_ns is not None and len(message) <= MAX_MESSAGE_BYTES:
            now_s = time.monotonic()
            self._pairing.add_tracks(stamp_ns, message, now_s)
            self._show(now_s)

    def _on_detections(self, message: bytes) -> None:
        if (stamp_ns := stamp_of(message)) is not None:
            now_s = time.monotonic()
            self._pairing.add_detections(stamp_ns, self._listener.age_ms(self._camera, stamp_ns), now_s)
            self._show(now_s)

    def _on_event(self, message: DiagnosticArray) -> None:
        try:
            event = frame_event_from_message(message)
        except ValueError:
            return
        # A cascade that passes a frame on hides why the gate has passed it.
        if event.fate or event.stage == "gate":
            now_s = time.monotonic()
            self._pairing.add_event(event.stamp_ns, event.fate, event.reason, now_s)
            self._show(now_s)

    def _show(self, now_s: float) -> None:
        shown = self._pairing.take(now_s)
        if shown is not None:
            # Of skipped frames, no shapes are known.
            lines_of = self._shapes.of(shown.stamp_ns) if shown.kind == "inferred" else None
            self._listener.show(self._camera, shown, self._compressed, lines_of)


@dataclass(slots=True)
class _Job:
    shown: Shown
    compressed: bool
    age_ms: Any
    lines_of: LinesOf | None


class PictureEncoder:
    """A thread that encodes the newest frame of each camera, once for all browsers."""

    def __init__(self, hub: Hub, max_width_px: int) -> None:
        self._hub, self._max_width_px = hub, max_width_px
        self._filled = threading.Condition()
        self._jobs: dict[str, _Job] = {}
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="pictures", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._filled:
            self._stopped = True
            self._filled.notify()
        self._thread.join()

    def put(self, camera: str, job: _Job) -> None:
        """Replace the frame of a camera that waits."""
        with self._filled:
            self._jobs[camera] = job
            self._filled.notify()

    def _run(self) -> None:
        while True:
            with self._filled:
                self._filled.wait_for(lambda: self._jobs or self._stopped)
                if self._stopped:
                    return
                camera = next(iter(self._jobs))
                job = self._jobs.pop(camera)
            begun_s = time.thread_time()
            self._encode(camera, job)
            taken_s = time.thread_time() - begun_s
            if taken_s > SLOW_S:
                with self._filled:
                    self._filled.wait_for(lambda: self._stopped, taken_s * (1 / MAX_SHARE - 1))

    def _encode(self, camera: str, job: _Job) -> None:
        shown = job.shown
        try:
            jpeg = self._jpeg(job)
            boxes = None if shown.tracks is None else list(boxes_of(shown.tracks))
        except Exception as error:  # Of a message that another program has published.
            text = bounded_text(error.reason if isinstance(error, ImageError) else type(error).__name__)
            self._hub.send_text("picture_error", camera, text=f"{text}: {bounded_text(str(error))}")
            return
        header = {
            "camera": camera,
            # Text: JavaScript's numbers would round it.
            "stamp": str(shown.stamp_ns),
            "tracks_stamp": None if shown.tracks is None else str(stamp_of(shown.tracks)),
            "boxes": boxes or [],
            "lines": job.lines_of(len(boxes)) if job.lines_of and boxes else [],
            "kind": shown.kind,
            "reason": shown.reason,
            "width": jpeg.width_px,
            "height": jpeg.height_px,
            "passed": jpeg.passed,
            "age_ms": job.age_ms(),
        }
        self._hub.send_frame(camera, pack_frame(header, jpeg.data))

    def _jpeg(self, job: _Job) -> Jpeg:
        if job.compressed:
            compressed = deserialize_message(job.shown.image, CompressedImage)
            return jpeg_of_compressed(compressed.data, compressed.format, self._max_width_px)
        return jpeg_of(frame_from_message(read_image(job.shown.image), 0), self._max_width_px)


def boxes_of(tracks: bytes) -> Iterator[list[Any]]:
    """Of a serialized message of `tracks`: left, top, right, bottom, score, class, id, and the angle of an
    oriented box. Those that are not finite are left out. Raises ValueError."""
    for results, numbers, track in islice(read_boxes(tracks), MAX_BOXES):
        name, score = max(results, key=itemgetter(1), default=("", math.nan))
        if not all(map(math.isfinite, (*numbers, score))):
            continue
        x, y, theta, width, height = numbers
        corners = [round(n, 1) for n in (x - width / 2, y - height / 2, x + width / 2, y + height / 2)]
        row = [*corners, round(score, 3), name[:MAX_ID_CHARS], track[:MAX_ID_CHARS]]
        yield [*row, round(theta, 4)] if theta else row
