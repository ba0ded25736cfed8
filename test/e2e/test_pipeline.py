"""The executables on a real clip: the boxes equal those of the core, in one process and in five."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from model_cases import DETECTOR, bundle_or_skip, clip_or_skip
from ros_cases import FATES, LATCHED, Robot, adds_up, detections_of, stamp_of

from edge_vision.backends import open_session
from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.detect.detector import Detector
from edge_vision.source.capture import Capture

FRAMES = 30
PERIOD_NS = 100_000_000
PROFILE = Path(__file__).parents[2] / "config" / "fastdds.xml"
STAGES = ("diagnostics_node", "detector_node", "cascade_node", "gate_node", "source_node")

PARAMS = """\
/**/source:
  ros__parameters:
    uri: {clip}
    stamps: media
    frame_id: street
    playback_rate: {rate}
    autostart: false
/**/gate:
  ros__parameters:
    # The decisions depend only on the images: neither on the playback rate nor on chance.
    max_blind_ms: 60000.0
    max_gap_ms: 600000.0
    max_delay_ms: 1.0
    audit_rate: 0.0
/**/detector:
  ros__parameters:
    backend: onnxruntime
    score_threshold: 0.4
    watchdog_ms: 0.0
"""


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """The first frames of vtest.avi, the last one repeated ten times, so that the gate skips some."""
    source = clip_or_skip("vtest.avi")
    path = tmp_path_factory.mktemp("clip") / "street.avi"
    capture = Capture(source)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (768, 576))
    images = [capture.read() for _ in range(FRAMES - 10)]
    for image in images + 10 * images[-1:]:
        writer.write(image)
    writer.release()
    return path


@pytest.fixture(scope="module")
def reference(clip) -> dict[int, Detections]:
    """Stamp -> detections of the core on that frame, without a node; every frame inferred."""
    bundle = bundle_or_skip(DETECTOR)
    session, _ = open_session(bundle, "onnxruntime")
    detector = Detector.from_bundle(bundle, session)
    detector.thresholds = type(detector.thresholds)(
        0.4, detector.thresholds.iou_threshold, detector.thresholds.max_detections
    )
    capture, found = Capture(str(clip)), {}
    while (image := capture.read()) is not None:
        found[10**9 + len(found) * PERIOD_NS] = detector.detect(Frame(image, 1, "")).detections
    session.close()
    assert len(found) == FRAMES and sum(map(len, found.values())) > 2 * FRAMES
    return found


def params_file(tmp_path: Path, clip: Path, rate: float) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS.format(clip=clip, rate=rate))
    return path


def start_source(robot: Robot, source: str = "source") -> None:
    from lifecycle_msgs.msg import Transition

    # The other process matches a little later, which cannot be observed from here.
    robot.turns(1.0)
    assert robot.change_state(source, Transition.TRANSITION_CONFIGURE)
    assert robot.change_state(source, Transition.TRANSITION_ACTIVATE)


def play(robot: Robot, messages: list) -> dict[str, int]:
    """Play the clip to its end. Returns the frame accounting of the last stage."""
    start_source(robot)
    return played(robot, messages)


def played(robot: Robot, messages: list, namespace: str = "") -> dict[str, int]:
    """The frame accounting of the last stage after the end of the clip."""
    source, detector = f"{namespace}/source".strip("/"), f"{namespace}/detector".strip("/")
    robot.status(source, lambda status, values: values["situation"] == "finished")

    def is_finished(status, values) -> bool:
        return values["ledger.in_flight"] == "0" and int(values["ledger.received"]) > 0

    before, values = None, robot.status(detector, is_finished)[1]
    while values["ledger.received"] != before:  # Between processes, some frames may be in transit.
        before, values = values["ledger.received"], robot.status(detector, is_finished)[1]
    ledger = {key[7:]: int(n) for key, n in values.items() if key.startswith("ledger.") and n.isdigit()}
    assert adds_up(ledger)
    robot.wait(lambda: len(messages) >= ledger["inferred"], "all messages")
    return ledger


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n,) IoU of two lists of boxes, (n, 4) each."""
    inner = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None).prod(axis=1)
    return inner / ((a[:, 2:] - a[:, :2]).prod(axis=1) + (b[:, 2:] - b[:, :2]).prod(axis=1) - inner)


