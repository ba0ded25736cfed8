"""What the nodes offer is what the specs, and so the README, say: names, types, QoS, latching."""

from __future__ import annotations

from array import array

import cv2
import numpy as np
import pytest
from model_cases import DETECTOR, bundle_or_skip, video_frame
from rclpy.qos import QoSDurabilityPolicy, QoSReliabilityPolicy
from ros_cases import (
    ALL,
    CHAIN,
    LATCHED,
    ONLY_CHANGES,
    SENSOR,
    DiagnosticArray,
    GateNode,
    Image,
    detections_of,
    image_message,
    jpeg_message,
    localizer_node,
    picture,
    recorder_node,
)
from vision_msgs.msg import LabelInfo, VisionInfo

from edge_vision.nodes.collector_node import CollectorNode
from edge_vision.nodes.interface.frame_event_messages import frame_event_from_message
from edge_vision.nodes.interface.specs import DIAGNOSTICS, NODES, PARTS, NodeSpec
from edge_vision.nodes.monitoring.image_input_probe import FLOW
from edge_vision.nodes.updater_node import UpdaterNode


def topics_of(spec: NodeSpec, transport: str = "raw", **given) -> list[tuple[str, str, str]]:
    """(direction, full name, type) of each topic of a node with these parameters, as users see it."""
    found, more = [], PARTS if spec is DIAGNOSTICS else ()
    values = {**{param.name: param.default for param in spec.params}, **given}
    for topic in filter(lambda topic: topic.exists(values), spec.topics):
        compressed = topic.name.endswith("/compressed")
        if topic.direction == "in" and "Image" in topic.type and compressed != (transport == "compressed"):
            continue
        names = [topic.name.replace("<node>", n) for n in (*FLOW, *more)]
        for name in dict.fromkeys(names):
            full = name.replace("~", f"/{spec.name}") if name.startswith("~") else f"/{name.lstrip('/')}"
            found.append((topic.direction, full, topic.type))
    return found


def seen_topics(robot, node: str) -> set[tuple[str, str, str]]:
    node_of = robot.node
    pairs = [("out", node_of.get_publisher_names_and_types_by_node(node, "/"))]
    pairs.append(("in", node_of.get_subscriber_names_and_types_by_node(node, "/")))
    internal = {"/rosout", "/parameter_events", f"/{node}/transition_event"}
    return {(way, name, kind) for way, found in pairs for name, (kind, *_) in found if name not in internal}


@pytest.mark.parametrize("transport", ["raw", "compressed"])
@pytest.mark.parametrize("spec", NODES, ids=lambda spec: spec.name)
def test_each_node_alone_has_the_topics_and_services_of_its_spec(start, robot, tmp_path, spec, transport):
    overrides = {
        "source": {"uri": str(tmp_path / "missing.avi")},
        "collector": {"folder": str(tmp_path / "pictures")},
    }
    takes_images = any(param.name == "image_transport" for param in spec.params)
    if takes_images:
        overrides[spec.name] = {"image_transport": transport}
    elif transport == "compressed":
        pytest.skip("takes no images")
    optional = {"localizer": localizer_node, "recorder": recorder_node}
    others = (optional[spec.name](),) if spec.name in optional else (*ALL, UpdaterNode, CollectorNode)
    start([kind for kind in others if kind.spec is spec], overrides)
    expected = set(topics_of(spec, transport))
    robot.wait(lambda: spec.name in robot.node.get_node_names(), "the node")
    robot.wait(lambda: len(seen_topics(robot, spec.name)) >= len(expected), "its topics")
    assert seen_topics(robot, spec.name) == expected
    services = {name.replace("~", f"/{spec.name}"): kind for name, kind, _ in spec.services}
    robot.wait(lambda: len(seen_services(robot, spec.name)) >= len(services), "its services")
    assert seen_services(robot, spec.name) == services


def seen_services(robot, node: str) -> dict[str, str]:
    """name -> type, without those that rclpy gives every node."""
    found = {name: kind for name, (kind,) in robot.node.get_service_names_and_types_by_node(node, "/")}
    rclpys = ("rcl_", "lifecycle_", "type_desc")
    return {name: kind for name, kind in found.items() if not kind.startswith(rclpys)}


PRIORS = [
    {"ego_prior": "imu"},
    {"ego_prior": "imu", "ego_focal_px": 500.0},
    {"ego_prior": "odometry"},
    {"ego_prior": "odometry", "ego_focal_px": 500.0},
]


@pytest.mark.parametrize("given", PRIORS, ids=lambda given: "-".join(map(str, given.values())))
def test_the_gate_subscribes_to_motion_topics_only_as_its_parameters_request(start, robot, given):
    """At the start, and when it is switched on and off while it runs."""
    spec = GateNode.spec
    running = start([GateNode], {"gate": given})
    robot.wait(lambda: "gate" in robot.node.get_node_names(), "the node")
    with_option, without = set(topics_of(spec, **given)), set(topics_of(spec))
    assert len(with_option - without) == (1 if "ego_focal_px" in given else 2)
    robot.wait(lambda: seen_topics(robot, "gate") == with_option, "its topics")
    assert robot.set("gate", ego_prior="none").successful
    robot.wait(lambda: seen_topics(robot, "gate") == without, "its topics without a prior")
    assert robot.set("gate", **given).successful
    robot.wait(lambda: seen_topics(robot, "gate") == with_option, "its topics again")
    assert running["gate"].state == "active"


