"""The detector on crops of a large picture, in the real chain: what it finds, says and promises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from model_cases import street_with_and_without_people
from ros_cases import stamp_of
from scene_cases import STEP_NS, WAYS, TrackedScene, boxes_by_id

from edge_vision.nodes.interface.detection_messages import detections_from_message

# Where the street is in the large picture.
LEFT, TOP = 600, 300
PEOPLE = np.array([[218, 196, 250, 267], [617, 265, 648, 371], [81, 156, 111, 216], [487, 144, 513, 211]])
CROPS = {"roi_mode": "crops", "max_crops": 4, "full_frame_interval_ms": 60000.0}


def large(street: np.ndarray, left: int = LEFT) -> np.ndarray:
    picture = np.full((1080, 1920, 3), 110, np.uint8)
    picture[TOP : TOP + 576, left : left + 768] = street
    return picture


def seen(message, places: np.ndarray, left: int = LEFT) -> int:
    """How many of these places on the street a box covers by half, IoU."""
    found = detections_from_message(message).xyxy_px
    a, b = (places + np.array([left, TOP, left, TOP]))[:, None], found[None]
    both = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0).prod(axis=2)
    union = (a[..., 2:] - a[..., :2]).prod(axis=2) + (b[..., 2:] - b[..., :2]).prod(axis=2) - both
    return int((both > 0.4 * union).any(axis=1).sum())


def values_of(robot, fits=lambda values: True) -> dict[str, str]:
    return robot.status("detector", lambda status, values: fits(values))[1]


def chain(start, robot, separate=False, gate=(), **detector) -> TrackedScene:
    scene = TrackedScene(start, robot, separate, publish=False, gate=gate)
    assert robot.set("detector", **{**CROPS, **detector}).successful
    return scene


def after(scene: TrackedScene, stamp_ns: int) -> list:
    return [one for one in scene.inferred if stamp_of(one) >= stamp_ns]


def people_come(scene: TrackedScene, frames: int = 4) -> list:
    """An empty street, then people: gives the messages of the frames with people."""
    full, empty = street_with_and_without_people()
    for _ in range(2):
        scene.show(large(empty))
    come_ns = scene.last_ns + 1
    for _ in range(frames):
        scene.show(large(full))
    ledger = scene.settled()
    scene.robot.wait(lambda: len(scene.inferred) >= ledger["inferred"], "all answers")
    return after(scene, come_ns)


@pytest.mark.parametrize("separate", WAYS.values(), ids=WAYS)
def test_on_crops_it_sees_small_people_where_the_whole_frame_shows_none(start, robot, separate):
    scene = chain(start, robot, separate)
    messages = people_come(scene)
    assert messages and max(seen(one, PEOPLE) for one in messages) >= 3
    for one in messages:
        assert one.header.frame_id == "cam"
        assert {box.id for box in one.detections} <= {""}, "ids were not requested"
    values = values_of(robot, lambda values: int(values["roi.frames_crops"]) >= 1)
    assert values["roi.last"] in ("crops", "both")
    assert not robot.node.count_publishers("tracks")


def test_the_whole_frame_is_inferred_by_default(start, robot):
    scene = TrackedScene(start, robot, publish=False)
    messages = people_come(scene)
    assert messages and max(seen(one, PEOPLE) for one in messages) <= 1, "the pair to the test above"
    values = values_of(robot, lambda values: int(values["roi.frames_whole"]) >= 2)
    assert (values["roi.frames_crops"], values["roi.frames_both"]) == ("0", "0")
    assert not scene.running["detector"].tracks.history, "no work for it"


def test_a_known_object_outside_the_regions_stays_in_the_message(start, robot):
    """One came and stands, another comes: a message without the first would say that he has left."""
    scene = chain(start, robot, gate={})
    full, empty = street_with_and_without_people()
    first, second = empty.copy(), empty.copy()
    first[255:380, 600:665] = full[255:380, 600:665]
    second[255:380, 600:665] = full[255:380, 600:665]
    second[185:275, 205:262] = full[185:275, 205:262]
    for image in (empty, empty, first, first, first, first):
        scene.show(large(image))
    from_ns = scene.last_ns + 1
    for _ in range(2):
        scene.show(large(second))
    ledger = scene.settled()
    robot.wait(lambda: len(scene.inferred) >= ledger["inferred"], "all answers")
    late = after(scene, from_ns)
    assert late and all(seen(one, PEOPLE[[1]]) == 1 for one in late)
    assert any(seen(one, PEOPLE[[0]]) == 1 for one in late)
    values = values_of(robot, lambda values: int(values["roi.frames_crops"]) >= 2)
    assert int(values["roi.crops"]) >= 3, "one for each of the two"


def test_a_budget_reduces_the_crops_and_the_ledger_balances(start, robot):
    scene = chain(start, robot, budget_ms=0.5)
    people_come(scene, 6)
    values = values_of(robot, lambda values: values["roi.limit"] == "1" and int(values["roi.halved"]) >= 1)
    assert values["ledger.in_flight"] == "0" and values["ledger.balanced"] == "True"
    assert robot.set("detector", budget_ms=0.0).successful
    values_of(robot, lambda values: values["roi.limit"] == "4")


def test_with_a_moving_camera_the_whole_frame_is_inferred(start, robot):
    scene = chain(start, robot)
    full, _ = street_with_and_without_people()
    scene.show(large(full))
    for n in range(1, 7):
        scene.show(np.roll(large(full), -70 * n, axis=1))
    inferred = scene.settled()["inferred"]
    assert inferred >= 3
    values = values_of(robot, lambda values: int(values["roi.runs"]) >= inferred)
    assert values["roi.frames_crops"] == "0", "each shows parts of the scene that no whole look has seen"


def test_roi_parameters_are_live_and_bad_values_refused(start, robot):
    scene = chain(start, robot)
    people_come(scene)
    values_of(robot, lambda values: int(values["roi.crops"]) >= 1)
    for bad in (
        {"roi_mode": "half"},
        {"max_crops": 0},
        {"budget_ms": -1.0},
        {"full_frame_interval_ms": float("nan")},
    ):
        answer = robot.set("detector", **bad)
        assert not answer.successful and next(iter(bad)) in answer.reason
    assert robot.set("detector", roi_mode="full").successful
    before = scene.running["detector"].roi.status_values()["roi.crops"]
    # Whichever of the two is the gate's scene by now, the other one is new.
    for street in street_with_and_without_people():
        scene.show(large(street))
    scene.settled()
    values = values_of(robot, lambda values: values["roi.last"] == "whole")
    assert int(values["roi.crops"]) == before
    assert not scene.running["detector"].tracks.history, "no tracks are needed any more"


def test_with_ids_too_each_object_keeps_its_own(start, robot):
    scene = chain(start, robot, gate={"max_blind_ms": 1.0}, publish_tracks=True)
    messages = people_come(scene, 5)
    named = [boxes_by_id(one) for one in messages]
    stay = set(named[-2]) & set(named[-1])
    assert len(named) >= 2 and len(stay) >= 2, "who stands keeps the id"
    for name in stay:
        assert named[-1][name] == pytest.approx(named[-2][name], abs=20.0), "the same place, in pixels"


def test_when_tracking_fails_whole_frames_are_inferred(start, robot, monkeypatch):
    scene = chain(start, robot, gate={"max_blind_ms": 1.0})

    def fail(*args):
        raise RuntimeError("no tracks today")

    for name in ("add_detections", "tracks_at", "motion_between"):
        monkeypatch.setattr(scene.running["detector"].tracks.history, name, fail)
    people_come(scene)
    ledger = scene.settled()
    assert ledger["inferred"] >= 3 and ledger["failed"] == 0
    values = values_of(robot, lambda values: values["roi.frames_whole"] == str(ledger["inferred"]))
    assert values["roi.crops"] == "0"


@pytest.mark.parametrize(
    "regions",
    [
        np.array([[np.nan] * 4, [-9e9, 0, 9e9, np.inf], [5000, 5000, 6000, 6000], [7, 7, 7, 7]], np.float32),
        np.random.default_rng(1).uniform(-500, 2500, (500, 4)).astype(np.float32),
    ],
    ids=["not boxes", "500"],
)
def test_bad_regions_cost_no_frame(start, robot, regions, monkeypatch):
    """As from a broken gate, or in a message of another program."""
    scene = chain(start, robot)
    full, _ = street_with_and_without_people()
    scene.show(large(full))
    gate = scene.running["gate"]
    decide = gate._decide
    monkeypatch.setattr(gate, "_decide", lambda frame: replace(decide(frame), passed=True, regions=regions))
    for _ in range(3):
        scene.show(large(full))
    ledger = scene.settled()
    assert (ledger["inferred"], ledger["failed"]) == (4, 0)
    assert scene.last_ns == 10**9 + 7 + 4 * STEP_NS
