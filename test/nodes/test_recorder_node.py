"""The recorder with a real pipeline: what is in its files, what replays of them give, and what it refuses."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from model_cases import video_frame
from record_cases import read_independently, read_with_rosbags
from ros_cases import (
    CHAIN,
    ONLY_CHANGES,
    CompressedImage,
    DiagnosticArray,
    DiagnosticsNode,
    Image,
    SourceNode,
    image_message,
    jpeg_message,
    matched,
    picture,
    stamp_of,
    wait_until,
)
from scene_cases import WAYS, StreetScene, wait_for_stages
from std_srvs.srv import Trigger
from vision_msgs.msg import Detection2DArray

from edge_vision.cli.main import main
from edge_vision.core.detections import Detections
from edge_vision.nodes.recorder_node import EVENTS, RecorderNode
from edge_vision.record.annotations import encode_annotations

ALL_IMAGES: dict[str, Any] = {"image_hz": 0.0, "before_s": 60.0, "after_s": 0.3, "rule_interval_s": 0.0}
RESULTS = (
    "/detections",
    "/tracks",
    "/tracks/annotations",
    "/label_info",
    "/vision_info",
    *map("/{}".format, EVENTS),
)


def with_recorder(start, tmp_path, separate=False, kinds=CHAIN, given=(), **overrides) -> Any:
    """A running pipeline with a recorder. given: parameters of the recorder."""
    overrides["recorder"] = {"folder": str(tmp_path / "recordings"), **ALL_IMAGES, **dict(given)}
    return start((RecorderNode, *kinds), overrides, separate=separate)


def snapshot(robot) -> str:
    answer = robot.call(Trigger, "recorder/snapshot", Trigger.Request())
    assert answer.success, answer.message
    return answer.message


def recorded(tmp_path: Path, count: int = 1) -> Path:
    """The newest recording, once there are this many complete ones."""

    def complete() -> list[Path]:
        found = sorted((tmp_path / "recordings").glob("*"))
        return found if len(found) == count and all(one.suffix == ".mcap" for one in found) else []

    return wait_until(complete, f"{count} recordings")[-1]


def by_topic(path: Path) -> dict[str, list[Any]]:
    """The messages of a recording, of which both readers find the same."""
    found: dict[str, list[Any]] = defaultdict(list)
    for topic, _, message in read_with_rosbags(path):
        found[topic].append(message)
    others: dict[str, list[Any]] = defaultdict(list)
    for topic, _, message in read_independently(path):
        others[topic].append(message)
    assert {topic: len(messages) for topic, messages in found.items()} == {
        topic: len(messages) for topic, messages in others.items()
    }
    return found


def boxes(message: Any) -> list[tuple[Any, ...]]:
    """What a Detection2DArray says, from whichever reader."""
    return [
        (
            one.bbox.center.position.x,
            one.bbox.center.position.y,
            one.bbox.size_x,
            one.bbox.size_y,
            one.results[0].hypothesis.class_id,
            one.results[0].hypothesis.score,
        )
        for one in message.detections
    ]


@pytest.mark.parametrize("separate", WAYS.values(), ids=WAYS)
def test_a_snapshot_has_all_that_was_published_under_its_stamps(start, robot, tmp_path, separate):
    running = with_recorder(start, tmp_path, separate, gate=ONLY_CHANGES)
    if separate:
        wait_for_stages(robot, running)
        topics = ("/gate_events", "/cascade_events", "/tracks")
        robot.wait(lambda: all(matched(topic) for topic in topics), "the recorder to find the stages")
    heard, tracks = (robot.listen(Detection2DArray, topic) for topic in ("detections", "tracks"))
    scene = StreetScene(running, robot)
    robot.wait(lambda: all(matched(topic) for topic in ("/detections", "/tracks")), "the recorder to listen")
    for _ in range(4):
        scene.publish()
        scene.settled()
    scene.publish(picture(1, 640, 480))
    scene.settled()
    robot.wait(lambda: len(tracks) == 5, "the tracks")
    # An image that comes while the one before still waits, as on a busy machine, supersedes it.
    ends = ("images.kept", "images.superseded")
    status, values = robot.status("recorder", lambda _, v: sum(int(v[one]) for one in ends) == 5)
    assert status.message == "running" and values["recording"] == "False"
    assert str(tmp_path) in snapshot(robot)
    path = recorded(tmp_path)
    found = by_topic(path)
    assert set(RESULTS) <= set(found) and len(found["/label_info"]) == len(found["/vision_info"]) == 1
    images = found["/image_raw/compressed"]
    stamps = [10**9 + 7 + n * 10**8 for n in range(1, 6)]
    kept = [stamp_of(one) for one in images]
    assert (
        len(kept) == int(values["images.kept"])
        and kept == sorted({*kept} & {*stamps})
        and kept[-1] == stamps[-1]
    )
    assert {one.header.frame_id for one in images} == {"cam"}
    for one in images:
        sent = picture(1, 640, 480) if stamp_of(one) == stamps[-1] else scene.street
        shown = cv2.imdecode(np.asarray(one.data), cv2.IMREAD_COLOR)
        assert shown.shape == sent.shape
        assert sent is not scene.street or np.abs(shown.astype(int) - sent).mean() < 5
    for topic, published in (("/detections", heard), ("/tracks", tracks)):
        assert [stamp_of(one) for one in found[topic]] == [stamp_of(one) for one in published]
        assert list(map(boxes, found[topic])) == list(map(boxes, published))
    for topic in (f"/{name}" for name in EVENTS):
        assert [stamp_of(one) for one in found[topic]] == stamps
    fates = [{v.key: v.value for v in one.status[0].values}["fate"] for one in found["/gate_events"]]
    assert fates == ["", "gated", "gated", "gated", ""] and len(heard) == 2
    drawn = found["/tracks/annotations"]
    assert [len(one.texts) for one in drawn] == [len(one.detections) for one in tracks]
    assert [stamp_of_annotations(one) for one in drawn] == [stamp_of(one) for one in tracks]


def stamp_of_annotations(message: Any) -> int:
    stamp = message.points[0].timestamp
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def test_annotations_say_what_the_tracks_say():
    boxes_px = np.array([(10, 20, 30.5, 60), (0, 0, 5, 5)], np.float32)
    found = Detections(boxes_px, np.array([0.75, 0.5], np.float32), np.array([0, 1], np.int32))
    raw = encode_annotations(1_700_000_000_123_456_789, found, ["7", ""], ("person",))
    message = decoded_annotations(raw)
    assert [one.text for one in message.texts] == ["person #7 0.75", "1 0.50"]
    corners = [[(p.x, p.y) for p in one.points] for one in message.points]
    assert corners[0] == [(10, 20), (30.5, 20), (30.5, 60), (10, 60)]
    assert {one.type for one in message.points} == {2} and message.circles == []
    assert message.points[0].outline_color.a == message.texts[0].text_color.a == 1.0
    assert stamp_of_annotations(message) == 1_700_000_000_123_456_789


def test_annotations_of_an_image_without_an_object_have_its_stamp_and_draw_nothing():
    """Foxglove takes stamps from annotations: without one it keeps the boxes of an earlier image."""
    (one,) = decoded_annotations(encode_annotations(2_000_000_003, Detections.empty(), [], ())).points
    assert one.points == [] and one.type == 1 and one.outline_color.a == 0
    assert (one.timestamp.sec, one.timestamp.nanosec) == (2, 3)


def decoded_annotations(raw: bytes) -> Any:
    """As rosbags decodes them by the definition that recordings have."""
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    from edge_vision.record.annotations import DEFINITION, TYPE

    store = get_typestore(Stores.ROS2_JAZZY)
    types = get_types_from_msg(DEFINITION, TYPE)
    store.register({name: fields for name, fields in types.items() if name.startswith("foxglove")})
    return store.deserialize_cdr(raw, TYPE)


def test_a_replay_gives_the_same_detections(start, robot, tmp_path):
    """Of JPEG images, which the recording has as they came."""
    every = {"enabled": False}
    transport = {"image_transport": "compressed"}
    running = with_recorder(
        start, tmp_path, gate={**every, **transport}, cascade=transport, detector=transport
    )
    heard = robot.listen(Detection2DArray, "detections")
    camera = robot.publisher(CompressedImage, "image_raw/compressed")
    sent = []
    for number in range(6):
        image = video_frame("vtest.avi", 40 * number).image
        sent.append(jpeg_message(image, 10**9 * (number + 1), "cam"))
        camera.publish(sent[-1])
        running.settled(number + 1)
    first = list(robot.wait_for(heard, 6, "detections"))
    robot.status("recorder", lambda _, v: int(v["images.kept"]) == 6)
    snapshot(robot)
    path = recorded(tmp_path)
    kept = by_topic(path)["/image_raw/compressed"]
    assert [bytes(one.data) for one in kept] == [bytes(one.data) for one in sent]
    assert [one.format for one in kept] == ["jpeg"] * 6
    running.end()

    source = {"uri": str(path), "playback_rate": 0.0}
    start((SourceNode, *CHAIN), {"gate": every, "source": {"uri": ""}})
    again = robot.listen(Detection2DArray, "detections")
    assert robot.change_state("source", Transition.TRANSITION_DEACTIVATE)
    assert robot.change_state("source", Transition.TRANSITION_CLEANUP)
    assert robot.set("source", **source).successful
    assert robot.change_state("source", Transition.TRANSITION_CONFIGURE)
    assert robot.change_state("source", Transition.TRANSITION_ACTIVATE)
    robot.wait(lambda: len(again) == 6, "the replay")
    assert sum(len(one.detections) for one in first) > 10
    assert [stamp_of(one) for one in again] == [stamp_of(one) for one in first]
    assert list(map(boxes, again)) == list(map(boxes, first))


def test_a_recording_is_a_bag_for_the_pipeline_without_ros(start, robot, tmp_path):
    running = with_recorder(start, tmp_path, gate={"enabled": False})
    scene = StreetScene(running, robot)
    for _ in range(3):
        scene.publish()
        scene.settled()
    robot.status("recorder", lambda _, v: int(v["images.kept"]) == 3)
    snapshot(robot)
    again = tmp_path / "again.mcap"
    arguments = ["--out", str(again), "--namespace", "again", "--backend", "onnxruntime"]
    assert main(["run", str(recorded(tmp_path)), *arguments]) == 0
    found = by_topic(again)
    assert len(found["/again/cascade_events"]) == len(found["/image_raw/compressed"]) == 3
    assert set(RESULTS) <= set(found)


def test_a_rule_starts_a_recording(start, robot, tmp_path):
    running = with_recorder(start, tmp_path, given={"rules": ["class:person", "temperature:149"]})
    scene = StreetScene(running, robot)
    scene.publish()
    scene.settled()
    path = recorded(tmp_path)
    assert path.name.endswith("_class-person.mcap")
    assert any(boxes(one) for one in by_topic(path)["/detections"])


def test_a_wrong_rule_is_refused_with_what_is_allowed(start, robot, tmp_path):
    running = with_recorder(start, tmp_path, given={"rules": ["audit_mis"]})
    status, _ = robot.status("recorder")
    assert status.level == b"\2" and running["recorder"].state == "unconfigured"
    assert "rules: expected audit_miss, fallback, cause" in status.message and "'audit_mis'" in status.message
    assert robot.set("recorder", rules=["audit_miss"]).successful
    robot.wait(lambda: running["recorder"].state == "active", "the recorder to start")
    refused = robot.set("recorder", rules=["fallback", "clas:person"])
    assert not refused.successful and "expected audit_miss" in refused.reason
    assert robot.get("recorder", "rules") == ["audit_miss"]
    assert robot.set("recorder", rules=["class:persn"]).successful
    robot.status("recorder", lambda status, _: "the model has no class persn" in status.message)
    assert running["detector"].state == "active"


def test_a_folder_that_cannot_be_written_stops_the_recorder_alone(start, robot, tmp_path):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "below"
    running = with_recorder(start, tmp_path, kinds=(*CHAIN, DiagnosticsNode), given={"folder": str(folder)})
    status, _ = robot.status("recorder")
    assert "folder: expected one with space that files can be written to" in status.message
    heard = robot.listen(DiagnosticArray, "/diagnostics")
    problem = robot.wait(
        lambda: [one for m in heard for one in m.status if one.name == "recorder"], "it there"
    )
    assert (problem[0].level, problem[0].message) == (b"\2", status.message)
    answer = robot.call(Trigger, "recorder/snapshot", Trigger.Request())
    assert not answer.success and answer.message == "expected an active node, it is inactive"
    scene = StreetScene(running, robot)
    scene.publish()
    assert scene.settled()["inferred"] == 1


def test_while_it_is_off_it_receives_and_keeps_nothing(start, robot, tmp_path):
    running = with_recorder(start, tmp_path)
    scene = StreetScene(running, robot)
    assert robot.change_state("recorder", Transition.TRANSITION_DEACTIVATE)
    scene.publish()
    scene.settled()
    node = running["recorder"]
    assert node._recorder is None and node._opened == []
    assert robot.change_state("recorder", Transition.TRANSITION_ACTIVATE)
    scene.publish()
    scene.settled()
    _, values = robot.status("recorder", lambda _, v: int(v["images.kept"]) == 1)
    assert values["images.received"] == "1"


def test_stamps_that_jump_back_are_recorded_in_the_order_of_their_arrival(start, robot, tmp_path):
    running = with_recorder(start, tmp_path)
    scene = StreetScene(running, robot)
    stamps = []
    for step_ns in (10**10, 10**8, -(10**10), 10**8):
        stamps.append(scene.publish(step_ns=step_ns))
        ledger = scene.settled()
    assert ledger["failed"] == 1
    robot.status("recorder", lambda _, v: int(v["ring.messages"]) > 8)
    time.sleep(0.1)
    snapshot(robot)
    messages = read_independently(recorded(tmp_path))
    times = [at for topic, at, _ in messages if topic == "/gate_events"]
    assert times == sorted(times)
    assert [stamp_of(m) for topic, _, m in messages if topic == "/gate_events"] == stamps
    assert max(times) - min(times) < 60 * 10**9, "the times of the recording do not jump"


@pytest.mark.parametrize("separate", WAYS.values(), ids=WAYS)
def test_an_image_that_nobody_can_read_is_an_event_and_no_image(start, robot, tmp_path, separate):
    running = with_recorder(start, tmp_path, separate)
    camera = robot.publisher(Image, "image_raw")
    if separate:
        robot.wait(lambda: matched("/gate_events"), "the recorder to listen")
    camera.publish(image_message(picture(), 10**9, encoding="secret8"))
    running_gate = running["gate"].hub.ledger
    wait_until(lambda: running_gate.snapshot().flat()["failed"] == 1, "the refusal")
    _, values = robot.status("recorder", lambda _, v: int(v["ring.messages"]) > 0)
    snapshot(robot)
    found = by_topic(recorded(tmp_path))
    assert "/image_raw/compressed" not in found
    assert found["/gate_events"][0].status[0].message == "unsupported_encoding"
    assert separate == (values["images.received"] == "1")


def test_it_serves_the_namespaces_of_its_cameras(start, robot, tmp_path):
    overrides = {"recorder": {"folder": str(tmp_path / "recordings"), **ALL_IMAGES}}
    start((*CHAIN, RecorderNode), overrides, cameras=("front", "rear"))
    answer = robot.call(Trigger, "rear/recorder/snapshot", Trigger.Request())
    assert answer.success
    assert "edge_vision_rear_" in recorded(tmp_path).name
    assert "/rear/label_info" in by_topic(recorded(tmp_path))
