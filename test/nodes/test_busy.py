"""A street with walkers in every frame, with config/economy.yaml: what is told, and what it rests on."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from model_cases import clip_or_skip
from ros_cases import stamp_of
from scene_cases import WAYS, TrackedScene

from edge_vision.source.capture import Capture

ECONOMY = yaml.safe_load((Path(__file__).parents[2] / "config" / "economy.yaml").read_text())
# Nothing at random, and nothing by the time that the machine takes.
GATE = {
    **ECONOMY["/**/gate"]["ros__parameters"],
    "audit_rate": 0.0,
    "saturated_after_ms": 1.0,
    "max_gap_ms": 60000.0,
}
FRAMES = 90


@pytest.fixture
def walkers() -> list:
    """The first frames of vtest.avi, 10 a second."""
    path = clip_or_skip("vtest.avi")
    capture = Capture(path)
    return [capture.read() for _ in range(FRAMES)]


@pytest.fixture
def busy(start, robot, monkeypatch):
    """Starts the scene with a gate whose clock are the stamps: it rests for as many frames on any machine."""

    def begin(separate: bool) -> TrackedScene:
        scene = TrackedScene(start, robot, separate, gate=GATE)
        gate = scene.running["gate"]._gate
        decide = gate.decide
        monkeypatch.setattr(gate, "decide", lambda frame, _, prior=None: decide(frame, frame.stamp_ns, prior))
        return scene

    return begin


@pytest.mark.parametrize("separate", WAYS.values(), ids=WAYS)
def test_a_busy_street_is_published_on_every_frame_and_inferred_on_half_of_them(
    busy, robot, separate, walkers
):
    """Stamps decide, 100 ms apart; the clip is shown as fast as it is worked off."""
    scene = busy(separate)
    assert robot.set("detector", publish_low_score=True).successful
    if separate:
        low_score = scene.running["detector"].detections.low_score
        robot.wait(
            lambda: low_score.current.subscription_count, "the detector to know that the gate wants low_score"
        )
    for image in walkers:
        ledger = scene.show(image)
    assert (ledger["received"], ledger["gated"]) == (FRAMES, ledger["gated.saturated"])
    assert 0.4 * FRAMES <= ledger["inferred"] <= 0.62 * FRAMES
    scene.heard(ledger["inferred"], ledger["gated"])
    stamps = sorted(map(stamp_of, [*scene.inferred, *scene.tracked]))
    assert stamps == [10**9 + 7 + (number + 1) * 10**8 for number in range(FRAMES)], "each frame once"
    assert min(len(one.detections) for one in [*scene.inferred, *scene.tracked][-30:]) >= 3
    looks = sorted(map(stamp_of, scene.inferred))
    gaps = {(late - early) // 10**8 for early, late in pairwise(looks)}
    assert gaps == {1, 2, 3}, "3 only where the gate was told that nothing is hinted"
    _, values = robot.status("gate", lambda status, values: values["gate.mode"] == "saturated")
    assert values["gate.back_off"] == "True" and float(values["adaptive_interval.frame_f1"]) > 0.85
    assert float(values["adaptive_interval.agreement"]) > 0.6 and int(values["adaptive_interval.frames"]) >= 2


@pytest.mark.parametrize("separate", WAYS.values(), ids=WAYS)
def test_without_hints_no_interval_is_stretched(busy, robot, separate, walkers):
    scene = busy(separate)
    for image in walkers[:60]:
        ledger = scene.show(image)
    robot.wait(lambda: len(scene.inferred) >= ledger["inferred"], "all answers")
    looks = sorted(map(stamp_of, scene.inferred))
    gaps = {(late - early) // 10**8 for early, late in pairwise(looks)}
    assert gaps == {1, 2}