RELIABLE, BEST_EFFORT = QoSReliabilityPolicy.RELIABLE, QoSReliabilityPolicy.BEST_EFFORT
VOLATILE, TRANSIENT = QoSDurabilityPolicy.VOLATILE, QoSDurabilityPolicy.TRANSIENT_LOCAL
QOS = {
    "/detections": (RELIABLE, VOLATILE),
    "/label_info": (RELIABLE, TRANSIENT),
    "/vision_info": (RELIABLE, TRANSIENT),
    "/gate/image": (BEST_EFFORT, VOLATILE),
    "/image_accepted": (BEST_EFFORT, VOLATILE),
    "/gate_events": (RELIABLE, VOLATILE),
    "/cascade_events": (RELIABLE, VOLATILE),
    "/gate/regions": (RELIABLE, VOLATILE),
    "/detector/debug_image": (RELIABLE, VOLATILE),
    "/detector/debug_image/compressed": (RELIABLE, VOLATILE),
    "/image_raw": (RELIABLE, VOLATILE),
    "/detector/status": (RELIABLE, VOLATILE),
    "/diagnostics": (RELIABLE, VOLATILE),
}


def test_the_qos_that_is_offered(start, robot, tmp_path):
    start(ALL, {"source": {"uri": str(tmp_path / "missing.avi")}})
    for topic, (reliability, durability) in QOS.items():
        offered = robot.wait(lambda topic=topic: robot.node.get_publishers_info_by_topic(topic), topic)[
            0
        ].qos_profile
        assert (offered.reliability, offered.durability) == (reliability, durability), topic


def test_the_gate_takes_any_cameras_qos(start, robot):
    start([GateNode])
    info = robot.wait(lambda: robot.node.get_subscriptions_info_by_topic("/image_raw"), "the gate")[0]
    assert (info.qos_profile.reliability, info.qos_profile.durability) == (BEST_EFFORT, VOLATILE)


def test_the_qos_of_one_topic_can_be_overridden(start, robot):
    start(
        ros_args=[
            *("-p", "gate:qos_overrides./image_raw.subscription.reliability:=reliable"),
            *("-p", "detector:qos_overrides./detector/debug_image.publisher.reliability:=best_effort"),
        ]
    )
    requested = robot.wait(lambda: robot.node.get_subscriptions_info_by_topic("/image_raw"), "the gate")[
        0
    ].qos_profile
    assert requested.reliability == RELIABLE
    for topic, reliability in {"/detector/debug_image": BEST_EFFORT, "/gate/image": BEST_EFFORT}.items():
        offered = robot.wait(lambda topic=topic: robot.node.get_publishers_info_by_topic(topic), topic)[0]
        assert offered.qos_profile.reliability == reliability, topic


def test_latched_topics_reach_late_subscribers(start, robot):
    bundle = bundle_or_skip(DETECTOR)
    start()
    labels = robot.wait_for(robot.listen(LabelInfo, "label_info", LATCHED), 1)[0]
    assert [(c.class_id, c.class_name) for c in labels.class_map] == list(enumerate(bundle.labels))
    assert labels.threshold == pytest.approx(bundle.manifest.thresholds.score_threshold)
    info = robot.wait_for(robot.listen(VisionInfo, "vision_info", LATCHED), 1)[0]
    assert info.method == f"{DETECTOR} {bundle.manifest.version}"
    assert info.database_location == f"sha256:{bundle.sha256}"


def test_a_new_threshold_is_latched(start, robot):
    start()
    heard = robot.listen(LabelInfo, "label_info", LATCHED)
    robot.wait(lambda: heard, "label_info")
    assert robot.set("detector", score_threshold=0.25).successful
    robot.wait(lambda: heard[-1].threshold == 0.25, "the new threshold")
    late = robot.listen(LabelInfo, "label_info", LATCHED)
    assert robot.wait(lambda: late, "label_info")[0].threshold == 0.25


def test_the_debug_image_is_drawn_only_with_a_subscriber(start, robot, monkeypatch):

    from edge_vision.nodes.detector import overlay

    drawn = []
    draw = overlay.draw_detections
    monkeypatch.setattr(overlay, "draw_detections", lambda *args: drawn.append(1) or draw(*args))
    running = start()
    answers = detections_of(robot)
    camera = robot.publisher(Image, "image_raw")
    image = video_frame("vtest.avi", 200).image
    camera.publish(image_message(image, 10**9))
    robot.wait(lambda: len(answers) == 1, "an answer")
    assert not drawn
    looker = robot.node.create_subscription(Image, "detector/debug_image", answers.append, SENSOR)
    robot.wait(lambda: running["detector"].overlay.image.subscription_count, "the detector to know us")
    robot.wait(looker.get_publisher_count, "us to know the detector")
    camera.publish(image_message(image, 10**10, "left"))
    robot.wait(lambda: len(answers) == 3, "the picture and the answer")
    shown = next(one for one in answers if isinstance(one, Image))
    assert (shown.width, shown.height, shown.encoding, shown.step) == (768, 576, "bgr8", 768 * 3)
    assert shown.header == next(one for one in answers[1:] if not isinstance(one, Image)).header
    pixels = np.frombuffer(shown.data, np.uint8).reshape(image.shape)
    assert 0.001 < (pixels != image).any(axis=2).mean() < 0.3, "boxes, drawn into the picture"
    robot.node.destroy_subscription(looker)
    robot.wait(
        lambda: not running["detector"].overlay.image.subscription_count,
        "the detector to know that we left",
    )
    camera.publish(image_message(image, 10**11))
    running.settled(3)
    assert len(drawn) == 1


