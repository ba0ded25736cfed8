"""A bag in, a bag out: the copy, the results under the images' stamps, and what is left of a failure."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from bag_cases import PERIOD_NS, START_NS, Recorded, image_message, recording, write_bag
from mcap.reader import make_reader
from model_cases import DETECTOR, bundle_or_skip, video_frame
from rosbags.highlevel import AnyReader
from rosbags.rosbag1 import Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from type_hashes import HASHES

from edge_vision.backends import open_session
from edge_vision.cli.main import main
from edge_vision.core.frame import Frame
from edge_vision.detect.detector import Detector
from edge_vision.source.bag import BagCapture

REPO = Path(__file__).resolve().parents[2]
FORMATS = ("drive.mcap", "drive.db3", "drive.bag")
RESULTS = {"/detections", "/tracks", "/tracks/annotations", "/cascade_events", "/label_info"}


def street(count: int = 8) -> list[Recorded]:
    """A still street, in which people appear at the sixth image."""
    images = [video_frame("vtest.avi", 0 if n < 5 else 300).image for n in range(count)]
    return [Recorded(image, START_NS + n * PERIOD_NS) for n, image in enumerate(images)]


def run(*arguments: Any) -> int:
    bundle_or_skip(DETECTOR)
    return main(["run", *map(str, arguments), "--backend", "onnxruntime"])


def messages(path: Path) -> dict[str, list[tuple[int, bytes]]]:
    """Topic -> time in ns and data of each message."""
    found: dict[str, list[tuple[int, bytes]]] = {}
    with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
        for connection, time_ns, data in reader.messages():
            found.setdefault(connection.topic, []).append((time_ns, bytes(data)))
    return found


def decoded(path: Path, topic: str) -> list[Any]:
    with AnyReader([path]) as reader:
        chosen = [one for one in reader.connections if one.topic == topic]
        return [reader.deserialize(data, one.msgtype) for one, _, data in reader.messages(chosen)]


def stamp_ns(message: Any) -> int:
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


def events(path: Path) -> list[tuple[int, str, str]]:
    """Stamp in ns, fate and reason of each frame."""
    found = []
    for message in decoded(path, "/cascade_events"):
        status = message.status[0]
        fate = {pair.key: pair.value for pair in status.values}["fate"]
        found.append((stamp_ns(message), fate, status.message))
    return found


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Format -> bag and result."""
    folder, made = tmp_path_factory.mktemp("bags"), {}
    for name in FORMATS:
        (folder / name).mkdir()
        bag = write_bag(folder / name / name, street())
        made[name] = bag, folder / f"result_of_{bag.suffix[1:]}.mcap"
        assert run(bag, "--out", made[name][1]) == 0
    return made


@pytest.mark.parametrize("name", FORMATS)
def test_the_result_is_a_bag_with_the_same_images_and_stamps(results, name) -> None:
    bag, result = results[name]
    ours, theirs = (BagCapture(str(path)) for path in (result, bag))
    while theirs.grab():
        assert ours.grab()
        one, other = ours.frame(), theirs.frame()
        assert (one.stamp_ns, one.frame_id) == (other.stamp_ns, other.frame_id)
        assert (one.image == other.image).all()
    assert not ours.grab() and ours.damage == ""
    ours.close(), theirs.close()


def test_messages_of_ros_2_are_copied_unchanged(results) -> None:
    bag, result = results["drive.mcap"]
    copied = messages(result)
    assert set(copied) == {"/cam/image_raw"} | RESULTS
    assert copied["/cam/image_raw"] == messages(bag)["/cam/image_raw"]


def test_every_format_gives_the_same_results(results) -> None:
    first, *others = ({t: messages(result)[t] for t in RESULTS} for _, result in results.values())
    assert all(other == first for other in others)


def test_every_frame_is_accounted_for_under_its_stamp(results) -> None:
    result = results["drive.mcap"][1]
    found = events(result)
    assert [stamp for stamp, *_ in found] == [one.stamp_ns for one in street()]
    fates = [fate for _, fate, _ in found]
    assert fates[0] == fates[5] == "inferred" and "gated" in fates
    inferred = [stamp for stamp, fate, _ in found if fate == "inferred"]
    assert [stamp_ns(one) for one in decoded(result, "/detections")] == inferred
    tracks = decoded(result, "/tracks")
    assert [stamp_ns(one) for one in tracks] == [stamp for stamp, *_ in found]
    assert {one.header.frame_id for one in tracks} == {"optical"}


