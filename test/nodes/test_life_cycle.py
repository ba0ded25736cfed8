"""Transitions, right and wrong, alone and under load; services; the ledger through all of it."""

from __future__ import annotations

import itertools
import threading

import pytest
from lifecycle_msgs.msg import Transition as T
from ros_cases import (
    ALL,
    CHAIN,
    FATES,
    DiagnosticArray,
    GateNode,
    Image,
    adds_up,
    detections_of,
    image_message,
    matched,
    picture,
    stamp_of,
    wait_until,
)
from std_srvs.srv import SetBool, Trigger

from edge_vision.core.frame import Frame
from edge_vision.nodes.transport.intra_process import IntraProcess


class Load:
    """A camera in this process that never waits: far more frames than the detector can take."""

    def __init__(self, running, pause_s: float = 0.002) -> None:
        self._running, self._pause_s = running, pause_s
        self._stop = threading.Event()
        self.sent = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        receive = self._running.hub.receiver("/image_raw")
        pictures = [picture(seed, 160, 120) for seed in range(8)]
        for number in itertools.count(1):
            if self._stop.wait(self._pause_s):
                return
            seq = self._running.hub.next_seq()
            receive(Frame(pictures[number % 8], number * 10**6, "camera", "bgr8", seq), None)
            self.sent += 1

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def load():
    loads = []
    yield lambda running, **kw: loads.append(Load(running, **kw)) or loads[-1]
    for one in loads:
        one.stop()


WALK = [
    # transition, taken, state afterwards
    (T.TRANSITION_ACTIVATE, False, "active"),
    (T.TRANSITION_CLEANUP, False, "active"),
    (T.TRANSITION_CONFIGURE, False, "active"),
    (T.TRANSITION_DEACTIVATE, True, "inactive"),
    (T.TRANSITION_DEACTIVATE, False, "inactive"),
    (T.TRANSITION_ACTIVATE, True, "active"),
    (T.TRANSITION_DEACTIVATE, True, "inactive"),
    (T.TRANSITION_CLEANUP, True, "unconfigured"),
    (T.TRANSITION_ACTIVATE, False, "unconfigured"),
    (T.TRANSITION_CONFIGURE, True, "inactive"),
    (99, False, "inactive"),
    (T.TRANSITION_ACTIVATE, True, "active"),
    (T.TRANSITION_ACTIVE_SHUTDOWN, True, "finalized"),
    (T.TRANSITION_CONFIGURE, False, "finalized"),
]


@pytest.mark.parametrize("node", [kind.spec.name for kind in ALL])
def test_right_and_wrong_transitions(start, robot, node):
    """A wrong one is answered with "no", and neither ends the process nor harms the node."""
    start([kind for kind in ALL if kind.spec.name == node])
    for transition, taken, state in WALK:
        assert robot.change_state(node, transition) == taken, f"transition {transition}"
        assert robot.state(node) == state


def test_activated_again_it_works_again(start, robot):
    running = start()
    answers = detections_of(robot)
    camera = robot.publisher(Image, "image_raw")
    for number in range(1, 4):
        camera.publish(image_message(picture(number), number * 10**9))
        robot.wait_for(answers, number, "answers")
        for node in ("gate", "cascade", "detector"):
            assert robot.change_state(node, T.TRANSITION_DEACTIVATE)
            assert robot.change_state(node, T.TRANSITION_CLEANUP)
            assert robot.change_state(node, T.TRANSITION_CONFIGURE)
            assert robot.change_state(node, T.TRANSITION_ACTIVATE)
        robot.rematch(camera)
        robot.wait(lambda: matched("/detections"), "the new publisher")
    assert running.settled(3)["inferred"] == 3


def test_what_the_user_deactivates_stays_so(start, robot, monkeypatch):
    running = start()
    assert robot.change_state("detector", T.TRANSITION_DEACTIVATE)
    assert running.in_executor(running["detector"].bring_up) is False
    assert robot.state("detector") == "inactive"
    status, values = robot.status("detector")
    assert status.level == b"\x01" and "inactive" in status.message and values["state"] == "inactive"


