"""Shared by tests with real ROS: a pipeline in this process, a node outside of it, images."""

from __future__ import annotations

import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import pytest
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.srv import ChangeState, GetState
from model_cases import DETECTOR, bundle_or_skip
from rcl_interfaces.srv import DescribeParameters, GetParameters, SetParametersAtomically
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import (
    QoSDurabilityPolicy,
    QoSProfile,
    QoSReliabilityPolicy,
    qos_profile_sensor_data,
)
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Detection2DArray

from edge_vision.nodes import base_node, run
from edge_vision.nodes.base_node import BaseNode
from edge_vision.nodes.cascade_node import CascadeNode
from edge_vision.nodes.detector_node import DetectorNode
from edge_vision.nodes.diagnostics_node import DiagnosticsNode
from edge_vision.nodes.gate_node import GateNode
from edge_vision.nodes.observers.discovery import eager_discovery
from edge_vision.nodes.run import camera_setups
from edge_vision.nodes.source_node import SourceNode

CHAIN: tuple[type[BaseNode], ...] = (GateNode, CascadeNode, DetectorNode)
ALL: tuple[type[BaseNode], ...] = (SourceNode, *CHAIN, DiagnosticsNode)
RELIABLE = QoSProfile(depth=1000, reliability=QoSReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(
    depth=1, reliability=QoSReliabilityPolicy.RELIABLE, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL
)
ROSOUT = QoSProfile(
    depth=1000,
    reliability=QoSReliabilityPolicy.RELIABLE,
    durability=QoSDurabilityPolicy.TRANSIENT_LOCAL,
)
"""Lines from before DDS has matched the subscriber arrive, too."""
SENSOR = qos_profile_sensor_data
# A liveness limit, not a measurement: generous for machines under load.
TIMEOUT_S = 60.0
# Parameters of the gate: each frame that differs from the last inferred one passes.
CHANGES = {"max_delay_ms": 1.0, "min_fidelity": 0.0}
# The same, and no other frame passes.
ONLY_CHANGES = {**CHANGES, "max_blind_ms": 60000.0, "max_gap_ms": 600000.0, "audit_rate": 0.0}
FATES = ("inferred", "gated", "rejected", "superseded", "failed")


def localizer_node() -> type[BaseNode]:
    """Skips the test where its messages are missing."""
    reason = "vision_msgs lacks Detection3DArray: run `make setup`"
    return pytest.importorskip(
        "edge_vision.nodes.localizer_node", reason=reason, exc_type=ImportError
    ).LocalizerNode


def recorder_node() -> type[BaseNode]:
    """Skips the test where its package is missing."""
    reason = "mcap is not installed: run `make setup-test`"
    return pytest.importorskip(
        "edge_vision.nodes.recorder_node", reason=reason, exc_type=ImportError
    ).RecorderNode


def wait_until(
    happened: Callable[[], Any], what: str, turn: Callable[[], None] = lambda: time.sleep(0.01)
) -> Any:
    """Call `turn` until `happened` returns a true value, and return it. Fails with `what` after TIMEOUT_S."""
    until_s = time.monotonic() + TIMEOUT_S
    while time.monotonic() < until_s:
        result = happened()
        if result:
            return result
        turn()
    pytest.fail(f"waited {TIMEOUT_S:.0f} s for {what}")


def adds_up(flat: dict[str, int]) -> bool:
    """True if the frame accounting adds up; a process before the end of the chain hands frames on."""
    return flat["received"] == sum(flat[name] for name in (*FATES, "in_flight")) + flat.get("handed_on", 0)


_RUNNING: list[Running] = []


def matched(topic: str) -> bool:
    """True once the endpoints of a topic in this process have discovered the other side.

    Discovery is not symmetric: messages sent before the other side knows the publisher are lost.
    """
    ends = [
        end
        for running in _RUNNING
        for node in running.nodes.values()
        for end in (*list(node.publishers), *list(node.subscriptions))
        if end.topic_name == topic
    ]
    counts = (getattr(end, "get_subscription_count", None) or end.get_publisher_count for end in ends)
    return all(count() for count in counts)


@contextmanager
def _reporting_often(kinds: Sequence[type[BaseNode]]) -> Iterator[None]:
    """Nodes built in this context report five times per second, so that tests hardly wait for a report.

    Not with a diagnostics node, which expects one report per second.
    """
    with pytest.MonkeyPatch.context() as patch:
        if DiagnosticsNode not in kinds:
            patch.setattr(base_node, "STATUS_PERIOD_S", 0.2)
        yield


class Running:
    """Nodes of one process: built, brought up, spun and ended as in the executables."""

    def __init__(
        self,
        domain: int,
        kinds: Sequence[type[BaseNode]] = CHAIN,
        overrides: dict[str, dict[str, Any]] | None = None,
        ros_args: Sequence[str] = (),
        separate: bool = False,
        need_model: bool = True,
        cameras: Sequence[str] = (),
    ) -> None:
        """cameras: their nodes are named "front/gate" and so on; `hubs` has one per camera."""
        if need_model and DetectorNode in kinds and "model" not in (overrides or {}).get("detector", {}):
            bundle_or_skip(DETECTOR)
        # A fixed backend: auto depends on the machine. No watchdog: on a loaded machine a slow inference is
        # not a hang. A gate without settings passes whatever changes.
        chosen = {
            "cascade": {"backend": "onnxruntime"},
            "detector": {"backend": "onnxruntime", "watchdog_ms": 0.0},
        }
        given = {"gate": CHANGES, **(overrides or {})}
        overrides = {**given, **{name: {**chosen[name], **given.get(name, {})} for name in chosen}}
        rclpy.init(args=["test", "--ros-args", *ros_args], domain_id=domain)
        setups = camera_setups(",".join(cameras))
        with _reporting_often(kinds):
            # With `separate`, each node is isolated as in a process of its own.
            groups = [[kind] for kind in kinds] if separate else [kinds]
            nodes = [node for group in groups for node in run.create_nodes(group, overrides, setups)]
        names = [node.get_fully_qualified_name() for node in nodes]
        self.nodes = {
            "/".join(name.split("/")[-2 if cameras else -1 :]): node
            for name, node in zip(names, nodes, strict=True)
        }
        self.hubs = {name.split("/")[-2]: node.hub for name, node in zip(names, nodes, strict=True)}
        # That of the last node, which has the complete ledger.
        self.hub = nodes[-1].hub
        self.executor = run.make_executor()
        for node in self.nodes.values():
            self.executor.add_node(node)
        self._stop = threading.Event()
        run.warn_of_unmatched_sections(list(self.nodes.values()), ros_args)
        run.bring_up(list(self.nodes.values()), self._stop)
        spinning = (self.executor, next(iter(self.nodes.values())), self._stop)
        self._thread = threading.Thread(target=run.spin, args=spinning, daemon=True)
        self._thread.start()
        self.ended = False
        _RUNNING.append(self)

    def __getitem__(self, name: str) -> Any:
        return self.nodes[name]

    @property
    def ledger(self) -> dict[str, int]:
        return self.ledger_of("")

    def ledger_of(self, camera: str) -> dict[str, int]:
        hub = self.hubs[camera] if camera else self.hub
        return hub.ledger.snapshot().flat()

    def settled(self, n: int, camera: str = "") -> dict[str, int]:
        """The ledger once n frames were received and none is in flight."""

        def done() -> dict[str, int] | None:
            counts = self.ledger_of(camera)
            assert adds_up(counts)
            return counts if counts["received"] >= n and not counts["in_flight"] else None

        return wait_until(done, f"{n} frames to end; ledger {self.ledger_of(camera)}")

    def in_executor(self, work: Callable[[], Any]) -> Any:
        """Run a function in the executor's thread, as a service call would, and return its result."""
        done: list[Any] = []
        node = next(iter(self.nodes.values()))

        def once() -> None:
            node.destroy_timer(timer)
            done.append(work())

        timer = node.create_timer(0.001, once)
        wait_until(lambda: done, "the executor")
        return done[0]

    def end(self) -> None:
        if self.ended:
            return
        self.ended = True
        _RUNNING.remove(self)
        self._stop.set()
        self.executor.wake()
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()
        run.end(list(self.nodes.values()))
        self.executor.shutdown(0)
        rclpy.try_shutdown()


class Robot:
    """A node outside the pipeline, in a separate context: it receives everything over DDS."""

    def __init__(self, domain: int) -> None:
        self.context = Context()
        with eager_discovery():  # Later processes discover it at once instead of after 3 s.
            rclpy.init(context=self.context, domain_id=domain)
            self.node = Node("robot", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self._statuses: dict[str, deque[tuple[int, DiagnosticStatus]]] = {}

    def close(self) -> None:
        self.executor.shutdown(0)
        self.node.destroy_node()
        self.context.try_shutdown()

    def turn(self) -> None:
        self.executor.spin_once(timeout_sec=0.02)

    def wait(self, happened: Callable[[], Any], what: str) -> Any:
        return wait_until(happened, what, self.turn)

    def wait_for(self, heard: list[Any], n: int, what: str = "messages") -> list[Any]:
        """Wait for n messages. Fails if there are more."""
        self.wait(lambda: len(heard) >= n, f"{n} {what}, having {len(heard)}")
        assert len(heard) == n
        return heard

    def turns(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            self.turn()

    def listen(self, kind: type, topic: str, qos: Any = RELIABLE, wait: bool = True) -> list[Any]:
        """The list to which the messages of a topic are appended. wait: for a publisher."""
        heard: list[Any] = []
        subscription = self.node.create_subscription(kind, topic, heard.append, qos)
        if wait:
            self._until_matched(subscription)
        return heard

    def _until_matched(self, subscription: Any) -> None:
        topic = subscription.topic_name
        self.wait(subscription.get_publisher_count, f"a publisher of {topic}")
        self.wait(lambda: matched(topic), f"the publisher of {topic} to discover the subscription")

    def publisher(self, kind: type, topic: str, qos: Any = SENSOR) -> Any:
        """A publisher that is already matched with a subscription."""
        publisher = self.node.create_publisher(kind, topic, qos)
        self.rematch(publisher)
        return publisher

    def rematch(self, publisher: Any) -> None:
        """Wait until a publisher is matched with a subscription."""
        self.wait(publisher.get_subscription_count, f"a subscriber to {publisher.topic_name}")
        self.wait(
            lambda: matched(publisher.topic_name),
            f"the subscriber of {publisher.topic_name} to discover the publisher",
        )

    def call(self, kind: type, name: str, request: Any) -> Any:
        """Call a service and return its response."""
        client = self.node.create_client(kind, name)
        self.wait(client.service_is_ready, f"service {name}")
        future = client.call_async(request)
        return self.wait(lambda: future.done() and future.result(), f"an answer of {name}")

    def status(
        self, node: str, fits: Callable[[Any, dict[str, str]], bool] = lambda status, values: True
    ) -> Any:
        """The next status of a node for which `fits` is true, sent after this call, and its values."""
        since_ns, heard = time.time_ns(), self._statuses_of(node)

        def fitting() -> Any:
            while heard:
                sent_ns, status = heard.popleft()
                values = {pair.key: pair.value for pair in status.values}
                if sent_ns >= since_ns and fits(status, values):
                    return status, values
            return None

        return self.wait(fitting, f"a fitting status of {node}")

    def _statuses_of(self, node: str) -> deque[tuple[int, DiagnosticStatus]]:
        """The queue to which the statuses of a node are appended, with their source timestamps in ns."""
        if node not in self._statuses:
            heard = self._statuses[node] = deque()

            def hear(message: DiagnosticArray, info: dict[str, int]) -> None:
                heard.append((info["source_timestamp"], message.status[0]))

            subscription = self.node.create_subscription(DiagnosticArray, f"{node}/status", hear, RELIABLE)
            self._until_matched(subscription)
        return self._statuses[node]

    def change_state(self, node: str, transition: int) -> bool:
        request = ChangeState.Request()
        request.transition.id = transition
        return bool(self.call(ChangeState, f"{node}/change_state", request).success)

    def state(self, node: str) -> str:
        return str(self.call(GetState, f"{node}/get_state", GetState.Request()).current_state.label)

    def set(self, node: str, **values: Any) -> Any:
        """Set parameters atomically: the SetParametersResult."""
        request = SetParametersAtomically.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        )
        return self.call(SetParametersAtomically, f"{node}/set_parameters_atomically", request).result

    def get(self, node: str, name: str) -> Any:
        answer = self.call(GetParameters, f"{node}/get_parameters", GetParameters.Request(names=[name]))
        return rclpy.parameter.parameter_value_to_python(answer.values[0])

    def describe(self, node: str, names: Sequence[str]) -> Any:
        request = DescribeParameters.Request(names=list(names))
        return self.call(DescribeParameters, f"{node}/describe_parameters", request).descriptors


def picture(seed: int = 0, width_px: int = 64, height_px: int = 48) -> np.ndarray:
    """A random image, a different one for each seed."""
    return np.random.default_rng(seed).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)


def image_message(
    image: np.ndarray, stamp_ns: int, frame_id: str = "camera", encoding: str = "bgr8", **fields: Any
) -> Image:
    """An Image message. fields: override values derived from the image."""
    sec, nanosec = divmod(stamp_ns, 10**9)
    message = Image(height=image.shape[0], width=image.shape[1], encoding=encoding)
    message.header.stamp, message.header.frame_id = Time(sec=sec, nanosec=nanosec), frame_id
    message.step = image.nbytes // image.shape[0]
    message.data = array("B", image.tobytes())
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def jpeg_message(image: np.ndarray, stamp_ns: int, frame_id: str = "camera") -> CompressedImage:
    sec, nanosec = divmod(stamp_ns, 10**9)
    message = CompressedImage(format="jpeg", data=array("B", cv2.imencode(".jpg", image)[1].tobytes()))
    message.header.stamp, message.header.frame_id = Time(sec=sec, nanosec=nanosec), frame_id
    return message


def stamp_of(message: Any) -> int:
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


def detections_of(robot: Robot, topic: str = "detections") -> list[Detection2DArray]:
    return robot.listen(Detection2DArray, topic)
