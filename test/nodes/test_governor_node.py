"""The governor in the real chain: it limits, changes the model, reports, and every frame is accounted for.

A loaded machine makes CPU times arbitrary, so the budgets here are either far below or far above any load.
"""

from __future__ import annotations

import itertools
import json
import shutil
import time
from functools import partial

import numpy as np
import pytest
import yaml
from lifecycle_msgs.msg import Transition
from model_cases import DETECTOR, bundle_or_skip, video_frame
from ros_cases import CHAIN, GateNode, adds_up, wait_until
from scene_cases import StreetScene, wait_for_stages
from sysfs_cases import plant, write

from edge_vision.core.frame import Frame
from edge_vision.gate import governor
from edge_vision.nodes import process_governor

TINY, AMPLE = 0.001, 100.0
# Every frame differs from the last inferred one. By the stamps, max_blind_ms lets one in five pass.
PROMISE = {"max_delay_ms": 100.0, "min_fidelity": 0.97, "max_blind_ms": 500.0, "max_gap_ms": 600000.0}
WARN = b"\x01"


class GovernedScene(StreetScene):
    """A street whose every image differs, published until the gate's status fits."""

    def until(self, node: str, fits):
        """The status and values of a node once they fit, while images arrive."""

        def fitting():
            self.show_another()
            status = self.robot.status(node)
            return status if fits(*status) else None

        return self.robot.wait(fitting, f"a fitting status of {node}")

    def show_another(self) -> None:
        self.publish(np.roll(self.street, 37 * self.count, axis=1))

    def ended(self) -> dict[str, int]:
        """The ledger once all images that arrived have ended: some are lost on the way."""
        ledger = self.running.settled(0)
        assert adds_up(ledger)
        return ledger

    def level(self, level: str):
        return self.until("gate", lambda status, values: values["governor.level"] == level)


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """A governor that decides five times a second, on what it has seen in half a second."""
    for name in ("WINDOW_S", "HOLD_S", "RELAX_S", "CLIMB_S"):
        monkeypatch.setattr(governor, name, 0.5)
    monkeypatch.setattr(process_governor, "SENSOR_PERIOD_S", 0.2)


@pytest.fixture
def scene(start, robot):
    def begin(kinds=CHAIN, separate=False, ros_args=(), **gate):
        running = start(kinds, {"gate": {**PROMISE, **gate}}, ros_args, separate=separate)
        if separate:
            wait_for_stages(robot, running)
        return GovernedScene(running, robot)

    return begin


def test_a_budget_limits_the_gate_and_says_what_it_gives_up(scene, robot, tmp_path):
    log = tmp_path / "log.json"
    street = scene(ros_args=["-p", f"json_log:={log}"], cpu_budget_percent=TINY)
    street.level("limited")
    # The sentence is that of the next report.
    status, values = street.until("gate", lambda status, values: status.level == WARN)
    assert status.message.startswith("cpu_budget_percent 0.001: max_delay_ms 100 is not kept: at most ")
    assert values["governor.budget_percent"] == "0.001" and float(values["governor.cpu_percent"]) > 0.001
    assert float(values["governor.max_inferences_hz"]) < float(values["governor.needed_hz"])
    street.until("gate", lambda status, values: "only one frame in max_blind_ms" in status.message)
    ledger = street.ended()
    assert ledger["gated.budget"] > 0 and ledger["inferred"] > 0
    events = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    steps = [one for one in events if one["event"].startswith("governor_")]
    assert steps[-1]["event"] == "governor_unreachable" and steps[-1]["level"] == "WARN"
    assert [one["governor.level"] for one in steps if one["event"] == "governor_down"][-1] == "limited"
    assert all("budget of 0.0 % (cpu_budget_percent 0.001)" in one["text"] for one in steps[:-1])


