"""What is reported: classes, sizes and zones, live, in one process and in several."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from model_cases import video_frame
from rclpy.parameter import Parameter
from ros_cases import (
    CHAIN,
    LATCHED,
    DetectorNode,
    GateNode,
    Image,
    detections_of,
    image_message,
    stamp_of,
)
from scene_cases import WAYS, TrackedScene, boxes_by_id, wait_for_stages
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String

from edge_vision.nodes.interface.detection_messages import detections_from_message

LEFT = "exclude left 0,0 0.5,0 0.5,1 0,1"
RIGHT = "exclude right 0.5,0 1,0 1,1 0.5,1"
SIDES = pytest.mark.parametrize("separate", WAYS.values(), ids=WAYS)


def centres(message) -> np.ndarray:
    """The x of the bottom centres of a message's boxes, px."""
    box = detections_from_message(message).xyxy_px
    return (box[:, 0] + box[:, 2]) / 2


def filtered(robot) -> dict[str, int]:
    """The counts in the detector's next status, by reason."""
    _, values = robot.status("detector")
    return {key: int(value) for key, value in values.items() if key.startswith("filtered.")}


@SIDES
def test_zones_act_live_on_detections_tracks_and_gate(start, robot, separate):
    scene = TrackedScene(start, robot, separate)
    middle = scene.street.shape[1] / 2
    scene.show()
    scene.show()
    scene.heard(1, 1)
    every = centres(scene.inferred[0])
    assert (every < middle).any() and (every > middle).any()
    assert not any(filtered(robot).values())

    assert robot.set("detector", zones=[LEFT]).successful
    gate = scene.running["gate"]
    robot.wait(lambda: [zone.name for zone in gate.hub.zones.all] == ["left"], "the gate to know the zone")
    robot.wait(lambda: gate._resets, "the gate to know that more, or less, is reported")
    scene.show()
    scene.heard(2, 1)
    kept = centres(scene.inferred[1])
    assert len(kept) == (every >= middle).sum() and (kept >= middle).all()
    assert filtered(robot)["filtered.zone"] == (every < middle).sum()

    changed = scene.street.copy()
    changed[100:400, 40:300] = 255 - changed[100:400, 40:300]
    ledger = scene.show(changed)
    assert ledger["inferred"] == 2, "what changes in an exclude zone wakes no detector"
    scene.heard(2, 2)
    assert (centres(scene.tracked[-1]) >= middle).all()
    _, values = robot.status("gate")
    assert float(values["gate.watched_share"]) == pytest.approx(0.5, abs=0.02)

    assert robot.set("detector", zones=[]).successful
    robot.wait(lambda: not gate.hub.zones and gate._resets, "the gate to know that there are no zones")
    scene.show()
    scene.heard(3, 2)
    assert len(scene.inferred[2].detections) == len(every)


@SIDES
def test_the_gate_hears_of_reported_objects_alone(start, robot, monkeypatch, separate):
    """An object in an exclude zone is no miss."""
    lines = LEFT.replace(" left ", "\nleft\t").replace(" 0.5,1", "\v0.5,1")
    given = {"zones": [lines], "publish_low_score": True}
    running = start(CHAIN, {"gate": {"enabled": False}, "detector": given}, separate=separate)
    if separate:
        wait_for_stages(robot, running)
    robot.wait(lambda: running["gate"].hub.zones, "the gate to know the zone")
    heard, gate = [], running["gate"]._gate
    inferred = gate.inferred
    monkeypatch.setattr(gate, "inferred", lambda *result: heard.append(result) or inferred(*result))
    street = video_frame("vtest.avi", 200).image
    camera = robot.publisher(Image, "image_raw")

    def low_score_heard() -> bool:
        """Over DDS the first low-score detections may come before the gate has found their publisher."""
        camera.publish(image_message(street, (len(stamps) + 1) * 10**8, "cam"))
        running.settled(len(stamps) + 1)
        stamps.append(0)
        robot.wait(lambda: len(heard) == len(stamps), "the gate to hear")
        return heard[-1][2] is not None

    stamps: list[int] = []
    robot.wait(low_score_heard, "low-score detections")
    for found in heard[-1][1:]:
        assert len(found) and (found.xyxy_px[:, [0, 2]].mean(axis=1) >= street.shape[1] / 2).all()


