"""The doctor beside real pipelines, each in a process of its own: its checks and its exit code."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from model_cases import DETECTOR, bundle_or_skip, clip_or_skip
from ros_cases import LATCHED, SENSOR, DiagnosticArray, Image
from vision_msgs.msg import Detection2DArray

from edge_vision.nodes.interface.status_messages import status_values

ROOT = Path(__file__).parents[2]
# Longer than the default: on a loaded machine, discovery takes longer.
AS_TEXT = ("--running", "--seconds", "8")
AS_JSON = (*AS_TEXT, "--json")
# The load of a shared test machine is not a fault of the pipeline.
CALM = """\
/**/diagnostics:
  ros__parameters:
    max_cpu_percent: 100.0
    max_memory_percent: 100.0
    max_age_ms: 600000.0
"""


def doctors(*commands: Sequence[str]) -> list[subprocess.CompletedProcess[str]]:
    """Run the doctor with each of these arguments, all at the same time, in the domain of the test."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "edge_vision.nodes.cli", "doctor", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for arguments in commands
    ]
    try:
        outputs = [process.communicate(timeout=150) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *output)
        for process, output in zip(processes, outputs, strict=True)
    ]


def read(done: subprocess.CompletedProcess[str]) -> tuple[int, dict[str, dict[str, Any]]]:
    """(exit code, checks by name) of a run with --json."""
    assert "Traceback" not in done.stderr, done.stderr
    document = json.loads(done.stdout)
    assert document["exit_code"] == done.returncode and document["format"] == 1
    assert all(check["part"] == "running" for check in document["checks"])
    return done.returncode, {check["name"]: check for check in document["checks"]}


def checked(*arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    (done,) = doctors((*AS_JSON, *arguments))
    return read(done)


@pytest.fixture
def pipeline(launch, tmp_path):
    """Starts a pipeline with the calm limits: pipeline(name, *arguments)."""
    params = tmp_path / "calm.yaml"
    params.write_text(CALM)

    def begin(name="pipeline", *arguments):
        bundle_or_skip(DETECTOR)
        own = [one for one in arguments if one != "--ros-args"]
        before = own[: own.index("-p")] if "-p" in own else own
        return launch(name, *before, "--ros-args", "--params-file", params, *own[len(before) :])

    return begin


def output_text(robot, cause):
    """The message of `output` on /diagnostics, once this cause is named."""
    messages = robot.listen(DiagnosticArray, "/diagnostics", wait=False)

    def matching():
        outputs = [one for message in messages for one in message.status if one.name.endswith("output")]
        matches = [one.message for one in outputs if status_values(one)["cause"] == cause]
        return matches[-1] if matches else None

    return robot.wait(matching, f"the cause {cause}")


def test_a_healthy_pipeline(pipeline, robot):
    clip = clip_or_skip("vtest.avi")
    pipeline("pipeline", "--source", clip, "--loop")
    output_text(robot, "none")
    robot.status("detector", lambda status, values: values.get("ledger.inferred", "0") != "0")
    as_json, text = doctors(AS_JSON, AS_TEXT)
    code, found = read(as_json)
    assert code == 0, found
    assert {"graph", "source", "gate", "cascade", "detector", "system", "output"} <= set(found)
    assert found["graph"]["values"]["namespaces"] == ["/"]
    assert found["output"]["values"]["cause"] == "none"
    assert float(found["detector"]["values"]["age_ms.p95"]) > 0
    assert text.returncode == 0 and text.stdout.rstrip().endswith("exit code 0")
    for name in found:  # The process's status has its id in its name, and is the same one.
        assert f"OK       {name} " in text.stdout, text.stdout


# One of each level. The others are the same text from /diagnostics: test_causes_node provokes them all.
CAUSES = {
    "no_publisher": (1, []),
    "model_not_loaded": (2, ["-p", "detector:model:=no_such_bundle"]),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_the_cause_is_the_one_on_diagnostics(pipeline, robot, cause):
    code, arguments = CAUSES[cause]
    if cause != "no_publisher":
        robot.node.create_publisher(Image, "image_raw", SENSOR)
    pipeline("pipeline", *arguments)
    sentence = output_text(robot, cause)
    as_json, text = doctors(AS_JSON, AS_TEXT)
    found_code, found = read(as_json)
    assert found["output"]["text"] == sentence and found_code == code, found
    assert text.returncode == code and sentence in text.stdout
    assert "/robot" in text.stdout


def test_a_gate_is_checked_without_a_diagnostics_node(pipeline, robot):
    pipeline("gate_node", "-p", "gate:max_rate_hz:=5.0", "-r", "__ns:=/front")
    robot.status("/front/gate", lambda status, values: values["state"] == "active")
    # Without the diagnostics node, the cause needs some more reports.
    arguments = (*AS_JSON, "--seconds", "12", "--namespace")
    at_front, at_rear = doctors((*arguments, "front"), (*arguments, "/rear"))
    code, found = read(at_front)
    assert code == 1
    assert "ros2 run edge_vision diagnostics_node" in found["front/diagnostics"]["text"]
    assert "/front/image_raw, which has no publisher" in found["front/output"]["text"]
    assert found["front/gate"]["values"]["state"] == "active"
    code, found = read(at_rear)
    assert code == 2 and "but in /front" in found["graph"]["text"]


def test_a_listener_that_gets_nothing_is_output_text(pipeline, robot):
    robot.node.create_subscription(Detection2DArray, "detections", lambda message: None, LATCHED)
    pipeline("detector_node")
    robot.status("detector", lambda status, values: values["state"] == "active")
    _, found = checked()
    assert found["detections"]["level"] == "WARN"
    assert (
        "/robot receives nothing from /detections: it requests durability transient_local"
        in (found["detections"]["text"])
    )


def test_two_pipelines_in_one_namespace(pipeline, robot):
    for _ in range(2):
        pipeline("gate_node")
    robot.wait(
        lambda: [name for name, _ in robot.node.get_node_names_and_namespaces()].count("gate") == 2,
        "two gates",
    )
    (done,) = doctors(AS_TEXT)
    assert done.returncode == 2 and "two nodes are named /gate" in done.stdout


def test_only_other_nodes_run(domain, robot):
    robot.node.create_publisher(Image, "front/image_raw", SENSOR)
    code, found = checked("--seconds", "4")
    assert code == 2 and list(found) == ["graph"]
    text = found["graph"]["text"]
    assert f"domain {domain}, discovery range LOCALHOST" in text
    assert "other nodes: /robot" in text and "image topics: /front/image_raw" in text


def test_nothing_runs_at_all(domain):
    code, found = checked("--seconds", "2")
    assert code == 2 and "no other node either" in found["graph"]["text"]


def test_an_invalid_domain_is_unknown(monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", "300")
    code, found = checked("--seconds", "1")
    assert code == 3 and "0 to 232" in found["graph"]["text"]


def test_the_installation_has_no_errors(domain):
    bundle_or_skip(DETECTOR)
    (done,) = doctors(["--install", "--json"])
    found = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert [check for check in found.values() if check["level"] in ("ERROR", "UNKNOWN")] == []
    assert "rclpy" in found["ros"]["values"] and found["domain"]["values"]["domain_id"] == domain


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it(domain, launch, number):
    doctor = launch("doctor", "--running", "--seconds", "60")

    def observing():
        return "observing" in doctor.output

    from ros_cases import wait_until

    wait_until(observing, "it to observe")
    assert doctor.end(number) == 128 + number
    assert "stopped" in doctor.output
