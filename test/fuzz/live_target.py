"""Running nodes that receive all kinds of mutants over DDS. rclpy is imported when the target is made."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from fuzz_child import peak_rss_mb
from message_targets import ROS, DetectionMessages, FrameEvents
from node_target import KEPT, deliverable, parameters_mutant
from targets import Images, Target, find_param

from edge_vision.bundles.manifest import GraphSpec, Manifest
from edge_vision.core.child_process import child_environment, describe_exit, python_command
from edge_vision.core.model_spec import HeadSpec, InputSpec, Thresholds
from edge_vision.offline.bundle_folder import write_folder
from edge_vision.offline.onnx_writer import OnnxWriter

MAX_STATUS_AGE_S = 3.0
"""A status each second, and a hang of 2 s."""
MAX_GROWTH_MB = 200.0
_WAIT_S = 60.0
_SET = {("gate", "image_transport"): "compressed", ("detector", "backend"): "onnxruntime"}
_NODES = ("gate", "cascade", "detector", "diagnostics", "source")
# Beside the whole pipeline in one process: two nodes that receive detections and frame events over DDS.
_APART = ("gate", "detector")


class LivePipeline(Target):
    """Images, frame events, detections and parameters for running nodes, which must go on: no process ends,
    every node publishes its status, and the peak memory is bounded.

    Each image and parameter is awaited. Counts: the longest time without a status, and the growth of the
    memory.
    """

    name = "live"
    needs = (*ROS, "onnx", "onnxruntime")
    share = 3
    refusals = (ValueError,)

    def __init__(self, folder: Path) -> None:
        self.folder, self.counts = folder, Counter(status_gap_ms=0, node_growth_mb=0, lost=0)
        os.environ["ROS_LOG_DIR"] = str(folder)
        from diagnostic_msgs.msg import DiagnosticArray
        from rcl_interfaces.srv import SetParametersAtomically
        from sensor_msgs.msg import CompressedImage
        from vision_msgs.msg import Detection2DArray

        self._kinds: list[tuple[Any, Callable[[bytes], None]]] = [
            (Images(folder), self._image),
            (FrameEvents(folder), lambda data: self._events.publish(self._kinds[1][0].message(data))),
            (DetectionMessages(folder), lambda data: self._found.publish(self._kinds[2][0].message(data))),
            (None, self._parameters),
        ]
        self.seeds = [bytes([kind]) + one for kind in range(3) for one in self._kinds[kind][0].seeds]
        import rclpy

        rclpy.init(args=["fuzz"])
        self._rclpy, self._node = rclpy, rclpy.create_node("fuzz")
        self._image_type, self._stamp_ns, self._answered_ns = CompressedImage, 10**9, 0
        self._images = self._node.create_publisher(CompressedImage, "/one/image_raw/compressed", 10)
        self._events = self._node.create_publisher(DiagnosticArray, "/two/cascade_events", 10)
        self._found = self._node.create_publisher(Detection2DArray, "/two/detections", 10)
        self._node.create_subscription(DiagnosticArray, "/one/gate_events", self._answer, 200)
        self._heard_s: dict[str, float] = {}
        for node in (*(f"/one/{name}" for name in _NODES), *(f"/two/{name}" for name in _APART)):
            self._node.create_subscription(DiagnosticArray, f"{node}/status", self._hearing(node), 10)
        self._clients = {
            name: self._node.create_client(SetParametersAtomically, f"/one/{name}/set_parameters_atomically")
            for name in _NODES
        }
        self._processes = self._start(_bundle(folder / "tiny"))
        self._until(lambda: len(self._heard_s) == len(_NODES) + len(_APART), _WAIT_S)
        self._peak_mb = {child.pid: 0.0 for child in self._processes}

    def _start(self, model: Path) -> list[subprocess.Popen[bytes]]:
        file, values = self.folder / "parameters.yaml", {**_SET, ("detector", "model"): str(model)}
        nodes: dict[str, Any] = {}
        for (node, key), value in values.items():
            nodes.setdefault(f"/**/{node}", {"ros__parameters": {}})["ros__parameters"][key] = value
        file.write_text(json.dumps(nodes))
        given = ("--ros-args", "--params-file", str(file), "-r")
        whole = self._process("pipeline", *given, "__ns:=/one")
        return [whole, *(self._process(f"{name}_node", *given, "__ns:=/two") for name in _APART)]

    def _process(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{arguments[0]}.log").open("wb") as log:
            command = python_command("edge_vision.nodes.cli", *arguments)
            return subprocess.Popen(command, stdout=log, stderr=log, env=child_environment())

    def mutant(self, random: Random) -> bytes:
        kind = random.randrange(len(self._kinds))
        target = self._kinds[kind][0]
        return bytes([kind]) + (target.mutant(random) if target else parameters_mutant(random))

    def check(self, data: bytes) -> None:
        kind = data[0] % len(self._kinds)
        try:
            self._kinds[kind][1](data[1:])
        finally:
            self._spin(0.0)
            self._check_nodes()

    def close(self) -> None:
        for child in self._processes:
            child.terminate()
        for child in self._processes:
            child.wait(20)
        self._node.destroy_node()
        self._rclpy.try_shutdown()

    def _image(self, data: bytes) -> None:
        self._stamp_ns += 10**6
        message = self._image_type(format="jpeg", data=data)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(self._stamp_ns, 10**9)
        self._images.publish(message)
        if not self._until(lambda: self._answered_ns >= self._stamp_ns, 1.0):
            self.counts["lost"] += 1

    def _answer(self, message: Any) -> None:
        stamp = message.header.stamp
        self._answered_ns = max(self._answered_ns, stamp.sec * 10**9 + stamp.nanosec)

    def _parameters(self, data: bytes) -> None:
        """Set parameters, and what they were before."""
        given = [one for one in json.loads(data) if find_param(one) and one[0] in self._clients]
        if reason := self._set(given):
            raise ValueError(reason)
        before = [[*one[:2], _SET.get(tuple(one[:2]), find_param(one).default)] for one in given]
        back = self._set([one for one in before if one[1] not in KEPT])
        assert not back, f"the value before was refused: {back}"

    def _set(self, values: list[Any]) -> str:
        from rcl_interfaces.srv import SetParametersAtomically
        from rclpy.parameter import Parameter

        parameters = [Parameter(key, value=deliverable(value)).to_parameter_msg() for _, key, value in values]
        if not parameters:
            return ""
        future = self._clients[values[0][0]].call_async(
            SetParametersAtomically.Request(parameters=parameters)
        )
        assert self._until(future.done, _WAIT_S), f"no answer of {values[0][0]}"
        result = future.result().result
        return "" if result.successful else result.reason or "no reason was given"

    def _hearing(self, node: str) -> Callable[[Any], None]:
        def hear(_: Any) -> None:
            self._note_gap(node)
            self._heard_s[node] = time.monotonic()

        return hear

    def _note_gap(self, node: str) -> float:
        gap_s = time.monotonic() - self._heard_s.get(node, time.monotonic())
        self.counts["status_gap_ms"] = max(self.counts["status_gap_ms"], round(gap_s * 1e3))
        return gap_s

    def _check_nodes(self) -> None:
        for child in self._processes:
            assert child.poll() is None, f"a node's process {describe_exit(child.returncode)}"
            peak_mb = peak_rss_mb(child.pid)
            first_mb = self._peak_mb[child.pid] = self._peak_mb[child.pid] or peak_mb
            self.counts["node_growth_mb"] = max(self.counts["node_growth_mb"], round(peak_mb - first_mb))
            assert peak_mb - first_mb <= MAX_GROWTH_MB, (
                f"a node's peak memory grew by {peak_mb - first_mb:.0f} MB"
            )
        for node in self._heard_s:
            age_s = self._note_gap(node)
            late = self.timed and age_s > MAX_STATUS_AGE_S
            assert not late, f"{node} published no status for {age_s:.1f} s"

    def _spin(self, seconds: float) -> None:
        self._rclpy.spin_once(self._node, timeout_sec=seconds)

    def _until(self, happened: Callable[[], bool], seconds: float) -> bool:
        until_s = time.monotonic() + seconds
        while not happened() and time.monotonic() < until_s:
            self._spin(0.02)
        return happened()


def _bundle(folder: Path) -> Path:
    """A detector of 32 x 32 pixels that finds the same object in every image."""
    writer = OnnxWriter("constant")
    rows = np.zeros((1, 6, 5), np.float32)
    rows[0, :5, 0] = 16, 16, 8, 8, 0.9
    mean = writer.node("ReduceMean", ["images"], "mean", axes=[1, 2, 3], keepdims=0)
    nothing = writer.node("Mul", [mean, writer.weight("zeros", np.zeros_like(rows))], "nothing")
    writer.node("Add", [nothing, writer.weight("rows", rows)], "output0")
    graph = writer.model({"images": [1, 3, 32, 32]}, {"output0": [1, 6, 5]})
    manifest = Manifest(
        name="tiny",
        version="1.0.0",
        task="detect",
        description="",
        licence="MIT",
        source="",
        labels_file="labels.txt",
        input=InputSpec("images", 32, 32),
        head=HeadSpec("yolov8", {"columns": "output0"}, {}),
        thresholds=Thresholds(),
        graphs=(GraphSpec("model.onnx", "onnx", "fp32", hashlib.sha256(graph).hexdigest()),),
    )
    write_folder(folder, manifest, {"model.onnx": graph, "labels.txt": b"person\ncar\n"})
    return folder
