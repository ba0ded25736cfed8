"""Messages that a hostile peer sends: each is refused with a count, and no node or report suffers."""

from __future__ import annotations

import json
from threading import Event, Thread

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ros_cases import (
    FATES,
    DetectorNode,
    DiagnosticArray,
    DiagnosticsNode,
    GateNode,
    Image,
    image_message,
    picture,
)
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesis, ObjectHypothesisWithPose

from edge_vision.core.detections import MAX_COORDINATE_PX
from edge_vision.core.frame import Frame
from edge_vision.core.frame_event import FrameEvent
from edge_vision.core.ledger import MAX_REASONS, OTHER
from edge_vision.core.model_spec import MAX_DETECTIONS
from edge_vision.gate.frame_gate import FrameGate
from edge_vision.nodes.interface.detection_messages import detections_from_message
from edge_vision.nodes.interface.frame_event_messages import frame_event_from_message, frame_event_message
from edge_vision.nodes.interface.status_messages import MAX_STATUS_CHARS, status_chars, status_message
from edge_vision.nodes.observers.system_probe import observe_system
from edge_vision.nodes.transport import detection_feedback
from edge_vision.tracking.tracker import MAX_TRACKED

EVENTS = 4000
NUMBERS = {
    "nested": "[" * 10_000,
    "huge": json.dumps([[0.0, 0.0, 1.0, 1.0]] * 100_000),
    "many": json.dumps([[0, 0, 1, 1]] * 513),
    "overflowing": f"[[0, 0, 1, {'9' * 400}]]",
    "infinite": "[[0, 0, 1, Infinity]]",
    "far": f"[[0, 0, 1, {2 * MAX_COORDINATE_PX}]]",
    "null": "[[0, 0, 1, null]]",
    "object": '{"0": 1}',
    "text": '"' + "x" * 100 + '"',
}


def event_message(
    stage: str = "gate", fate: str = "", reason: str = "motion", **values: str
) -> DiagnosticArray:
    message = frame_event_message(FrameEvent(1, "camera", stage, fate, reason, camera_motion=np.eye(3)))
    for pair in message.status[0].values:
        pair.value = values.get(pair.key, pair.value)
    return message


def hostile_events() -> list[DiagnosticArray]:
    """Events that no stage sends, each refused."""
    long_frame_id, late = event_message(), event_message()
    long_frame_id.header.frame_id = "c" * 1_000_000
    late.header.stamp.nanosec = 2**32 - 1
    return [
        *(event_message(regions=text) for text in NUMBERS.values()),
        *(event_message(camera_motion=text) for text in NUMBERS.values()),
        *(event_message(fate=fate) for fate in ("handed_on", "received", "in_flight", "x" * 1_000_000)),
        *(event_message(stage=stage, fate="gated") for stage in ("", "nobody", "g" * 1_000_000)),
        DiagnosticArray(),
        long_frame_id,
        late,
    ]


def detections_of_class(class_id: str, score: float = 0.9, size_px: float = 4.0) -> Detection2DArray:
    result = ObjectHypothesisWithPose(hypothesis=ObjectHypothesis(class_id=class_id, score=score))
    message = Detection2DArray(detections=[Detection2D(results=[result])])
    message.detections[0].bbox.size_x = message.detections[0].bbox.size_y = size_px
    message.header.stamp.sec = 1
    return message


def hostile_detections() -> list[Detection2DArray]:
    ids = ("99999999999", "-1", "", "person", "²", "9" * 5000)
    return [
        *(detections_of_class(text) for text in ids),
        detections_of_class("0", float("nan")),
        Detection2DArray(detections=[Detection2D()]),
        Detection2DArray(detections=detections_of_class("0").detections * (MAX_DETECTIONS + 1)),
    ]


def test_events_that_no_stage_sends_are_refused_with_a_short_text():
    for message in hostile_events():
        with pytest.raises(ValueError) as refusal:
            frame_event_from_message(message)
        assert len(str(refusal.value)) < 300


