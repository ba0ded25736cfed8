"""The header of an image reaches its detections bit-exact, and only inferred frames have a message."""

from __future__ import annotations

import pytest
from model_cases import DETECTOR, bundle_or_skip, video_frame
from ros_cases import (
    ONLY_CHANGES,
    SENSOR,
    CompressedImage,
    Image,
    detections_of,
    image_message,
    jpeg_message,
    picture,
    stamp_of,
)

from edge_vision.backends import open_session
from edge_vision.detect.detector import Detector
from edge_vision.nodes.interface.detection_messages import detections_from_message

ODD = [
    (1, "camera"),
    (1_000_000_001, ""),
    (1_700_000_000_123_456_789, "front/left camera_optical_frame"),
    (1_700_000_000_123_456_790, "kamera ä 摄像头"),
    (1_700_000_001_999_999_999, "/tf2_would_refuse"),
    (2_147_483_647_999_999_999, "x" * 300),
]


def test_headers_are_sacred_and_an_empty_answer_is_an_answer(start, robot):
    running = start()
    answers = detections_of(robot)
    camera = robot.publisher(Image, "image_raw")
    for number, (stamp_ns, frame_id) in enumerate(ODD, 1):
        camera.publish(image_message(picture(number), stamp_ns, frame_id))
        robot.wait_for(answers, number, "answers")
    assert [(stamp_of(answer), answer.header.frame_id) for answer in answers] == ODD
    assert all(len(answer.detections) == 0 for answer in answers), "noise holds no objects"
    assert running.settled(len(ODD))["inferred"] == len(ODD)


@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_the_boxes_are_those_of_the_core_under_the_images_header(start, robot, transport):
    frame = video_frame("vtest.avi", 200)
    start(overrides={"gate": {"image_transport": transport}})
    answers = detections_of(robot)
    if transport == "raw":
        camera = robot.publisher(Image, "image_raw")
        camera.publish(image_message(frame.image, 123_456_789_012_345_678, "cam"))
    else:
        camera = robot.publisher(CompressedImage, "image_raw/compressed")
        camera.publish(jpeg_message(frame.image, 123_456_789_012_345_678, "cam"))
    answer = robot.wait(lambda: answers, "an answer")[0]
    assert len(answer.detections) >= 5
    for one in answer.detections:
        assert one.header == answer.header and one.id and len(one.results) == 1
        assert one.results[0].hypothesis.class_id in map(str, range(80)), "classes, as numbers"
        assert one.bbox.center.theta == 0.0
    assert (stamp_of(answer), answer.header.frame_id) == (123_456_789_012_345_678, "cam")
    if transport == "raw":
        bundle = bundle_or_skip(DETECTOR)
        session, _ = open_session(bundle, "onnxruntime")
        expected = Detector.from_bundle(bundle, session).detect(frame).detections
        session.close()
        found = detections_from_message(answer)
        assert found.xyxy_px == pytest.approx(expected.xyxy_px, abs=1e-3)
        assert found.scores == pytest.approx(expected.scores, abs=1e-5)
        assert found.class_ids.tolist() == expected.class_ids.tolist()


def test_a_skipped_frame_is_not_answered(start, robot):
    running = start(overrides={"gate": ONLY_CHANGES})
    answers = detections_of(robot)
    camera = robot.publisher(Image, "image_raw")
    for number in range(5):
        camera.publish(image_message(picture(1), 10**9 + number))
        running.settled(number + 1)
    robot.turns(0.2)
    assert [stamp_of(answer) for answer in answers] == [10**9]
    assert (running.ledger["gated.still"], running.ledger["inferred"]) == (4, 1)


def test_images_between_the_stages_are_unchanged_and_only_published_on_request(start, robot):
    running = start()
    camera = robot.publisher(Image, "image_raw")
    first, second = image_message(picture(1), 5, "a"), image_message(picture(2), 6, "b")
    camera.publish(first)
    running.settled(1)
    gated = robot.listen(Image, "gate/image", SENSOR)
    accepted = robot.listen(Image, "image_accepted", SENSOR)
    robot.wait(
        lambda: all(running[n].output.images.subscription_count for n in ("gate", "cascade")),
        "the discovery",
    )
    camera.publish(second)
    robot.wait(lambda: gated and accepted, "the images between")
    assert gated == [second] and accepted == [second]
