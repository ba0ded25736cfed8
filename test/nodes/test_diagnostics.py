"""/diagnostics: every node and process, limits that warn, and nodes that fall silent."""

from __future__ import annotations

import os

import pytest
from lifecycle_msgs.msg import Transition
from ros_cases import (
    ALL,
    CHAIN,
    RELIABLE,
    DiagnosticArray,
    DiagnosticsNode,
    GateNode,
    Image,
    image_message,
    picture,
)
from sysfs_cases import plant

from edge_vision.nodes.interface.specs import PARTS
from edge_vision.nodes.interface.status_messages import status_message


def diagnostics(robot, fits):
    """The first /diagnostics that fits, as {name: (status, values)}."""
    heard = robot.listen(DiagnosticArray, "/diagnostics")

    def fitting():
        while heard:
            found = {
                one.name: (one, {pair.key: pair.value for pair in one.values}) for one in heard.pop(0).status
            }
            if fits(found):
                return found
        return None

    return robot.wait(fitting, "fitting diagnostics")


def test_all_nodes_and_the_process(start, robot):
    running = start(ALL)
    camera = robot.publisher(Image, "image_raw")
    for number in range(1, 6):
        # Stamped by the clock, as a camera does: the age is that of the result.
        stamp_ns = running["gate"].get_clock().now().nanoseconds
        camera.publish(image_message(picture(number), stamp_ns))
        running.settled(number)
    everything = lambda found: len(found) == 7 and found["detector"][1]["ledger.inferred"] == "5"  # noqa: E731
    found = diagnostics(robot, everything)
    assert list(found) == [
        "source",
        "gate",
        "cascade",
        "detector",
        f"process {os.getpid()}",
        "system",
        "output",
    ]
    status, values = found["detector"]
    assert status.level == b"\x00" and status.hardware_id == "/"
    for figure in ("age_ms", "inference_ms", "preprocess_ms", "postprocess_ms", "process_ms"):
        p50, p95, p99 = (float(values[f"{figure}.p{p}"]) for p in (50, 95, 99))
        assert 0 < p50 <= p95 <= p99
    assert values["backend.requested.backend"] == "onnxruntime"
    assert values["backend.actual.backend"].startswith("onnxruntime")
    assert values["ledger.balanced"] == "True" and values["ledger.in_flight"] == "0"
    assert "rate_in_hz" in values and "rate_out_hz" in values
    _, process = found[f"process {os.getpid()}"]
    assert float(process["rss_mb"]) > 30 and float(process["cpu_s"]) > 0 and int(process["threads"]) > 1
    assert float(process["cpu_percent"]) >= 0 and int(process["fds"]) > 3
    assert float(found["system"][1]["memory.total_mb"]) > 100


def test_limits_warn(start, robot):
    running = start(ALL, {"diagnostics": {"max_age_ms": 1.0, "max_rss_mb": 1.0}})
    camera = robot.publisher(Image, "image_raw")
    camera.publish(image_message(picture(1), 10**9))
    running.settled(1)
    found = diagnostics(robot, lambda found: found.get("detector", (0, {}))[1].get("ledger.inferred") == "1")
    assert found["detector"][0].level == b"\x01" and "max_age_ms" in found["detector"][0].message
    process, _ = found[f"process {os.getpid()}"]
    assert process.level == b"\x01" and "max_rss_mb" in process.message


def test_the_machine_with_its_limits_and_the_energy_of_a_frame(start, robot, tmp_path, monkeypatch):
    monkeypatch.setattr(DiagnosticsNode, "sensor_root", plant(tmp_path, "jetson_orin_nano"))
    running = start([*CHAIN, DiagnosticsNode], {"gate": {"enabled": False}})
    values = diagnostics(robot, lambda found: is_number(found.get("system"), "energy_j"))["system"][1]
    assert values["power_w"] == "5.120" and values["power_source"] == "VDD_IN"
    assert values["energy_per_inferred_frame_j"].startswith("unavailable: ")
    camera = robot.publisher(Image, "image_raw")
    for number in range(1, 6):
        camera.publish(image_message(picture(number), number))
        running.settled(number)
    found = diagnostics(robot, lambda found: is_number(found.get("system"), "energy_per_inferred_frame_j"))
    assert float(found["system"][1]["energy_per_inferred_frame_j"]) > 0
    assert found["system"][0].level == b"\x00"
    assert robot.set("diagnostics", max_temperature_c=40.0).successful
    found = diagnostics(robot, lambda found: found.get("system") and found["system"][0].level == b"\x01")
    assert "max_temperature_c" in found["system"][0].message


def is_number(entry, key):
    return entry and not entry[1][key].startswith("unavailable")


def test_a_machine_without_sensors_reports_them_as_unavailable(start, robot, tmp_path, monkeypatch):
    monkeypatch.setattr(DiagnosticsNode, "sensor_root", plant(tmp_path, "no_sensors"))
    start([GateNode, DiagnosticsNode])
    status, values = diagnostics(robot, lambda found: is_number(found.get("system"), "memory.percent"))[
        "system"
    ]
    assert status.level == b"\x00"
    for key in ("power_w", "energy_j", "temperature_c.max", "throttling", "gpu"):
        assert values[key].startswith("unavailable: no ")


def test_a_missing_node_is_stale(start, robot):
    start(
        [GateNode, DiagnosticsNode], {"diagnostics": {"watched_nodes": ["gate", "ghost"], "stale_ms": 1100.0}}
    )
    # A loaded machine may keep the gate's report for longer than that, for once.
    found = diagnostics(
        robot, lambda found: {"gate", "ghost"} <= set(found) and found["gate"][0].level != b"\x03"
    )
    assert found["ghost"][0].level == b"\x03" and "is the node running" in found["ghost"][0].message


@pytest.mark.parametrize("transition,word", [(Transition.TRANSITION_DEACTIVATE, "inactive")])
def test_an_inactive_node_is_a_warning(start, robot, transition, word):
    start([GateNode, DiagnosticsNode], {"diagnostics": {"watched_nodes": ["gate"]}})
    assert robot.change_state("gate", transition)
    found = diagnostics(robot, lambda found: found.get("gate") and found["gate"][1]["state"] == word)
    assert found["gate"][0].level == b"\x01" and word in found["gate"][0].message


def test_a_recorder_and_a_collector_report_if_they_run_and_leave_when_they_stop(start, robot):
    start([GateNode, DiagnosticsNode], {"diagnostics": {"watched_nodes": ["gate"], "stale_ms": 1500.0}})
    both = [robot.publisher(DiagnosticArray, f"{name}/status", RELIABLE) for name in PARTS]

    def report(level, text):
        for name, publisher in zip(PARTS, both, strict=True):
            publisher.publish(DiagnosticArray(status=[status_message(name, "/", level, text, {})]))

    def fits(level, text):
        def one(found):
            report(level, text)
            return all(found.get(name) and found[name][0].message == text for name in PARTS)

        return one

    absent = diagnostics(robot, lambda found: "gate" in found)
    assert not set(PARTS) & set(absent)
    for level, text in ((1, "not recording: No space left on device"), (0, "running")):
        found = diagnostics(robot, fits(level, text))
        assert [found[name][0].level for name in PARTS] == [bytes([level])] * 2
    # A node that falls silent is reported as stale; a node that was stopped is not reported.
    diagnostics(robot, lambda found: all(found[name][0].level == b"\x03" for name in PARTS))
    report(0, "stopped")
    diagnostics(robot, lambda found: "gate" in found and not set(PARTS) & set(found))
