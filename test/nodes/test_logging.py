"""What the nodes log: a change of state is one line, as text and as JSON, and no line comes with a frame."""

from __future__ import annotations

import json
import re
import shutil

import cv2
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from model_cases import DETECTOR, bundle_or_skip, clip_or_skip
from rcl_interfaces.msg import Log as RosLog
from ros_cases import (
    ALL,
    CHAIN,
    ONLY_CHANGES,
    DetectorNode,
    DiagnosticArray,
    DiagnosticsNode,
    GateNode,
    Image,
    SourceNode,
    image_message,
    wait_until,
)

STEP_NS = 10**8
UNDO = (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP)
DO = (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)


class Log:
    """What the nodes of this process have logged, in both forms."""

    def __init__(self, path, capfd) -> None:
        self.path, self._capfd, self._text = path, capfd, ""
        self.ros_args = ["-p", f"json_log:={path}"]

    @property
    def text(self) -> list[str]:
        """The lines of rclpy's logger."""
        self._text += self._capfd.readouterr().err
        return [line for line in self._text.splitlines() if re.match(r"\[[A-Z]+\] \[[\d.]+\] \[", line)]

    @property
    def json(self) -> list[dict]:
        return [json.loads(line) for line in self.path.read_text("utf-8").splitlines()]

    def events(self, kind: str, **fields) -> list[dict]:
        return [
            one
            for one in self.json
            if one["event"] == kind and all(one.get(key) == value for key, value in fields.items())
        ]

    def one(self, kind: str, **fields) -> dict:
        """The event, once it is there: exactly one line in each form, stamped, and saying the same."""
        wait_until(lambda: self.events(kind, **fields), f"{kind} {fields}, having {self.json}")
        (event,) = self.events(kind, **fields)
        node = event["node"].strip("/").replace("/", ".")
        (line,) = [text for text in self.text if text.endswith(f"[{node}]: {event['text']}")]
        assert line.startswith(f"[{event['level']}] [")
        stamp_s = float(re.findall(r"\[([\d.]+)\]", line)[0])
        assert abs(event["stamp_ns"] / 1e9 - stamp_s) < 30
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", event["time"])
        return event


@pytest.fixture
def log(tmp_path, capfd):
    return Log(tmp_path / "log.jsonl", capfd)


class Camera:
    """Sends images 100 ms apart by their stamps, one at a time."""

    def __init__(self, running, robot) -> None:
        self._running, self._publisher, self._count = running, robot.publisher(Image, "image_raw"), 0

    def show(self, image, times: int = 1) -> None:
        for _ in range(times):
            self._count += 1
            self._publisher.publish(image_message(image, 10**9 + self._count * STEP_NS))
            self._running.settled(self._count)


def test_life_cycle(start, robot, log):
    running = start([GateNode], ros_args=log.ros_args)
    assert log.one("lifecycle", after="inactive", before="unconfigured")["node"] == "/gate"
    log.one("lifecycle", after="active")
    for transition in UNDO:
        assert robot.change_state("gate", transition)
    log.one("lifecycle", before="active", after="inactive")
    log.one("lifecycle", after="unconfigured")
    running.end()
    log.one("lifecycle", after="stopped")
    assert len(log.json) == len(log.text) == 6


def test_a_transition_that_fails_is_one_line_with_its_reason(start, log):
    start([DetectorNode], {"detector": {"model": "no_such_bundle"}}, log.ros_args, need_model=False)
    event = log.one("lifecycle_failed")
    assert event["level"] == "ERROR" and "python -m edge_vision models import" in event["text"]
    assert log.events("lifecycle") == []


def test_an_audit_that_opens_the_gate(start, robot, log):
    """A gate that is blind to all, in front of people who walk."""
    path = clip_or_skip("vtest.avi")
    blind = {"luma_width_px": 16}
    audit = {"audit_rate": 1.0, "audit_max_hz": 1000.0, "max_miss_rate": 0.02}
    running = start(CHAIN, {"gate": {**ONLY_CHANGES, **blind, **audit}}, log.ros_args)
    camera, clip = Camera(running, robot), cv2.VideoCapture(path)
    for n in range(600):
        image = clip.read()[1]
        if n % 15 == 0:
            camera.show(image)
    event = log.one("audit_opened")
    assert event["level"] == "WARN" and event["audit.miss_rate_low"] > 0.02
    assert "max_miss_rate is 2%" in event["text"]
    assert len(log.events("audit_opened")) - len(log.events("audit_closed")) in (0, 1)


