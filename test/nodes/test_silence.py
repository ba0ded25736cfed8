"""A node that is up and yet gives nothing says so in its status."""

from __future__ import annotations

import threading

import pytest
from fake_backend import FakeBackend, Fault, register
from ros_cases import CHAIN, SENSOR, DetectorNode, GateNode, Image, SourceNode, image_message, picture

from edge_vision.nodes import stage_node
from edge_vision.nodes.monitoring import stage_stats

OK, WARN, ERROR = b"\x00", b"\x01", b"\x02"


def test_a_topic_without_publisher_is_named(start, robot):
    start([GateNode])
    status, _ = robot.status("gate", lambda status, values: status.level == WARN)
    assert "/image_raw" in status.message and "0 publishers" in status.message
    camera = robot.publisher(Image, "image_raw")
    camera.publish(image_message(picture(1), 1))
    robot.status("gate", lambda status, values: status.level == OK)


def test_silence_behind_a_gate_is_no_alarm(start, robot, monkeypatch):
    """The detector of another process hears nothing while the gate is shut: the gate is there, though."""
    monkeypatch.setattr(stage_stats, "RECENT_S", 0.5)
    start(CHAIN, separate=True)
    robot.status("gate", lambda status, values: status.level == WARN)
    for name in ("cascade", "detector"):
        # Each has heard nothing for longer than the gate may, and knows that a stage comes before it.
        status, _ = robot.status(
            name, lambda _, values: values["first_stage"] == "False" and float(values["silent_ms"]) > 500
        )
        assert status.level == OK, status.message


def test_a_detector_alone_without_images_is_a_warning(start, robot):
    start([DetectorNode])
    status, _ = robot.status("detector", lambda status, values: status.level == WARN)
    assert "/image_accepted" in status.message


def test_a_detector_whose_frames_all_fail_is_an_error_until_they_do_not(start, robot, monkeypatch):
    register(monkeypatch)
    alone = {"backend": "fake", "strict_backend": True}
    running = start(overrides={"detector": alone, "gate": {"enabled": False}})
    session = running["detector"].model.current.session
    camera = robot.publisher(Image, "image_raw")
    monkeypatch.setattr(
        stage_stats, "RECENT_S", 60.0
    )  # However long the test takes up to the last line but one.
    monkeypatch.setattr(FakeBackend, "standing", Fault(nan=True, after=2))
    session.fault = Fault(nan=True)
    camera.publish(image_message(picture(1), 1))
    assert running.settled(1)["failed"] == 1
    status, _ = robot.status("detector", lambda status, values: status.level == ERROR)
    assert "not finite" in status.message
    running["detector"].model.current.session.fault = Fault()
    camera.publish(image_message(picture(2), 2))
    assert running.settled(2)["inferred"] == 1
    status, _ = robot.status("detector", lambda status, values: status.level == WARN)
    assert "not finite" in status.message
    monkeypatch.setattr(stage_stats, "RECENT_S", 0.1)
    robot.status("detector", lambda status, values: status.level == OK)


def test_a_runtime_that_hangs_costs_its_frame_and_nothing_else(start, robot, monkeypatch):
    register(monkeypatch)
    monkeypatch.setattr(stage_node, "JOIN_TIMEOUT_S", 0.2)
    running = start(overrides={"detector": {"backend": "fake"}, "gate": {"enabled": False}})
    session = running["detector"].model.current.session
    hanging, free = threading.Event(), threading.Event()

    def hang(tensors):
        hanging.set()
        free.wait(30)
        return {}

    monkeypatch.setattr(session, "run", hang)
    camera = robot.publisher(Image, "image_raw")
    camera.publish(image_message(picture(1), 1))
    assert hanging.wait(30)
    running.end()
    ledger = running.ledger
    assert (ledger["in_flight"], ledger["failed.deactivated"]) == (0, 1), ledger
    assert not session.closed
    free.set()


def test_an_error_outside_does_not_touch_the_frame(start, robot, monkeypatch):
    """The detector has the frame already when somebody outside is shown it."""
    running = start(overrides={"gate": {"enabled": False}})
    seen = robot.listen(Image, "gate/image", SENSOR)

    def fail(message):
        raise RuntimeError("the middleware is gone")

    monkeypatch.setattr(running["gate"].output.images, "publish", fail)
    robot.wait(lambda: running["gate"].output.images.subscription_count, "the listener")
    camera = robot.publisher(Image, "image_raw")
    camera.publish(image_message(picture(1), 1))
    ledger = running.settled(1)
    assert (ledger["inferred"], ledger["failed"]) == (1, 0) and not seen


def test_a_gate_whose_source_goes_idle_listens_to_the_camera(start, robot, tmp_path):
    running = start([SourceNode, *CHAIN], {"source": {"uri": str(tmp_path / "none.avi")}})
    assert not running["gate"].input.topic

    def idle() -> bool:
        running["source"].trigger_deactivate()
        running["source"].trigger_cleanup()
        # At once, as its timer may do it: rclpy still holds on to the source's publisher.
        running["gate"].publish_status()
        return True

    assert running.in_executor(idle)
    camera = robot.publisher(Image, "image_raw")
    camera.publish(image_message(picture(1), 1))
    assert running.settled(1)["inferred"] == 1


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Silence is reported after 2 s here."""
    monkeypatch.setattr(stage_stats, "RECENT_S", 2.0)