def test_results_follow_their_image_at_the_time_of_its_recording(results) -> None:
    with AnyReader([results["drive.mcap"][1]]) as reader:
        order = [(time_ns, connection.topic) for connection, time_ns, _ in reader.messages()]
    times = [one.time_ns for one in street()]
    assert [time_ns for time_ns, topic in order if topic == "/tracks"] == times
    assert order[0] == (times[0], "/cam/image_raw") and sorted({t for t, _ in order}) == times


def test_detections_are_those_of_the_detector(results) -> None:
    bundle = bundle_or_skip(DETECTOR)
    detector = Detector.from_bundle(bundle, open_session(bundle, "onnxruntime")[0])
    found = detector.detect(Frame(street()[5].image, 1, "", "bgr8")).detections
    message = decoded(results["drive.mcap"][1], "/detections")[-1]
    boxes = [one.bbox for one in message.detections]
    assert len(found) == len(boxes) > 0
    for row, box, one in zip(found.xyxy_px.tolist(), boxes, message.detections, strict=True):
        x, y = box.center.position.x, box.center.position.y
        assert [x - box.size_x / 2, y - box.size_y / 2] == pytest.approx(row[:2], abs=1e-3)
        assert [x + box.size_x / 2, y + box.size_y / 2] == pytest.approx(row[2:], abs=1e-3)
        assert one.id
    scores = [one.results[0].hypothesis.score for one in message.detections]
    assert scores == pytest.approx(found.scores.tolist())
    (labels,) = decoded(results["drive.mcap"][1], "/label_info")
    assert [one.class_name for one in labels.class_map] == list(bundle.labels)


def test_the_metadata_name_the_file(results) -> None:
    result = results["drive.mcap"][1]
    with result.open("rb") as file:
        (found,) = [one for one in make_reader(file).iter_metadata() if one.name == "rosbag2"]
    assert yaml.safe_load(found.metadata["serialized_metadata"])["relative_file_paths"] == [result.name]


def test_annotations_show_the_tracks_of_every_frame(results) -> None:
    result = results["drive.mcap"][1]
    tracks, drawn = decoded(result, "/tracks"), decoded(result, "/tracks/annotations")
    assert len(tracks) == len(drawn) and any(one.texts for one in drawn)
    for of, one in zip(tracks, drawn, strict=True):
        assert {(p.timestamp.sec, p.timestamp.nanosec) for p in one.points} == {
            (of.header.stamp.sec, of.header.stamp.nanosec)
        }
        for track, box, text in zip(of.detections, one.points, one.texts, strict=bool(of.detections)):
            center = track.bbox.center.position
            middle = (box.points[0].x + box.points[2].x) / 2, (box.points[0].y + box.points[2].y) / 2
            assert middle == pytest.approx((center.x, center.y), abs=1e-3)
            assert f" #{track.id} " in text.text


def test_the_types_are_those_of_upstream(results) -> None:
    with AnyReader([results["drive.mcap"][1]]) as reader:
        names = {one for one in reader.typestore.fielddefs if one.startswith("vision_msgs/")}
        hashes = {name: reader.typestore.hash_rihs01(name) for name in names}
    assert len(names) == 9 and hashes == {name: f"RIHS01_{HASHES[name]}" for name in names}


