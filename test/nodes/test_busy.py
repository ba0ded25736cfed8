"""A street with walkers in every frame, with config/economy.yaml: what is inferred, and what is published."""

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
    "max_gap_ms": 60000.0,
}
FRAMES = 90


@pytest.fixture
def walkers() -> list:
    """The first frames of vtest.avi, 10 a second."""
    path = clip_or_skip("vtest.avi")
    capture = Capture(path)
    return [capture.read() for _ in range(FRAMES)]


@pytest.mark.parametrize("separate", WAYS.values(), ids=WAYS)
def test_a_busy_street_is_published_on_every_frame_and_inferred_on_about_half_of_them(
    start, robot, separate, walkers
):
    """Stamps decide, 100 ms apart; the clip is shown as fast as it is processed."""
    scene = TrackedScene(start, robot, separate, gate=GATE)
    assert robot.set("detector", publish_low_score=True).successful
    if separate:
        low_score = scene.running["detector"].detections.low_score
        robot.wait(
            lambda: low_score.current.subscription_count, "the detector to know that the gate wants low_score"
        )
    for image in walkers:
        ledger = scene.show(image)
    skipped = ledger["gated.predicted"] + ledger.get("gated.explained", 0)
    assert (ledger["received"], ledger["gated"]) == (FRAMES, skipped)
    assert 0.3 * FRAMES <= ledger["inferred"] <= 0.7 * FRAMES
    scene.heard(ledger["inferred"], ledger["gated"])
    stamps = sorted(map(stamp_of, [*scene.inferred, *scene.tracked]))
    assert stamps == [10**9 + 7 + (number + 1) * 10**8 for number in range(FRAMES)], "each frame once"
    assert min(len(one.detections) for one in [*scene.inferred, *scene.tracked][-30:]) >= 3
    inferred = sorted(map(stamp_of, scene.inferred))
    gaps = {(late - early) // 10**8 for early, late in pairwise(inferred)}
    assert 2 in gaps and gaps <= {1, 2, 3, 4}, (
        "150 ms allow every second frame at 10 Hz, every fourth if explained"
    )
    _, values = robot.status("gate", lambda status, values: float(values["schedule.noise_ceiling"]) < 1.0)
    assert float(values["schedule.noise_ceiling"]) > 0.8
