"""Provokes each cause of missing output with real nodes, for the tests and `make bench-diagnostics`."""

from __future__ import annotations

import itertools
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import fake_backend
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from model_cases import specialised_bundle, video_frame
from ros_cases import (
    CHAIN,
    ONLY_CHANGES,
    SENSOR,
    CompressedImage,
    DetectorNode,
    DiagnosticsNode,
    GateNode,
    Image,
    Node,
    Robot,
    Running,
    SourceNode,
    image_message,
    picture,
    wait_until,
)
from sensor_msgs.msg import CameraInfo

from edge_vision.core.frame_event import FrameEvent
from edge_vision.nodes.interface.frame_event_messages import frame_event_message
from edge_vision.nodes.interface.status_messages import status_values
from edge_vision.nodes.transport.frame_input import LostMessages

NODES = (*CHAIN, DiagnosticsNode)
OPEN: dict[str, dict[str, Any]] = {"gate": {"enabled": False}}
Send = Callable[[], object]
# Longer than the grace period of the diagnostics after a start.
START_S = 6.0


def nothing() -> None:
    """Send nothing."""


class Output:
    """The `output` statuses in /diagnostics."""

    def __init__(self, robot: Robot) -> None:
        self._robot = robot
        self._heard = robot.listen(DiagnosticArray, "/diagnostics", wait=False)

    @property
    def statuses(self) -> list[Any]:
        return [one for message in self._heard for one in message.status if one.name.endswith("output")]

    def named(
        self,
        cause: str,
        send: Send = nothing,
        period_s: float = 0.1,
        level: bytes | None = None,
        text: str = "",
    ) -> Any:
        """The status with this cause (level, and text), waiting for it while calling `send` periodically."""
        due_s = 0.0

        def turn() -> None:
            nonlocal due_s
            if time.monotonic() >= due_s:
                due_s = time.monotonic() + period_s
                send()
            self._robot.turn()

        def fitting() -> Any:
            fits = [
                one
                for one in self.statuses
                if status_values(one)["cause"] == cause and level in (None, one.level) and text in one.message
            ]
            return fits[-1] if fits else None

        return wait_until(fitting, f"{cause}, received {[s.message for s in self.statuses][-3:]}", turn)


class CauseScene:
    """A node outside the pipeline, and a function that starts nodes: start(kinds, overrides, ros_args)."""

    def __init__(self, robot: Robot, start: Callable[..., Running]) -> None:
        self.robot, self.start = robot, start
        self._ends: list[Callable[[], None]] = []

    def camera(
        self,
        change: bool = True,
        topic: str = "image_raw",
        stamp: Callable[[int], int] | None = None,
        **fields: Any,
    ) -> Send:
        """A function that publishes one image of a matched camera. stamp: of image n, in ns; None = now."""
        publisher = self.robot.publisher(Image, topic)
        numbers = itertools.count(1)

        def send() -> None:
            n = next(numbers)
            stamp_ns = stamp(n) if stamp else self.robot.node.get_clock().now().nanoseconds
            publisher.publish(image_message(picture(n if change else 0), stamp_ns, **fields))

        return send

    def clip(self, frames: int = 20) -> str:
        """The path of a clip at 10 Hz, deleted at the end."""
        folder = tempfile.TemporaryDirectory()
        self.at_end(folder.cleanup)
        path = f"{folder.name}/clip.avi"
        writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (64, 48))
        for number in range(frames):
            writer.write(picture(number))
        writer.release()
        return path

    def other_node(self, name: str) -> Node:
        """A node of another program, destroyed at the end."""
        node = Node(name, context=self.robot.context)
        self.at_end(node.destroy_node)
        return node

    def at_end(self, work: Callable[[], None]) -> None:
        """Register a clean-up, called before the nodes end."""
        self._ends.append(work)

    def close(self) -> None:
        while self._ends:
            self._ends.pop()()


def no_publisher(scene: CauseScene) -> Send:
    scene.robot.node.create_publisher(Image, "front/image_raw", SENSOR)
    scene.robot.node.create_publisher(Image, "depth", SENSOR)
    scene.start(NODES)
    return nothing


def only_compressed(scene: CauseScene) -> Send:
    scene.robot.node.create_publisher(CompressedImage, "image_raw/compressed", SENSOR)
    scene.start(NODES)
    return nothing