def test_other_topics_of_ros_1_become_those_of_ros_2(tmp_path) -> None:
    """A type that differs, one that only this bag defines, and a latched one."""
    store, bag = get_typestore(Stores.ROS1_NOETIC), tmp_path / "drive.bag"
    store.register(get_types_from_msg("Header header\nfloat32 kmh", "robot_msgs/msg/Speed"))
    new = store.types
    header = new["std_msgs/msg/Header"](
        seq=7, stamp=new["builtin_interfaces/msg/Time"](sec=3, nanosec=4), frame_id="base"
    )
    level = new["diagnostic_msgs/msg/DiagnosticStatus"](
        level=1, name="motor", message="hot", hardware_id="", values=[]
    )
    others = {
        "/speed": new["robot_msgs/msg/Speed"](header=header, kmh=12.5),
        "/map_name": new["std_msgs/msg/String"](data="hall"),
        "/motors": new["diagnostic_msgs/msg/DiagnosticArray"](header=header, status=[level]),
    }
    with Writer(bag) as writer:
        for one in street(1):
            message = image_message(store, one, seq=1)
            image = writer.add_connection(one.topic, message.__msgtype__, typestore=store)
            writer.write(image, one.time_ns, store.serialize_ros1(message, message.__msgtype__))
        for topic, message in others.items():
            kind = message.__msgtype__
            to = writer.add_connection(topic, kind, typestore=store, latching=int(topic == "/map_name"))
            writer.write(to, START_NS + 5, store.serialize_ros1(message, kind))
    result = tmp_path / "result.mcap"
    assert run(bag, "--out", result) == 0
    (speed,), (name,), (motors,) = (decoded(result, topic) for topic in others)
    assert speed.kmh == 12.5 and name.data == "hall" and motors.status[0].message == "hot"
    assert stamp_ns(speed) == 3 * 10**9 + 4 and speed.header.frame_id == "base"
    assert [time_ns for time_ns, _ in messages(result)["/speed"]] == [START_NS + 5]


def test_ros_reads_the_messages(results) -> None:
    serialization = pytest.importorskip("rclpy.serialization", reason="rclpy is not installed: source ROS 2")
    vision = pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not installed: run `make setup`")
    from diagnostic_msgs.msg import DiagnosticArray

    from edge_vision.nodes.interface.detection_messages import detections_from_message
    from edge_vision.nodes.interface.frame_event_messages import frame_event_from_message

    data = messages(results["drive.mcap"][1])
    read = serialization.deserialize_message
    tracks = [read(one, vision.Detection2DArray) for _, one in data["/tracks"]]
    assert len(detections_from_message(tracks[-1])) == len(tracks[-1].detections) > 0
    found = [frame_event_from_message(read(one, DiagnosticArray)) for _, one in data["/cascade_events"]]
    assert [(one.stamp_ns, one.fate) for one in found] == [e[:2] for e in events(results["drive.mcap"][1])]


def test_an_unreadable_image_and_a_stamp_that_jumps_back_are_failed_frames(tmp_path) -> None:
    images = street(4)
    images[2] = images[2]._replace(encoding="no_such_encoding")
    images.append(Recorded(images[0].image, images[3].time_ns))
    bag = write_bag(tmp_path / "drive.mcap", images)
    assert run(bag, "--out", tmp_path / "result.db3") == 0
    found = events(tmp_path / "result.db3")
    assert found[2][1:] == ("failed", "unsupported_encoding") and found[4][1:] == ("failed", "stamp_repeated")
    assert len(decoded(tmp_path / "result.db3", "/tracks")) == 3


def test_a_cascade_rejects_frames_with_a_reason(tmp_path) -> None:
    bag, result = write_bag(tmp_path / "drive.mcap", street()), tmp_path / "result.mcap"
    bundle_or_skip("efficientnet_lite0_imagenet")
    cascade = ("--cascade", "efficientnet_lite0_imagenet", "--wanted-label", "shoji")
    assert run(bag, "--out", result, *cascade) == 0
    found = events(result)
    assert found[0][1:] == ("inferred", "refresh") and found[5][1:] == ("rejected", "unwanted")
    assert len(decoded(result, "/tracks")) == len(found)
    stages = {one.status[0].message: one.status[0].name for one in decoded(result, "/cascade_events")}
    assert stages["refresh"] == "detector" and stages["unwanted"] == "cascade"


def test_zones_limit_what_is_reported_and_which_changes_count(results, tmp_path) -> None:
    bag, everywhere = results["drive.mcap"]
    left, nowhere = tmp_path / "left.mcap", tmp_path / "nowhere.mcap"
    assert run(bag, "--out", left, "--zone", "include left 0,0 0.5,0 0.5,1 0,1") == 0
    limit_px = street(1)[0].image.shape[1] / 2
    for topic in ("/detections", "/tracks"):
        xs = [
            [box.bbox.center.position.x for one in decoded(path, topic) for box in one.detections]
            for path in (everywhere, left)
        ]
        assert 0 < len(xs[1]) < len(xs[0]) and max(xs[1]) <= limit_px + 1 < max(xs[0])
    zones = ("--zone", "exclude a 0,0 1,0 1,1 0,1", "--zone", "exclude b 0,0 1,0 1,1")
    assert run(bag, "--out", nowhere, *zones) == 0
    assert [fate for _, fate, _ in events(nowhere)[1:]] == ["gated"] * 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--zone", "road 0,0 1,1"], "expected 'include NAME X,Y"),
        (["--wanted-label", "car"], "expected --wanted-label with --cascade"),
        (["--cascade", DETECTOR], "a classifier needs a head for task 'classify'"),
        (["--cascade", "efficientnet_lite0_imagenet"], "name the labels"),
        (["--cascade", "no_such_bundle"], "no_such_bundle"),
    ],
)
def test_options_without_effect_are_refused(tmp_path, capsys, options, message) -> None:
    bag = write_bag(tmp_path / "drive.mcap", recording(2))
    bundle_or_skip("efficientnet_lite0_imagenet")
    assert message in refused(capsys, tmp_path, bag, "--out", tmp_path / "result.mcap", *options)