@pytest.mark.parametrize("reason", ["x" * 65, "naïve", "line\nbreak", "\x1b[2J"])
def test_a_reason_that_is_not_short_ascii_is_other(reason):
    assert frame_event_from_message(event_message(fate="gated", reason=reason)).reason == OTHER
    assert frame_event_from_message(event_message(fate="gated", reason="x" * 64)).reason == "x" * 64


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80), st.text(max_size=20), st.text(max_size=20), st.text(max_size=80))
@example("[[0, 0, 1, 1]]", "gated", "gate", "still")
def test_an_event_is_valid_or_a_value_error(regions, fate, stage, reason):
    try:
        event = frame_event_from_message(event_message(stage, fate, reason, regions=regions))
    except ValueError:
        return
    assert np.isfinite(event.regions).all() and event.regions.shape[1:] == (4,)
    assert event.fate in ("", *FATES) and len(event.reason) <= 64


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=12), st.floats(), st.floats())
@example("99999999999", 0.5, 1e300)
def test_detections_are_valid_or_a_value_error(class_id, score, size_px):
    try:
        found = detections_from_message(detections_of_class(class_id, score, size_px)).valid()
    except ValueError:
        return
    assert np.isfinite(found.xyxy_px).all() and (found.class_ids >= 0).all()


def test_unusable_detections_are_refused():
    for message in hostile_detections():
        with pytest.raises(ValueError, match="expected"):
            detections_from_message(message)


def test_the_best_hypothesis_and_detection_come_first():
    message = Detection2DArray()
    for number, score in enumerate((0.3, 0.9, 0.6)):
        message.detections += detections_of_class(str(number), score).detections
    assert detections_from_message(message).class_ids.tolist() == [1, 2, 0]


def test_a_huge_message_is_refused_before_it_is_converted(start, robot, monkeypatch):
    converted = []
    monkeypatch.setattr(detection_feedback, "deserialize_message", lambda *args: converted.append(args))
    start([GateNode])
    detections = robot.publisher(Detection2DArray, "detections", 10)
    detections.publish(Detection2DArray(detections=detections_of_class("0").detections * 9999))
    refused = {"invalid_messages.detections": "1"}
    robot.status("gate", lambda status, values: refused.items() <= values.items())
    assert not converted


def test_a_gate_learns_from_few_of_many_detections(monkeypatch):
    gate = FrameGate()
    observed = []
    monkeypatch.setattr(gate._scheduler, "observe", lambda *args: observed.append(args))
    many = detections_from_message(
        Detection2DArray(detections=detections_of_class("0").detections * MAX_DETECTIONS)
    )
    gate.inferred(1, many, many)
    gate.decide(Frame(picture(1), 2, "camera", "bgr8"), 0)
    _, found, low_score, _ = observed[0]
    assert len(found) == len(low_score) == MAX_TRACKED


def test_text_of_a_status_is_escaped_on_diagnostics(start, robot):
    start([DiagnosticsNode])
    statuses = robot.publisher(DiagnosticArray, "gate/status", 10)
    reports = robot.listen(DiagnosticArray, "/diagnostics")
    forged = DiagnosticStatus(name="x\x1b", message="\x1b[2J", values=[KeyValue(key="k\x1b", value="v\x1b")])
    statuses.publish(DiagnosticArray(status=[forged]))

    def gates():
        return [
            one
            for report in reports
            for one in report.status
            if one.name == "gate" and one.message[0] == "\\"
        ]

    robot.wait(gates, "the status on /diagnostics")
    assert gates()[0].message == r"\u001b[2J"
    assert [(pair.key, pair.value) for pair in gates()[0].values] == [(r"k\u001b", r"v\u001b")]


def test_texts_of_a_status_are_bounded():
    status = status_message("gate", "/", 0, "\x1b" * 10**6, {"last_failure": "\x1b" * 10**6})
    assert status_chars(status) < 10_000


def status_from_peer(**values: str) -> DiagnosticArray:
    status = status_message("another/name", "/bad ns!", 0, "running", {"stage": "detector", **values})
    return DiagnosticArray(status=[status])