def assert_equal_to_reference(
    messages: list, reference: dict[int, Detections], frame_id: str = "street"
) -> None:
    """Every message has the exact header of a frame, and its boxes."""
    from edge_vision.nodes.interface.detection_messages import detections_from_message

    stamps = [stamp_of(message) for message in messages]
    assert stamps == sorted(set(stamps)) and set(stamps) <= set(reference)
    for stamp, message in zip(stamps, messages, strict=True):
        assert message.header.frame_id == frame_id
        found, expected = detections_from_message(message), reference[stamp]
        assert found.class_ids.tolist() == expected.class_ids.tolist()
        assert found.scores == pytest.approx(expected.scores, abs=1e-3)
        assert (iou(found.xyxy_px, expected.xyxy_px) > 0.99).all()


@pytest.fixture(scope="module")
def composed_stamps() -> dict[str, list[int]]:
    return {}


def test_one_process_publishes_the_boxes_of_the_core(
    launch, robot, tmp_path, clip, reference, composed_stamps
):
    launch("pipeline", "--ros-args", "--params-file", params_file(tmp_path, clip, 0.0))
    messages, tracks = detections_of(robot), detections_of(robot, "tracks")
    ledger = play(robot, messages)
    assert ledger["received"] == FRAMES and "handed_on" not in ledger
    robot.wait_for(tracks, FRAMES, "tracks of every frame")
    assert [stamp_of(one) for one in tracks] == sorted(reference), "each frame once, in order"
    assert [one for one in tracks if one in messages] == messages, "inferred ones, with ids"
    ids = {detection.id for one in tracks[-10:] for detection in one.detections}
    assert ids == {detection.id for detection in tracks[-10].detections} and "" not in ids
    assert ledger["superseded"] == ledger["failed"] == ledger["rejected"] == 0
    assert ledger["gated"] >= 5 and ledger["inferred"] == FRAMES - ledger["gated"] == len(messages)
    assert_equal_to_reference(messages, reference)
    composed_stamps["stamps"] = [stamp_of(message) for message in messages]
    assert composed_stamps["stamps"][0] == 10**9


def test_every_frame_is_on_tracks_or_counted_as_lost(launch, robot, tmp_path, clip):
    """Many times the frames that the detector can take."""
    from lifecycle_msgs.msg import Transition

    params = params_file(tmp_path, clip, 50.0)
    params.write_text(params.read_text().replace("    uri:", "    loop: true\n    uri:"))
    launch("pipeline", "--ros-args", "--params-file", params, "-p", "gate:enabled:=false")
    tracks = detections_of(robot, "tracks")
    start_source(robot)
    robot.status("detector", lambda status, values: int(values["ledger.superseded"]) > 100)
    assert robot.change_state("source", Transition.TRANSITION_DEACTIVATE)
    _, values = robot.status("detector", lambda status, values: values["ledger.in_flight"] == "0")
    ledger = {key: int(values[f"ledger.{key}"]) for key in ("received", *FATES)}
    shown = ledger["inferred"] + ledger["gated"] + ledger["rejected"]
    robot.wait_for(tracks, shown, "tracks of every frame that was not lost")
    robot.turns(0.2)
    assert len(tracks) == shown == ledger["received"] - ledger["superseded"] - ledger["failed"] > 0
    stamps = [stamp_of(message) for message in tracks]
    assert stamps == sorted(set(stamps))


def test_five_processes_publish_the_boxes_of_the_core(
    launch, robot, tmp_path, clip, reference, composed_stamps
):
    """The same clip and parameter file, slowly, over DDS."""
    if not composed_stamps:
        pytest.skip("compared with the test of the pipeline in one process, which did not end well")
    params = params_file(tmp_path, clip, 0.5)
    env = dict.fromkeys(("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"), str(PROFILE))
    running = {name: launch(name, "--ros-args", "--params-file", params, env=env) for name in STAGES}
    messages, tracks = detections_of(robot), detections_of(robot, "tracks")
    for node in ("gate", "cascade", "detector"):
        robot.status(node, lambda status, values: values["state"] == "active")
    ledger = play(robot, messages)
    assert_equal_to_reference(messages, reference)
    lost = ledger.get("failed.transport", 0)
    # A loaded machine loses and supersedes some images (best effort); the first stage cannot count images
    # that never arrived.
    assert FRAMES // 2 <= ledger["received"] <= FRAMES
    assert ledger["rejected"] == 0 and ledger["failed"] == lost
    assert ledger["inferred"] + ledger["gated"] >= FRAMES // 2
    robot.wait_for(tracks, ledger["inferred"] + ledger["gated"], "tracks of every frame that was not lost")
    assert len(tracks) == ledger["received"] - ledger["superseded"] - lost == len(set(map(stamp_of, tracks)))
    if ledger["received"] == FRAMES and not lost and not ledger["superseded"]:
        assert [stamp_of(message) for message in messages] == composed_stamps["stamps"]
    for name, one in running.items():
        assert one.end() == 0, f"{name}: {one.output}"


