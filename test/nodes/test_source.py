"""The source: real files, ends, loops, losses, stamps; and that it publishes only to who listens."""

from __future__ import annotations

import shutil
import sys
import time

import cv2
import numpy as np
import pytest
from ros_cases import (
    ALL,
    CHAIN,
    SENSOR,
    DiagnosticArray,
    GateNode,
    Image,
    SourceNode,
    detections_of,
    stamp_of,
    wait_until,
)
from video_cases import HEIGHT_PX, WIDTH_PX, white_corner, write_matroska, write_rotated

from edge_vision.nodes import source_node

FRAMES = 5


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 20.0, (64, 48))
    for value in range(FRAMES):
        writer.write(np.full((48, 64, 3), 40 * value + 10, np.uint8))
    writer.release()
    return path


def source(clip, **values):
    return {"source": {"uri": str(clip), "stamps": "media", **values}, "gate": {"enabled": False}}


@pytest.mark.parametrize("rate", [0.0, 1.0, 100.0])
def test_a_file_is_played_once_under_media_stamps(start, robot, clip, rate):
    """At rate 0 each frame waits for the one before; at any other one a busy detector supersedes some."""
    running = start(ALL, source(clip, playback_rate=rate, autostart=False))
    answers = detections_of(robot)
    running.in_executor(running["source"].trigger_configure)
    running.in_executor(running["source"].trigger_activate)
    ledger = running.settled(FRAMES)
    assert ledger["received"] == FRAMES and ledger["failed"] == 0
    assert ledger["inferred"] + ledger["superseded"] == FRAMES and (rate or not ledger["superseded"])
    robot.wait(lambda: len(answers) == ledger["inferred"], "the answers")
    stamps = [10**9 + n * 50_000_000 for n in range(FRAMES)]
    found = [stamp_of(a) for a in answers]
    assert found == (sorted(set(stamps) & set(found)) if ledger["superseded"] else stamps)
    assert {a.header.frame_id for a in answers} == {"camera"}
    status, values = robot.status("source", lambda status, values: values["situation"] == "finished")
    assert status.level == b"\x00" and values["sent"] == str(FRAMES)


def test_a_finished_source_logs_how_to_end_or_repeat(start, clip, capfd):
    start([SourceNode], source(clip, playback_rate=100.0))
    wait_until(
        lambda: (text := capfd.readouterr().err) and "Ctrl-C ends the process, `loop`" in text, "the line"
    )


def test_a_truncated_file_is_a_warning(start, robot, clip):
    data = clip.read_bytes()
    third = [at for at in range(len(data)) if data.startswith(b"00dc", at)][2]
    clip.write_bytes(data[:third])
    start([SourceNode], source(clip, playback_rate=1.0))
    status, values = robot.status("source", lambda status, values: values["situation"] == "finished")
    assert status.level == b"\x01" and "truncated" in status.message and values["trouble"]


@pytest.mark.parametrize("rate", [5e-324, 0.001, 1e6, float("nan")])
def test_a_rate_beyond_the_range_is_refused(start, robot, clip, rate):
    start([SourceNode], source(clip, loop=True))
    answer = robot.set("source", playback_rate=rate)
    # Above the range and for nan, ROS itself refuses.
    needle = "0 or 0.01..1000" if rate < 1 else "playback_rate out of range"
    assert not answer.successful and needle in answer.reason


def test_stamps_increase_across_a_loop(start, robot, clip):
    running = start((SourceNode, *CHAIN), source(clip, loop=True, playback_rate=0.0))
    answers = detections_of(robot)
    robot.wait(lambda: len(answers) > 3 * FRAMES, "three rounds")
    stamps = [stamp_of(a) for a in answers]
    assert stamps == sorted(set(stamps)) and running.ledger["failed"] == 0


UNEVEN_MS = [*range(0, 200, 10), 1200, 2000]


@pytest.fixture
def uneven_clip(tmp_path):
    """A recording that starts at 1.4 s; its container reports a rate of 100 Hz."""
    return write_matroska(tmp_path / "uneven.mkv", [1400 + time_ms for time_ms in UNEVEN_MS])


