"""The stages as in processes of their own: ticks and images over DDS, the last stage keeps the whole book."""

from __future__ import annotations

import pytest
from model_cases import video_frame
from ros_cases import (
    CHAIN,
    FATES,
    NO_TIMED_PASSES,
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

from edge_vision.core.frame_event import FrameEvent
from edge_vision.core.frame_event_join import FrameEventJoin
from edge_vision.core.geometry.boxes import NO_REGIONS
from edge_vision.nodes.interface.frame_event_messages import frame_event_message


def test_the_books_of_the_last_stage_are_those_of_the_whole_chain(start, robot):
    running = start(CHAIN, {"gate": NO_TIMED_PASSES}, separate=True)
    wait_for_stages(robot, running)
    answers = detections_of(robot)
    camera = robot.publisher(Image, "image_raw")
    street = video_frame("vtest.avi", 200).image
    images = [street, street, picture(1, 768, 576), street]
    for number, image in enumerate(images, 1):
        camera.publish(image_message(image, number * 10**9 + 7, f"cam{number}"))
        running.settled(number)
    camera.publish(image_message(picture(1), 99, encoding="nonsense"))
    books = running.settled(5)
    assert {fate: books[fate] for fate in FATES} == {
        "inferred": 3,
        "gated": 1,
        "rejected": 0,
        "superseded": 0,
        "failed": 1,
    }
    assert books["gated.still"] == 1 and books["failed.unsupported_encoding"] == 1
    robot.wait(lambda: len(answers) == 3, "the answers")
    assert [(stamp_of(a), a.header.frame_id) for a in answers] == [
        (n * 10**9 + 7, f"cam{n}") for n in (1, 3, 4)
    ]
    gate = running["gate"].hub.ledger.snapshot()
    assert gate.balanced and gate.received == 5 and gate.fates == {"handed_on": 3, "gated": 1, "failed": 1}


def tick(stamp_ns: int, fate: str = "", reason: str = "motion", frame_id: str = "camera") -> DiagnosticArray:
    return frame_event_message(FrameEvent(stamp_ns, frame_id, "gate", fate, reason, NO_REGIONS))


@pytest.fixture
def detector(start, robot):
    """The detector alone, with the ends of the stage before it: (running, ticks, images)."""
    running = start([DetectorNode])
    ticks = robot.publisher(DiagnosticArray, "cascade_events", 100)
    return running, ticks, robot.publisher(Image, "image_accepted")


@pytest.fixture
def patient(detector):
    """The same, where a tick waits for its image however long the test takes."""
    detector[0]["detector"]._join = FrameEventJoin(timeout_ns=60 * 10**9)
    return detector


def test_an_image_that_a_transport_lost_is_counted(patient, robot):
    running, ticks, images = patient
    for number in (1, 2, 3):
        ticks.publish(tick(number))
    robot.wait(lambda: running.ledger["received"] == 3, "the ticks")
    assert running.ledger["in_flight"] == 3
    images.publish(image_message(picture(3), 3))
    books = running.settled(3)
    assert (books["failed.transport"], books["inferred"]) == (2, 1)


def test_an_image_that_never_comes_is_given_up(detector, robot):
    running, ticks, _ = detector
    ticks.publish(tick(1))
    assert running.settled(1)["failed.transport"] == 1


def test_an_image_before_its_tick_is_counted_once(detector, robot):
    running, ticks, images = detector
    images.publish(image_message(picture(1), 1))
    running.settled(1)
    ticks.publish(tick(1))
    ticks.publish(tick(2, "gated", "still"))
    books = running.settled(2)
    assert (books["received"], books["inferred"], books["gated.still"]) == (2, 1, 1)


def test_what_is_waited_for_is_counted_when_the_node_stops(patient, robot):
    running, ticks, _ = patient
    ticks.publish(tick(1))
    robot.wait(lambda: running.ledger["in_flight"] == 1, "the tick")
    running.end()
    assert running.ledger["failed.transport"] == 1 and running.ledger["in_flight"] == 0


NONSENSE = {
    "no status": DiagnosticArray(),
    "no json": tick(5),
    "unknown fate": tick(6, "eaten", "by the dog"),
    "huge stamp": tick(7),
}
NONSENSE["no json"].status[0].values[1].value = "[[1, 2"
NONSENSE["huge stamp"].header = Header()
NONSENSE["huge stamp"].header.stamp.nanosec = 2**32 - 1


@pytest.mark.parametrize("case", NONSENSE)
def test_nonsense_on_the_ticks_topic_harms_nothing(detector, robot, case):
    running, ticks, images = detector
    ticks.publish(NONSENSE[case])
    ticks.publish(tick(10))
    images.publish(image_message(picture(1), 10))
    robot.wait(lambda: running.ledger["inferred"] == 1, f"the good image; {running.ledger}")
    robot.wait(lambda: running.ledger["in_flight"] == 0, "the books to close")
    assert running.hub.ledger.snapshot().balanced
