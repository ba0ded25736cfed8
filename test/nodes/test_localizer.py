"""The localizer as other nodes see it: real messages of detections, depth, calibration and tf."""

from __future__ import annotations

import re
import sys
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from depth_cases import HEIGHT, WIDTH, Block, Picture, Post, camera, in_millimetres, render, spoiled
from geometry_msgs.msg import TransformStamped
from ros_cases import LATCHED, RELIABLE, SENSOR, Detection2DArray, Image, image_message
from sensor_msgs.msg import CameraInfo
from stereo_msgs.msg import DisparityImage
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import (
    Detection2D,
    Detection3D,
    Detection3DArray,
    ObjectHypothesis,
    ObjectHypothesisWithPose,
)

from edge_vision.core.geometry.rotations import quaternion_of_rotation, rotation_of_quaternion
from edge_vision.core.model_spec import MAX_DETECTIONS
from edge_vision.nodes import localizer_node
from edge_vision.nodes.localizer_node import LocalizerNode

START_NS = 1_700_000_000_000_000_000
MS = 10**6
CAMERA = "camera_optical"
# Of a camera that looks ahead, on a body with x ahead, y left and z up (REP 103).
AHEAD = np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]])
OBJECTS = [Post((0.3, 0.1, 3.0), 0.2, 1.6), Block((-0.8, 0.3, 2.0), (0.5, 0.4, 0.2))]
WAIT: dict[str, Any] = {"max_wait_ms": 10000.0}
NO_WAIT: dict[str, Any] = {"max_wait_ms": 0.0}


@pytest.fixture(scope="module")
def picture() -> Picture:
    return render(OBJECTS)


def detections(boxes: Any, at_ns: int = START_NS, frame_id: str = CAMERA) -> Detection2DArray:
    message = Detection2DArray(header=image_message(np.zeros((1, 1), "u1"), at_ns, frame_id).header)
    for i, (left, top, right, bottom) in enumerate(np.asarray(boxes, float).tolist()):
        hypothesis = ObjectHypothesis(class_id=str(i), score=0.9 - i / 10)
        one = Detection2D(header=message.header, id=f"{i + 7}")
        one.results = [ObjectHypothesisWithPose(hypothesis=hypothesis)]
        one.bbox.center.position.x, one.bbox.center.position.y = (left + right) / 2, (top + bottom) / 2
        one.bbox.size_x, one.bbox.size_y = right - left, bottom - top
        message.detections.append(one)
    return message


def calibration(frame_id: str = CAMERA, **fields: Any) -> CameraInfo:
    model = camera()
    message = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model="plumb_bob", d=[0.0] * 5)
    message.k = model.matrix.ravel()
    message.p = np.column_stack((model.matrix, np.zeros(3))).ravel()
    message.header.frame_id = frame_id
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def depth_message(depth_m: np.ndarray, at_ns: int = START_NS, frame_id: str = CAMERA) -> Image:
    """Of half the size: DDS without a profile loses images of more than 0.5 MB."""
    return image_message(in_millimetres(depth_m[::2, ::2]), at_ns, frame_id, "16UC1")


def disparity_message(depth_m: np.ndarray, at_ns: int = START_NS) -> DisparityImage:
    with np.errstate(divide="ignore", invalid="ignore"):
        disparity = np.where(depth_m > 0, 400 * 0.12 / depth_m, -1).astype(np.float32)[::2, ::2]
    message = DisparityImage(image=image_message(disparity, at_ns, CAMERA, "32FC1"), f=400.0, t=0.12)
    message.header = message.image.header
    message.min_disparity, message.max_disparity = 0.5, 128.0
    return message


def transform(
    parent: str, child: str, rotation: np.ndarray, move: Any, at_ns: int = START_NS
) -> TransformStamped:
    message = TransformStamped(header=image_message(np.zeros((1, 1), "u1"), at_ns, parent).header)
    message.child_frame_id = child
    q, t = message.transform.rotation, message.transform.translation
    q.x, q.y, q.z, q.w = quaternion_of_rotation(rotation)
    t.x, t.y, t.z = (float(value) for value in move)
    return message