def test_media_stamps_are_the_frames_own_times(start, robot, uneven_clip):
    running = start((SourceNode, *CHAIN), source(uneven_clip, loop=True, playback_rate=0.0, autostart=False))
    answers = detections_of(robot)
    robot.wait(lambda: robot.node.count_publishers("detections"), "the detector to be known")
    running.in_executor(running["source"].trigger_configure)
    running.in_executor(running["source"].trigger_activate)
    robot.wait(lambda: len(answers) >= 2 * len(UNEVEN_MS), "two rounds")
    found_ms = [stamp_of(answer) / 1e6 for answer in answers]
    # The second round begins the shortest interval after the first.
    rounds_ms = [1000 + offset_ms + time_ms for offset_ms in (0, 2010) for time_ms in UNEVEN_MS]
    assert found_ms[: len(rounds_ms)] == pytest.approx(rounds_ms, abs=0.001)


@pytest.mark.parametrize("rate", [1.0, 2.0])
def test_unevenly_spaced_frames_take_their_own_time(start, uneven_clip, rate):
    running = start([SourceNode], source(uneven_clip, playback_rate=rate, autostart=False))
    running.in_executor(running["source"].trigger_configure)
    before_s = time.monotonic()
    running.in_executor(running["source"].trigger_activate)
    wait_until(lambda: running["source"].status_values()["situation"] == "finished", "the end of the clip")
    assert time.monotonic() - before_s > UNEVEN_MS[-1] / 1e3 / rate / 2
    assert running["source"].status_values()["sent"] == len(UNEVEN_MS)


@pytest.mark.parametrize("degrees,corner", [(90, "top right"), (180, "bottom right"), (270, "bottom left")])
def test_the_rotation_of_the_container_is_applied(start, robot, tmp_path, degrees, corner):
    start([SourceNode], source(write_rotated(tmp_path / "phone.mp4", degrees), loop=True))
    images = robot.listen(Image, "image_raw", SENSOR)
    robot.wait(lambda: images, "an image")
    image = np.frombuffer(images[0].data, np.uint8).reshape(images[0].height, images[0].width, 3)
    size = (WIDTH_PX, HEIGHT_PX) if degrees == 180 else (HEIGHT_PX, WIDTH_PX)
    assert (images[0].width, images[0].height) == size and white_corner(image) == corner


def test_clock_stamps(start, robot, clip):
    before_ns = running_ns = None
    running = start(
        (SourceNode, *CHAIN), source(clip, stamps="clock", playback_rate=0.0, loop=True, frame_id="cam")
    )
    before_ns = running["source"].get_clock().now().nanoseconds - 60 * 10**9
    answers = detections_of(robot)
    robot.wait(lambda: answers, "an answer")
    running_ns = running["source"].get_clock().now().nanoseconds
    assert before_ns < stamp_of(answers[0]) < running_ns and answers[0].header.frame_id == "cam"


def test_images_are_published_on_dds_only_with_a_subscriber(start, robot, clip, monkeypatch):
    running = start((SourceNode, *CHAIN), source(clip, loop=True, playback_rate=0.0))
    sent = []
    message = running["source"]._writer.message
    monkeypatch.setattr(
        running["source"]._writer, "message", lambda frame: sent.append(frame) or message(frame)
    )
    robot.wait(lambda: running.ledger["inferred"] > 5, "some frames")
    assert not sent
    images = robot.listen(Image, "image_raw", SENSOR)
    robot.wait(lambda: len(images) > 2, "images")
    assert (images[0].width, images[0].height, images[0].encoding, images[0].step) == (64, 48, "bgr8", 192)
    means = {round((np.frombuffer(one.data, np.uint8).mean() - 10) / 40) for one in images}
    assert means <= set(range(FRAMES))
    assert any(np.frombuffer(one.data, np.uint8).mean() > 5 for one in images), "not black"
    assert running["gate"].input.topic == "", "the gate takes them by reference"


