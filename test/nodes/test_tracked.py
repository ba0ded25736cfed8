"""Known objects on skipped frames: where they are, under whose header, and when there must be none."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from model_cases import DETECTOR, EFFICIENTNET, bundle_or_skip, video_frame
from rclpy.qos import QoSReliabilityPolicy
from ros_cases import (
    DetectorNode,
    DiagnosticArray,
    adds_up,
    detections_of,
    picture,
    stamp_of,
)
from scene_cases import STEP_NS, WAYS, TrackedScene, boxes_by_id
from std_srvs.srv import Trigger

from edge_vision.core.frame import Frame
from edge_vision.nodes.interface.detection_messages import detections_message
from edge_vision.nodes.interface.frame_event_messages import frame_event_from_message
from edge_vision.tracking.kalman import FIRST_SHARE

SWAP = (
    Transition.TRANSITION_DEACTIVATE,
    Transition.TRANSITION_CLEANUP,
    Transition.TRANSITION_CONFIGURE,
    Transition.TRANSITION_ACTIVATE,
)


@pytest.mark.parametrize("separate", WAYS.values(), ids=WAYS)
def test_skipped_frames_show_the_objects_where_the_camera_moved_them(start, robot, separate):
    """A pan over a still street by whole pixels: each box must go with it, under its own frame's header."""
    scene = TrackedScene(start, robot, separate, gate={"max_delay_ms": 100.0})
    shift_px, width_px = 8, 640
    lefts = [n * shift_px for n in range(14)]
    stamps = []
    for left in lefts:
        scene.show(np.ascontiguousarray(scene.street[:, left : left + width_px]))
        stamps.append(scene.last_ns)
    ledger = scene.settled()
    assert ledger["gated"] >= 5 and ledger["failed"] == ledger["superseded"] == 0
    scene.heard(ledger["inferred"], ledger["gated"])
    answers = {stamp_of(one): one for one in scene.inferred}
    shown = {stamp_of(one): one for one in scene.tracked}
    assert sorted([*answers, *shown]) == stamps, "each frame once: inferred or tracked"
    compared = 0
    for at, stamp_ns in enumerate(stamps):
        if stamp_ns in answers:
            inferred_at, last = at, boxes_by_id(answers[stamp_ns])
            continue
        message = shown[stamp_ns]
        assert message.header.frame_id == "cam"
        assert all(one.header == message.header for one in message.detections)
        moved_px = lefts[at] - lefts[inferred_at]
        now = boxes_by_id(message)
        assert set(now) <= set(last)
        for name, box in now.items():
            # Away from the borders, where boxes are cut.
            if last[name][0] > 40 and last[name][2] < width_px - 40:
                centre, before = (box[0] + box[2]) / 2, (last[name][0] + last[name][2]) / 2
                # Exact for a still object; a moving one has the velocity between the boxes of two inferences.
                assert centre == pytest.approx(before - moved_px, abs=1.0 + 0.5 * moved_px)
                compared += abs(centre - before + moved_px) < abs(centre - before)
    assert compared >= 5, "they have gone with the picture"


def test_on_by_default_and_switched_off_nothing_is_tracked(start, robot):
    scene = TrackedScene(start, robot, publish=False)
    assert DetectorNode.spec.param("publish_tracks").default is True
    for _ in range(3):
        scene.show()
    assert scene.settled()["gated"] == 2
    scene.heard(1, 0)
    assert robot.node.count_publishers("tracks") == 0
    detector = scene.running["detector"].model.current.runner
    frame = Frame(scene.street, stamp_of(scene.inferred[0]), "cam")
    expected = detections_message(detector.detect(frame).detections, frame)
    answer = scene.inferred[0]
    assert len(answer.detections) >= 5
    assert {one.id for one in answer.detections} == {""}
    assert answer == expected
    assert not scene.running["detector"].tracks.history, "no work for it"