@dataclass
class Site:
    """A localizer, and a publisher for each of its topics."""

    robot: Any
    running: Any
    heard: list[Detection3DArray]
    publishers: dict[str, Any] = field(default_factory=dict)

    @property
    def node(self) -> LocalizerNode:
        return self.running["localizer"]

    def send(self, topic: str, message: Any) -> None:
        if topic not in self.publishers:
            qos = {"detections": RELIABLE, "tracks": RELIABLE, "tf": RELIABLE, "tf_static": LATCHED}
            name = f"/{topic}" if topic.startswith("tf") else topic
            self.publishers[topic] = self.robot.publisher(type(message), name, qos.get(topic, SENSOR))
        self.publishers[topic].publish(message)

    def result(self, n: int = 1) -> Detection3DArray:
        return self.robot.wait_for(self.heard, n)[-1]

    def until(self, key: str, least: int = 1) -> dict[str, str]:
        """The values of a status in which a counter has reached a number."""
        return self.robot.status("localizer", lambda status, values: int(values.get(key, 0)) >= least)[1]

    def calibrate(self, **fields: Any) -> None:
        """Send camera_info until the node has it: best effort."""
        self.send("camera_info", calibration(**fields))
        self.robot.wait(lambda: isinstance(self.node._camera, tuple), "camera_info")


@pytest.fixture
def site(start, robot):
    def begin(**params: Any) -> Site:
        running = start([LocalizerNode], {"localizer": params})
        return Site(robot, running, robot.listen(Detection3DArray, "detections_3d", RELIABLE))

    return begin


def center_of(one: Detection3D) -> np.ndarray:
    position = one.bbox.center.position
    return np.array([position.x, position.y, position.z])


def check_places(message: Detection3DArray, picture: Picture, move=lambda point: point) -> None:
    for number, one in enumerate(message.detections, start=1):
        truth = picture.truth_m(number)
        assert np.linalg.norm(center_of(one) - move(truth)) <= 0.02 * np.linalg.norm(truth)


def boxes_of(picture: Picture) -> list[np.ndarray]:
    return [picture.box_px(number) for number in range(1, len(OBJECTS) + 1)]


def test_detections_are_placed_with_their_classes_ids_stamps_and_covariances(site, picture):
    here = site(**WAIT)
    here.calibrate()
    depth_m = spoiled(picture, np.random.default_rng(1))
    here.send("depth", depth_message(depth_m))
    sent = detections(boxes_of(picture))
    here.send("detections", sent)
    found = here.result()
    assert found.header == sent.header and found.detections[1].header == sent.header
    check_places(found, picture)
    for one, of in zip(found.detections, sent.detections, strict=True):
        assert one.id == of.id and one.results[0].hypothesis == of.results[0].hypothesis
        assert one.results[0].pose.pose == one.bbox.center
        covariance = np.array(one.results[0].pose.covariance).reshape(6, 6)
        assert np.linalg.eigvalsh(covariance).min() > 0 and covariance[2, 2] < 0.3**2
        assert one.bbox.center.orientation.w == pytest.approx(1), "the axes of the camera"
        assert 0 < one.bbox.size.z < 0.5
    assert found.detections[1].bbox.size.x == pytest.approx(0.5, rel=0.15)
    assert found.detections[1].bbox.size.y == pytest.approx(0.4, rel=0.15)