def test_a_tick_for_each_image(start, robot, clip):
    running = start([SourceNode], source(clip, loop=True, playback_rate=1.0))
    frame_events = robot.listen(DiagnosticArray, "source_events")
    images = robot.listen(Image, "image_raw", SENSOR)

    def with_tick() -> int:
        return len({stamp_of(one) for one in images} & {stamp_of(one) for one in frame_events})

    robot.wait(lambda: len(frame_events) > 3 and with_tick() > 2, "images and their frame events")
    assert running["source"].state == "active"


TROUBLE = {
    "missing": (lambda path: path.unlink(), "does not exist"),
    "expected a video": (
        lambda path: path.write_bytes(b"hello" * 1000),
        "expected a video that OpenCV can read",
    ),
}


@pytest.mark.parametrize("case", TROUBLE)
def test_a_missing_source_is_reported_and_opened_when_it_appears(start, robot, clip, case):
    spare = clip.with_name("spare.avi")
    shutil.copy(clip, spare)
    spoil, needle = TROUBLE[case]
    spoil(clip)
    running = start([SourceNode, GateNode], source(clip, playback_rate=0.0))
    status, _ = robot.status("source", lambda status, values: values["situation"] == "waiting")
    assert status.level == b"\x01" and needle in status.message and str(clip) in status.message
    assert running["source"].state == "active"
    shutil.copy(spare, clip.with_name("new.avi"))
    clip.with_name("new.avi").replace(clip)
    robot.status("source", lambda status, values: values["situation"] == "finished")
    assert running.ledger["received"] == FRAMES


def test_a_missing_package_is_one_error_without_another_attempt(start, robot, tmp_path, monkeypatch):
    """It cannot appear in a running process; the cause stays on `output`."""
    (tmp_path / "drive.mcap").touch()
    for name in ("rosbags", *(one for one in sys.modules if one.startswith("rosbags."))):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(source_node, "FIRST_BACKOFF_S", 0.05)
    log = tmp_path / "log.jsonl"
    start(ALL, {"source": {"uri": str(tmp_path / "drive.mcap"), "json_log": str(log)}})
    diagnostics = robot.listen(DiagnosticArray, "/diagnostics")
    status, values = robot.status("source", lambda status, values: values["situation"] == "failed")
    assert status.level == b"\x01" and "package rosbags is not installed" in values["trouble"]

    def outputs() -> list[str]:
        return [one.message for array in diagnostics for one in array.status if one.name == "output"]

    robot.wait(lambda: any("source_unavailable" in text for text in outputs()), "the cause")
    robot.turns(1.0)
    assert log.read_text().count('"ERROR"') == 1
    assert "source_unavailable" in outputs()[-1]


def test_a_stream_that_does_not_answer_is_reported(start, robot):
    start([SourceNode], {"source": {"uri": "http://127.0.0.1:9/none", "open_timeout_ms": 300}})
    status, _ = robot.status("source", lambda status, values: values["situation"] == "waiting")
    assert status.level == b"\x01" and "does not answer" in status.message


def test_idle_without_a_uri(start, robot):
    start([SourceNode])
    status, values = robot.status("source")
    assert status.level == b"\x00" and "idle" in status.message and values["sent"] == "0"


def test_it_ends_while_it_waits_plays_or_opens(start, clip):
    """`start` ends it: here at once after the start, in the middle of what it does."""
    start((SourceNode, *CHAIN), source(clip, loop=True, playback_rate=0.0)).end()


def test_a_new_uri_takes_effect_at_configure(start, robot, clip):
    from lifecycle_msgs.msg import Transition as T

    running = start([SourceNode, GateNode])
    assert running["gate"].input.topic, "without a source here, images come over DDS"
    for transition in (T.TRANSITION_DEACTIVATE, T.TRANSITION_CLEANUP):
        assert robot.change_state("source", transition)
    assert robot.set("source", uri=str(clip), playback_rate=0.0).successful
    for transition in (T.TRANSITION_CONFIGURE, T.TRANSITION_ACTIVATE):
        assert robot.change_state("source", transition)
    assert running.settled(FRAMES)["received"] == FRAMES