def test_it_can_be_switched_on_and_off_while_it_runs(start, robot):
    scene = TrackedScene(start, robot, publish=False)
    scene.show()
    assert robot.set("detector", publish_tracks=True).successful
    (offered,) = robot.wait(lambda: robot.node.get_publishers_info_by_topic("tracks"), "tracks")
    assert offered.qos_profile.reliability == QoSReliabilityPolicy.RELIABLE
    scene.tracks = detections_of(robot, "tracks")
    scene.show()
    scene.heard(1, 1)
    gate = scene.running["gate"]._gate
    assert gate.shared_tracks is scene.running["detector"].tracks.history
    assert not scene.tracked[0].detections, "nothing was tracked before"
    scene.audit(True)
    scene.show()
    scene.audit(False)
    scene.show()
    scene.heard(2, 2)
    assert boxes_by_id(scene.tracked[1]).keys() == boxes_by_id(scene.inferred[1]).keys()
    assert robot.set("detector", publish_tracks=False).successful
    robot.wait(lambda: not robot.node.count_publishers("tracks"), "the topic to go")
    scene.show()
    scene.heard(2, 2)
    assert gate.shared_tracks is None
    assert scene.settled()["gated"] == 3


def test_an_object_keeps_its_id_over_inferences_and_through_reset_stats(start, robot):
    scene = TrackedScene(start, robot)
    scene.show()
    robot.call(Trigger, "detector/reset_stats", Trigger.Request())
    scene.count = 0
    scene.show()
    scene.audit(True)
    for _ in range(3):
        scene.show()
    scene.heard(4, 1)
    names = [boxes_by_id(one).keys() for one in (*scene.inferred, *scene.tracked)]
    assert len(names[0]) >= 5 and all(one == names[0] for one in names)
    _, values = robot.status("detector", lambda status, values: values["tracked.frames"] == "1")
    assert int(values["tracked.last_count"]) == len(names[0])
    assert float(values["tracked.age_ms.p50"]) == pytest.approx(100.0, abs=0.01)


@pytest.mark.parametrize("separate", WAYS.values(), ids=WAYS)
def test_after_a_cut_there_is_no_ghost(start, robot, separate):
    scene = TrackedScene(start, robot, separate)
    for _ in range(3):
        scene.show()
    before = scene.settled()["inferred"]
    nothing = picture(1, 768, 576)
    for _ in range(6):
        scene.show(nothing)
    ledger = scene.settled()
    assert ledger["inferred"] > before, "the gate let the cut pass"
    scene.heard(ledger["inferred"], ledger["gated"])
    cut_ns = 10**9 + 7 + 4 * STEP_NS
    old = [one for one in scene.tracked if stamp_of(one) < cut_ns]
    new = [one for one in scene.tracked if stamp_of(one) >= cut_ns]
    assert len(old) >= 1 and all(len(one.detections) >= 5 for one in old)
    assert len(new) >= 3 and all(len(one.detections) == 0 for one in new)


class Hold:
    """A detector that waits within an inference until it is let go on."""

    def __init__(self, detector, monkeypatch) -> None:
        self.inside, self._go = threading.Event(), threading.Event()
        detect = detector.detect

        def held(*args):
            self.inside.set()
            assert self._go.wait(30)
            return detect(*args)

        monkeypatch.setattr(detector, "detect", held)

    def let_go(self) -> None:
        self._go.set()


def test_tracked_boxes_wait_for_no_inference(start, robot, monkeypatch):
    """While the detector is busy, skipped frames are published at once; its result is inserted later."""
    scene = TrackedScene(start, robot)
    scene.show()
    scene.heard(1, 0)
    hold = Hold(scene.running["detector"].model.current.runner, monkeypatch)
    scene.audit(True)
    busy_ns = scene.publish()
    assert hold.inside.wait(30)
    waiting_ns = scene.publish()  # It waits in the slot,
    robot.wait(lambda: scene.running["gate"].hub.ledger.snapshot().stages == {"detector": 2}, "it")
    newer_ns = scene.publish()  # and is superseded by this one.
    robot.wait(lambda: scene.running.ledger["superseded"] == 1, "the older to be superseded")
    scene.audit(False)
    skipped = []
    for n in (1, 2, 3):
        skipped.append(scene.publish())
        robot.wait(lambda n=n: scene.running.ledger["gated"] == n, "the frame to be skipped")
    robot.wait(lambda: len(scene.tracked) >= 3, "tracked boxes during the inference")
    assert len(scene.inferred) == 1 and scene.running.ledger["in_flight"] == 2
    first = boxes_by_id(scene.inferred[0])
    for message in scene.tracked:
        assert boxes_by_id(message).keys() == first.keys()
    assert [stamp_of(one) for one in scene.tracked] == skipped
    hold.let_go()
    scene.settled()
    skipped.append(scene.publish())
    scene.heard(3, 4)
    assert [stamp_of(one) for one in scene.tracked] == skipped, "none of a superseded frame"
    assert [stamp_of(one) for one in scene.inferred[1:]] == [busy_ns, newer_ns] and waiting_ns not in skipped
    assert boxes_by_id(scene.tracked[-1]).keys() == first.keys() == boxes_by_id(scene.inferred[-1]).keys()
    _, values = robot.status("detector", lambda status, values: values["tracked.frames"] == "4")
    # 200, 300 and 400 ms or more after the first look; 400 ms after the third one's frame.
    assert float(values["tracked.age_ms.p99"]) <= 600.0


