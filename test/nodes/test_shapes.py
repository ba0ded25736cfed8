"""Masks, oriented boxes and key points of imported models on their topics, and on the debug image."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from geometry_msgs.msg import PolygonInstanceStamped
from import_cases import run_import
from lifecycle_msgs.msg import Transition
from onnx import helper, numpy_helper
from rcl_interfaces.msg import Log as RosLog
from ros_cases import Image, detections_of, image_message, stamp_of
from sensor_msgs.msg import PointCloud2
from shape_cases import Export

from edge_vision.nodes.interface.detection_messages import detections_from_message

EXPORT = Export("small", 320, 320, 2, (640, 480))
# Centre x, y, width, height in the model's pixels, class, score. The third is in the bar below the image.
OBJECTS = (
    (100.0, 120.0, 80.0, 40.0, 1, 0.9),
    (220.0, 180.0, 60.0, 90.0, 0, 0.8),
    (100.0, 315.0, 20.0, 6.0, 0, 0.7),
)
SCALE, BAR = 0.5, 40.0


def columns_of(*rest: tuple[float, ...]) -> np.ndarray:
    """(6 + values, cells): the objects with these further values each, on a background of small ones."""
    columns = np.zeros((6 + len(rest[0]), EXPORT.n_cells), np.float32)
    columns[2:4] = 20.0
    for cell, ((x, y, w, h, class_id, score), values) in enumerate(zip(OBJECTS, rest, strict=True)):
        columns[:4, cell] = x, y, w, h
        columns[4 + class_id, cell] = score
        columns[6:, cell] = values
    return columns


def ellipses() -> np.ndarray:
    """(1, 3, 80, 80): above 0 within the ellipse that fills the box of each object."""
    y, x = np.mgrid[:80, :80] * 4.0 + 2.0
    maps = [1.0 - ((x - cx) / (w / 2)) ** 2 - ((y - cy) / (h / 2)) ** 2 for cx, cy, w, h, _, _ in OBJECTS]
    return np.stack(maps)[None].astype(np.float32)


def bundle(tmp_path, task, columns, more=None):
    graph = EXPORT.graph(
        tmp_path / "m.onnx", columns, more, **{**EXPORT.metadata(task), "kpt_shape": "[4, 3]"}
    )
    assert run_import(graph, "--out", tmp_path / "bundle", "--yes") == 0
    return str(tmp_path / "bundle")


def running_with(start, robot, model):
    running = start(
        overrides={"detector": {"model": model, "score_threshold": 0.5}, "gate": {"enabled": False}}
    )
    return running, detections_of(robot), robot.publisher(Image, "image_raw")


def frame(number: int):
    return image_message(np.full((480, 640, 3), 60, np.uint8), number, "cam")


def source(x: float, y: float) -> tuple[float, float]:
    return x / SCALE, (y - BAR) / SCALE


@pytest.fixture
def seg_model(tmp_path):
    return bundle(tmp_path, "segment", columns_of(*map(tuple, np.eye(3))), {"output1": ellipses()})


def test_masks_are_numbered_as_the_detections_and_published_while_subscribed(start, robot, seg_model):
    running, detections, camera = running_with(start, robot, seg_model)
    camera.publish(frame(1))
    running.settled(1)
    robot.wait(lambda: detections, "the detections")
    masks = robot.listen(Image, "masks")
    polygons = robot.listen(PolygonInstanceStamped, "masks/polygons")
    shapes = running["detector"].shapes
    robot.wait(lambda: shapes.has_subscriber("masks"), "the detector to know us")
    robot.wait(lambda: shapes.has_subscriber("masks/polygons"), "the detector to know us")
    camera.publish(frame(2))
    running.settled(2)
    robot.wait_for(masks, 1, "the masks")
    robot.wait_for(polygons, 2, "the polygons")
    (message,) = masks
    assert message.header == detections[-1].header and message.header.frame_id == "cam"
    assert (message.encoding, message.width, message.height, message.step) == ("mono16", 640, 480, 1280)
    image = np.frombuffer(message.data, np.uint16).reshape(480, 640)
    assert len(detections[-1].detections) == 2 and set(np.unique(image)) == {0, 1, 2}
    for number, (found, polygon, known) in enumerate(
        zip(detections[-1].detections, polygons, OBJECTS, strict=False), 1
    ):
        ys, xs = np.nonzero(image == number)
        x, y = source(*known[:2])
        assert (xs.mean() + 0.5, ys.mean() + 0.5) == pytest.approx((x, y), abs=0.6)
        assert len(xs) == pytest.approx(math.pi / 4 * known[2] * known[3] / SCALE**2, rel=0.03)
        box = found.bbox
        assert (box.center.position.x, box.center.position.y) == pytest.approx((x, y), abs=0.01)
        assert found.id and polygon.polygon.id == number and polygon.header == message.header
        points = np.array([(one.x, one.y) for one in polygon.polygon.polygon.points])
        assert len(points) > 8 and (np.abs(points - (x, y)) <= np.array(known[2:4])).all()
        np.testing.assert_allclose(np.ptp(points, axis=0), (box.size_x, box.size_y), atol=4)


def test_without_a_subscriber_no_mask_is_made(start, robot, seg_model):
    running, detections, camera = running_with(start, robot, seg_model)
    detect, shapes = running["detector"].roi.detect, []

    def spied(*args):
        result = detect(*args)
        shapes.append(result.detections.shapes)
        return result

    running["detector"].roi.detect = spied
    camera.publish(frame(1))
    running.settled(1)
    robot.wait(lambda: detections, "the detections")
    assert shapes == [None] and len(detections[0].detections) == 2


def test_the_topics_come_with_the_model_and_survive_a_pause(start, robot, tmp_path, seg_model):
    """A model of masks replaces one of boxes; then the node is deactivated and activated."""
    folder = tmp_path / "plain"
    folder.mkdir()
    running, _, camera = running_with(start, robot, bundle(folder, "detect", columns_of((), (), ())))
    camera.publish(frame(1))
    running.settled(1)
    topics = dict(robot.node.get_topic_names_and_types())
    assert "/masks" not in topics and "/keypoints" not in topics
    assert robot.set("detector", model=seg_model).successful
    masks = robot.listen(Image, "masks")
    node = running["detector"]
    for number in (2, 3):
        robot.wait(lambda: node.shapes.has_subscriber("masks"), "the detector to know us")
        camera.publish(frame(number))
        assert running.settled(number)["inferred"] == number
        robot.wait_for(masks, number - 1, "the masks")
        if number == 2:
            assert robot.change_state("detector", Transition.TRANSITION_DEACTIVATE)
            assert not node.shapes.has_subscriber("masks")
            assert robot.change_state("detector", Transition.TRANSITION_ACTIVATE)
    assert [stamp_of(one) for one in masks] == [2, 3]


def overflowing(path):
    """The prototypes of a white image are not finite: 0 * log(1 - 1) is added."""
    model = onnx.load(path)
    at = next(i for i, node in enumerate(model.graph.node) if node.output[0] == "output1")
    constants = {"one": np.float32(1), "zero": np.float32(0)}
    model.graph.initializer.extend(numpy_helper.from_array(np.array(v), k) for k, v in constants.items())
    steps = [
        ("ReduceMax", ["images"], "highest", {"keepdims": 0}),
        ("Sub", ["one", "highest"], "rest", {}),
        ("Log", ["rest"], "log", {}),
        ("Mul", ["log", "zero"], "nothing", {}),
        ("Add", ["output1_value", "nothing"], "output1", {}),
    ]
    del model.graph.node[at]
    model.graph.node.extend(helper.make_node(op, given, [out], **more) for op, given, out, more in steps)
    onnx.save(model, path)
    return path


def test_a_frame_whose_prototypes_are_not_finite_has_its_boxes(start, robot, tmp_path):
    """The reason is logged and counted, and the next frame has masks again."""
    columns = columns_of(*map(tuple, np.eye(3)))
    graph = EXPORT.graph(tmp_path / "m.onnx", columns, {"output1": ellipses()}, **EXPORT.metadata("segment"))
    assert run_import(overflowing(graph), "--out", tmp_path / "bundle", "--yes") == 0
    running, detections, camera = running_with(start, robot, str(tmp_path / "bundle"))
    masks, lines = robot.listen(Image, "masks"), robot.listen(RosLog, "/rosout")
    robot.wait(lambda: running["detector"].shapes.has_subscriber("masks"), "the detector to know us")
    camera.publish(image_message(np.full((480, 640, 3), 255, np.uint8), 1, "cam"))
    running.settled(1)
    camera.publish(frame(2))
    assert running.settled(2)["inferred"] == 2
    robot.wait_for(masks, 1, "the masks of the second frame")
    robot.wait_for(detections, 2, "both detections")
    assert [stamp_of(one) for one in masks] == [2] and [len(one.detections) for one in detections] == [2, 2]
    assert running["detector"].status_values()["failed_masks_total"] == 1
    reason = "no masks: 19200 of 19200 values of output 'output1' are not finite"
    robot.wait(lambda: any(reason in line.msg for line in lines), "the reason")


def test_oriented_boxes_have_an_angle_and_become_enclosing_boxes_elsewhere(start, robot, tmp_path):
    angles = (0.5, 1.9, 0.0)
    model = bundle(tmp_path, "obb", columns_of(*((angle,) for angle in angles)))
    running, detections, camera = running_with(start, robot, model)
    camera.publish(frame(1))
    running.settled(1)
    robot.wait(lambda: detections, "the detections")
    for found, (x, y, w, h, _, _), angle in zip(detections[0].detections, OBJECTS, angles, strict=False):
        if angle >= math.pi / 2:
            w, h, angle = h, w, angle - math.pi / 2
        box = found.bbox
        assert (box.center.position.x, box.center.position.y) == pytest.approx(source(x, y), abs=0.01)
        assert (box.size_x, box.size_y, box.center.theta) == pytest.approx(
            (w / SCALE, h / SCALE, angle), abs=0.01
        )
    around = detections_from_message(detections[0])
    corners = running["detector"].tracks.history.tracks_at(1)
    np.testing.assert_allclose(around.xyxy_px, corners.xyxy_px, atol=0.01)


def test_key_points_are_a_row_per_detection(start, robot, tmp_path):
    points = [
        tuple(v for i in range(4) for v in (x + 5 * i, y - 3 * i, 0.2 * i + 0.1)) for x, y, *_ in OBJECTS
    ]
    model = bundle(tmp_path, "pose", columns_of(*points))
    running, detections, camera = running_with(start, robot, model)
    clouds = robot.listen(PointCloud2, "keypoints")
    robot.wait(lambda: running["detector"].shapes.has_subscriber("keypoints"), "the detector to know us")
    camera.publish(frame(1))
    running.settled(1)
    robot.wait_for(clouds, 1, "the key points")
    (cloud,) = clouds
    assert cloud.header == detections[0].header
    assert (cloud.height, cloud.width, cloud.row_step) == (2, 4, 48)
    assert [one.name for one in cloud.fields] == ["u", "v", "score"]
    rows = np.frombuffer(cloud.data, np.float32).reshape(2, 4, 3)
    for row, values in zip(rows, points, strict=False):
        for at in range(4):
            x, y, score = values[3 * at : 3 * at + 3]
            assert row[at].tolist() == pytest.approx([*source(x, y), score], abs=0.01)


@pytest.mark.parametrize("task", ["segment", "obb", "pose"])
def test_the_debug_image_shows_shapes(start, robot, tmp_path, task):
    """A pixel on an outline, a corner, a key point, that no axis-aligned box passes."""
    (x, y), (half_w, half_h) = source(*OBJECTS[0][:2]), (80, 40)
    rest, more, at = {
        "segment": (np.eye(3), {"output1": ellipses()}, (x - half_w * 0.6, y - half_h * 0.8)),
        "obb": ([[0.5], [1.9], [0.0]], None, (x + half_w * math.cos(0.5), y + half_w * math.sin(0.5))),
        "pose": ([(*OBJECTS[0][:2], 0.9) * 4] * 3, None, (x + 3, y)),
    }[task]
    running, _, camera = running_with(
        start, robot, bundle(tmp_path, task, columns_of(*map(tuple, rest)), more)
    )
    images = robot.listen(Image, "detector/debug_image")
    robot.wait(lambda: running["detector"].overlay.is_watched, "the detector to know us")
    camera.publish(frame(1))
    running.settled(1)
    robot.wait_for(images, 1, "the debug image")
    image = np.frombuffer(images[0].data, np.uint8).reshape(480, 640, 3)
    column, row = round(at[0]), round(at[1])
    assert (image[row - 3 : row + 4, column - 3 : column + 4] != 60).any()
