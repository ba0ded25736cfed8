"""What people look at: debug images and annotations of every frame, inferred or predicted."""

from __future__ import annotations

import importlib

import cv2
import numpy as np
import pytest
from ros_cases import stamp_of
from scene_cases import WAYS, TrackedScene, boxes_by_id
from sensor_msgs.msg import CompressedImage

COMPRESSED = "detector/debug_image/compressed"


def shown(start, robot, kind: type, topic: str, separate: bool = False) -> tuple[TrackedScene, list]:
    """A still street, of which the first frame of three is inferred, and what was published on topic."""
    scene = TrackedScene(start, robot, separate)
    messages = robot.listen(kind, topic)
    overlay = scene.running["detector"].overlay
    publisher = overlay.compressed if topic == COMPRESSED else overlay._annotations
    robot.wait(lambda: publisher.subscription_count, "the detector to know us")
    for _ in range(3):
        scene.show()
    scene.heard(1, 2)
    return scene, messages


def test_the_debug_image_shows_inferred_boxes_solid_and_predicted_ones_dashed(start, robot):
    scene, messages = shown(start, robot, CompressedImage, COMPRESSED)
    robot.wait_for(messages, 3, "an image of every frame")
    assert [one.header for one in messages] == [one.header for one in scene.tracks]
    assert {one.format for one in messages} == {"bgr8; jpeg compressed bgr8"}
    solid, *dashed = [cv2.imdecode(np.frombuffer(one.data, np.uint8), cv2.IMREAD_COLOR) for one in messages]
    assert solid.shape == scene.street.shape
    drawn = [(np.abs(image.astype(int) - scene.street) > 40).any(axis=2).sum() for image in (solid, *dashed)]
    assert all(0.3 * drawn[0] < one < 0.95 * drawn[0] for one in drawn[1:])


def test_in_separate_processes_the_debug_image_shows_inferred_frames(start, robot):
    """The images of skipped frames stay in the gate's process."""
    scene, messages = shown(start, robot, CompressedImage, COMPRESSED, separate=True)
    robot.wait_for(messages, 1, "the inferred frame")
    robot.turns(0.2)
    assert [stamp_of(one) for one in messages] == [stamp_of(one) for one in scene.inferred]


@pytest.mark.parametrize("separate", WAYS.values(), ids=WAYS)
def test_annotations_for_foxglove(start, robot, separate):
    foxglove = pytest.importorskip("foxglove_msgs.msg", reason="foxglove_msgs is not installed")
    scene, messages = shown(start, robot, foxglove.ImageAnnotations, "tracks/annotations", separate)
    robot.wait_for(messages, 3, "annotations of every frame")
    box = foxglove.PointsAnnotation
    for message, tracks, kind in zip(
        messages, scene.tracks, (box.LINE_LOOP, box.LINE_LIST, box.LINE_LIST), strict=True
    ):
        assert all(one.timestamp == tracks.header.stamp for one in (*message.points, *message.texts))
        assert {one.type for one in message.points} == {kind}
        for (name, expected), points, text in zip(
            boxes_by_id(tracks).items(), message.points, message.texts, strict=True
        ):
            assert f" #{name} " in text.text
            at = np.array([(point.x, point.y) for point in points.points])
            assert [*at.min(axis=0), *at.max(axis=0)] == pytest.approx(expected, abs=8)


def test_without_foxglove_msgs_a_message_names_the_package(start, robot, capfd):
    if importlib.util.find_spec("foxglove_msgs"):
        pytest.skip("foxglove_msgs is installed")
    TrackedScene(start, robot)
    assert "foxglove_msgs is not installed" in capfd.readouterr().err
    assert not robot.node.count_publishers("tracks/annotations")