def test_predicted_tracks_are_placed_on_every_frame_with_its_own_depth(site, picture):
    """The depth images come first, as the boxes of a frame do after them, and none is mixed up."""
    here = site(input="tracks", **WAIT)
    here.calibrate()
    for i in range(3):
        here.send("depth", depth_message(picture.depth_m * (1 + i / 10), START_NS + i * 33 * MS))
        here.send("tracks", detections(boxes_of(picture), START_NS + i * 33 * MS))
        found = here.result(i + 1)
        check_places(
            found, Picture(picture.depth_m * (1 + i / 10), picture.numbers, picture.points_m * (1 + i / 10))
        )
    # Boxes that come late find their own image among the last ones.
    here.send("tracks", detections(boxes_of(picture), START_NS))
    check_places(here.result(4), picture)


def test_boxes_wait_for_depth_and_are_published_in_order(site, picture):
    here = site(**WAIT)
    here.calibrate()
    here.send("detections", detections(boxes_of(picture)))
    here.send("detections", detections([], START_NS + 33 * MS))
    here.until("received", 2)
    assert here.heard == []
    here.send("depth", depth_message(picture.depth_m))
    here.result(2)
    assert [len(one.detections) for one in here.heard] == [2, 0]


def test_the_nearest_depth_image_is_used(site, picture):
    here = site(max_stamp_difference_ms=20.0, **WAIT)
    here.calibrate()
    here.send("depth", depth_message(picture.depth_m * 2, START_NS - 15 * MS))
    here.send("detections", detections(boxes_of(picture)))
    here.send("depth", depth_message(picture.depth_m, START_NS + 10 * MS))
    check_places(here.result(), picture)


def test_disparity(site, picture):
    here = site(method="disparity", **WAIT)
    here.calibrate(d=[0.3] * 5)  # The disparity is that of the rectified image.
    here.send("disparity", disparity_message(spoiled(picture, np.random.default_rng(2))))
    here.send("detections", detections(boxes_of(picture)))
    check_places(here.result(), picture)


def test_a_moving_target_frame_at_the_stamp_of_the_image(site, picture):
    """odom -> base moves by 10 m/s: 40 ms are 0.4 m."""
    here = site(target_frame="odom", **WAIT)
    here.calibrate()
    here.send("tf_static", TFMessage(transforms=[transform("base", CAMERA, AHEAD, (0.2, 0, 1.0))]))
    here.send(
        "tf", TFMessage(transforms=[transform("odom", "base", np.eye(3), (0, 0, 0), START_NS - 40 * MS)])
    )
    here.send("depth", depth_message(picture.depth_m))
    here.send("detections", detections(boxes_of(picture)))
    here.until("received")
    assert here.heard == [], "the transform at the stamp is not known yet"
    here.send(
        "tf", TFMessage(transforms=[transform("odom", "base", np.eye(3), (0.8, 0, 0), START_NS + 40 * MS)])
    )
    found = here.result()
    assert found.header.frame_id == "odom"
    check_places(found, picture, lambda point: AHEAD @ point + (0.6, 0, 1.0))
    for one in found.detections:
        q = one.bbox.center.orientation
        assert rotation_of_quaternion(np.array([q.x, q.y, q.z, q.w])) == pytest.approx(np.eye(3), abs=1e-6)
    assert found.detections[1].bbox.size.z == pytest.approx(0.4, rel=0.15), "height is along z"


