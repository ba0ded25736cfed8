"""What diagnostics live through: clocks that jump, counters that run back, ten cameras, no figures."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import pytest
import rclpy
import yaml
from cause_cases import NODES, OPEN, Output
from ros_cases import (
    RELIABLE,
    DiagnosticArray,
    DiagnosticsNode,
    GateNode,
    Image,
    image_message,
    picture,
    run,
)
from rosgraph_msgs.msg import Clock

from edge_vision.cli.top.board import Board
from edge_vision.core.diagnostic_status import StatusEntry
from edge_vision.nodes.interface.status_messages import status_message, status_values
from edge_vision.nodes.monitoring.cause_monitor import counter_increments
from edge_vision.nodes.transport.intra_process import IntraProcess

OK = b"\x00"
JUMP_S, HALF_A_JUMP_MS = 1000.0, 500_000.0
REPO = Path(__file__).resolve().parents[2]


class SimTime:
    """A simulator: /clock at 20 Hz, a camera at 10 Hz by it."""

    def __init__(self, robot, at_s: float) -> None:
        self._robot = robot
        self._now_ns = round(at_s * 1e9)
        self._clock = robot.node.create_publisher(Clock, "/clock", RELIABLE)
        self._camera = robot.publisher(Image, "image_raw")
        robot.rematch(self._clock)

    def play(self, seconds: float, camera: bool = True) -> None:
        for n in range(round(seconds * 20)):
            self._now_ns += 50_000_000
            message = Clock()
            message.clock.sec, message.clock.nanosec = divmod(self._now_ns, 10**9)
            self._clock.publish(message)
            if camera and n % 2 == 0:
                self._camera.publish(image_message(picture(self._now_ns // 10**7 % 1000), self._now_ns))
            self._robot.turns(0.05)

    def jump(self, seconds: float) -> None:
        self._now_ns += round(seconds * 1e9)


def test_sim_time_that_jumps_back_is_no_alarm(start, robot):
    """A bag that is played again: for a second the clock is there, and no image."""
    running = start(NODES, OPEN, ["-p", "use_sim_time:=true"])
    simulator = SimTime(robot, 5000.0)
    simulator.play(2.0)
    output = Output(robot)
    simulator.play(3.0)
    simulator.jump(-JUMP_S)
    simulator.play(1.5, camera=False)
    simulator.play(3.0)
    ledger = running.ledger
    assert ledger["failed.stamp_backwards"] == ledger["failed"] == 1 and ledger["inferred"] > 10
    # Reports go by a clock that no simulator sets.
    robot.wait(lambda: len(output.statuses) >= 6, "six reports")
    assert [one.message for one in output.statuses if one.level != OK] == []
    _, values = robot.status("detector")
    assert abs(float(values["age_ms.p50"])) < HALF_A_JUMP_MS and float(values["rate_in_hz"]) >= 0.0
    _, values = robot.status("gate")
    assert abs(float(values["input_age_ms"])) < HALF_A_JUMP_MS


@pytest.mark.parametrize(
    ("before", "now", "added"),
    [
        ({"ledger.received": "100"}, {"ledger.received": "130"}, {"ledger.received": 30}),
        ({"ledger.received": "100"}, {"ledger.received": "3"}, {}),  # a restarted node, or reset_stats
        ({"ledger.in_flight": "2"}, {"ledger.in_flight": "0"}, {"ledger.in_flight": -2}),
        ({}, {"ledger.gated.still": "5"}, {"ledger.gated.still": 5}),
        ({"detections_total": "7"}, {"detections_total": "unavailable"}, {}),
        ({"ledger.received": "100"}, {"ledger.received": "nan", "rate_in_hz": "7"}, {}),
        ({"ledger.received": "x", "ledger.failed": "1"}, {"ledger.received": "9", "ledger.failed": "²"}, {}),
        ({"ledger.received": "1"}, {"ledger.received": "9" * 5000}, {}),
    ],
)
def test_what_counters_gained(before, now, added):
    assert counter_increments(before, now) == added


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), -float("inf")])
def test_an_invalid_value_is_unavailable(value):
    message = status_message("gate", "/", 0, "running", {"rate_in_hz": value, "sent": 0})
    assert status_values(message) == {"rate_in_hz": "unavailable", "sent": "0"}
    assert StatusEntry("gate", "/", 0, "", status_values(message)).number("rate_in_hz") is None


CAMERAS = [f"/robot/camera_{n}" for n in range(10)]


@pytest.fixture
def ten(domain, robot):
    """Ten pipelines in one process, of a gate and a diagnostics node each."""
    rclpy.init(args=["test"], domain_id=domain)
    executor, stop, nodes = run.make_executor(), threading.Event(), []
    for name in CAMERAS:
        hub = IntraProcess()
        nodes.append(GateNode(hub, {}, namespace=name))
        nodes.append(DiagnosticsNode(hub, {"watched_nodes": ["gate"]}, namespace=name))
    for node in nodes:
        executor.add_node(node)
    run.bring_up(nodes, stop)
    thread = threading.Thread(target=run.spin, args=(executor, nodes[0], stop), daemon=True)
    thread.start()
    yield nodes
    stop.set()
    thread.join(30)
    run.end(nodes)
    executor.shutdown(0)
    rclpy.try_shutdown()


def groups_of(name: str) -> int:
    """How many groups of the shipped aggregator file take a status of this name."""
    document = yaml.safe_load((REPO / "config" / "diagnostic_aggregator.yaml").read_text())
    analyzers = document["/**/analyzers"]["ros__parameters"]["edge_vision"]["analyzers"]
    patterns = [pattern for analyzer in analyzers.values() for pattern in analyzer["regex"]]
    # The aggregator matches the whole name.
    return sum(bool(re.fullmatch(pattern, name)) for pattern in patterns)


def test_ten_cameras(ten, robot):
    heard = robot.listen(DiagnosticArray, "/diagnostics")
    board = Board()
    camera = robot.publisher(Image, f"{CAMERAS[3]}/image_raw")
    numbers = iter(range(1, 10**6))

    def whole() -> bool:
        camera.publish(image_message(picture(next(numbers)), time.time_ns()))
        while heard:
            statuses = [
                StatusEntry(one.name, one.hardware_id, one.level[0], one.message, status_values(one))
                for one in heard.pop(0).status
            ]
            board.update(statuses, time.monotonic())
        cameras = {one.namespace: one for one in board.pipelines}
        causes = [one.part("output").text("cause") for name, one in cameras.items() if name != CAMERAS[3]]
        sees = CAMERAS[3] in cameras and (cameras[CAMERAS[3]].part("gate").number("ledger.received") or 0) > 3
        # A change of the cause is published before the first full report.
        full = all(any(part.startswith("process ") for part in one.parts) for one in board.pipelines)
        return len(cameras) == 10 and full and sees and set(causes) == {"no_publisher"}

    robot.wait(whole, "the reports of all ten")
    assert board.other_statuses == 0
    for one in board.pipelines:
        process = next(part for part in one.parts if part.startswith("process "))
        assert list(one.parts) == ["gate", process, "system", "output"]
        assert [status.name for status in one.parts.values() if groups_of(status.name) != 1] == []
        text = one.part("output").message
        if one.namespace != CAMERAS[3]:
            # The sole camera there is belongs to another pipeline.
            assert f"{one.namespace}/image_raw" in text and "start the camera's driver" in text
            assert one.part("gate").number("ledger.received") == 0