@pytest.mark.parametrize("suffix", [".mcap", ".db3", ".bag"])
def test_a_split_recording_gives_what_the_whole_one_gives(results, tmp_path, suffix) -> None:
    folder = tmp_path / "split"
    folder.mkdir()
    images = street()
    for number, part in enumerate((images[5:], images[:5])):  # The order of the names is not that of time.
        write_bag(folder / f"part_{number}{suffix}", part)
    for rest in folder.glob("*/metadata.yaml"):
        rest.unlink()
        rest.parent.rmdir()
    assert run(folder, "--out", tmp_path / "result.mcap") == 0
    copied, whole = messages(tmp_path / "result.mcap"), messages(results["drive.mcap"][1])
    assert {topic: copied[topic] for topic in RESULTS} == {topic: whole[topic] for topic in RESULTS}
    assert [time_ns for time_ns, _ in copied["/cam/image_raw"]] == [one.time_ns for one in images]


def test_a_camera_whose_clock_jumps(tmp_path) -> None:
    numbers = itertools.count()

    def ahead(message: Any) -> Any:
        stamp = message.header.stamp
        object.__setattr__(stamp, "sec", stamp.sec + 3600 * (next(numbers) == 3))
        return message

    result = tmp_path / "result.mcap"
    assert run(write_bag(tmp_path / "drive.mcap", street(), ahead), "--out", result) == 0
    fates = [one[1:] for one in events(result)]
    jump = ("inferred", "clock_jump")
    assert fates[3:6] == [jump, ("failed", "stamp_backwards"), jump]
    assert fates.count(jump) == 2 and len(fates) == 8


def test_a_recorder_whose_clock_jumps(tmp_path, capsys) -> None:
    images = [one._replace(time_ns=one.time_ns + (n > 3) * 3600 * 10**9) for n, one in enumerate(street())]
    result = tmp_path / "result.mcap"
    assert run(write_bag(tmp_path / "drive.mcap", images), "--out", result) == 0
    assert events(result)[4][1:] == ("inferred", "clock_jump")
    assert [time_ns for time_ns, _ in messages(result)["/tracks"]] == [one.time_ns for one in images]
    assert re.search(r"; 0\.\d s of recording", capsys.readouterr().out)


def test_results_in_a_namespace_beside_earlier_ones(results, tmp_path, capsys) -> None:
    earlier, result = results["drive.mcap"][1], tmp_path / "again.mcap"
    assert run(earlier, "--out", result) == 1
    assert "choose another --namespace" in capsys.readouterr().err and not result.exists()
    assert run(earlier, "--out", result, "--namespace", "/again") == 0
    assert {f"/again{topic}" for topic in RESULTS} | RESULTS < set(messages(result))


def refused(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: Any) -> str:
    """The error of a run, which leaves no file behind."""
    before = sorted(folder.iterdir())
    assert run(*arguments) == 1
    assert sorted(folder.iterdir()) == before
    return capsys.readouterr().err


def test_a_file_that_exists_is_kept(tmp_path, capsys) -> None:
    bag, result = write_bag(tmp_path / "drive.mcap", recording(2)), tmp_path / "result.mcap"
    result.write_text("mine")
    assert "expected a new file, got one that exists" in refused(capsys, tmp_path, bag, "--out", result)
    assert result.read_text() == "mine"
    assert "expected a new file" in refused(capsys, tmp_path, bag, "--out", bag)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("result.bag", "expected a file that ends with .mcap or .db3"),
        ("missing/result.mcap", "expected a folder that exists"),
    ],
)
def test_a_place_where_no_file_can_be_is_refused_at_once(tmp_path, capsys, name, message) -> None:
    bag = write_bag(tmp_path / "drive.mcap", recording(2))
    assert message in refused(capsys, tmp_path, bag, "--out", tmp_path / name)


