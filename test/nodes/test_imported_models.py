"""Imported bundles in the detector's node: found boxes on the topic, and refusals that name both shapes."""

from __future__ import annotations

import numpy as np
import pytest
from head_cases import ALL_KNOWN, FRAME_HEIGHT, FRAME_WIDTH, KNOWN
from import_cases import constants, run_import
from ros_cases import DetectorNode, Image, detections_of, image_message
from test_heads_decoded import rtdetr_export
from test_heads_yolo import yolov8_graph, yolox_rows

NAMES = "bolt\nnut\nwing nut\nwasher\n"


def imported(tmp_path, graph, *arguments, names=NAMES):
    """The folder of the bundle that the command makes."""
    (tmp_path / "names.txt").write_text(names)
    given = ["--labels", tmp_path / "names.txt", "--set", "input.resize=letterbox", *arguments]
    given += ["--set", "thresholds.score_threshold=0.5", "--set", "thresholds.iou_threshold=0.5"]
    assert run_import(graph, *given, "--out", tmp_path / "bundle", "--yes") == 0
    return str(tmp_path / "bundle")


def yolox_graph(path):
    return constants(path, {"output": yolox_rows(KNOWN)})


@pytest.mark.parametrize(
    "make, known",
    [
        (lambda path: yolov8_graph(path, KNOWN), KNOWN),
        (yolox_graph, KNOWN),
        (rtdetr_export, ALL_KNOWN),
    ],
    ids=["yolov8", "yolox", "rtdetr"],
)
def test_the_boxes_that_the_graph_encodes_come_out_in_source_pixels(start, robot, tmp_path, make, known):
    model = imported(tmp_path, make(tmp_path / "m.onnx"))
    running = start(overrides={"detector": {"model": model}, "gate": {"enabled": False}})
    answers = detections_of(robot)
    image = np.zeros((FRAME_HEIGHT, FRAME_WIDTH, 3), np.uint8)
    robot.publisher(Image, "image_raw").publish(image_message(image, 1))
    assert running.settled(1)["inferred"] == 1
    robot.wait(lambda: answers, "the detections")
    found = answers[0].detections
    expected = sorted(known, key=lambda one: -one.score)
    assert [one.results[0].hypothesis.class_id for one in found] == [str(one.class_id) for one in expected]
    for one, truth in zip(found, expected, strict=True):
        x, y = one.bbox.center.position.x, one.bbox.center.position.y
        box = (
            x - one.bbox.size_x / 2,
            y - one.bbox.size_y / 2,
            x + one.bbox.size_x / 2,
            y + one.bbox.size_y / 2,
        )
        assert box == pytest.approx(truth.xyxy, abs=0.05)


def test_an_unlabelled_class_costs_only_its_own_objects(start, robot, tmp_path):
    """The backend is neither reloaded nor replaced, and the status counts what was dropped."""
    model = imported(tmp_path, rtdetr_export(tmp_path / "m.onnx"), names="bolt\nnut\nwing nut\n")
    running = start(overrides={"detector": {"model": model}, "gate": {"enabled": False}})
    answers = detections_of(robot)
    image = np.zeros((FRAME_HEIGHT, FRAME_WIDTH, 3), np.uint8)
    robot.publisher(Image, "image_raw").publish(image_message(image, 1))
    assert running.settled(1)["inferred"] == 1
    robot.wait(lambda: answers, "the detections")
    assert sorted(one.results[0].hypothesis.class_id for one in answers[0].detections) == ["0", "1", "2", "2"]
    values = running["detector"].status_values()
    assert values["unlabelled_total"] == sum(one.class_id == 3 for one in ALL_KNOWN)
    assert not values["backend.failed"]


def test_an_unsuitable_head_keeps_the_node_unconfigured_with_the_reason(start, robot, tmp_path):
    model = imported(tmp_path, yolox_graph(tmp_path / "m.onnx"))
    manifest = tmp_path / "bundle" / "bundle.yaml"
    manifest.write_text(manifest.read_text().replace("type: yolox", "type: nanodet"))
    running = start([DetectorNode], {"detector": {"model": model}})
    status, _ = robot.status("detector")
    assert running["detector"].state == "unconfigured" and status.level == b"\x02"
    assert "expects rows of shape [1, 8500, 36], output 'output' has [1, 8400, 9]" in status.message
