"""The gate with zones: what happens outside of them wakes no detector, and nothing else changes."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from motion_cases import luma, picture, pose

from edge_vision.core.frame import Frame
from edge_vision.core.geometry.zones import NO_ZONES, Zones
from edge_vision.gate.frame_gate import FrameGate, GateConfig, GateDecision
from edge_vision.gate.image_evidence import ImageEvidence

AT = pose(500, 420)
LEFT = Zones.parse(["exclude left 0,0 0.5,0 0.5,1 0,1"])
RIGHT = Zones.parse(["include right 0.5,0 1,0 1,1 0.5,1"])
HEARTBEAT = GateConfig(audit_rate=0.0, max_blind_ms=700.0)
PERIOD_NS = 33_333_333


def walk(step: int, left_px: int) -> tuple[int, int, int, int]:
    """An object that moves by 4 pixels a frame within 200 pixels."""
    return left_px + 4 * step % 200, 120, 60, 110


def played(zones: Zones, images: list[np.ndarray]) -> list[GateDecision]:
    gate = FrameGate(HEARTBEAT, seed=0)
    gate.zones = zones
    stamps = [10**9 + number * PERIOD_NS for number in range(len(images))]
    return [gate.decide(Frame(image, ns, "cam"), ns) for image, ns in zip(images, stamps, strict=True)]


def reasons(zones: Zones, images: list[np.ndarray]) -> list[str]:
    return [decision.reason for decision in played(zones, images)]


@cache
def still() -> list[np.ndarray]:
    return [picture(AT, number) for number in range(70)]


@cache
def in_left() -> list[np.ndarray]:
    return [picture(AT, number, box=walk(number, 30)) for number in range(70)]


@cache
def in_right() -> list[np.ndarray]:
    return [picture(AT, number, box=walk(number, 370)) for number in range(70)]


@cache
def in_both() -> list[np.ndarray]:
    return [np.hstack([a[:, :320], b[:, 320:]]) for a, b in zip(in_left(), in_right(), strict=True)]


@pytest.mark.parametrize("zones", [LEFT, RIGHT], ids=["exclude", "include"])
def test_motion_outside_the_zones_leaves_the_heartbeat_alone(zones):
    heartbeat = reasons(NO_ZONES, still())
    assert set(heartbeat) == {"first", "still", "refresh"}
    assert reasons(zones, in_left()) == heartbeat
    assert "interval" in reasons(NO_ZONES, in_left()), "without zones it wakes the detector"


@pytest.mark.parametrize("zones", [LEFT, RIGHT], ids=["exclude", "include"])
def test_motion_inside_passes_as_without_zones_and_its_regions_lie_inside(zones):
    decisions = played(zones, in_both())
    assert [one.reason for one in decisions] == reasons(NO_ZONES, in_right())
    regions = np.concatenate([one.regions for one in decisions])
    assert len(regions) > 10 and regions[:, 0].min() > 300


def test_a_zone_without_effect_changes_no_decision():
    for zones in (Zones.parse(["include all 0,0 1,0 1,1 0,1"]), Zones.parse([])):
        for plain, zoned in zip(played(NO_ZONES, in_both()), played(zones, in_both()), strict=True):
            assert (zoned.passed, zoned.reason) == (plain.passed, plain.reason)
            assert np.array_equal(zoned.regions, plain.regions)
            assert np.array_equal(zoned.camera_motion, plain.camera_motion)


def test_a_cut_of_the_whole_scene_still_counts():
    images = [*still()[:10], *(picture(pose(820, 660), number) for number in range(3))]
    assert reasons(LEFT, images)[10] == "cut"


def test_a_cut_within_an_excluded_zone_is_none():
    """A screen that changes its picture."""
    other = picture(pose(820, 660))
    images = [*still()[:10], *(np.hstack([other[:, :310], image[:, 310:]]) for image in still()[10:20])]
    assert "cut" in reasons(NO_ZONES, images)
    assert reasons(LEFT, images) == reasons(NO_ZONES, still()[:20])


def test_an_object_that_fills_a_small_zone_is_no_cut():
    zones = Zones.parse(["include door 0.4,0.4 0.45,0.4 0.45,0.6 0.4,0.6"])
    images = [*still()[:10], *(picture(AT, number, box=(240, 120, 60, 110)) for number in range(5))]
    found = reasons(zones, images)
    assert "cut" not in found and found[10] == "interval"


def test_a_large_motion_in_an_excluded_zone_is_no_motion_of_the_camera():
    train = [picture(pose(330 + 6 * number, 420), number) for number in range(10)]
    images = [np.hstack([a[:, :310], b[:, 310:]]) for a, b in zip(train, still()[:10], strict=True)]
    for decision in played(LEFT, images)[1:]:
        assert decision.camera_motion is not None
        assert decision.camera_motion == pytest.approx(np.eye(3))


def test_zones_may_change_at_any_time():
    gate = FrameGate(HEARTBEAT)
    found = []
    for number, image in enumerate(in_left()[:30]):
        gate.zones = LEFT if number < 15 else NO_ZONES
        found.append(gate.decide(Frame(image, 10**9 + number * PERIOD_NS, "cam"), number * PERIOD_NS).reason)
        assert gate.status()["gate.watched_share"] == pytest.approx(0.5 if number < 15 else 1.0, abs=0.01)
    assert "interval" not in found[:15] and "interval" in found[15:]


def test_where_everything_is_excluded_nothing_changes():
    zones = Zones.parse(["exclude all 0,0 1,0 1,1 0,1"])
    assert reasons(zones, in_both()) == reasons(NO_ZONES, still())


def test_the_mask_is_made_once_per_size(monkeypatch):
    made = []
    monkeypatch.setattr(
        Zones, "mask", lambda self, shape: made.append(shape) or np.full(shape, 255, np.uint8)
    )
    evidence = ImageEvidence()
    small = luma(still()[0])
    for image in (small, small, small[:90, :160], small[:90, :160]):
        evidence.watch(LEFT)
        evidence.observe(image)
    assert made == [(180, 320), (90, 160), (90, 160), (90, 160)], "two sizes each"
    evidence.watch(NO_ZONES)
    evidence.observe(small)
    assert len(made) == 4