def test_frames_for_an_inactive_stage_are_counted(start, robot):
    running = start()
    assert robot.change_state("detector", T.TRANSITION_DEACTIVATE)
    camera = robot.publisher(Image, "image_raw")
    camera.publish(image_message(picture(1), 1 * 10**8))
    assert running.settled(1)["failed.detector_inactive"] == 1
    assert robot.change_state("cascade", T.TRANSITION_DEACTIVATE)
    camera.publish(image_message(picture(2), 2 * 10**8))
    assert running.settled(2)["failed.cascade_inactive"] == 1


@pytest.mark.parametrize("node", ["gate", "cascade", "detector"])
def test_deactivated_and_activated_under_load(start, robot, load, node):
    running = start()
    camera = load(running)
    for _ in range(4):
        assert robot.change_state(node, T.TRANSITION_DEACTIVATE)
        assert adds_up(running.ledger)
        assert robot.change_state(node, T.TRANSITION_ACTIVATE)
        before = running.ledger["inferred"]
        robot.wait(lambda before=before: running.ledger["inferred"] > before, "inference to go on")
    camera.stop()
    ledger = running.settled(1)
    assert not ledger.get("failed.detector_error", 0) and not ledger.get("failed.gate_error", 0)
    assert ledger["received"] <= camera.sent


def test_overload_supersedes_and_the_law_holds_at_every_moment(start, robot, load):
    running = start(overrides={"gate": {"max_blind_ms": 1.0}})
    camera = load(running, pause_s=0.0005)
    statuses, worst = robot.listen(DiagnosticArray, "detector/status"), 0

    def seen_enough() -> bool:
        nonlocal worst
        for _ in range(200):
            ledger = running.hub.ledger.snapshot()
            assert ledger.balanced and adds_up(ledger.flat())
            worst = max(worst, ledger.in_flight)
        return len(statuses) >= 10 and ledger.fates.get("inferred", 0) >= 20

    robot.wait(seen_enough, "statuses and results")
    camera.stop()
    # One frame in the slot and one in the works of each of the two workers, one with the camera's own thread,
    # and one between two stages.
    assert 0 < worst <= 6
    ledger = running.settled(1)
    assert ledger["superseded"] > 0 and ledger["inferred"] > 0 and ledger["failed"] == 0
    assert ledger["received"] == camera.sent
    for message in statuses:
        values = {pair.key: pair.value for pair in message.status[0].values}
        assert values["ledger.balanced"] == "True"
        counted = sum(int(values[f"ledger.{fate}"]) for fate in (*FATES, "in_flight"))
        assert int(values["ledger.received"]) == counted