def test_a_loaded_model_and_its_replacement_are_logged_with_their_backend(start, robot, log, tmp_path):
    folder = tmp_path / "bundles" / "other_model"
    shutil.copytree(bundle_or_skip(DETECTOR).folder, folder)
    text = (folder / "bundle.yaml").read_text().replace(f"name: {DETECTOR}", "name: other_model")
    (folder / "bundle.yaml").write_text(text)
    start([DetectorNode], ros_args=log.ros_args)
    event = log.one("model_loaded")
    assert event["model"].startswith(DETECTOR) and event["backend.actual.device"] == "cpu"
    for transition in UNDO:
        assert robot.change_state("detector", transition)
    assert robot.set("detector", model=str(folder)).successful
    for transition in DO:
        assert robot.change_state("detector", transition)
    event = log.one("model_swapped")
    assert event["before"].startswith(DETECTOR) and event["model"].startswith("other_model")
    assert len(log.events("model_loaded")) == 1


def test_a_swap_of_a_running_model_is_logged(start, robot, log, tmp_path):
    folder = tmp_path / "bundles" / "other_model"
    shutil.copytree(bundle_or_skip(DETECTOR).folder, folder)
    text = (folder / "bundle.yaml").read_text().replace(f"name: {DETECTOR}", "name: other_model")
    (folder / "bundle.yaml").write_text(text)
    start([DetectorNode], ros_args=log.ros_args)
    assert robot.set("detector", model=str(folder)).successful
    assert log.one("model_swapped")["model"].startswith("other_model")
    (tmp_path / "incomplete").mkdir()
    assert robot.set("detector", model=str(tmp_path / "incomplete")).successful
    event = log.one("model_refused")
    assert event["level"] == "ERROR" and event["model"].startswith("other_model")


