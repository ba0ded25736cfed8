"""Stages in separate processes: frame events and images over DDS, the last stage has the complete ledger."""

from __future__ import annotations

import pytest
from model_cases import video_frame
from ros_cases import (
    CHAIN,
    FATES,
    ONLY_CHANGES,
    DetectorNode,
    DiagnosticArray,
    Image,
    detections_of,
    image_message,
    picture,
    stamp_of,
)
from scene_cases import wait_for_stages
from std_msgs.msg import Header

from edge_vision.core.frame_event import FrameEvent, FrameEventJoin
from edge_vision.core.geometry.boxes import NO_REGIONS
from edge_vision.nodes.interface.frame_event_messages import frame_event_message


def test_the_ledger_of_the_last_stage_covers_the_whole_chain(start, robot):
    running = start(CHAIN, {"gate": ONLY_CHANGES}, separate=True)
    wait_for_stages(robot, running)
    answers = detections_of(robot)
    camera = robot.publisher(Image, "image_raw")
    street = video_frame("vtest.avi", 200).image
    images = [street, street, picture(1, 768, 576), street]
    for number, image in enumerate(images, 1):
        camera.publish(image_message(image, number * 10**9 + 7, f"cam{number}"))
        running.settled(number)
    camera.publish(image_message(picture(1), 99, encoding="nonsense"))
    ledger = running.settled(5)
    assert {fate: ledger[fate] for fate in FATES} == {
        "inferred": 3,
        "gated": 1,
        "rejected": 0,
        "superseded": 0,
        "failed": 1,
    }
    assert ledger["gated.still"] == 1 and ledger["failed.unsupported_encoding"] == 1
    robot.wait(lambda: len(answers) == 3, "the answers")
    assert [(stamp_of(a), a.header.frame_id) for a in answers] == [
        (n * 10**9 + 7, f"cam{n}") for n in (1, 3, 4)
    ]
    gate = running["gate"].hub.ledger.snapshot()
    assert gate.balanced and gate.received == 5 and gate.fates == {"handed_on": 3, "gated": 1, "failed": 1}


def frame_event(
    stamp_ns: int, fate: str = "", reason: str = "motion", frame_id: str = "camera"
) -> DiagnosticArray:
    return frame_event_message(FrameEvent(stamp_ns, frame_id, "gate", fate, reason, NO_REGIONS))


@pytest.fixture
def detector(start, robot):
    """The detector alone, with the ends of the stage before it: (running, frame events, images)."""
    running = start([DetectorNode])
    frame_events = robot.publisher(DiagnosticArray, "cascade_events", 100)
    return running, frame_events, robot.publisher(Image, "image_accepted")


@pytest.fixture
def patient(detector):
    """The same, where a frame event waits for its image however long the test takes."""
    detector[0]["detector"]._join = FrameEventJoin(timeout_ns=60 * 10**9)
    return detector


def test_an_image_that_a_transport_lost_is_counted(patient, robot):
    running, frame_events, images = patient
    for number in (1, 2, 3):
        frame_events.publish(frame_event(number))
    robot.wait(lambda: running.ledger["received"] == 3, "the frame events")
    assert running.ledger["in_flight"] == 3
    images.publish(image_message(picture(3), 3))
    ledger = running.settled(3)
    assert (ledger["failed.transport"], ledger["inferred"]) == (2, 1)


def test_an_image_that_never_comes_is_given_up(detector, robot):
    running, frame_events, _ = detector
    frame_events.publish(frame_event(1))
    assert running.settled(1)["failed.transport"] == 1


def test_an_image_before_its_tick_is_counted_once(detector, robot):
    running, frame_events, images = detector
    images.publish(image_message(picture(1), 1))
    running.settled(1)
    frame_events.publish(frame_event(1))
    frame_events.publish(frame_event(2, "gated", "still"))
    ledger = running.settled(2)
    assert (ledger["received"], ledger["inferred"], ledger["gated.still"]) == (2, 1, 1)


def test_what_is_waited_for_is_counted_when_the_node_stops(patient, robot):
    running, frame_events, _ = patient
    frame_events.publish(frame_event(1))
    robot.wait(lambda: running.ledger["in_flight"] == 1, "the frame event")
    running.end()
    assert running.ledger["failed.transport"] == 1 and running.ledger["in_flight"] == 0


NONSENSE = {
    "no status": DiagnosticArray(),
    "no json": frame_event(5),
    "unknown fate": frame_event(6, "eaten", "by the dog"),
    "huge stamp": frame_event(7),
}
NONSENSE["no json"].status[0].values[1].value = "[[1, 2"
NONSENSE["huge stamp"].header = Header()
NONSENSE["huge stamp"].header.stamp.nanosec = 2**32 - 1


@pytest.mark.parametrize("case", NONSENSE)
def test_invalid_frame_events_are_ignored(detector, robot, case):
    running, frame_events, images = detector
    frame_events.publish(NONSENSE[case])
    frame_events.publish(frame_event(10))
    images.publish(image_message(picture(1), 10))
    robot.wait(lambda: running.ledger["inferred"] == 1, f"the good image; {running.ledger}")
    robot.wait(lambda: running.ledger["in_flight"] == 0, "the ledger to close")
    assert running.hub.ledger.snapshot().balanced