def test_what_has_no_images_is_refused(tmp_path, capsys) -> None:
    bag = write_bag(tmp_path / "empty.mcap", [])
    assert "has no image topic" in refused(capsys, tmp_path, bag, "--out", tmp_path / "result.mcap")
    video = tmp_path / "clip.mp4"
    video.write_bytes(b"")
    assert "expected a bag" in refused(capsys, tmp_path, video, "--out", tmp_path / "result.mcap")


def test_a_backend_that_is_not_the_requested_one_is_reported(tmp_path, capsys) -> None:
    bag = write_bag(tmp_path / "drive.mcap", recording(2))
    bundle_or_skip(DETECTOR)
    assert main(["run", str(bag), "--out", str(tmp_path / "result.mcap"), "--backend", "kserve"]) == 0
    assert "not the requested backend: kserve: kserve needs the address" in capsys.readouterr().err


def test_a_file_without_an_option_is_refused_with_both_options(capsys) -> None:
    assert main(["run", "clip.mp4"]) == 2
    message = capsys.readouterr().err
    assert "--source clip.mp4" in message and "--out FILE.mcap" in message


def test_a_bag_that_is_cut_leaves_nothing(tmp_path, capsys) -> None:
    bag = write_bag(tmp_path / "drive.bag", recording(20))
    bag.write_bytes(bag.read_bytes()[:-100])
    assert refused(capsys, tmp_path, bag, "--out", tmp_path / "result.mcap").startswith("run: ")


@pytest.mark.parametrize("name", ["result.mcap", "result.db3"])
def test_a_full_disk_leaves_nothing(tmp_path, name) -> None:
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("only root can mount a small disk: `unshare` and root are needed")
    bundle_or_skip(DETECTOR)
    bag, disk = write_bag(tmp_path / "drive.mcap", street()), tmp_path / "disk"
    disk.mkdir()
    command = f"{sys.executable} -m edge_vision run {bag} --out {disk}/{name} --backend onnxruntime"
    script = f"mount -t tmpfs -o size=4m none {disk} && {{ {command}; echo status $?; ls -A {disk}; }}"
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], cwd=REPO, capture_output=True, text=True)
    if "status" not in done.stdout:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    assert "the disk is full" in done.stderr and done.stdout.endswith("status 1\n")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_leaves_no_file_under_the_name(tmp_path, number) -> None:
    bundle_or_skip(DETECTOR)
    (tmp_path / "in").mkdir()
    bag = write_bag(tmp_path / "in" / "drive.mcap", [one for n in range(12) for one in later(street(), n)])
    command = [sys.executable, "-m", "edge_vision", "run", bag, "--out", "result.mcap", "--preset", "recall"]
    process = subprocess.Popen(
        [*command, "--backend", "onnxruntime"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPO)}
    )
    until_s = time.monotonic() + 60
    while not list(tmp_path.glob(".result.mcap.*.partial/*/*")) and time.monotonic() < until_s:
        time.sleep(0.005)
    process.send_signal(number)
    # SIGINT within exec(), as while a data class is made, ends Python by the signal: also 130 in a shell.
    expected = {signal.SIGKILL: (-9,), signal.SIGTERM: (143,), signal.SIGINT: (130, -2)}
    assert process.wait(60) in expected[number]
    left = [] if number != signal.SIGKILL else list(tmp_path.glob(".result.mcap.*.partial"))
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "in", *left])


def later(images: list[Recorded], times: int) -> list[Recorded]:
    span_ns = len(images) * PERIOD_NS
    return [one._replace(time_ns=one.time_ns + times * span_ns) for one in images]


def test_regions_and_camera_motion_are_in_the_events(results) -> None:
    values = [
        {pair.key: json.loads(pair.value) for pair in one.status[0].values if pair.key != "fate"}
        for one in decoded(results["drive.mcap"][1], "/cascade_events")
    ]
    assert all(len(one["camera_motion"]) == 9 for one in values if "camera_motion" in one)
    assert any("camera_motion" in one for one in values) and all("regions" in one for one in values)