def test_on_the_ground_without_depth(site, picture):
    """Two objects that stand on the ground, one that does not, and one that the image cuts off."""
    here = site(method="ground", target_frame="base_footprint", **WAIT)
    here.calibrate()
    tilt = AHEAD @ rotation_of_quaternion(np.array([-np.sin(0.1), 0, 0, np.cos(0.1)]))
    here.send("tf_static", TFMessage(transforms=[transform("base_footprint", CAMERA, tilt, (0.1, 0, 0.8))]))
    feet = [(2.0, 0.3, 0.0), (3.5, -0.5, 0.0)]
    model, boxes = camera(), []
    for foot in feet:
        x, y, z = tilt.T @ (np.array(foot) - (0.1, 0, 0.8))
        u, v = (
            model.matrix[0, 0] * x / z + model.matrix[0, 2] + 0.5,
            model.matrix[1, 1] * y / z + model.matrix[1, 2] + 0.5,
        )
        boxes.append((u - 20, v - 90, u + 20, v))
    here.send("detections", detections([*boxes, (10, 10, 40, 60), (50, 300, 90, HEIGHT)]))
    found = here.result()
    assert [one.id for one in found.detections] == ["7", "8"]
    for foot, one in zip(feet, found.detections, strict=True):
        assert center_of(one)[:2] == pytest.approx(foot[:2], abs=0.02)
        assert center_of(one)[2] == pytest.approx(one.bbox.size.z / 2, abs=1e-6)
    values = here.until("received")
    assert (values["not_placed.above_horizon"], values["not_placed.cut_off"]) == ("1", "1")


def masks_message(numbers: np.ndarray, at_ns: int = START_NS) -> Image:
    return image_message(numbers[::2, ::2].astype(np.uint16), at_ns, CAMERA, "mono16")


def test_masks_give_the_yaw(site):
    turned = render([Block((0.3, 0.2, 3.0), (1.2, 0.6, 0.02), 0.5)])
    here = site(use_masks=True, target_frame="base", **WAIT)
    here.calibrate()
    here.send("tf_static", TFMessage(transforms=[transform("base", CAMERA, AHEAD, (0, 0, 0))]))
    here.send("depth", depth_message(spoiled(turned, np.random.default_rng(3))))
    here.send("detections", detections([turned.box_px(1)]))
    here.until("received")
    here.send("masks", masks_message(turned.numbers))
    box = here.result().detections[0].bbox
    assert 2 * np.arctan2(box.center.orientation.z, box.center.orientation.w) == pytest.approx(-0.5, abs=0.07)
    assert box.size.y == pytest.approx(1.2, rel=0.1)


@pytest.mark.parametrize(
    ("masks", "key"),
    [
        (lambda numbers: np.where(numbers > 0, 5, 0), "without_masks.masks_count"),
        (lambda numbers: numbers[:, ::2], "without_masks.masks_size"),
        (None, "without_masks.no_masks"),
    ],
)
def test_without_fitting_masks_the_boxes_are_placed(site, picture, masks, key):
    here = site(use_masks=True, **(NO_WAIT if masks is None else WAIT))
    here.calibrate()
    here.send("depth", depth_message(picture.depth_m))
    here.robot.wait(lambda: here.node._depth.bytes, "the depth image")
    if masks:
        here.send("masks", masks_message(masks(picture.numbers)))
        here.robot.wait(lambda: here.node._masks, "the masks")
    here.send("detections", detections(boxes_of(picture)))
    check_places(here.result(), picture)
    assert here.until(key)[key] == "1"


# Bad input: a reason, a count, and the next message is placed.
def wrong_size(picture: Picture) -> Image:
    return image_message(in_millimetres(picture.depth_m[:, :300]), START_NS, CAMERA, "16UC1")


@pytest.mark.parametrize(
    ("depth", "reason", "text"),
    [
        (None, "no_depth_image", "driver"),
        (wrong_size, "size", "300x480"),
        (
            lambda picture: depth_message(picture.depth_m, frame_id="depth_optical"),
            "frame_id",
            "depth_optical",
        ),
        (lambda picture: depth_message(picture.depth_m, START_NS + 70 * MS), "stamps_apart", "70 ms"),
    ],
)
def test_depth_that_does_not_fit_is_refused(site, picture, depth, reason, text):
    here = site(**NO_WAIT)
    here.calibrate()
    if depth:
        here.send("depth", depth(picture))
        here.robot.wait(lambda: here.node._depth.bytes, "the depth image")
    here.send("detections", detections(boxes_of(picture)))
    status, values = here.robot.status("localizer", lambda status, values: f"refused.{reason}" in values)
    assert values[f"refused.{reason}"] == "1" and text in values["last_refusal"]
    assert status.level == b"\x01" and text in status.message
    at_ns = START_NS + 500 * MS
    here.send("depth", depth_message(picture.depth_m, at_ns))
    here.robot.wait(lambda: at_ns in [one.stamp_ns for one in here.node._depth._images], "the depth image")
    here.send("detections", detections(boxes_of(picture), at_ns))
    check_places(here.result(), picture)