def test_invalid_zones_of_another_node_are_refused_and_the_old_ones_stay(start, robot):
    running = start((GateNode,))
    publisher = robot.publisher(String, "zones", LATCHED)
    publisher.publish(String(data=LEFT))
    hub = running["gate"].hub
    robot.wait(lambda: [zone.name for zone in hub.zones.all] == ["left"], "the gate to know the zone")
    refused = running["gate"]._refused_messages
    for count, text in enumerate(("include a 0,0 1,0", "x" * 100_000, "\n\n", f"{LEFT}\n{LEFT}"), 1):
        publisher.publish(String(data=text))
        robot.wait(lambda count=count: refused["zones"] == count, f"{text:.20} to be refused")
    robot.status("gate", lambda _, values: values.get("invalid_messages.zones") == "4")
    assert [zone.name for zone in hub.zones.all] == ["left"]
    publisher.publish(String(data=""))
    robot.wait(lambda: not hub.zones, "the gate to forget the zone")


def test_tracks_that_are_predicted_into_an_exclude_zone_are_not_published(start, robot):
    scene = TrackedScene(start, robot)
    scene.show()
    scene.heard(1, 0)
    before = boxes_by_id(scene.inferred[0])
    # The camera turns: all boxes move by 150 px to the right, some into the zone.
    detector = scene.running["detector"]
    scene.running.in_executor(lambda: detector.set_parameters([Parameter("zones", value=[RIGHT])])[0])
    motion = np.array([[1.0, 0.0, 150.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    scene.publish_event(scene.last_ns + 10**8, "gate", "gated", "predicted", motion)
    robot.wait(lambda: len(scene.tracked) == 1, "the predicted boxes")
    middle = scene.street.shape[1] / 2
    expected = {name for name, box in before.items() if (box[0] + box[2]) / 2 + 150 < middle}
    assert 0 < len(expected) < len(before)
    assert set(boxes_by_id(scene.tracked[0])) == expected


def test_wanted_classes_and_min_box_px_act_live_and_keep_ids(start, robot):
    scene = TrackedScene(start, robot)
    scene.show()
    scene.heard(1, 0)
    first = boxes_by_id(scene.inferred[0])
    gate = scene.running["gate"]

    def show_after(**values) -> dict[str, np.ndarray]:
        count = len(scene.inferred)
        assert robot.set("detector", **values).successful
        robot.wait(lambda: gate._resets, "the gate to know")
        scene.show()
        robot.wait(lambda: len(scene.inferred) == count + 1, "an answer")
        return boxes_by_id(scene.inferred[-1])

    sides = {name: min(box[2] - box[0], box[3] - box[1]) for name, box in first.items()}
    limit = int(np.median([*sides.values()])) + 1
    large = show_after(min_box_px=limit)
    assert set(large) == {name for name, side in sides.items() if side >= limit}
    assert set(show_after(min_box_px=0)) == set(first)
    assert show_after(wanted_classes=["zebra"]) == {}
    assert filtered(robot) == {
        "filtered.class": len(first),
        "filtered.size": len(first) - len(large),
        "filtered.zone": 0,
    }
    people = {one.id for one in scene.inferred[0].detections if one.results[0].hypothesis.class_id == "0"}
    assert 0 < len(people) < len(first)
    assert set(show_after(wanted_classes=["Person", "zebra"])) == people


@pytest.mark.parametrize(
    "values,needle",
    [
        ({"zones": ["include a 0,0 1,0"]}, "zones: zone 'a': expected 3 to 64 vertices, got 2"),
        ({"zones": ["include a 0,0 1,1 1,0 0,1"]}, "zones: zone 'a': expected a border"),
        ({"zones": ["include a 0,0 640,0 640,360"]}, "divide pixels"),
        ({"zones": ["include a nan,0 1,0 1,1"]}, "0..1, got nan,0"),
        ({"zones": [LEFT, LEFT]}, "got 'left' twice"),
        ({"zones": LEFT}, "zones: expected string[], got str"),
        ({"wanted_classes": ["preson"]}, "got 'preson' (did you mean 'person'?)"),
        ({"wanted_classes": ["dog", "dog"]}, "got 'dog' more than once"),
        ({"min_box_px": -1}, "min_box_px out of range. Min: 0"),
    ],
)
def test_a_bad_live_value_is_refused_and_the_old_one_stays(start, robot, values, needle):
    running = start((DetectorNode,), {"detector": {"zones": [LEFT], "wanted_classes": ["person"]}})
    result = robot.set("detector", **values)
    assert not result.successful and needle in result.reason
    assert robot.get("detector", "zones") == [LEFT]
    assert robot.get("detector", "wanted_classes") == ["person"]
    assert [zone.name for zone in running.hub.zones.all] == ["left"]


def test_bad_values_at_start_are_reported_and_the_pipeline_runs(start, robot):
    given = {"zones": ["include a 0,0 1,0"], "wanted_classes": ["preson", "person"]}
    scene = TrackedScene(lambda *args, **kwargs: start(args[0], {**args[1], "detector": given}), robot)
    scene.show()
    robot.wait(lambda: scene.inferred, "an answer")
    assert len(scene.inferred[0].detections) >= 5
    status, _ = robot.status("detector", lambda status, values: "wanted_classes" in status.message)
    assert "'preson' (did you mean 'person'?)" in status.message and status.level == b"\x01"
    assert any("expected 3 to 64 vertices" in error for error in scene.running["detector"].params.errors)


def test_each_camera_has_zones_of_its_own(start, robot, tmp_path):
    file = tmp_path / "zones.yaml"
    file.write_text(
        "/front/detector:\n  ros__parameters:\n    zones:\n"
        f"      - {LEFT}\n"
        "/rear/detector:\n  ros__parameters:\n"
        f"    zones: ['{RIGHT}']\n"
    )
    running = start(CHAIN, None, ["--params-file", str(file)], cameras=("front", "rear"))
    street = video_frame("vtest.avi", 200).image
    found = {}
    for camera in ("front", "rear"):
        answers = detections_of(robot, f"/{camera}/detections")
        robot.publisher(Image, f"/{camera}/image_raw").publish(image_message(street, 10**9, "cam"))
        found[camera] = centres(robot.wait_for(answers, 1)[0])
    assert len(found["front"]) and (found["front"] >= street.shape[1] / 2).all()
    assert len(found["rear"]) and (found["rear"] <= street.shape[1] / 2).all()
    running.settled(1, "front")
    running.settled(1, "rear")


def test_the_debug_image_shows_the_zones(start, robot):
    running = start(CHAIN, {"detector": {"zones": [LEFT, "include all 0.1,0.1 0.9,0.1 0.9,0.9 0.1,0.9"]}})
    images = robot.listen(CompressedImage, "detector/debug_image/compressed")
    publisher = running["detector"].overlay.compressed
    robot.wait(lambda: publisher.subscription_count, "the detector to know us")
    black = np.zeros((360, 640, 3), np.uint8)
    robot.publisher(Image, "image_raw").publish(image_message(black, 10**9, "cam"))
    shown = robot.wait_for(images, 1)[0]
    assert stamp_of(shown) == 10**9
    drawn = cv2.imdecode(np.frombuffer(shown.data, np.uint8), cv2.IMREAD_COLOR).astype(int)
    assert drawn[200, 320, 2] > 150 > drawn[200, 320, 1], "the border of the exclude zone is red"
    assert drawn[323, 500, 1] > 120 > drawn[323, 500, 2], "that of the include zone is green"