def test_the_age_of_what_comes_out_stays_flat_under_overload(start, robot, load):
    """No queues: the frame that is answered is among the newest that were sent."""
    running = start(overrides={"gate": {"enabled": False}})
    answers = detections_of(robot)
    camera = load(running, pause_s=0.002)
    robot.wait(lambda: len(answers) > 30, "answers")
    camera.stop()
    numbers = [answer.header.stamp.nanosec // 10**6 + answer.header.stamp.sec * 1000 for answer in answers]
    assert numbers == sorted(set(numbers)), "in order, none twice"
    assert running.settled(1)["superseded"] > 0


def test_the_end_under_load_leaves_nothing_in_flight(start, load):
    running = start()
    camera = load(running)
    wait_until(lambda: running.ledger["inferred"] >= 5, "results")
    running.end()
    camera.stop()
    ledger = running.ledger
    assert adds_up(ledger) and ledger["in_flight"] == 0 and ledger["inferred"] >= 5
    assert {key for key in ledger if key.startswith("failed.")} <= {
        "failed.deactivated",
        "failed.cascade_inactive",
        "failed.detector_inactive",
    }


@pytest.mark.parametrize("node,fate", [("gate", "inferred"), ("detector", "rejected")])
def test_the_enable_service(start, robot, node, fate):
    running = start()
    camera, tracks = robot.publisher(Image, "image_raw"), detections_of(robot, "tracks")
    answer = robot.call(SetBool, f"{node}/enable", SetBool.Request(data=False))
    assert answer.success and answer.message == "disabled"
    assert robot.get(node, "enabled") is False
    for number in (1, 2):
        camera.publish(image_message(picture(node == "detector" and number), number * 10**8))
        running.settled(number)
    assert running.ledger[fate] == 2
    if node == "detector":
        assert running.ledger["rejected.disabled"] == 2
    answer = robot.call(SetBool, f"{node}/enable", SetBool.Request(data=True))
    assert answer.success and robot.get(node, "enabled") is True
    camera.publish(image_message(picture(7), 3 * 10**8))
    assert running.settled(3)["inferred"] == (3 if node == "gate" else 1)
    robot.wait_for(tracks, 3, "tracks of every frame, disabled or not")
    assert [stamp_of(one) // 10**8 for one in tracks] == [1, 2, 3]
    _, values = robot.status(node)
    assert values["enabled"] == "True"


def test_the_reset_service_resets_the_ledger(start, robot):
    running = start()
    camera = robot.publisher(Image, "image_raw")
    camera.publish(image_message(picture(1), 1 * 10**8))
    running.settled(1)
    assert robot.call(Trigger, "detector/reset_stats", Trigger.Request()).success
    assert running.ledger["received"] == 0
    _, values = robot.status("detector")
    assert values["ledger.received"] == "0" and values["age_ms.p50"] == "unavailable"
    camera.publish(image_message(picture(2), 2 * 10**8))
    assert running.settled(1)["inferred"] == 1


def test_without_autostart_nothing_starts_by_itself(start, robot):
    running = start(CHAIN, {name: {"autostart": False} for name in ("gate", "cascade", "detector")})
    assert {node.state for node in running.nodes.values()} == {"unconfigured"}
    for name in ("detector", "cascade", "gate"):
        assert robot.change_state(name, T.TRANSITION_CONFIGURE)
        assert robot.change_state(name, T.TRANSITION_ACTIVATE)
    camera = robot.publisher(Image, "image_raw")
    camera.publish(image_message(picture(1), 1 * 10**8))
    assert running.settled(1)["inferred"] == 1


def test_an_activation_that_fails_leaves_nothing_behind(start, robot, monkeypatch):
    has_sender = IntraProcess.has_sender

    def fail(hub, topic):
        if topic == "/image_raw":
            raise RuntimeError("no subscription today")
        return has_sender(hub, topic)

    monkeypatch.setattr(IntraProcess, "has_sender", fail)
    running = start()
    gate = running["gate"]
    assert gate.state == "inactive" and not gate._active and not gate.worker_hangs
    status, _ = robot.status("gate")
    assert status.level == b"\x02" and "cannot activate: no subscription today" in status.message
    assert "/gate/image" not in [publisher.topic_name for publisher in gate.publishers]
    monkeypatch.setattr(IntraProcess, "has_sender", has_sender)
    assert running.in_executor(gate.bring_up)
    camera = robot.publisher(Image, "image_raw")
    camera.publish(image_message(picture(1), 1 * 10**8))
    assert running.settled(1)["inferred"] == 1


def test_durations_start_with_the_activation(start, robot):
    running = start([GateNode])
    robot.publisher(Image, "image_raw").publish(image_message(picture(1), 1))
    robot.status("gate", lambda status, values: "unavailable" not in values["blind_ms"])
    running.settled(1)
    for transition in (T.TRANSITION_DEACTIVATE, T.TRANSITION_ACTIVATE):
        assert robot.change_state("gate", transition)
    _, values = robot.status("gate")
    assert "unavailable" in values["blind_ms"]