@pytest.mark.parametrize(
    ("params", "reason", "text"),
    [
        ({"target_frame": "map"}, "no_transform", "no transforms of camera_optical and map"),
        ({"method": "ground"}, "no_transform", "base_footprint"),
    ],
)
def test_without_tf(site, picture, params, reason, text):
    here = site(**params, **NO_WAIT)
    here.calibrate()
    here.send("detections", detections(boxes_of(picture)))
    values = here.until(f"refused.{reason}")
    assert text in values["last_refusal"] and here.heard == []


def test_without_tf2_msgs_the_package_is_named_and_the_cameras_frame_works(site, picture, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2_msgs.msg", None)
    here = site(**WAIT)
    here.calibrate()
    here.send("depth", depth_message(picture.depth_m))
    here.send("detections", detections(boxes_of(picture)))
    check_places(here.result(), picture)
    here.running.in_executor(lambda: (here.node.trigger_deactivate(), here.node.trigger_cleanup()))
    assert here.robot.set("localizer", target_frame="base").successful
    here.running.in_executor(lambda: (here.node.trigger_configure(), here.node.trigger_activate()))
    assert "sudo apt install ros-$ROS_DISTRO-tf2-msgs" in here.node.failure and here.node.state == "inactive"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (None, "no_camera_info"),
        ({"k": [0.0] * 9}, "bad_camera_info"),
        ({"distortion_model": "my_own", "d": [0.1]}, "bad_camera_info"),
        ({"width": 0, "height": 0}, "bad_camera_info"),
        ({"binning_x": 2}, "bad_camera_info"),
        ({"frame_id": "another"}, "frame_id"),
    ],
)
def test_without_a_usable_calibration(site, picture, fields, reason):
    here = site(**NO_WAIT)
    if fields:
        before = here.node._camera
        here.send("camera_info", calibration(**fields))
        here.robot.wait(lambda: here.node._camera is not before, "camera_info")
    here.send("detections", detections(boxes_of(picture)))
    assert here.until(f"refused.{reason}")[f"refused.{reason}"] == "1"


def test_one_bad_box_or_object_without_depth_costs_no_other(site, picture):
    here = site(**WAIT)
    here.calibrate()
    depth_m = picture.depth_m.copy()
    depth_m[:40] = 0
    here.send("depth", depth_message(depth_m))
    bad = [(10, 10, 10, 10), (np.nan, 1, 2, 3), (-90, -90, -10, -10), (10, 2, 60, 38), (np.inf, 0, np.inf, 9)]
    here.send("detections", detections([*bad, *boxes_of(picture)]))
    found = here.result()
    assert [one.id for one in found.detections] == ["12", "13"]
    values = here.until("received")
    assert (values["not_placed.bad_box"], values["not_placed.no_depth"], values["placed"]) == ("4", "1", "2")