def test_what_was_superseded_has_no_boxes_and_what_the_gate_did_not_analyse_no_motion(start, robot):
    """Frame events as the stages send them, by hand: each is rare, and known by its stage and fate."""
    scene = TrackedScene(start, robot)
    scene.show()
    at_ns = scene.last_ns
    shift = np.array([[1, 0, 30], [0, 1, 0], [0, 0, 1]], float)
    frame_events = [
        ("cascade", "superseded", shift),  # Judged: the next motion goes on from it.
        ("cascade", "failed", shift),
        ("gate", "superseded", None),  # Not analysed: it has no part in the motion,
        ("gate", "failed", None),  # nor is it a cut.
        ("gate", "gated", shift),
    ]
    for n, (stage, fate, motion) in enumerate(frame_events, 1):
        scene.publish_event(at_ns + n, stage, fate, "", motion)
    scene.heard(1, 1)
    assert stamp_of(scene.tracked[0]) == at_ns + 5
    first, now = boxes_by_id(scene.inferred[0]), boxes_by_id(scene.tracked[0])
    assert len(now) >= 3
    for name, box in now.items():
        if first[name][2] < 768 - 100:
            assert box[0] == pytest.approx(first[name][0] + 90.0 * FIRST_SHARE, abs=0.01)


def test_a_walker_is_predicted_until_the_gate_reports_a_still_scene(start, robot):
    scene = TrackedScene(start, robot)
    scene.show()
    scene.audit(True)
    scene.show(video_frame("vtest.avi", 203).image, 3 * STEP_NS)
    stays = np.eye(3)
    for n, reason in enumerate(("rate_limit", "predicted", "still", "still"), 1):
        scene.publish_event(scene.last_ns + n * STEP_NS, "gate", "gated", reason, stays)
    scene.heard(2, 4)
    one, two, *rest = [boxes_by_id(message) for message in scene.tracked]
    walkers = [name for name in two if np.abs(two[name] - one[name]).max() > 1.0]
    assert len(walkers) >= 2
    for there in rest:
        assert there.keys() == two.keys()
        np.testing.assert_allclose(list(there.values()), list(two.values()), atol=1e-3)


def test_tracks_are_published_on_rejected_frames(start, robot):
    bundle_or_skip(EFFICIENTNET)
    cascade = {"model": EFFICIENTNET, "wanted_labels": ["mountain bike"], "score_threshold": 0.99}
    gate = {"max_blind_ms": 1.0}
    scene = TrackedScene(start, robot, gate=gate, cascade={**cascade, "max_blind_ms": 60000.0})
    for _ in range(4):
        scene.show()
    ledger = scene.settled()
    assert (ledger["inferred"], ledger["rejected.unwanted"]) == (1, 3)
    scene.heard(1, 3)
    for message in scene.tracked:
        assert boxes_by_id(message).keys() == boxes_by_id(scene.inferred[0]).keys()


def test_a_new_model_starts_new_tracks(start, robot):
    bundle_or_skip(DETECTOR)
    scene = TrackedScene(start, robot)
    for _ in range(2):
        scene.show()
    scene.heard(1, 1)
    for transition in SWAP:
        assert robot.change_state("detector", transition)
    scene.inferred, scene.tracks = detections_of(robot), detections_of(robot, "tracks")
    for _ in range(3):
        scene.show()
    ledger = scene.settled()
    scene.heard(ledger["inferred"] - 1, ledger["gated"] - 1)
    old = 5
    names = boxes_by_id(scene.inferred[0]).keys()
    assert len(names) >= old and min(map(int, names)) > len(names), "ids are not given again"
    assert all(boxes_by_id(one).keys() == names for one in scene.tracked)