def test_the_boxes_can_be_drawn_into_every_encoding(start, robot):
    running = start()
    shown = robot.listen(Image, "detector/debug_image", SENSOR)
    robot.wait(lambda: running["detector"].overlay.image.subscription_count, "the detector to know us")
    camera = robot.publisher(Image, "image_raw")
    for number, encoding in enumerate(["mono8", "rgb8", "bayer_rggb8"], 1):
        image = picture(number) if encoding == "rgb8" else picture(number)[:, :, 0].copy()
        camera.publish(image_message(image, number * 10**8, encoding=encoding))
        robot.wait_for(shown, number, f"pictures, the last {encoding}")
    assert all(one.encoding == "bgr8" for one in shown)


def test_every_frame_leaves_a_tick(start, robot):
    running = start(CHAIN, {"gate": ONLY_CHANGES})
    frame_events = robot.listen(DiagnosticArray, "gate_events")
    robot.wait(lambda: running["gate"].output.events.subscription_count, "the gate to know us")
    camera = robot.publisher(Image, "image_raw")
    moved = picture(1)
    moved[10:30, 10:30] = 255 - moved[10:30, 10:30]
    images = [picture(1), picture(1), moved]
    for number, image in enumerate(images, 1):
        camera.publish(image_message(image, number * 10**8, "cam"))
        running.settled(number)
    camera.publish(image_message(picture(1), 4 * 10**8, "cam", encoding="nonsense"))
    running.settled(4)
    robot.wait(lambda: len(frame_events) == 4, "the frame events")
    found = [frame_event_from_message(one) for one in frame_events]
    assert [(t.fate, t.reason) for t in found] == [
        ("", "first"),
        ("gated", "still"),
        ("", "interval"),
        ("failed", "unsupported_encoding"),
    ]
    assert [(t.stamp_ns, t.frame_id, t.stage) for t in found] == [
        (n * 10**8, "cam", "gate") for n in (1, 2, 3, 4)
    ]
    x1, y1, x2, y2 = found[2].regions[0]
    assert x1 <= 10 and y1 <= 10 and x2 >= 30 and y2 >= 30


def test_nodes_without_images_stay_healthy(start, robot):
    start(ALL)
    for node in ("gate", "cascade", "detector"):
        status, values = robot.status(node)
        assert status.level in (b"\x00", b"\x01"), status
        assert values["state"] == "active" and values["ledger.received"] == "0"
    _, values = robot.status("detector")
    assert values["age_ms.p95"] == "unavailable" and values["inference_ms.p50"] == "unavailable"


def test_compressed_frames_pass_the_stages_as_raw_ones(start, robot):
    running = start(overrides={"gate": {"image_transport": "compressed"}})
    from sensor_msgs.msg import CompressedImage

    gated = robot.listen(Image, "gate/image", SENSOR)
    robot.wait(lambda: running["gate"].output.images.subscription_count, "the gate to know us")
    camera = robot.publisher(CompressedImage, "image_raw/compressed")
    camera.publish(jpeg_message(picture(1), 5, "cam"))
    shown = robot.wait(lambda: gated, "the image")[0]
    assert (shown.encoding, shown.width, shown.height, shown.step) == ("bgr8", 64, 48, 192)
    assert (shown.header.stamp.nanosec, shown.header.frame_id) == (5, "cam")


def test_a_compressed_bayer_image_is_handed_on_as_a_bayer_image(start, robot):
    """As on the raw topic: image_transport compresses the mosaic as if it were grey."""
    running = start([GateNode], {"gate": {"image_transport": "compressed"}})
    from sensor_msgs.msg import CompressedImage

    gated = robot.listen(Image, "gate/image", SENSOR)
    robot.wait(lambda: running["gate"].output.images.subscription_count, "the gate to know us")
    camera = robot.publisher(CompressedImage, "image_raw/compressed")
    mosaic = picture(1)[:, :, 0].copy()
    message = jpeg_message(mosaic, 5)
    message.format = "bayer_rggb8; png compressed "
    message.data = array("B", cv2.imencode(".png", mosaic)[1].tobytes())
    camera.publish(message)
    shown = robot.wait(lambda: gated, "the image")[0]
    assert (shown.encoding, shown.width, shown.height, shown.step) == ("bayer_rggb8", 64, 48, 64)
    assert bytes(shown.data) == mosaic.tobytes()
