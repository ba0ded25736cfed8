"""A pipeline that exists as messages only, and a client of the live page: each picture proves its stamp."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import threading
from array import array
from collections.abc import Callable
from typing import Any

import aiohttp
import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PolygonInstanceStamped
from ros_cases import LATCHED, RELIABLE, SENSOR, TIMEOUT_S, Robot, wait_until
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_msgs.msg import String
from vision_msgs.msg import Detection2DArray

from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.frame_event import FrameEvent
from edge_vision.nodes.interface.detection_messages import detections_message, label_info_message
from edge_vision.nodes.interface.frame_event_messages import frame_event_message
from edge_vision.nodes.interface.headers import header_of
from edge_vision.nodes.interface.shape_messages import keypoints_message, polygon_message
from edge_vision.nodes.interface.status_messages import status_message
from edge_vision.web.hub import unpack_frame

WIDTH_PX, HEIGHT_PX = 640, 480
MAX_MORE = 200
"""Large images are lost on a loaded machine."""
LABELS = ("person", "bicycle")
ZONES = "include gate 0.1,0.5 0.9,0.5 0.9,0.9 0.1,0.9\nexclude road 0,0.9 1,0.9 1,1 0,1"
FULL_DISK = "not recording, /data: expected space and the right to write there, got: No space left on device"
# Number in COCO's order, place in the box, score: two shoulders, a nose, and a wrist that is not sure.
JOINTS = ((5, 40.0, 80.0, 0.9), (6, 160.0, 80.0, 0.9), (0, 100.0, 60.0, 0.5), (9, 60.0, 60.0, 0.2))
CAUSE = "no_images: gate subscribes to /front/image_raw, which has no publisher: start the camera driver"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def grey_of(number: int) -> int:
    """The picture of a frame has this grey: neighbours differ by more than JPEG's error."""
    return 40 + 16 * (number % 10)


def box_of(number: int) -> tuple[float, float, float, float]:
    """The box of a frame: its left side counts."""
    left = 100.0 + 2 * (number % 100)
    return left, 120.0, left + 200.0, 320.0