def test_a_clock_that_jumps_starts_new_tracks(start, robot):
    scene = TrackedScene(start, robot)
    for _ in range(3):
        scene.show()
    scene.heard(1, 2)
    assert scene.show(step_ns=-2 * STEP_NS + 1)["failed.stamp_backwards"] == 1
    for _ in range(3):
        scene.show()
    ledger = scene.settled()
    assert ledger["inferred"] == 2
    scene.heard(2, ledger["gated"])
    names = boxes_by_id(scene.inferred[1]).keys()
    assert not names & boxes_by_id(scene.inferred[0]).keys()
    assert all(boxes_by_id(one).keys() == names for one in scene.tracked[2:])


def test_tracking_that_fails_costs_no_frame(start, robot, monkeypatch):
    scene = TrackedScene(start, robot)
    line = scene.running["detector"].tracks.history

    def fail(*args):
        raise RuntimeError("no tracks today")

    for name in ("add_detections", "tracks_at"):
        monkeypatch.setattr(line, name, fail)
    for _ in range(3):
        scene.show()
    ledger = scene.settled()
    # The gate uses the same tracks, and passes every frame when it fails.
    assert (ledger["inferred"], ledger["gated"], ledger["failed"]) == (3, 0, 0)
    scene.heard(3, 0)
    assert len(scene.inferred[0].detections) >= 5
    assert {one.id for message in scene.inferred for one in message.detections} == {""}


def test_tracks_that_cannot_be_predicted_leave_their_message_empty(start, robot, monkeypatch):
    scene = TrackedScene(start, robot)
    scene.show()

    def fail(*args):
        raise RuntimeError("no tracks today")

    # Only the detector's use of the history: the gate would pass the frame.
    publisher = scene.running["detector"].tracks
    monkeypatch.setattr(
        publisher, "history", SimpleNamespace(add_frame=publisher.history.add_frame, tracks_at=fail)
    )
    scene.show()
    scene.heard(1, 1)
    assert not scene.tracked[0].detections, "due all the same"


def test_the_ledger_balances_while_tracking_is_switched_under_load(start, robot):
    """Frames skipped, passed and superseded from another thread; a topic and a node that come and go."""
    scene = TrackedScene(start, robot)
    receive, hub = scene.running.hub.receiver("/image_raw"), scene.running.hub
    end, sent = threading.Event(), [0]
    moved = np.roll(scene.street, 40, axis=1)

    def run() -> None:
        while not end.wait(0.003):
            sent[0] += 1
            image = moved if sent[0] % 40 < 10 else scene.street
            receive(Frame(image, sent[0] * 10**7, "cam", "bgr8", hub.next_seq()), None)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        for wanted in (False, True, False, True):
            assert robot.set("detector", publish_tracks=wanted).successful
            robot.turns(0.2)
            assert adds_up(scene.running.ledger)
        for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE):
            assert robot.change_state("detector", transition)
        robot.wait(lambda: scene.running.ledger["gated"] > 20, "skipped frames")
        before = scene.running["detector"].tracks.status_values()["tracked.frames"]
        robot.wait(
            lambda: scene.running["detector"].tracks.status_values()["tracked.frames"] > before + 5,
            "tracked boxes again",
        )
    finally:
        end.set()
        thread.join()
    ledger = scene.running.settled(sent[0])
    assert adds_up(ledger) and ledger["received"] == sent[0]
    failed = {reason for reason in ledger if reason.startswith("failed.")}
    assert failed <= {"failed.detector_inactive", "failed.deactivated"}


def test_in_one_process_cascade_ticks_have_the_gates_too(start, robot):
    """One line for each frame, as between processes."""
    scene = TrackedScene(start, robot)
    frame_events = robot.listen(DiagnosticArray, "cascade_events")
    robot.wait(lambda: scene.running["cascade"].output.events.subscription_count, "the cascade to know us")
    for _ in range(4):
        scene.show()
    robot.wait_for(frame_events, 4, "frame events")
    received = [frame_event_from_message(one) for one in frame_events]
    assert [(one.stage, one.fate) for one in received] == [("cascade", "")] + [("gate", "gated")] * 3
    assert [one.stamp_ns for one in received] == [10**9 + 7 + n * STEP_NS for n in (1, 2, 3, 4)]
