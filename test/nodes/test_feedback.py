"""What the detector found goes back to the gate, in one process and between two; so does a new model."""

from __future__ import annotations

import pytest
from lifecycle_msgs.msg import Transition
from model_cases import DETECTOR, bundle_or_skip, video_frame
from ros_cases import (
    CHAIN,
    LATCHED,
    ONLY_CHANGES,
    RELIABLE,
    DetectorNode,
    DiagnosticArray,
    GateNode,
    Image,
    detections_of,
    image_message,
    picture,
    stamp_of,
)
from scene_cases import WAYS, wait_for_stages
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose, VisionInfo

from edge_vision.nodes.interface.detection_messages import detections_from_message
from edge_vision.nodes.interface.frame_event_messages import frame_event_from_message


def heard_by(running, monkeypatch) -> list:
    """Records the detections that the gate receives."""
    heard = []
    gate = running["gate"]._gate
    inferred = gate.inferred
    monkeypatch.setattr(gate, "inferred", lambda *result: heard.append(result) or inferred(*result))
    return heard


def started(start, robot, separate, **gate):
    """The chain, once all its parts know each other."""
    overrides = {"gate": {**ONLY_CHANGES, **gate}, "detector": {"publish_low_score": False}}
    running = start(CHAIN, overrides, separate=separate)
    if separate:
        wait_for_stages(robot, running)
    return running


@pytest.mark.parametrize("separate", WAYS.values(), ids=WAYS)
def test_the_gate_receives_the_detections_of_each_inferred_frame(start, robot, monkeypatch, separate):
    running = started(start, robot, separate)
    heard, answers = heard_by(running, monkeypatch), detections_of(robot)
    camera = robot.publisher(Image, "image_raw")
    street = video_frame("vtest.avi", 200).image
    images = [street, street, picture(1, 768, 576)]
    for number, image in enumerate(images, 1):
        camera.publish(image_message(image, number * 10**8 + 7, "cam"))
        running.settled(number)
    robot.wait(lambda: len(answers) == 2 and len(heard) == 2, f"two answers and {heard}")
    assert [result[0] for result in heard] == [10**8 + 7, 3 * 10**8 + 7] == list(map(stamp_of, answers))
    for (_, found, low_score), answer in zip(heard, answers, strict=True):
        assert low_score is None, "not requested"
        published = detections_from_message(answer)
        assert found.xyxy_px == pytest.approx(published.xyxy_px, abs=1e-3)
        assert found.class_ids.tolist() == published.class_ids.tolist()
    assert len(heard[0][1]) >= 5 and len(heard[1][1]) == 0
    assert running.ledger["gated.still"] == 1
    subscribed = robot.node.count_subscribers("vision_info")
    assert subscribed == (1 if separate else 0), "by reference, no DDS"


@pytest.mark.parametrize("separate", WAYS.values(), ids=WAYS)
def test_low_score_detections_come_with_the_detections(start, robot, monkeypatch, separate):
    running = started(start, robot, separate, enabled=False)
    heard = heard_by(running, monkeypatch)
    camera = robot.publisher(Image, "image_raw")
    street = video_frame("vtest.avi", 200).image

    def show(number: int) -> None:
        camera.publish(image_message(street, number * 10**8, "cam"))
        running.settled(number)
        robot.wait(lambda: len(heard) == number, "the gate to receive it")

    show(1)
    assert heard[0][2] is None and not robot.node.count_publishers("detections_low_score")
    assert robot.set("detector", publish_low_score=True).successful
    published, listeners = robot.listen(Detection2DArray, "detections_low_score"), 2 if separate else 1
    robot.wait(
        lambda: running["detector"].detections.low_score.current.subscription_count == listeners,
        "all to know the topic",
    )
    for number in (2, 3):
        show(number)
        _, found, low_score = heard[number - 1]
        assert len(low_score) >= 1 and all(0.2 <= score < 0.4 for score in low_score.scores.tolist())
        assert found.xyxy_px == pytest.approx(heard[0][1].xyxy_px), (
            "what is found is the same with and without"
        )
    robot.wait(lambda: len(published) == 2, "them on the topic")
    assert [stamp_of(one) for one in published] == [2 * 10**8, 3 * 10**8]
    assert detections_from_message(published[1]).xyxy_px == pytest.approx(heard[2][2].xyxy_px, abs=1e-3)
    assert robot.set("detector", publish_low_score=False).successful
    show(4)
    assert heard[3][2] is None
    robot.wait(lambda: not robot.node.count_publishers("detections_low_score"), "the topic to go")