class FakePipeline:
    """Publishes the topics of a pipeline in a namespace: `frame` all of one image."""

    def __init__(self, robot: Robot, namespace: str, compressed: bool = False) -> None:
        self._robot, self.namespace, self._compressed = robot, namespace, compressed
        make = robot.node.create_publisher
        self._diagnostics = make(DiagnosticArray, "/diagnostics", RELIABLE)
        kind, topic = (CompressedImage, "image_raw/compressed") if compressed else (Image, "image_raw")
        self.images = make(kind, f"{namespace}/{topic}", SENSOR)
        self.tracks, self._detections = (
            make(Detection2DArray, f"{namespace}/{name}", RELIABLE) for name in ("tracks", "detections")
        )
        self._events = make(DiagnosticArray, f"{namespace}/gate_events", RELIABLE)
        self._labels = make(type(label_info_message(LABELS, 0.5)), f"{namespace}/label_info", LATCHED)
        self._zones = make(String, f"{namespace}/zones", LATCHED)
        self._labels.publish(label_info_message(LABELS, 0.5))
        self._zones.publish(String(data=ZONES))
        self.shapes: dict[str, Any] = {}
        self.numbers: dict[int, int] = {}
        self.jpegs: dict[int, bytes] = {}

    def report_shapes(self) -> None:
        """Be a model of masks and key points from now on."""
        kinds = {"masks/polygons": PolygonInstanceStamped, "keypoints": PointCloud2}
        make = self._robot.node.create_publisher
        self.shapes = {name: make(kind, f"{self.namespace}/{name}", RELIABLE) for name, kind in kinds.items()}

    def _publish_shapes(self, number: int, of: Frame) -> None:
        left, top, *_ = box_of(number)
        triangle = np.array([(left + x, top + y) for x, y in ((20, 20), (180, 20), (100, 180))])
        self.shapes["masks/polygons"].publish(polygon_message(triangle, 1, of))
        points = np.zeros((1, 17, 3), np.float32)
        for at, x, y, score in JOINTS:
            points[0, at] = left + x, top + y, score
        self.shapes["keypoints"].publish(keypoints_message(points, of))

    def report(self, cause: bool = False) -> None:
        """One message of /diagnostics."""
        gate = {"rate_in_hz": 10.0, "blind_ms": 120.0, "audit.miss_rate": 0.02, "audit.miss_rate_low": 0.01}
        gate |= {"audit.miss_rate_high": 0.06, "audit.audited": 125, "audit.missed": 3, "audit.open": False}
        detector = {"ledger.received": 1234, "ledger.inferred": 411, "ledger.gated": 823}
        detector |= {"ledger.in_flight": 0, "ledger.balanced": True, "ledger.gated.still": 823}
        detector |= {"age_ms.p50": 31.0, "model": "nanodet 1.0.0 <b>bold</b>", "image_topic": ""}
        output = {"cause": "no_images" if cause else "none", "since_s": 7.0 if cause else 0.0}
        statuses = [
            ("gate", 0, "active", gate),
            ("detector", 0, "active", detector),
            ("system", 0, "fine", {"cpu.percent": 41.5, "power_w": 5.25, "throttling": "no"}),
            ("output", 1 if cause else 0, CAUSE if cause else "no problem found", output),
        ]
        if cause:
            statuses.append(("recorder", 1, FULL_DISK, {}))
        name = self.namespace.strip("/")
        messages = [
            status_message(f"{name}/{part}", self.namespace, level, text, values)
            for part, level, text, values in statuses
        ]
        self._diagnostics.publish(DiagnosticArray(status=messages))

    def frame(
        self, number: int, inferred: bool = False, size: tuple[int, int] = (WIDTH_PX, HEIGHT_PX)
    ) -> int:
        """All messages of a frame; returns its stamp."""
        stamp_ns = self._robot.node.get_clock().now().nanoseconds
        self.numbers[stamp_ns] = number
        of = Frame(np.full((size[1], size[0], 3), grey_of(number), np.uint8), stamp_ns, "camera")
        header = header_of(stamp_ns, "camera")
        fate, reason = ("", "change") if inferred else ("gated", "predicted")
        self._events.publish(frame_event_message(FrameEvent(stamp_ns, "camera", "gate", fate, reason)))
        boxes = np.array([box_of(number)], np.float32)
        found = Detections(boxes, np.array([0.875], np.float32), np.array([1], np.int32))
        message = detections_message(found, of, np.array([number]))
        if inferred:
            self._detections.publish(message)
        self.tracks.publish(message)
        if self._compressed:
            data = cv2.imencode(".jpg", of.image)[1].tobytes()
            self.jpegs[stamp_ns] = data
            form = "bgr8; jpeg compressed bgr8"
            self.images.publish(CompressedImage(header=header, format=form, data=array("B", data)))
        else:
            image = Image(header=header, width=size[0], height=size[1], step=3 * size[0], encoding="bgr8")
            image.data = array("B", of.image.tobytes())
            self.images.publish(image)
        if inferred and self.shapes:
            self._publish_shapes(number, of)
        return stamp_ns

    def run(self, numbers: range, enough: Callable[[], bool] = lambda: True) -> None:
        """Frames, every third of them inferred, with reports; further ones until there are enough."""
        for number in itertools.count(numbers.start):
            if number >= numbers.stop and (enough() or number >= numbers.stop + MAX_MORE):
                return
            self.frame(number, number % 3 == 0)
            if number % 5 == 0:
                self.report()
            self._robot.turns(0.1)


class PageClient:
    """A browser without a screen: it collects what it receives. Use it as a context manager."""

    def __init__(self, url: str, watch: list[str], headers: dict[str, str] | None = None) -> None:
        self._url, self._watch, self._headers = url, watch, headers or {}
        self.frames: list[tuple[dict[str, Any], bytes]] = []
        self.texts: list[dict[str, Any]] = []
        self.opened = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))

    def __enter__(self) -> PageClient:
        self._thread.start()
        assert self.opened.wait(TIMEOUT_S)
        return self

    def __exit__(self, *exc: object) -> None:
        asyncio.run_coroutine_threadsafe(self._socket.close(), self._loop)
        self._thread.join(TIMEOUT_S)

    async def _run(self) -> None:
        async with aiohttp.ClientSession(headers=self._headers) as session:
            self._socket = await session.ws_connect(f"{self._url}/socket", max_msg_size=0)
            await self._socket.send_json({"watch": self._watch})
            self.opened.set()
            async for message in self._socket:
                if message.type is aiohttp.WSMsgType.BINARY:
                    self.frames.append(unpack_frame(message.data))
                    await self._socket.send_json({"drawn": 1})
                else:
                    self.texts.append(json.loads(message.data))

    def last(self, kind: str, camera: str) -> dict[str, Any]:
        """The last text of a kind, {} before."""
        found = [one for one in list(self.texts) if (one["kind"], one["camera"]) == (kind, camera)]
        return found[-1] if found else {}

    def records(self, camera: str) -> list[list[Any]]:
        """What became of each frame: [stamp in ms, outcome, reason, age in ms]."""
        texts = [one for one in list(self.texts) if (one["kind"], one["camera"]) == ("records", camera)]
        return [record for one in texts for record in one["records"]]


def address_of(web: Any) -> str:
    """The address that the server has printed."""
    wait_until(lambda: "web: http" in web.output or web.process.poll() is not None, "the server")
    assert "web: http" in web.output, web.output
    return str(web.output.partition("web: ")[2].split()[0])