def wrong_type(scene: CauseScene) -> Send:
    scene.robot.node.create_publisher(CompressedImage, "image_raw", SENSOR)
    scene.start(NODES)
    return nothing


def incompatible_qos(scene: CauseScene) -> Send:
    scene.robot.node.create_publisher(Image, "image_raw", SENSOR)
    override = "gate:qos_overrides./image_raw.subscription.reliability:=reliable"
    scene.start(NODES, ros_args=["-p", override])
    return nothing


def node_inactive(scene: CauseScene) -> Send:
    scene.start(NODES)
    send = scene.camera()
    assert scene.robot.change_state("cascade", Transition.TRANSITION_DEACTIVATE)
    return send


def model_not_loaded(scene: CauseScene) -> Send:
    scene.start(NODES, {"detector": {"model": "no_such_bundle"}})
    return nothing


def node_finalized(scene: CauseScene) -> Send:
    """A lifecycle manager has shut a node down; its process still runs."""
    scene.start(NODES)
    send = scene.camera()
    assert scene.robot.change_state("detector", Transition.TRANSITION_ACTIVE_SHUTDOWN)
    return send


def node_missing(scene: CauseScene) -> Send:
    scene.start([GateNode, DetectorNode, DiagnosticsNode])
    return scene.camera()


def node_error(scene: CauseScene) -> Send:
    """A runtime that fails on every frame."""
    running = scene.start(NODES, {**OPEN, "detector": {"strict_backend": True, "fallback": []}})

    def fail(tensors: object) -> object:
        raise RuntimeError("it is broken")

    running["detector"].model.current.session.run = fail
    return scene.camera()


def source_missing_file(scene: CauseScene) -> Send:
    scene.start([SourceNode, *NODES], {"source": {"uri": "/no/such.avi"}})
    return nothing


def source_asleep(scene: CauseScene) -> Send:
    scene.start([SourceNode, *NODES], {"source": {"uri": scene.clip(), "playback_rate": 0.01}})
    return nothing


def source_finished(scene: CauseScene) -> Send:
    scene.start([SourceNode, *NODES], {"source": {"uri": scene.clip(), "playback_rate": 0.0}})
    return nothing


def several_publishers(scene: CauseScene) -> Send:
    scene.start(NODES)
    rear = scene.other_node("rear").create_publisher(Image, "image_raw", SENSOR)
    scene.robot.rematch(rear)
    front = scene.camera()

    def send() -> None:
        front()
        rear.publish(image_message(picture(0), time.time_ns(), frame_id="rear"))

    return send


def nothing_published(scene: CauseScene) -> Send:
    """The nodes that would explain it are not watched."""
    scene.start(NODES, {"diagnostics": {"watched_nodes": ["detector"]}})
    return nothing


def gate_closed(scene: CauseScene) -> Send:
    scene.start(NODES, {"gate": ONLY_CHANGES})
    return scene.camera(change=False)


def all_rejected(scene: CauseScene) -> Send:
    scene.start(NODES, {**OPEN, "detector": {"enabled": False}})
    return scene.camera()


def zero_stamps(scene: CauseScene) -> Send:
    scene.start(NODES, OPEN)
    return scene.camera(stamp=lambda n: 0)


def foreign_stamps(scene: CauseScene) -> Send:
    scene.start(NODES, OPEN)
    return scene.camera(stamp=lambda n: n * 10**8)


def sim_time_without_clock(scene: CauseScene) -> Send:
    scene.start(NODES, OPEN, ["-p", "use_sim_time:=true"])
    return scene.camera()


def unsupported_encoding(scene: CauseScene) -> Send:
    scene.start(NODES, OPEN)
    return scene.camera(encoding="hologram")


def images_too_large(scene: CauseScene) -> Send:
    scene.start(NODES, {**OPEN, "gate": {**OPEN["gate"], "max_image_megapixels": 0.001}})
    return scene.camera()


def damaged_images(scene: CauseScene) -> Send:
    scene.start(NODES, {**OPEN, "gate": {**OPEN["gate"], "image_transport": "compressed"}})
    publisher = scene.robot.publisher(CompressedImage, "image_raw/compressed")
    return lambda: publisher.publish(
        CompressedImage(
            header=image_message(picture(0), time.time_ns()).header, format="jpeg", data=b"\xff\xd8"
        )
    )


