"""A bag as the camera of the pipeline: its stamps, its unreadable images, its loop."""

from __future__ import annotations

from bag_cases import START_NS, recording, write_bag
from ros_cases import ALL, CHAIN, SENSOR, DiagnosticArray, Image, SourceNode, detections_of, stamp_of

GATE_OFF = {"gate": {"enabled": False}}


def spoil_second(message):
    if message.header.stamp.nanosec < 10**8:
        object.__setattr__(message, "encoding", "unknown")
    return message


def test_detections_have_the_stamps_of_the_bag(start, robot, tmp_path):
    images = recording()
    bag = write_bag(tmp_path / "drive.mcap", images, spoil_second)
    uri = f"{bag}#/cam/image_raw"
    running = start(ALL, {"source": {"uri": uri, "playback_rate": 0.0, "autostart": False}, **GATE_OFF})
    answers, diagnostics = detections_of(robot), robot.listen(DiagnosticArray, "/diagnostics")
    running.in_executor(running["source"].trigger_configure)
    running.in_executor(running["source"].trigger_activate)
    ledger = running.settled(len(images))
    assert (ledger["received"], ledger["inferred"], ledger["failed.unsupported_encoding"]) == (5, 4, 1)
    robot.wait(lambda: len(answers) == 4, "the answers")
    readable = [one for one in images if one is not images[1]]
    assert [stamp_of(one) for one in answers] == [one.stamp_ns for one in readable]
    assert {one.header.frame_id for one in answers} == {"optical"}
    status, values = robot.status("source", lambda status, values: values["situation"] == "finished")
    assert status.level == b"\x01" and "unreadable images (unsupported_encoding 1, of 5)" in values["trouble"]
    assert values["stamps"] == "recorded"
    robot.wait(lambda: ages(diagnostics), "the age on /diagnostics")
    # Recorded years ago, which says nothing about the pipeline.
    assert "age at output" not in " ".join(one.message for array in diagnostics for one in array.status)


def ages(diagnostics: list[DiagnosticArray]) -> list[str]:
    """The values of age_ms.p95."""
    values = [pair for array in diagnostics for one in array.status for pair in one.values]
    return [pair.value for pair in values if pair.key == "age_ms.p95" and pair.value != "unavailable"]


def test_stamps_increase_across_a_loop_and_images_are_published_as_recorded(start, robot, tmp_path):
    images = recording(3, encoding="rgb8")
    bag = write_bag(tmp_path / "drive.bag", images)
    running = start(
        (SourceNode, *CHAIN), {"source": {"uri": str(bag), "playback_rate": 0.0, "loop": True}, **GATE_OFF}
    )
    answers, received = detections_of(robot), robot.listen(Image, "image_raw", SENSOR)
    robot.wait(lambda: len(answers) > 9 and received, "three rounds and an image")
    stamps = [stamp_of(one) for one in answers]
    assert stamps == sorted(set(stamps)) and running.ledger["failed"] == 0
    assert set(stamps) <= {images[0].stamp_ns + n * 10**8 for n in range(10**4)}
    assert received[0].encoding == "rgb8"
    assert bytes(received[0].data) in {one.image.tobytes() for one in images}


def test_stamps_beyond_their_range_start_again(start, robot, tmp_path):
    """From 2023 to 2038, in a loop: each round but the first one jumps back once."""
    span_ns = 2**31 * 10**9 - START_NS - 1
    images = [one._replace(time_ns=START_NS + n * span_ns // 2) for n, one in enumerate(recording(3))]
    bag = write_bag(tmp_path / "drive.mcap", images)
    running = start(
        (SourceNode, *CHAIN), {"source": {"uri": str(bag), "playback_rate": 0.0, "loop": True}, **GATE_OFF}
    )
    answers = detections_of(robot)
    robot.wait(lambda: running.ledger["inferred"] > 9 and answers, "five rounds")
    ledger = running.ledger
    assert 0 < ledger["failed"] == ledger["failed.stamp_backwards"] < ledger["inferred"]
    assert {stamp_of(one) for one in answers} <= {one.stamp_ns for one in images}


def test_the_clock_and_a_frame_id_replace_the_recorded_header_if_asked(start, robot, tmp_path):
    values = {"uri": str(write_bag(tmp_path / "drive.db3", recording(3))), "playback_rate": 0.0, "loop": True}
    running = start((SourceNode, *CHAIN), {"source": {**values, "stamps": "clock", "frame_id": "cam"}})
    images = robot.listen(Image, "image_raw", SENSOR)
    robot.wait(lambda: images, "an image")
    age_ns = running["source"].get_clock().now().nanoseconds - stamp_of(images[0])
    assert 0 < age_ns < 60 * 10**9 and images[0].header.frame_id == "cam"


def test_a_bag_that_cannot_be_played_is_reported(start, robot, tmp_path):
    two = [*recording(1, topic="/front"), *recording(1, topic="/rear")]
    start([SourceNode], {"source": {"uri": str(write_bag(tmp_path / "two.mcap", two))}})
    status, _ = robot.status("source", lambda status, values: values["situation"] == "waiting")
    assert status.level == b"\x01" and "expected one image topic" in status.message
    assert "/rear (1 images)" in status.message
