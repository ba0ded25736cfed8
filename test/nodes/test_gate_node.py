"""The gate as a node: its parameters act at once, it reports what it sees, and it fails open."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from ros_cases import (
    ALL,
    CHAIN,
    ONLY_CHANGES,
    RELIABLE,
    DiagnosticArray,
    GateNode,
    Image,
    image_message,
    picture,
    stamp_of,
)
from scene_cases import STEP_NS, StreetScene
from vision_msgs.msg import BoundingBox2DArray

from edge_vision.core.detections import Detections
from edge_vision.gate.frame_gate import GateConfig
from edge_vision.nodes.interface.frame_event_messages import frame_event_from_message


class GateScene(StreetScene):
    """The street before a gate alone."""

    def show(self, image: np.ndarray | None = None, step_ns: int = STEP_NS) -> str:
        """Publish one image and wait for its end; gives the gate's reason."""
        self.publish(image, step_ns)
        self.settled()
        return self.running["gate"]._last_reason

    def with_thing(self, size_px: int = 80, at_px: int = 100, contrast: int = 120) -> np.ndarray:
        image = self.street.astype(int)
        image[at_px : at_px + size_px, at_px : at_px + size_px] += contrast
        return (image % 256).astype(np.uint8)


@pytest.fixture
def scene(start, robot):
    return GateScene(start([GateNode], {"gate": ONLY_CHANGES}), robot)


def other_value(param):
    """A legal value that is not the default."""
    if isinstance(param.default, bool):
        return not param.default
    low, high = param.range.low, param.range.high
    low, high = (low, high) if param.default != high else (high, low)
    value = low + (high - low) * 0.37
    return round(value) if isinstance(param.default, int) else value


def test_every_setting_is_a_parameter_that_acts_at_once(start, robot):
    """On the settings of the gate that runs, without a new start. What each does there, its own tests say."""
    running = start([GateNode], {"gate": {}})
    gate, expected = running["gate"]._gate, GateConfig()
    for field in fields(GateConfig):
        param = GateNode.spec.param(field.name)
        assert param.applies == "live" and param.default == getattr(GateConfig(), field.name)
        value = other_value(param)
        assert value != param.default and robot.set("gate", **{field.name: value}).successful
        expected = replace(expected, **{field.name: value})
        assert running["gate"]._gate is gate and gate.config == expected
        assert robot.get("gate", field.name) == value


def test_values_beyond_the_range_are_refused_whole(start, robot):
    running = start([GateNode], {"gate": {}})
    numbers = [param for param in GateNode.spec.params if param.range]
    assert len(numbers) >= 12
    for param in numbers:
        for bad in (param.range.low - 1, param.range.high + 1):
            bad = bad if isinstance(param.default, int) else float(bad)
            result = robot.set("gate", **{param.name: bad, "enabled": False})
            assert not result.successful and param.name in result.reason
    assert running["gate"]._gate.config == GateConfig() and robot.get("gate", "enabled") is True


def test_settings_act_on_the_next_frame(scene, robot):
    """One after the other, each seen in what the gate does."""
    assert [scene.show() for _ in range(3)] == ["first", "still", "still"]
    thing = scene.with_thing()
    assert robot.set("gate", max_delay_ms=60000.0, min_fidelity=0.0).successful
    assert scene.show(thing) == "predicted"
    assert robot.set("gate", max_delay_ms=1.0).successful
    assert scene.show(thing) == "interval"
    assert robot.set("gate", enabled=False).successful
    assert [scene.show() for _ in range(2)] == ["disabled", "disabled"]
    assert robot.set("gate", enabled=True).successful
    assert [scene.show() for _ in range(2)] == ["first", "still"]
    assert robot.set("gate", max_rate_hz=0.01).successful
    assert scene.show(thing) == "rate_limit"
    assert robot.set("gate", max_rate_hz=0.0).successful
    assert [scene.show(thing) for _ in range(3)] == ["interval", "still", "still"]
    assert robot.set("gate", audit_rate=1.0, audit_max_hz=1000.0).successful
    assert [scene.show(thing) for _ in range(3)] == ["audit"] * 3
    assert robot.set("gate", audit_rate=0.0, max_blind_ms=1.0).successful
    assert scene.show(thing) == "refresh"