def loss_between_nodes(scene: CauseScene) -> Send:
    """Frame events of a cascade arrive without their images, long after discovery."""
    scene.start([DetectorNode, DiagnosticsNode], separate=True)
    scene.robot.publisher(Image, "image_accepted")
    events = scene.robot.publisher(DiagnosticArray, "cascade_events", 10)
    stamps = itertools.count(10**9, 10**8)
    scene.robot.turns(START_S)
    return lambda: events.publish(
        frame_event_message(FrameEvent(next(stamps), "camera", "cascade", "", "motion"))
    )


def loss_from_camera(scene: CauseScene) -> Send:
    """camera_info, which drivers send with each image, arrives without images."""
    scene.start(NODES)
    scene.robot.publisher(Image, "image_raw")
    info = scene.robot.node.create_publisher(CameraInfo, "camera_info", SENSOR)
    return lambda: info.publish(CameraInfo())


def loss_in_part(scene: CauseScene) -> Send:
    """DDS reports lost messages, which the size of a machine's buffers decides otherwise."""
    patch = pytest.MonkeyPatch()
    patch.setattr(LostMessages, "take", lambda self: 8)
    scene.at_end(patch.undo)
    scene.start(NODES)
    publisher, large = scene.robot.publisher(Image, "image_raw"), picture(0, 500, 400)
    now = scene.robot.node.get_clock().now
    return lambda: publisher.publish(image_message(large, now().nanoseconds))


def publisher_silent(scene: CauseScene) -> Send:
    scene.start(NODES)
    scene.robot.publisher(Image, "image_raw")
    return nothing


def detector_stuck(scene: CauseScene) -> Send:
    """A runtime that never returns from the first frame, without a watchdog."""
    patch = pytest.MonkeyPatch()
    fake_backend.register(patch)
    scene.at_end(patch.undo)
    running = scene.start(NODES, {**OPEN, "detector": {"backend": "fake", "watchdog_ms": 0.0}})
    free = threading.Event()
    scene.at_end(free.set)
    running["detector"].model.current.session.run = lambda tensors: free.wait(60) and {}
    return scene.camera()


def other_scene(scene: CauseScene) -> Send:
    """A model without the feature maps of large objects, in front of one."""
    folder = tempfile.TemporaryDirectory()
    scene.at_end(folder.cleanup)
    model = specialised_bundle(Path(folder.name) / "student")
    scene.start(NODES, {**OPEN, "detector": {"model": f"{model}/", "backend": "onnxruntime"}})
    publisher, rider = scene.robot.publisher(Image, "image_raw"), video_frame("segway_rider.mp4", 30).image
    now = scene.robot.node.get_clock().now
    return lambda: publisher.publish(image_message(rider, now().nanoseconds))


def below_threshold(scene: CauseScene) -> Send:
    scene.start(NODES, {**OPEN, "detector": {"score_threshold": 0.99}})
    return scene.camera()


# Situation -> the cause that must be reported.
PROVOKED: dict[Callable[[CauseScene], Send], str] = {
    no_publisher: "no_publisher",
    only_compressed: "no_publisher",
    wrong_type: "wrong_type",
    incompatible_qos: "incompatible_qos",
    node_inactive: "node_inactive",
    model_not_loaded: "model_not_loaded",
    node_finalized: "node_finalized",
    node_missing: "node_missing",
    node_error: "node_error",
    source_missing_file: "source_unavailable",
    source_asleep: "source_asleep",
    source_finished: "source_finished",
    several_publishers: "several_publishers",
    nothing_published: "nothing_published",
    gate_closed: "gate_closed",
    all_rejected: "all_rejected",
    zero_stamps: "bad_stamps",
    foreign_stamps: "bad_stamps",
    sim_time_without_clock: "sim_time_without_clock",
    unsupported_encoding: "unsupported_encoding",
    images_too_large: "bad_images",
    damaged_images: "bad_images",
    loss_between_nodes: "transport_loss",
    loss_from_camera: "transport_loss",
    loss_in_part: "transport_loss",
    publisher_silent: "publisher_silent",
    detector_stuck: "detector_stuck",
    other_scene: "other_scene",
    below_threshold: "below_threshold",
}