HOSTILE_STATUSES = [
    status_from_peer(pid="x"),
    status_from_peer(pid="²", **{"ledger.inferred": "²"}),
    status_from_peer(pid="9" * 5000, **{"ledger.inferred": "9" * 5000}),
    status_from_peer(state="active", image_topic="/bad topic!"),
    status_from_peer(**{f"ledger.gated.{n}": "x" * 3000 for n in range(4000)}),
]


@pytest.fixture
def attacked(start, robot, tmp_path):
    """A gate, a detector and a diagnostics node, each as in a process of its own, and their log."""
    log = tmp_path / "log.jsonl"
    overrides = {name: {"json_log": str(log)} for name in ("gate", "detector", "diagnostics")}
    overrides["detector"]["publish_tracks"] = True
    running = start([GateNode, DetectorNode, DiagnosticsNode], overrides, separate=True)
    return running, log


def test_nodes_survive_hostile_messages(attacked, robot):
    running, log = attacked
    detector, ledger = running["detector"], running["detector"].hub.ledger
    events = robot.publisher(DiagnosticArray, "cascade_events", 1000)
    images = robot.publisher(Image, "image_accepted")
    detections = robot.publisher(Detection2DArray, "detections", 1000)
    statuses = robot.publisher(DiagnosticArray, "cascade/status", 1000)
    reports = robot.listen(DiagnosticArray, "/diagnostics")

    sent = hostile_events()
    for message in sent:
        events.publish(message)
    motions = [json.dumps([number] * 9) for number in (0.0, MAX_COORDINATE_PX)]
    for n in range(EVENTS):  # Valid but for their reasons and motions.
        message = event_message(fate="gated", reason=f"reason {n}", camera_motion=motions[n % 200 // 100])
        message.header.stamp.sec = 10 + n
        events.publish(message)
        if n % 50 == 0:  # The subscription queues 200.
            robot.wait(lambda n=n: ledger.snapshot().received >= n - 50, "the events")
    for n, message in enumerate(hostile_detections(), 1):
        detections.publish(message)
        if n % 3 == 0:  # The subscription queues 5.
            refused = {"invalid_messages.detections": str(n)}
            robot.status("gate", lambda status, values, refused=refused: refused.items() <= values.items())
    for message in HOSTILE_STATUSES:
        statuses.publish(message)
        reports.clear()
        robot.wait(lambda: sum(len(one.status) > 3 for one in reports) >= 2, "/diagnostics to go on")
    images.publish(image_message(picture(1), (10 + EVENTS) * 10**9))
    robot.wait(lambda: ledger.snapshot().fates.get("inferred"), "a good image")

    values = robot.status("detector", lambda _, values: values["ledger.in_flight"] == "0")[1]
    assert int(values["invalid_messages.cascade_events"]) == len(sent)
    names = (*FATES, "in_flight")
    assert (
        int(values["ledger.received"]) == sum(int(values[f"ledger.{name}"]) for name in names) == EVENTS + 1
    )
    assert int(values["ledger.gated.other"]) == EVENTS - MAX_REASONS and "ledger.handed_on" not in values
    for status in (*reports[-1].status, robot.status("detector")[0]):
        assert status_chars(status) < MAX_STATUS_CHARS and "bad ns" not in status.hardware_id + status.name
    assert robot.status("diagnostics")[1]["invalid_messages.cascade/status"] == "1"
    assert detector.state == "active" and "report this" not in log.read_text()


def test_the_doctor_observes_a_graph_with_impossible_names(domain, robot, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    diagnostics = robot.node.create_publisher(DiagnosticArray, "/diagnostics", 10)
    odd = [
        status_message(f"{namespace}/gate".lstrip("/"), namespace, 0, "running", {})
        for namespace in ("/bad ns!", "/1", "/a//b", "/" + "x" * 300)
    ]
    timer = robot.node.create_timer(
        0.1, lambda: [diagnostics.publish(DiagnosticArray(status=[one])) for one in odd]
    )
    done = Event()
    thread = Thread(target=lambda: [robot.turn() for _ in iter(done.is_set, True)])
    thread.start()
    try:
        view = observe_system(3.0)
    finally:
        done.set()
        thread.join(30)
        robot.node.destroy_timer(timer)
    assert view.pipelines == () and {one.name for one in view.other_statuses} >= {one.name for one in odd}