def test_it_returns_to_what_wfull_for(scene, robot):
    street = scene(cpu_budget_percent=TINY)
    street.level("limited")
    assert robot.set("gate", cpu_budget_percent=AMPLE).successful
    _, values = street.level("full")
    assert int(values["governor.steps"]) >= 3 and values["governor.max_inferences_hz"] == "unavailable"
    withheld = street.ended()["gated.budget"]
    for _ in range(5):
        street.show_another()
    assert street.ended()["gated.budget"] == withheld


def test_without_a_limit_it_is_off(scene, robot):
    street = scene(cpu_budget_percent=TINY)
    street.level("limited")
    assert robot.set("gate", cpu_budget_percent=0.0).successful
    status, values = street.level("off")
    assert [key for key in values if key.startswith("governor.")] == ["governor.level"]
    assert "cpu_budget_percent" not in status.message
    assert robot.set("gate", cpu_budget_percent=TINY, enabled=False).successful
    street.level("off")
    street.ended()


# The ladder.
@pytest.fixture
def ladder(tmp_path):
    """A ladder whose second rung is a copy of the detector's bundle, called faster."""
    for name in ("bundle", "faster"):
        shutil.copytree(bundle_or_skip(DETECTOR).folder, tmp_path / name)
    entries = [
        {"bundle": "bundle", "relative": 1.0, "backend": "onnxruntime"},
        {"bundle": "faster", "relative": 0.5, "backend": "onnxruntime", "threads": 1},
    ]
    (tmp_path / "ladder.yaml").write_text(yaml.safe_dump(entries), "utf-8")
    return tmp_path / "ladder.yaml"


@pytest.mark.parametrize("separate", [False, True])
def test_a_faster_model_is_loaded_and_the_first_one_again(scene, robot, ladder, separate):
    start_model = str(ladder.parent / "bundle")
    street = scene(separate=separate, ladder=str(ladder))
    assert robot.set("detector", model=start_model).successful
    swapped = lambda status, values: values["swap.loading"] == "False"  # noqa: E731
    street.until("detector", swapped)
    assert robot.set("gate", cpu_budget_percent=TINY).successful
    street.until("gate", lambda status, values: values.get("governor.rung") == "1")
    robot.wait(lambda: robot.get("detector", "model") == str(ladder.parent / "faster"), "the faster model")
    assert robot.get("detector", "threads") == 1
    # There is no third: what max_delay_ms needs is given up, so the second model runs.
    street.level("limited")
    assert robot.set("gate", cpu_budget_percent=0.0).successful
    robot.wait(lambda: robot.get("detector", "model") == start_model, "the first model")
    assert robot.get("detector", "threads") == 0
    _, values = street.until("detector", swapped)
    assert values["swap.error"] == ""
    street.ended()


def test_a_ladder_applies_live(scene, robot, ladder):
    street = scene(cpu_budget_percent=TINY)
    street.level("limited")
    refused = robot.set("gate", ladder="/nowhere/ladder.yaml")
    assert not refused.successful and "ladder: /nowhere/ladder.yaml: expected a ladder.yaml" in refused.reason
    assert robot.set("gate", ladder=str(ladder)).successful
    robot.wait(lambda: robot.get("detector", "model") == str(ladder.parent / "faster"), "the faster model")
    assert robot.set("gate", ladder="").successful
    robot.wait(lambda: robot.get("detector", "model") == DETECTOR, "the first model")
    street.ended()


def test_a_rung_that_the_detector_refuses_is_left_out(scene, robot, ladder):
    rungs = yaml.safe_load(ladder.read_text("utf-8"))
    rungs[1]["backend"] = "no_such_backend"
    ladder.write_text(yaml.safe_dump(rungs), "utf-8")
    street = scene(ladder=str(ladder), cpu_budget_percent=TINY)
    _, values = street.level("limited")
    assert values["governor.rung"] == "0" and robot.get("detector", "model") == DETECTOR