def test_a_section_of_the_parameter_file_without_a_node_is_a_warning(start, log, tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text("/**/gatte:\n  ros__parameters:\n    max_blind_ms: 300.0\n")
    start([GateNode], ros_args=[*log.ros_args, "--params-file", str(file)])
    event = log.one("parameters")
    assert (
        event["level"] == "WARN" and "'/**/gatte' matches no node, did you mean '/**/gate'?" in event["text"]
    )


def test_a_fallback(start, log):
    start([DetectorNode], {"detector": {"backend": "onnxruntime", "device": "qnn"}}, log.ros_args)
    event = log.one("fallback")
    assert event["level"] == "WARN" and "qnn" in event["text"].lower()
    assert event["backend.requested.device"] == "qnn" and event["backend.actual.device"] == "cpu"


def test_a_limit_is_logged_when_it_is_exceeded_and_when_it_is_met_again(start, robot, log):
    start([GateNode, DiagnosticsNode], {"diagnostics": {"max_rss_mb": 1.0}}, log.ros_args)
    event = log.one("limit_exceeded", limit="max_rss_mb")
    assert event["status"].startswith("process ") and "max_rss_mb" in event["text"]
    robot.turns(3.0)
    log.one("limit_exceeded", limit="max_rss_mb")
    assert robot.set("diagnostics", max_rss_mb=100000.0).successful
    log.one("limit_met", limit="max_rss_mb")


def test_a_node_that_falls_silent(start, log):
    settings = {"watched_nodes": ["gate", "ghost"], "stale_ms": 1100.0}
    start([GateNode, DiagnosticsNode], {"diagnostics": settings}, log.ros_args)
    event = log.one("limit_exceeded", status="ghost")
    assert event["limit"] == "stale_ms" and "is the node running" in event["text"]


def test_a_cause(start, robot, log):
    start([*CHAIN, DiagnosticsNode], ros_args=log.ros_args)
    assert log.one("cause", cause="no_publisher")["level"] == "WARN"
    robot.turns(2.0)
    log.one("cause", cause="no_publisher")


def test_foreign_messages_do_not_fill_the_log(start, robot, log):
    """Each is wrong in another way."""
    start([DetectorNode], ros_args=log.ros_args)
    frame_events = robot.publisher(DiagnosticArray, "cascade_events", 100)
    for n in range(2, 40):
        frame_events.publish(DiagnosticArray(status=[DiagnosticStatus()] * n))
    event = log.one("message")
    robot.turns(1.0)
    assert log.one("message") == event and "invalid message on /cascade_events" in event["text"]


def test_lines_logged_before_the_file_was_opened_are_in_it(start, log):
    start([GateNode], {"gate": {"max_blind_ms": -5.0}}, log.ros_args)
    event = log.one("message")
    assert (
        event["level"] == "ERROR" and "parameter refused" in event["text"] and "max_blind_ms" in event["text"]
    )


def test_an_unwritable_log_file_is_reported_and_has_no_other_effect(start, robot, tmp_path, capfd):
    running = start([GateNode], {"gate": {"json_log": str(tmp_path / "no" / "log")}})
    assert running["gate"].state == "active"
    status, _ = robot.status("gate")
    assert status.level == b"\x01" and "json_log: cannot write" in status.message
    assert capfd.readouterr().err.count("json_log: cannot write") == 1


def test_a_camera_address_shows_no_secret_anywhere(start, robot, log):
    """Its password has every character that ends an address for one parser or another."""
    password = "to/p@s?e#c%40\x1b[31m t"
    uri = f"rtsp://user:{password}@127.0.0.1:9/live?token=k3y"
    rosout = robot.listen(RosLog, "/rosout")
    start([SourceNode, DiagnosticsNode], {"source": {"uri": uri, "open_timeout_ms": 300}}, log.ros_args)
    diagnostics = robot.listen(DiagnosticArray, "/diagnostics")
    status, _ = robot.status("source", lambda status, values: values["situation"] == "waiting")
    robot.wait(lambda: any(one.name == "source" for message in diagnostics for one in message.status), "it")
    robot.wait(lambda: any("***" in one.msg for one in rosout), "the error on /rosout")
    wait_until(lambda: any("***" in one["text"] for one in log.json), "the error in the JSON log")
    shown = "\n".join([str(status), *map(str, diagnostics), *map(str, rosout), *log.text, str(log.json)])
    assert "rtsp://***@127.0.0.1:9/live?token=***" in shown
    assert not any(part in shown for part in (password, "to/p", "k3y", "\x1b", "x1b", "user"))
    assert robot.get("source", "uri") == uri, "the parameter keeps its value"


def test_a_healthy_run_logs_its_start_its_modes_and_its_end_alone(start, robot, log):
    """vtest.avi as fast as it can be taken, and again: what is logged does not grow with the frames."""
    path = clip_or_skip("vtest.avi")
    source = {"uri": path, "loop": True, "playback_rate": 0.0}
    # A replay at full speed fills the machine, which is not what these limits are for.
    # Nor is the memory of the tests' own process.
    limits = {
        "max_cpu_percent": 100.0,
        "max_memory_percent": 100.0,
        "max_age_ms": 60000.0,
        "max_rss_mb": 100_000.0,
    }
    running = start(ALL, {"source": source, "diagnostics": limits}, log.ros_args)

    def after(frames):
        robot.wait(lambda: running.ledger["received"] >= frames, f"{frames} frames")
        return list(log.json)

    early, late = after(100), after(500)
    new = late[len(early) :]
    assert new == []
    running.end()
    assert len(log.json) <= 40 and len(log.text) == len(log.json)
    assert {one["level"] for one in log.json} == {"INFO"}, [one for one in log.json if one["level"] != "INFO"]


def test_one_line_names_the_preset_and_the_values_given_instead(start, log):
    start([GateNode], {"gate": {"preset": "economy", "max_delay_ms": 80.0}}, log.ros_args)
    text = "preset economy (given): max_delay_ms 80 (given, preset 150), min_fidelity 0.95, max_blind_ms 2000"
    assert log.one("preset")["text"] == text


def test_a_preset_of_a_file_that_the_command_line_replaces_is_named(start, log):
    start([GateNode], {"gate": {"preset": "recall"}}, ["-p", "preset:=economy", *log.ros_args])
    warnings = [one["text"] for one in log.json if one["level"] == "WARN"]
    assert warnings == ["preset economy of the parameter file has no effect: the command line selects recall"]


def test_a_parameter_that_no_node_has_is_logged_and_is_no_fault(start, robot, log):
    """It may be for a node of another program."""
    start([GateNode], ros_args=["-p", "wheel_radius:=5", "-p", "playback_rate:=1.0", *log.ros_args])
    warnings = [one["text"] for one in log.json if one["level"] == "WARN"]
    assert len(warnings) == 1 and "no parameter 'wheel_radius'" in warnings[0]
    assert "refused" not in robot.status("gate")[0].message


def test_a_line_is_logged_without_a_search_for_its_caller(start, capfd, monkeypatch):
    """rclpy's logger inspects the stack, and with it the files of all modules: a twentieth of the start."""
    running = start([GateNode])
    monkeypatch.setattr("inspect.getframeinfo", None)
    running["gate"].structured_log.log("warning", "a line")
    running["gate"].structured_log.log("debug", "none below the level")
    wait_until(lambda: "[WARN]" in (text := capfd.readouterr().err) and "[gate]: a line" in text, "the line")
    assert "none below" not in capfd.readouterr().err