def test_invalid_messages_are_refused_and_counted(site, picture):
    here = site(target_frame="base", method="depth", **WAIT)
    here.send(
        "tf_static", TFMessage(transforms=[transform("base", CAMERA, np.zeros((3, 3)), (np.nan, 0, 0))])
    )
    here.until("invalid_messages./tf_static")
    here.send("tf_static", TFMessage(transforms=[transform("base", CAMERA, AHEAD, (0, 0, 0))]))
    here.calibrate()
    small = picture.depth_m[::2, ::2]
    for bad in (
        image_message(in_millimetres(small), START_NS, CAMERA, "bgr8"),
        image_message(in_millimetres(small), START_NS, CAMERA, "16UC1", data=array("B", [0] * 9)),
        image_message(in_millimetres(small), START_NS, CAMERA, "16UC1", width=60000, height=60000),
        image_message(in_millimetres(small), START_NS, CAMERA, "16UC1", step=3),
    ):
        count = here.node._refused_messages["depth"]
        here.send("depth", bad)
        here.robot.wait(lambda count=count: here.node._refused_messages["depth"] > count, "a refusal")
    many = detections([(0, 0, 9, 9)] * (MAX_DETECTIONS + 1))
    here.send("detections", many)
    huge = detections([])
    huge.header.frame_id = "x" * 2_000_000
    here.send("detections", huge)
    here.until("invalid_messages.detections", 2)
    here.send("depth", depth_message(picture.depth_m))
    here.send("detections", detections(boxes_of(picture)))
    check_places(here.result(), picture, lambda point: AHEAD @ point)


def test_an_unexpected_exception_is_counted_and_named_and_the_next_boxes_are_placed(
    site, picture, monkeypatch
):
    here = site(**WAIT)
    here.calibrate()
    real = here.node._view

    def view(waiting):
        if waiting.stamp_ns == START_NS:
            raise KeyError("defect")
        return real(waiting)

    monkeypatch.setattr(here.node, "_view", view)
    here.send("detections", detections(boxes_of(picture)))
    assert here.until("refused.internal_error")["last_refusal"].startswith(
        "internal_error: KeyError('defect')"
    )
    here.send("depth", depth_message(picture.depth_m, START_NS + MS))
    here.send("detections", detections(boxes_of(picture), START_NS + MS))
    check_places(here.result(), picture)


def test_waiting_boxes_are_bounded(site, picture):
    here = site(**WAIT)
    here.calibrate()
    for i in range(12):
        here.send("detections", detections(boxes_of(picture), START_NS + i * MS))
        here.until("received", i + 1)
    assert here.until("received", 12)["refused.superseded"] == "4"
    here.send("depth", depth_message(picture.depth_m, START_NS + 11 * MS))
    assert len(here.result(8).detections) == 2


def test_deactivated_it_forgets_and_starts_again(site, picture):
    here = site(**WAIT)
    here.calibrate()
    here.send("depth", depth_message(picture.depth_m))
    here.robot.wait(lambda: here.node._depth.bytes, "the depth image")
    here.running.in_executor(lambda: (here.node.trigger_deactivate(), here.node.trigger_activate()))
    assert here.node._depth.bytes == 0 and not isinstance(here.node._camera, tuple)
    for publisher in here.publishers.values():
        here.robot.rematch(publisher)
    here.calibrate()
    here.send("depth", depth_message(picture.depth_m))
    here.send("detections", detections(boxes_of(picture)))
    here.robot.wait(lambda: here.heard, "places")
    check_places(here.heard[0], picture)


def test_the_status_keys_are_documented(site, picture):
    here = site(**NO_WAIT)
    here.send("detections", detections(boxes_of(picture)))
    values = here.until("refused.no_camera_info")
    folder = Path(__file__).resolve().parents[2] / "docs"
    text = "".join((folder / name).read_text("utf-8") for name in ("localizer.md", "status_keys.md"))
    assert [key for key in values if f"`{key}`" not in text] == []


def test_the_reasons_are_documented():
    package = Path(localizer_node.__file__).parents[1]
    files = [*(package / "localize").glob("*.py"), Path(localizer_node.__file__)]
    code = "".join(file.read_text("utf-8") for file in files)
    reasons = set(re.findall(r'LocalizationError\(\s*"(\w+)"', code)) - {"count"}
    text = (package.parent / "docs" / "localizer.md").read_text("utf-8")
    assert len(reasons) > 8 and [name for name in reasons if f".{name}`" not in text] == []