def test_low_score_detections_without_detections_are_dropped(start, robot):
    """A detector whose results are lost, or somebody else who publishes."""
    running = start([GateNode], {"gate": ONLY_CHANGES})
    publisher = robot.publisher(Detection2DArray, "detections_low_score", RELIABLE)
    robot.wait(lambda: publisher.get_subscription_count(), "the gate to listen")
    feedback = running["gate"]._feedback
    for number in range(1, 41):
        message = Detection2DArray()
        message.header.stamp.sec = number
        publisher.publish(message)
        robot.wait(lambda: number * 10**9 in feedback._low_score, "the gate to hear")  # noqa: B023
    assert len(feedback._low_score) == 16


@pytest.mark.parametrize("separate", WAYS.values(), ids=WAYS)
def test_an_audited_frame_is_inferred_and_counted_like_any_other(start, robot, separate):
    """The rate is set live; what would have been skipped goes through the whole chain."""
    running = started(start, robot, separate)
    frame_events = robot.listen(DiagnosticArray, "gate_events")
    robot.wait(
        lambda: running["gate"].output.events.subscription_count >= (2 if separate else 1), "the listeners"
    )
    camera = robot.publisher(Image, "image_raw")
    street = video_frame("vtest.avi", 200).image
    number = 0

    def show(times: int) -> None:
        nonlocal number
        for _ in range(times):
            number += 1
            camera.publish(image_message(street, number * 10**8))
            running.settled(number)

    show(6)
    skipped = running.ledger["gated"]
    assert skipped == 5
    assert robot.set("gate", audit_rate=1.0, audit_max_hz=1000.0).successful
    show(4)
    ledger = running.ledger
    assert (ledger["gated"], ledger["inferred"]) == (skipped, number - skipped)
    robot.wait(lambda: len(frame_events) == number, "the frame events")
    assert [frame_event_from_message(one).reason for one in frame_events[-4:]] == ["audit"] * 4
    show(1)  # The gate takes the results up when it judges the next frame.
    _, values = robot.status("gate", lambda status, values: values["gate.reason.audit"] == "5")
    assert int(values["audit.audited"]) >= 4 and values["audit.missed"] == "0"
    assert values["ledger.balanced"] == "True"


def test_the_cascade_does_not_reject_an_audit(start, robot):
    from model_cases import EFFICIENTNET

    bundle_or_skip(EFFICIENTNET)
    cascade = {"model": EFFICIENTNET, "wanted_labels": ["mountain bike"], "score_threshold": 0.99}
    gate = {**ONLY_CHANGES, "audit_rate": 1.0, "audit_max_hz": 1000.0}
    running = start(CHAIN, {"cascade": {**cascade, "max_blind_ms": 60000.0}, "gate": gate})
    camera = robot.publisher(Image, "image_raw")
    for number in range(1, 7):
        camera.publish(image_message(picture(number > 4), number * 10**8))
        running.settled(number)
    ledger = running.ledger
    # The first frame is accepted, as the cascade was blind until then; four are audits; the news is unwanted.
    assert (ledger["inferred"], ledger["rejected.unwanted"]) == (5, 1) and ledger["received"] == 6


# A detector that restarts.


def passed_as(running, robot, camera, stamp_ns: int) -> str:
    """The reason with which the gate lets one more picture of the same scene pass, or skips it."""
    ledger = running.ledger
    camera.publish(image_message(picture(1), stamp_ns))
    running.settled(ledger["received"] + 1)
    return running["gate"]._last_reason


def quiet_scene(running, robot, camera, stamp_ns: int) -> int:
    """Show a scene until the gate is shut; gives the next free stamp."""
    for _ in range(50):
        stamp_ns += 10**8
        if passed_as(running, robot, camera, stamp_ns) == "still":
            return stamp_ns + 10**8
    pytest.fail("the gate does not shut")


@pytest.mark.parametrize("separate", WAYS.values(), ids=WAYS)
def test_after_a_model_swap_a_frame_passes(start, robot, separate):
    running = started(start, robot, separate)
    camera = robot.publisher(Image, "image_raw")
    next_ns = quiet_scene(running, robot, camera, 10**9)
    for transition in (
        Transition.TRANSITION_DEACTIVATE,
        Transition.TRANSITION_CLEANUP,
        Transition.TRANSITION_CONFIGURE,
        Transition.TRANSITION_ACTIVATE,
    ):
        assert robot.change_state("detector", transition)
    if separate:
        robot.wait(lambda: running["gate"]._resets, "the gate to hear of it")
        robot.turns(0.3)
        robot.wait(
            lambda: running["cascade"].output.images.subscription_count, "the cascade to know the detector"
        )
    assert passed_as(running, robot, camera, next_ns) == "model_swap"
    next_ns = quiet_scene(running, robot, camera, next_ns)
    assert robot.set("detector", score_threshold=0.3).successful
    robot.wait(lambda: running["gate"]._resets, "the gate to hear that the detector sees otherwise")
    assert passed_as(running, robot, camera, next_ns) == "model_swap"
    next_ns = quiet_scene(running, robot, camera, next_ns)
    assert robot.set("detector", watchdog_ms=5000.0).successful
    robot.turns(0.3)
    assert passed_as(running, robot, camera, next_ns) == "still", "that changes nothing of what it sees"