def test_the_ledger_and_the_gates_counters_agree(scene, robot):
    for number in range(12):
        scene.show(scene.with_thing() if number in (5, 6) else None)
    ledger = scene.running.ledger
    _, values = robot.status("gate", lambda status, values: values["ledger.received"] == "12")
    counted = {key[12:]: int(n) for key, n in values.items() if key.startswith("gate.reason.")}
    assert sum(counted.values()) == 12
    assert counted["first"] == 1 and counted["interval"] >= 1
    skipped = {reason: n for reason, n in counted.items() if f"gated.{reason}" in ledger}
    assert sum(skipped.values()) == ledger["gated"]
    assert all(ledger[f"gated.{reason}"] == n for reason, n in skipped.items())
    assert ledger["handed_on"] == 12 - ledger["gated"] and values["ledger.balanced"] == "True"


STATUS = {
    "gate.camera",
    "gate.reason.first",
    "audit.audited",
    "audit.missed",
    "audit.miss_rate",
    "audit.miss_rate_low",
    "audit.miss_rate_high",
    "audit.open",
    "blind_ms",
    "max_blind_ms",
    "last_reason",
    "enabled",
}


def test_the_status_has_the_gates_values_and_diagnostics_forward_them(start, robot):
    running = start(ALL)
    heard = robot.listen(DiagnosticArray, "/diagnostics")
    camera = robot.publisher(Image, "image_raw")
    _, values = robot.status("gate")
    assert values["blind_ms"] == "unavailable" and values["audit.miss_rate"] == "unavailable"
    camera.publish(image_message(picture(1), 10**9))
    running.settled(1)
    _, values = robot.status("gate", lambda status, values: values["last_reason"] == "first")
    assert set(values) >= STATUS and float(values["blind_ms"]) >= 0

    def gate_entry():
        entries = [status for message in heard for status in message.status if status.name == "gate"]
        found = [{pair.key: pair.value for pair in entry.values} for entry in entries]
        return next((values for values in found if values["last_reason"] == "first"), None)

    assert set(robot.wait(gate_entry, "the gate in /diagnostics")) >= STATUS


# Regions.


def regions_of(message: BoundingBox2DArray) -> list[tuple[float, float, float, float]]:
    return [
        (
            box.center.position.x - box.size_x / 2,
            box.center.position.y - box.size_y / 2,
            box.center.position.x + box.size_x / 2,
            box.center.position.y + box.size_y / 2,
        )
        for box in message.boxes
    ]


def test_regions_are_published_per_analysed_frame_in_source_pixels(scene, robot):
    frame_events = robot.listen(DiagnosticArray, "gate_events")
    heard = robot.listen(BoundingBox2DArray, "gate/regions", RELIABLE)
    gate = scene.running["gate"]
    robot.wait(
        lambda: gate._regions.subscription_count and gate.output.events.subscription_count,
        "the gate to know us",
    )
    reasons = [scene.show() for _ in range(3)] + [scene.show(scene.with_thing())]
    assert reasons == ["first", "still", "still", "interval"]
    robot.wait(lambda: len(heard) == 4 and len(frame_events) == 4, "the regions")
    assert [stamp_of(one) for one in heard] == [10**9 + 7 + STEP_NS * n for n in (1, 2, 3, 4)]
    assert {one.header.frame_id for one in heard} == {"cam"}
    assert [len(one.boxes) for one in heard[:3]] == [0, 0, 0]
    (found,) = regions_of(heard[3])
    # Around the thing from (100, 100) to (180, 180), and not much more.
    assert (
        60 <= found[0] <= 100 and 60 <= found[1] <= 100 and 180 <= found[2] <= 220 and 180 <= found[3] <= 220
    )
    assert found == pytest.approx(frame_event_from_message(frame_events[3]).regions[0], abs=1e-3)


def test_regions_are_not_built_without_a_subscriber(scene, robot, monkeypatch):
    import edge_vision.nodes.gate_node as gate

    def fail(regions, frame):
        raise AssertionError("no subscriber")

    monkeypatch.setattr(gate, "regions_message", fail)
    assert scene.show() == "first"
    assert scene.show(scene.with_thing()) == "interval"
    assert scene.running.ledger["failed"] == 0


# The camera's motion.


