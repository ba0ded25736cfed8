"""Ctrl-C at any moment: the process ends with an expected status, no traceback and no orphans."""

from __future__ import annotations

import signal
import time

import pytest
from model_cases import DETECTOR, bundle_or_skip, clip_or_skip
from ros_cases import DiagnosticArray, detections_of, wait_until

from edge_vision.nodes.interface.status_messages import status_values
from edge_vision.nodes.run import OUT_OF_TIME

# The target is two seconds; on a loaded machine the test only checks that the process ends.
END_S = 30.0
# 0: stopped in order. 130, 143: the signal arrived during the imports.
EXPECTED = {signal.SIGINT: (0, 130), signal.SIGTERM: (0, 143)}


@pytest.fixture
def video():
    path = clip_or_skip("vtest.avi")
    bundle_or_skip(DETECTOR)
    return path


STARTS = [(signal.SIGINT, after_s) for after_s in (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.1, 1.5)]
STARTS += [(signal.SIGTERM, after_s) for after_s in (0.2, 0.8)]


@pytest.mark.parametrize("number,after_s", STARTS)
def test_a_signal_during_the_start(launch, video, number, after_s):
    pipeline = launch("pipeline", "--source", video)
    wait_until(pipeline.takes_signals, "Python to have started")
    time.sleep(after_s)
    assert pipeline.end(number, END_S) in EXPECTED[number], pipeline.output
    assert "Traceback" not in pipeline.output and "KeyboardInterrupt" not in pipeline.output, pipeline.output
    assert pipeline.members() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", ["pipeline", "source_node", "gate_node", "cascade_node", "detector_node"])
def test_a_signal_while_it_runs(launch, robot, video, name, number):
    options = ("--source", video, "--loop") if name in ("pipeline", "source_node") else ()
    running = launch(name, *options, "--ros-args", "-p", "playback_rate:=0.0")
    node = {"pipeline": "detector"}.get(name, name.removesuffix("_node"))
    statuses = robot.listen(DiagnosticArray, f"{node}/status")
    # Heard before the signal is sent, so the last status arrives too: the node knows the subscription.
    robot.wait(lambda: statuses and status_values(statuses[-1].status[0])["state"] == "active", "its start")
    if name == "pipeline":
        answers = detections_of(robot)
        robot.wait(lambda: len(answers) > 3, "answers")
    assert running.end(number, END_S) == 0, running.output
    assert running.members() == []
    # A process whose shutdown takes too long exits without a last status, and logs that.
    if name == "pipeline" and OUT_OF_TIME not in running.output:
        robot.wait(lambda: statuses and statuses[-1].status[0].message == "stopped", "its last status")
        values = status_values(statuses[-1].status[0])
        assert values["ledger.balanced"] == "True" and values["ledger.in_flight"] == "0"


def test_two_signals_in_a_row(launch, robot, video):
    pipeline = launch("pipeline", "--source", video, "--loop")
    robot.status("detector", lambda status, values: values["state"] == "active")
    pipeline.process.send_signal(signal.SIGINT)
    time.sleep(0.01)
    # The second one is ignored: `ros2 launch` sends one, too.
    assert pipeline.end(signal.SIGINT, END_S) == 0, pipeline.output


def test_a_signal_while_it_waits_for_a_stream(launch, robot):
    """A connection without a response blocks OpenCV until its timeout."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"http://127.0.0.1:{server.getsockname()[1]}/video"
        source = launch("source_node", "--source", uri, "--ros-args", "-p", "open_timeout_ms:=60000")
        robot.status("source", lambda status, values: values["situation"] == "opening")
        assert source.end(signal.SIGINT, END_S) == 0, source.output


@pytest.mark.parametrize(
    "arguments,needle",
    [
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--ros-args", "--params-file", "/no/such.yaml"], "/no/such.yaml"),
        (["--ros-args", "-p", "broken"], "-p broken"),
        (["--ros-args", "-r", "a b:=c"], "a b:=c"),
    ],
)
def test_wrong_command_lines_are_one_line(launch, arguments, needle):
    gate = launch("gate_node", *arguments)
    assert gate.process.wait(60) not in (0, None)
    assert needle in gate.output and "Traceback" not in gate.output, gate.output


def test_a_wrong_executable_is_an_error(launch):
    wrong = launch("gaet_node")
    assert wrong.process.wait(60) == 2
    assert "gate_node" in wrong.output


def test_help_needs_no_ros_graph(launch):
    gate = launch("pipeline", "--help")
    assert gate.process.wait(60) == 0
    assert "--source" in gate.output and "--ros-args --params-file" in gate.output