def test_a_ladder_that_cannot_be_read_is_named(start, robot, tmp_path):
    running = start([GateNode], {"gate": {"ladder": str(tmp_path / "ladder.yaml")}})
    assert running["gate"].state == "unconfigured"
    assert "ladder.yaml of the optimizer, got" in running["gate"].failure
    assert not robot.change_state("gate", Transition.TRANSITION_CONFIGURE)


# In another process.
def test_the_budget_covers_a_detector_in_another_process(scene, robot):
    street = scene(separate=True, cpu_budget_percent=TINY)
    street.level("limited")
    shared = street.running["gate"]._governor
    # As much as this process needed, which here stands for both.
    assert 0.0 < shared._detector_cpu_s <= time.process_time()
    assert robot.set("gate", cpu_budget_percent=0.0).successful
    street.level("off")
    street.ended()


# Several cameras.
def test_several_cameras_share_the_budget_by_what_they_need(start, robot):
    running = start(overrides={"gate": {**PROMISE, "cpu_budget_percent": TINY}}, cameras=("front", "rear"))
    street, stamps = video_frame("vtest.avi", 200).image, itertools.count(10**9, 10**8)

    def send(camera: str) -> None:
        hub, stamp_ns = running.hubs[camera], next(stamps)
        image = np.roll(street, stamp_ns // 10**6, axis=1)
        hub.receiver(f"/{camera}/image_raw")(Frame(image, stamp_ns, "cam", "bgr8", hub.next_seq()), None)

    def limited():
        for camera in ("front", "front", "rear"):
            send(camera)
        _, values = robot.status("front/gate")
        return values["governor.level"] == "limited"

    robot.wait(limited, "the limit")
    gates = [running[f"{camera}/gate"] for camera in ("front", "rear")]
    governor_ = gates[0]._governor
    assert gates[1]._governor is governor_ and robot.status("rear/gate")[1]["governor.level"] == "limited"

    def divided() -> list[float]:
        # Read together, between two updates.
        limits = [gate._gate.limiter.limit for gate in gates]
        total = governor_._governor.limit
        ok = all(limits) and sum(one.rate_hz for one in limits) == pytest.approx(total.rate_hz)
        return [one.rate_hz for one in limits] if ok else []

    assert all(rate_hz > 0 for rate_hz in wait_until(divided, "the limits of both"))

    def withheld(camera: str) -> bool:
        send(camera)
        return running.settled(0, camera).get("gated.budget", 0) > 0

    for camera in ("front", "rear"):
        robot.wait(partial(withheld, camera), f"frames of {camera} without an inference")
        assert running.settled(0, camera)["inferred"] > 0
    # One camera goes: the other one is governed on.
    assert robot.change_state("front/gate", Transition.TRANSITION_DEACTIVATE)
    robot.wait(lambda: send("rear") or robot.status("rear/gate")[1]["governor.level"] == "limited", "rear")


# Sensors.
def test_a_temperature_above_its_limit_limits_the_gate(scene, robot, tmp_path, monkeypatch):
    root = plant(tmp_path, "jetson_orin_nano")
    monkeypatch.setattr(process_governor.ProcessGovernor, "sensor_root", str(root))
    hot = next(root.glob("sys/class/thermal/thermal_zone*/temp")).relative_to(root).as_posix()
    street = scene(max_temperature_c=70.0)
    street.level("full")
    write(root, hot, "91000")
    _, values = street.level("limited")
    assert values["governor.cause"] == "max_temperature_c 70, at 91 C"
    assert values["governor.temperature_c"] == "91.000"
    write(root, hot, "45000")
    street.level("full")
    street.ended()


def test_a_limit_without_a_sensor_is_named(scene, robot, tmp_path, monkeypatch):
    monkeypatch.setattr(process_governor.ProcessGovernor, "sensor_root", str(tmp_path))
    street = scene(max_power_w=10.0)
    status, values = street.until("gate", lambda status, values: status.level == WARN)
    assert status.message.startswith("max_power_w has no effect, as power_w is unavailable: no RAPL")
    assert values["governor.level"] == "full" and values["governor.power_w"].startswith("unavailable: no")
