"""Why is nothing published? Each cause is provoked with real nodes and named; a healthy pipeline has none."""

from __future__ import annotations

import itertools
import threading
import time

import pytest
from lifecycle_msgs.msg import Transition
from ros_cases import (
    ALL,
    AS_SEEN,
    CHAIN,
    SENSOR,
    CompressedImage,
    DetectorNode,
    DiagnosticArray,
    DiagnosticsNode,
    GateNode,
    Image,
    image_message,
    picture,
    wait_until,
)
from sensor_msgs.msg import CameraInfo

from edge_vision.backends import BACKENDS
from edge_vision.bundles.store import cache_dir
from edge_vision.core.tick import Tick
from edge_vision.nodes.conversions import status_values, tick_message

OK, WARN, ERROR = b"\x00", b"\x01", b"\x02"
NODES = (*CHAIN, DiagnosticsNode)
OPEN = {"gate": {"enabled": False}}


def clip_or_skip(name):
    path = cache_dir() / "video" / name
    if not path.exists():
        pytest.skip(f"{path} is not there: the demo's set-up fetches it")
    return str(path)


class Output:
    """What /diagnostics says of the pipeline's output."""

    def __init__(self, robot):
        self._robot = robot
        self._heard = robot.listen(DiagnosticArray, "/diagnostics", wait=False)

    @property
    def statuses(self):
        return [one for message in self._heard for one in message.status if one.name.endswith("output")]

    def named(self, cause, send=lambda: None, period_s=0.1):
        """Wait until a cause is named, sending meanwhile: its status."""
        due_s = 0.0

        def turn():
            nonlocal due_s
            if time.monotonic() >= due_s:
                due_s = time.monotonic() + period_s
                send()
            self._robot.turn()

        def fitting():
            fits = [one for one in self.statuses if status_values(one)["cause"] == cause]
            return fits[-1] if fits else None

        return wait_until(fitting, f"{cause}, having heard {[s.message for s in self.statuses][-3:]}", turn)


@pytest.fixture
def output(robot):
    return Output(robot)


@pytest.fixture
def camera(robot):
    """camera(change, stamp_ns=..., encoding=...) gives a function that sends one image, stamped now."""

    def make(running, change=True, topic="image_raw", stamp=None, **fields):
        publisher = robot.publisher(Image, topic)
        numbers = itertools.count(1)

        def send():
            n = next(numbers)
            stamp_ns = stamp(n) if stamp else robot.node.get_clock().now().nanoseconds
            publisher.publish(image_message(picture(n if change else 0), stamp_ns, **fields))

        return send

    return make


def test_no_publisher_and_the_nearest_names(start, robot, output):
    robot.node.create_publisher(Image, "front/image_raw", SENSOR)
    robot.node.create_publisher(Image, "depth", SENSOR)
    start(NODES)
    status = output.named("no_publisher")
    assert status.level == WARN
    assert "nobody publishes /image_raw, which gate listens to" in status.message
    assert "one of /front/image_raw, /depth" in status.message


def test_the_causes_of_a_pipeline_in_a_namespace(start, robot, output, camera):
    running = start(NODES, {**OPEN, "detector": {"enabled": False}}, ["-r", "__ns:=/front"])
    status = output.named("no_publisher")
    assert status.name == "front/output" and "nobody publishes /front/image_raw" in status.message
    status = output.named("all_rejected", camera(running, topic="/front/image_raw"))
    assert "ros2 param set /front/detector enabled true" in status.message


def test_wrong_type(start, robot, output):
    robot.node.create_publisher(CompressedImage, "image_raw", SENSOR)
    start(NODES)
    status = output.named("wrong_type")
    assert status.level == ERROR and "set image_transport to compressed" in status.message


def test_incompatible_qos(start, robot, output):
    robot.node.create_publisher(Image, "image_raw", SENSOR)
    start(NODES, ros_args=["-p", "gate:qos_overrides./image_raw.subscription.reliability:=reliable"])
    status = output.named("incompatible_qos")
    assert status.level == ERROR and "/robot offers reliability best_effort" in status.message
    assert "set qos_overrides./image_raw.subscription.reliability to best_effort on gate" in status.message


def test_node_inactive(start, robot, output, camera):
    running = start(NODES)
    send = camera(running)
    assert robot.change_state("cascade", Transition.TRANSITION_DEACTIVATE)
    status = output.named("node_inactive", send)
    assert "ros2 lifecycle set /cascade activate" in status.message
    assert robot.change_state("cascade", Transition.TRANSITION_ACTIVATE)
    heard = len(output.statuses)
    robot.wait(lambda: send() or said(output, heard, "node_inactive"), "the cause to go")


def said(output, heard, before):
    return [one for one in output.statuses[heard:] if status_values(one)["cause"] != before]


def test_model_not_loaded(start, output):
    start(NODES, {"detector": {"model": "no_such_bundle"}})
    status = output.named("model_not_loaded")
    assert status.level == ERROR and "no_such_bundle" in status.message


def test_gate_closed(start, output, camera):
    running = start(NODES, {"gate": AS_SEEN})
    status = output.named("gate_closed", camera(running, change=False))
    # What a user wants who sets max_blind_ms so is no alarm.
    assert status.level == OK and "reason: still" in status.message and "max_blind_ms" in status.message