def test_frame_events_carry_the_cameras_motion(start, robot):
    """A pan by whole pixels: the nine numbers say where the street went, through gate and cascade."""
    running = start(CHAIN, {"gate": ONLY_CHANGES}, separate=True)
    robot.wait(lambda: running["gate"].output.images.subscription_count, "the gate to know the cascade")
    robot.wait(
        lambda: running["cascade"].output.images.subscription_count, "the cascade to know the detector"
    )
    robot.wait(lambda: running["gate"].output.events.subscription_count, "the cascade to subscribe")
    frame_events = {name: robot.listen(DiagnosticArray, f"{name}_events") for name in ("gate", "cascade")}
    robot.wait(lambda: running["gate"].output.events.subscription_count >= 2, "the gate to know us")
    robot.wait(lambda: running["cascade"].output.events.subscription_count >= 2, "the cascade to know us")
    scene = GateScene(running, robot)
    full, shift_px = scene.street, 8
    for number in range(6):
        left = number * shift_px
        scene.show(np.ascontiguousarray(full[:, left : left + 640]))
    robot.wait(lambda: all(len(heard) == 6 for heard in frame_events.values()), "the frame events")
    for heard in frame_events.values():
        found = [frame_event_from_message(one).camera_motion for one in heard]
        assert found[0] is None, "nothing to compare the first with"
        known = [motion for motion in found[1:] if motion is not None]
        assert len(known) >= 3
        for motion in known:
            at = motion @ [320.0, 288.0, 1.0]
            assert at[:2] / at[2] == pytest.approx([320.0 - shift_px, 288.0], abs=1.0)


# It fails open.


def test_a_gate_that_raises_lets_pass_and_is_itself_again(scene, robot, monkeypatch):
    gate = scene.running["gate"]._gate
    assert [scene.show() for _ in range(2)] == ["first", "still"]
    decide = gate.decide

    def fail(*args):
        raise RuntimeError("no decision today")

    monkeypatch.setattr(gate, "decide", fail)
    assert [scene.show() for _ in range(2)] == ["gate_error", "gate_error"]
    monkeypatch.setattr(gate, "decide", decide)
    assert [scene.show() for _ in range(2)] == ["gate_error", "still"], "the frame after sees nothing old"
    ledger = scene.running.ledger
    assert (ledger["handed_on"], ledger["failed"]) == (4, 0)


def test_results_that_are_wrong_do_not_shut_the_gate(scene, robot):
    """Boxes of no number from a model gone mad: the gate may fail over them, never the frame."""
    scene.show()
    nonsense = Detections(np.full((2, 4), np.nan, np.float32), np.ones(2, np.float32), np.zeros(2, np.int32))
    scene.running["gate"]._on_found(scene.last_ns, nonsense, None)
    for _ in range(4):
        scene.show()
    assert scene.running.ledger["failed"] == 0 and scene.running.settled(5)["received"] == 5


def test_misses_open_the_gate_with_a_warning(scene, robot):
    """Each skipped frame is audited; the detector, played by the test, finds unknown objects."""
    assert [scene.show() for _ in range(2)] == ["first", "still"]
    assert robot.set("gate", audit_rate=1.0, audit_max_hz=1000.0, max_miss_rate=0.3).successful
    gate, reasons = scene.running["gate"], []
    for number in range(80):
        reasons.append(scene.show())
        if reasons[-1] == "audit_open":
            break
        # An object of the frame before, which confirms it, and a new one.
        shown = [(10.0 + 60.0 * (at % 8), 40.0 * (at // 8)) for at in (number - 1, number)]
        box = np.array([[left, top, left + 30, top + 30] for left, top in shown], np.float32)
        gate._on_found(scene.last_ns, Detections(box, np.ones(2, np.float32), np.zeros(2, np.int32)), None)
    assert reasons.count("audit") >= 4 and reasons[-1] == "audit_open", reasons
    assert scene.show() == "audit_open"
    status, values = robot.status("gate", lambda status, values: status.level == b"\x01")
    assert "the audit opened the gate" in status.message and "max_miss_rate is 30%" in status.message
    assert "luma_width_px" in status.message and values["audit.open"] == "True"
    assert int(values["audit.missed"]) >= 4
    assert float(values["audit.miss_rate_low"]) > 0.3
