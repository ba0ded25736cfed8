"""Known objects are told of only while they look as they did: who leaves unseen by the gate, and light."""

from __future__ import annotations

import numpy as np
import pytest
from model_cases import EFFICIENTNET, bundle_or_skip, street_with_and_without_people
from ros_cases import stamp_of
from scene_cases import STEP_NS, WAYS, TrackedScene, boxes_by_id

from edge_vision.core.frame_event import FrameEvent

# Less than a tenth of the picture is nothing to this gate: who leaves is unseen by it.
BLIND = {"min_changed_area": 0.1}


def overlaps(box: np.ndarray, other: np.ndarray) -> bool:
    low, high = np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])
    return bool((high - low > 0).all())


def without(image: np.ndarray, empty: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The image with the empty street where a box is."""
    left, top, right, bottom = (int(value) for value in box + np.array([-12, -8, 12, 14]))
    out = image.copy()
    out[max(0, top) : bottom, max(0, left) : right] = empty[max(0, top) : bottom, max(0, left) : right]
    return out


def told_of(scene: TrackedScene, place: np.ndarray, since_ns: int, topic: list) -> list[bool]:
    """Whether each message since then has a box there."""
    late = [one for one in topic if stamp_of(one) >= since_ns]
    return [any(overlaps(box, place) for box in boxes_by_id(one).values()) for one in late]


def alone(image: np.ndarray, scene: TrackedScene) -> np.ndarray:
    """Somebody whose box overlaps no other."""
    rows = list(boxes_by_id(scene.inferred[0]).values())
    free = [row for row in rows if sum(overlaps(row, other) for other in rows) == 1 and row[3] < 280]
    people = [row for row in free if row[3] - row[1] > 1.5 * (row[2] - row[0]) and row[0] > 20]
    assert people, rows
    return people[0]


@pytest.mark.parametrize("separate", WAYS.values(), ids=WAYS)
def test_an_object_that_leaves_a_closed_gate_is_no_longer_published(start, robot, separate):
    """Nothing else moves, and what changes is below the gate's least area."""
    full, empty = street_with_and_without_people()
    scene = TrackedScene(start, robot, separate, gate={**BLIND, "appearance_check_ms": 1.0})
    for _ in range(3):
        scene.show(full)
    scene.heard(1, 2)
    place = alone(full, scene)
    left = without(full, empty, place)
    scene.show(left)
    left_ns = scene.last_ns
    for _ in range(4):
        scene.show(left)
    ledger = scene.settled()
    assert ledger["inferred"] == 2, "the detector was asked at once, and once"
    scene.heard(2, ledger["gated"])
    assert told_of(scene, place, left_ns, scene.inferred) == [False]
    assert told_of(scene, place, left_ns, scene.tracked) == [False] * 4
    assert len(boxes_by_id(scene.tracked[-1])) >= 3, "the others stay"
    _, values = robot.status("gate", lambda status, values: values["appearance_check.changed"] == "1")
    assert values["gate.reason.appearance_check"] == "1"


def test_without_the_appearance_check_it_would_be_a_ghost(start, robot):
    """The same with appearance_check_ms 0: what the test before it proves is not a matter of course."""
    full, empty = street_with_and_without_people()
    scene = TrackedScene(start, robot, gate={**BLIND, "appearance_check_ms": 0.0})
    scene.show(full)
    scene.heard(1, 0)
    place = alone(full, scene)
    left = without(full, empty, place)
    for _ in range(3):
        scene.show(left)
    scene.heard(1, 3)
    assert told_of(scene, place, 0, scene.tracked) == [True] * 3


def test_an_object_with_changed_appearance_is_not_published_until_it_is_inferred(start, robot):
    full, _ = street_with_and_without_people()
    scene = TrackedScene(start, robot, gate={"appearance_check_ms": 0.0})
    for _ in range(2):
        scene.show(full)
    scene.heard(1, 1)
    place = alone(full, scene)
    detector, at_ns = scene.running["detector"], scene.last_ns
    seq = scene.running.hub.next_seq()
    # As the gate tells it, of a frame that the detector never gets: it was superseded.
    stays = np.eye(3)
    detector.on_frame_event(
        FrameEvent(at_ns + 1, "cam", "gate", "", "appearance_check", place[None], seq, stays)
    )
    scene.tell(at_ns + 2, "gate", "gated", "still", stays)
    scene.heard(1, 2)
    before, after = boxes_by_id(scene.tracked[0]), boxes_by_id(scene.tracked[1])
    assert len(after) == len(before) - 1
    assert told_of(scene, place, at_ns + 2, scene.tracked) == [False]


@pytest.mark.parametrize("gain", [0.97, 1.03])
def test_a_change_of_light_ends_nothing(start, robot, gain):
    full, _ = street_with_and_without_people()
    scene = TrackedScene(
        start, robot, gate={"appearance_check_ms": 1.0, "light_jump": 255.0, "min_changed_area": 0.9}
    )
    for n in range(8):
        scene.show(np.clip(full * gain**n, 0, 255).astype(np.uint8))
    ledger = scene.settled()
    assert ledger["inferred"] == 1
    scene.heard(1, 7)
    first = boxes_by_id(scene.inferred[0])
    assert all(boxes_by_id(one).keys() == first.keys() for one in scene.tracked)
    _, values = robot.status(
        "gate", lambda status, values: int(values["appearance_check.compared"]) >= 5 * len(first)
    )
    assert values["appearance_check.changed"] == "0"
    _, values = robot.status("detector", lambda status, values: True)
    assert values["published.last_kind"] == "cached"
    assert (values["published.inferred.frames"], values["published.cached.frames"]) == ("1", "7")
    assert values["published.cached.boxes"] == str(7 * len(first))
    assert float(values["published.cached.age_ms.last"]) == pytest.approx(7 * STEP_NS / 1e6)
    assert values["published.tracked.frames"] == "0"


def test_a_parked_car_that_leaves_is_gone_with_the_gates_own_eye(start, robot):
    full, _ = street_with_and_without_people()
    scene = TrackedScene(start, robot, gate={"settle_ms": 1.0})  # Closed again as soon as it may.
    for _ in range(2):
        scene.show(full)
    scene.heard(1, 1)
    van = np.array([641.0, 43.0, 718.0, 97.0])
    assert told_of(scene, van, 0, scene.tracked) == [True], "it is parked there"
    gone = full.copy()
    gone[38:100, 636:722] = full[38:100, 500:586]  # The wall beside it.
    gone_ns = scene.last_ns + 1
    for _ in range(4):
        scene.show(gone)
    ledger = scene.settled()
    scene.heard(ledger["inferred"], ledger["gated"])
    tracked = told_of(scene, van + np.array([8, 8, -8, -8]), gone_ns, scene.tracked)
    assert tracked and not any(tracked)


def test_moving_objects_are_tracked_and_still_ones_cached(start, robot):
    full, _ = street_with_and_without_people()
    scene = TrackedScene(start, robot)
    scene.show(full)
    for n, reason in enumerate(("rate_limit", "still", "saturated", "compensated"), 1):
        scene.tell(scene.last_ns + n * STEP_NS, "gate", "gated", reason, np.eye(3))
    scene.heard(1, 4)
    _, values = robot.status("detector", lambda status, values: values["published.tracked.frames"] == "3")
    assert values["published.cached.frames"] == "1"
    assert float(values["published.tracked.age_ms.max"]) == pytest.approx(4 * STEP_NS / 1e6)
    assert float(values["published.cached.age_ms.max"]) == pytest.approx(2 * STEP_NS / 1e6)


def test_the_cascade_accepts_frames_of_the_appearance_check(start, robot):
    bundle_or_skip(EFFICIENTNET)
    full, empty = street_with_and_without_people()
    cascade = {"model": EFFICIENTNET, "wanted_labels": ["mountain bike"], "score_threshold": 0.99}
    gate = {**BLIND, "appearance_check_ms": 1.0}
    scene = TrackedScene(start, robot, gate=gate, cascade={**cascade, "max_blind_ms": 60000.0})
    for _ in range(2):
        scene.show(full)
    scene.heard(1, 1)
    left = without(full, empty, alone(full, scene))
    scene.show(left)
    assert scene.settled()["inferred"] == 2
    scene.heard(2, 1)