def test_all_rejected(start, output, camera):
    running = start(NODES, {**OPEN, "detector": {"enabled": False}})
    status = output.named("all_rejected", camera(running))
    assert status.level == WARN and "ros2 param set /detector enabled true" in status.message


def test_zero_stamps(start, output, camera):
    running = start(NODES, OPEN)
    status = output.named("bad_stamps", camera(running, stamp=lambda n: 0))
    assert status.level == ERROR and "must stamp its images" in status.message


def test_stamps_of_a_foreign_clock(start, output, camera):
    running = start(NODES, OPEN)
    status = output.named("bad_stamps", camera(running, stamp=lambda n: n * 10**8))
    assert status.level == WARN and "behind gate's clock" in status.message and "NTP" in status.message


def test_sim_time_without_a_clock(start, output, camera):
    running = start(NODES, OPEN, ["-p", "use_sim_time:=true"])
    status = output.named("sim_time_without_clock", camera(running))
    assert status.level == ERROR and "nobody publishes /clock" in status.message
    assert "gate, cascade, detector" in status.message


def test_unsupported_encoding(start, output, camera):
    running = start(NODES, OPEN)
    status = output.named("unsupported_encoding", camera(running, encoding="hologram"))
    assert status.level == ERROR and "'hologram'" in status.message and "Publish one of" in status.message


def test_a_transport_that_loses_images_between_two_nodes(start, robot, output):
    """The ticks of a cascade come, their images do not."""
    start([DetectorNode, DiagnosticsNode], separate=True)
    robot.publisher(Image, "image_accepted")
    ticks = robot.publisher(DiagnosticArray, "cascade_ticks", 10)
    stamps = itertools.count(10**9, 10**8)
    status = output.named(
        "transport_loss",
        lambda: ticks.publish(tick_message(Tick(next(stamps), "camera", "cascade", "", "motion"))),
    )
    assert status.level == WARN and "config/fastdds.xml" in status.message and "composition" in status.message


def test_a_transport_that_loses_the_images_of_a_camera(start, robot, output):
    """camera_info comes, which a driver sends with each image; images do not."""
    start(NODES)
    robot.publisher(Image, "image_raw")
    info = robot.node.create_publisher(CameraInfo, "camera_info", SENSOR)
    status = output.named("transport_loss", lambda: info.publish(CameraInfo()))
    assert "while its camera_info arrives" in status.message and "config/fastdds.xml" in status.message


def test_a_camera_that_sends_nothing_is_not_called_a_loss(start, robot, output):
    start(NODES)
    robot.publisher(Image, "image_raw")
    status = output.named("publisher_silent")
    assert "/robot publishes /image_raw" in status.message
    assert not [one for one in output.statuses if "transport_loss" in one.message]


def test_detector_stuck(start, output, camera, monkeypatch):
    monkeypatch.setitem(BACKENDS, "fake", "edge_vision.backends.fake:FakeBackend")
    running = start(NODES, {**OPEN, "detector": {"backend": "fake", "watchdog_ms": 0.0}})
    free = threading.Event()
    monkeypatch.setattr(running["detector"]._model.session, "run", lambda tensors: free.wait(60) and {})
    try:
        status = output.named("detector_stuck", camera(running))
        assert status.level == ERROR and "the runtime hangs" in status.message
    finally:
        free.set()


def test_all_scores_below_the_threshold(start, output, camera):
    running = start(NODES, {**OPEN, "detector": {"score_threshold": 0.99}})
    status = output.named("below_threshold", camera(running))
    # An empty room is no alarm.
    assert status.level == OK and "the threshold 0.99" in status.message
    highest = float(status.message.partition("the highest score is ")[2].partition(",")[0])
    assert 0 < highest < 0.99


def test_a_cause_is_logged_once(start, robot, output, capfd):
    start(NODES)
    output.named("no_publisher")
    robot.turns(2.5)
    assert capfd.readouterr().err.count("no_publisher: nobody publishes") == 1


@pytest.mark.parametrize("separate", [False, True])
def test_a_healthy_pipeline_has_no_cause_from_start_to_end(start, robot, output, separate):
    running = start(ALL, {"source": {"uri": clip_or_skip("vtest.avi"), "loop": True}}, separate=separate)
    robot.wait(lambda: len(output.statuses) >= 6, "six reports")
    running.end()
    robot.turns(1.0)
    assert [one.message for one in output.statuses if one.level != OK] == []


def test_a_camera_that_is_there_first_is_found_without_an_alarm(start, robot, output):
    camera = robot.node.create_publisher(Image, "image_raw", SENSOR)
    numbers = itertools.count(1)
    robot.node.create_timer(
        0.1,
        lambda: camera.publish(
            image_message(picture(next(numbers)), robot.node.get_clock().now().nanoseconds)
        ),
    )
    running = start([GateNode, *CHAIN[1:], DiagnosticsNode])
    robot.wait(lambda: len(output.statuses) >= 5, "five reports")
    running.end()
    robot.turns(1.0)
    assert [one.message for one in output.statuses if one.level != OK] == []
