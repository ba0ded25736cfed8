"""The detector's second model: a class for each detection."""

from __future__ import annotations

import numpy as np
import pytest
from import_cases import run_import
from ros_cases import LATCHED, DetectorNode, Image, detections_of, image_message, stamp_of
from stage_cases import LABELS, color_bundle
from test_shapes import EXPORT, OBJECTS, columns_of, source
from vision_msgs.msg import LabelInfo

from edge_vision.nodes.interface.status_messages import status_values


@pytest.fixture
def model(tmp_path):
    graph = EXPORT.graph(tmp_path / "m.onnx", columns_of((), (), ()), **EXPORT.metadata("detect"))
    assert run_import(graph, "--out", tmp_path / "bundle", "--yes") == 0
    return str(tmp_path / "bundle")


def painted(number: int):
    """The first object blue, the second one green."""
    image = np.zeros((480, 640, 3), np.uint8)
    for (x, y, w, h, _, _), color in zip(OBJECTS, ((255, 0, 0), (0, 255, 0)), strict=False):
        left, top = source(x - w / 2, y - h / 2)
        right, bottom = source(x + w / 2, y + h / 2)
        image[round(top) : round(bottom), round(left) : round(right)] = color
    return image_message(image, number, "cam")


def begin(start, robot, model, classifier):
    running = start(
        overrides={
            "detector": {"model": model, "score_threshold": 0.5, "classifier": classifier},
            "gate": {"enabled": False},
        }
    )
    return running, detections_of(robot), robot.publisher(Image, "image_raw")


@pytest.mark.parametrize("batch", ["n", 1])
def test_each_detection_has_the_class_of_its_box(start, robot, tmp_path, model, batch):
    bundle = color_bundle(tmp_path, None, batch)
    running, detections, camera = begin(start, robot, model, str(bundle.folder))
    names = robot.listen(LabelInfo, "classifications/label_info", LATCHED)
    robot.wait(lambda: names, "the names")
    assert [one.class_name for one in names[0].class_map] == list(LABELS)
    camera.publish(painted(1))
    running.settled(1)
    named = detections_of(robot, "classifications")
    publisher = running["detector"].classification._publisher
    robot.wait(lambda: publisher.subscription_count, "the detector to know us")
    camera.publish(painted(2))
    running.settled(2)
    robot.wait_for(named, 1, "the classes")
    robot.wait_for(detections, 2, "the detections")
    assert [stamp_of(one) for one in named] == [2] and named[0].header == detections[1].header
    assert [one.results[0].hypothesis.class_id for one in named[0].detections] == ["2", "1"]
    assert [one.results[0].hypothesis.score for one in named[0].detections] == pytest.approx([1, 1], abs=0.01)
    for mine, given in zip(named[0].detections, detections[1].detections, strict=True):
        assert (mine.bbox, mine.id) == (given.bbox, given.id) and mine.id
    _, values = robot.status("detector", lambda _, values: values["classification_ms.p50"])
    assert values["classifier"].startswith("color 1.0.0") and values["failed_classifications_total"] == "0"


def test_a_classifier_that_fails_costs_only_its_own_message(start, robot, tmp_path, model):
    bundle = color_bundle(tmp_path, None)
    manifest = bundle.folder / "bundle.yaml"
    manifest.write_text(manifest.read_text().replace("255.0", "1.0"))  # Scores above 1.
    running, detections, camera = begin(start, robot, model, str(bundle.folder))
    detections_of(robot, "classifications")
    publisher = running["detector"].classification._publisher
    robot.wait(lambda: publisher.subscription_count, "the detector to know us")
    for number in (1, 2):
        camera.publish(painted(number))
        assert running.settled(number)["inferred"] == number
    robot.wait_for(detections, 2, "the detections")
    assert [len(one.detections) for one in detections] == [2, 2]
    robot.status("detector", lambda _, values: values["failed_classifications_total"] == "2")


def test_a_detector_bundle_is_no_classifier(start, robot, model):
    running = start([DetectorNode], {"detector": {"model": model, "classifier": model}})
    status, _ = robot.status("detector")
    assert running["detector"].state == "unconfigured" and "a classifier needs a head" in status.message
    assert status_values(status)["classifier"] == "off"
    refused = robot.set("detector", classifier="missing")
    assert not refused.successful and "classifier: " in refused.reason