INFO = VisionInfo(method="other 1.0", database_location="sha256:1", database_version=1)


@pytest.fixture
def alone(start, robot):
    """The gate in a process of its own, shut, and a foreign detector's ends: (running, camera, infos)."""
    running = start([GateNode], {"gate": ONLY_CHANGES})
    camera = robot.publisher(Image, "image_raw")
    next_ns = quiet_scene(running, robot, camera, 10**9)
    infos = robot.publisher(VisionInfo, "vision_info", LATCHED)
    return running, camera, infos, next_ns


def announce(running, robot, infos) -> None:
    infos.publish(INFO)
    robot.wait(lambda: running["gate"]._resets, "the gate to hear of it")


def test_a_detector_that_comes_later_sees_a_frame_at_once(alone, robot):
    running, camera, infos, next_ns = alone
    announce(running, robot, infos)
    assert passed_as(running, robot, camera, next_ns) == "model_swap"


def test_a_detector_with_a_new_model_gets_a_frame_at_once(alone, robot):
    running, camera, infos, next_ns = alone
    for _ in range(2):
        announce(running, robot, infos)
        assert passed_as(running, robot, camera, next_ns) == "model_swap"
        next_ns = quiet_scene(running, robot, camera, next_ns)


def test_a_detector_that_was_restarted_with_the_same_model_sees_a_frame_at_once(alone, robot):
    running, camera, infos, next_ns = alone
    announce(running, robot, infos)
    next_ns = quiet_scene(running, robot, camera, next_ns)
    robot.node.destroy_publisher(infos)
    robot.wait(lambda: not robot.node.count_publishers("vision_info"), "the detector to be gone")
    announce(running, robot, robot.publisher(VisionInfo, "vision_info", LATCHED))
    assert passed_as(running, robot, camera, next_ns) == "model_swap"


def test_foreign_detections_harm_nothing(start, robot, monkeypatch):
    """Unknown stamps, class names where numbers are expected, no hypothesis at all, a stamp that is none."""
    running = start([GateNode], {"gate": ONLY_CHANGES})
    heard = heard_by(running, monkeypatch)
    results = robot.publisher(Detection2DArray, "detections", RELIABLE)
    named = Detection2DArray(detections=[Detection2D()])
    results.publish(named)
    broken = Detection2DArray()
    broken.header.stamp.nanosec = 2**32 - 1
    results.publish(broken)
    unknown = Detection2DArray()
    unknown.header.stamp.sec = 77
    for center_px, size_px in (
        (40.0, 20.0),
        (float("nan"), 20.0),
        (40.0, float("inf")),
        (1e30, 9.0),
        (40.0, 0.0),
    ):
        box = Detection2D(results=[ObjectHypothesisWithPose()])
        box.results[0].hypothesis.class_id = "0"
        box.bbox.center.position.x = box.bbox.center.position.y = center_px
        box.bbox.size_x = box.bbox.size_y = size_px
        unknown.detections.append(box)
    results.publish(unknown)
    robot.wait(lambda: heard, "the message that can be read")
    assert [result[0] for result in heard] == [77 * 10**9]
    assert heard[0][1].xyxy_px.tolist() == [[30.0, 30.0, 50.0, 50.0]], "the box that is one"
    camera = robot.publisher(Image, "image_raw")
    quiet_scene(running, robot, camera, 10**9)
    assert running.ledger["failed"] == 0


def test_results_come_by_the_name_they_are_remapped_to(start, robot, monkeypatch):
    running = start([GateNode], {"gate": ONLY_CHANGES}, ros_args=["-r", "detections:=/yolo/found"])
    heard = heard_by(running, monkeypatch)
    robot.publisher(Detection2DArray, "/yolo/found", RELIABLE).publish(Detection2DArray())
    robot.wait(lambda: heard, "the message")


def test_an_audit_that_fails_costs_the_detector_nothing(start, robot, monkeypatch):
    bundle_or_skip(DETECTOR)
    running = start()

    def fail(stamp_ns, found, low_score):
        raise RuntimeError("no audit today")

    monkeypatch.setattr(running["gate"]._gate, "inferred", fail)
    answers = detections_of(robot)
    camera = robot.publisher(Image, "image_raw")
    camera.publish(image_message(picture(1), 1))
    robot.wait(lambda: answers, "the answer")
    assert running.settled(1)["inferred"] == 1 and running.ledger["failed"] == 0


def test_a_detector_alone_notifies_no_gate(start, robot):
    running = start([DetectorNode])
    camera = robot.publisher(Image, "image_accepted")
    camera.publish(image_message(picture(1), 1))
    assert running.settled(1)["inferred"] == 1