def test_a_bag_is_played_under_its_own_stamps(launch, robot, tmp_path, clip, reference):
    pytest.importorskip("rosbags", reason="rosbags is not installed: run `make setup-test`")
    from bag_cases import Recorded, write_bag

    capture, images = Capture(str(clip)), []
    while (image := capture.read()) is not None:
        images.append(Recorded(image, 10**9 + len(images) * PERIOD_NS + 7_000_000))
    bag = write_bag(tmp_path / "street.mcap", images)
    params = params_file(tmp_path, clip, 0.0)
    text = params.read_text().replace(f"uri: {clip}", f"uri: '{bag}#/cam/image_raw'")
    params.write_text(text.replace("stamps: media", "stamps: auto"))
    launch("pipeline", "--ros-args", "--params-file", params)
    messages = detections_of(robot)
    ledger = play(robot, messages)
    assert ledger["received"] == FRAMES and ledger["failed"] == 0
    assert ledger["inferred"] == len(messages) == FRAMES - ledger["gated"]
    assert_equal_to_reference(messages, reference, "optical")


CAMERAS = ("front", "rear", "left", "right")


def test_four_cameras_publish_the_boxes_of_the_core(launch, robot, tmp_path, clip, reference):
    """One process, one model; each plays the clip at the rate at which its frames are settled."""
    params = params_file(tmp_path, clip, 0.0)
    params.write_text(
        f"/**/pipeline:\n  ros__parameters:\n    cameras: [{', '.join(CAMERAS)}]\n{params.read_text()}"
    )
    pipeline = launch("pipeline", "--ros-args", "--params-file", params)
    messages = {camera: detections_of(robot, f"/{camera}/detections") for camera in CAMERAS}
    for camera in CAMERAS:
        start_source(robot, f"{camera}/source")
    for camera in CAMERAS:
        ledger = played(robot, messages[camera], camera)
        assert ledger["received"] == FRAMES and "handed_on" not in ledger
        assert ledger["superseded"] == ledger["failed"] == ledger["rejected"] == 0
        assert ledger["gated"] >= 5 and ledger["inferred"] == FRAMES - ledger["gated"]
        assert_equal_to_reference(messages[camera], reference)
        _, values = robot.status(f"{camera}/detector")
        assert (values["shared.cameras"], values["shared.models"]) == ("4", "1")
    assert pipeline.end() == 0, pipeline.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cameras", "front,front"], "got 'front' twice"),
        (["--cameras", "front,,rear"], "got '' as a name"),
        (["--cameras", "1st"], "got '1st' as a name"),
        (["--ros-args", "-p", "cameras:=[a b]"], "got 'a b' as a name"),
        (["--ros-args", "-p", "cameras:=front"], "expected string[], got str 'front'"),
        (["--cameras", "a,b", "--ros-args", "-r", "image_raw:=/cam/image"], "receive '/cam/image': remap"),
    ],
)
def test_cameras_that_cannot_run_are_refused_in_one_line(launch, arguments, message):
    pipeline = launch("pipeline", *arguments)
    assert pipeline.process.wait(60) == 2
    last = pipeline.output.splitlines()[-1]
    assert last.startswith("pipeline: ") and message in last


def test_command_line_options_set_parameters(launch, robot, clip):
    from vision_msgs.msg import VisionInfo

    bundle_or_skip(DETECTOR)
    pipeline = launch("pipeline", "--source", clip, "--loop", "--model", DETECTOR, "--backend", "onnxruntime")
    info = robot.listen(VisionInfo, "vision_info", LATCHED)
    robot.wait(lambda: info and info[0].method.startswith(DETECTOR), "the model")
    messages = detections_of(robot)
    robot.wait(lambda: len(messages) > FRAMES // 2, "messages")
    _, values = robot.status("detector")
    assert sum(int(values[f"ledger.{fate}"]) for fate in (*FATES, "in_flight")) == int(
        values["ledger.received"]
    )
    assert pipeline.end() == 0
