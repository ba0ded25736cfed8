"""Parameters: bad ones at start and live, what is locked when, and what the descriptors say."""

from __future__ import annotations

import pytest
from lifecycle_msgs.msg import Transition
from ros_cases import (
    ALL,
    CHAIN,
    CascadeNode,
    DetectorNode,
    GateNode,
    Image,
    SourceNode,
    image_message,
    localizer_node,
    picture,
    recorder_node,
)

from edge_vision.nodes.collector_node import CollectorNode
from edge_vision.nodes.interface.specs import NODES
from edge_vision.nodes.updater_node import UpdaterNode

BAD_STARTS = [
    # node, parameter, bad value, what the message must say
    (GateNode, "max_blind_ms", -5.0, "Min: 1.0, Max: 60000.0, value: -5"),
    (GateNode, "max_blind_ms", "soon", "expected double, got str 'soon'"),
    (GateNode, "luma_width_px", 3000, "Min: 16, Max: 1920, value: 3000"),
    (GateNode, "luma_width_px", 100.5, "int"),
    (GateNode, "enabled", "yes", "bool"),
    (GateNode, "image_transport", "theora", "one of raw, compressed, got 'theora'"),
    (GateNode, "autostart", 3, "expected bool"),
    (GateNode, "max_rate_hz", float("nan"), "nan"),
    (SourceNode, "uri", 5.5, "string"),
    (SourceNode, "stamps", "now", "one of auto, clock, media"),
]


@pytest.mark.parametrize("kind,name,value,needle", BAD_STARTS)
def test_a_bad_start_value_is_reported_and_replaced_by_the_default(start, robot, kind, name, value, needle):
    node = kind.spec.name
    running = start([kind], {node: {name: value}})
    default = kind.spec.param(name).default
    assert running[node].params[name] == default
    assert robot.get(node, name) == default
    status, _ = robot.status(node)
    assert status.level == b"\x01" and "parameter refused" in status.message, status
    assert name in status.message and needle in status.message
    assert running[node].state == "active"


def test_digits_on_the_command_line_are_accepted_as_text(start, robot):
    """ROS reads them as an integer; /dev/video987 is a device that no machine has."""
    ros_args = ["-p", "uri:=987", "-p", "frame_id:=7", "-p", "open_timeout_ms:=300"]
    running = start([SourceNode], ros_args=ros_args)
    assert running["source"].params["uri"] == "987" and running["source"].params["frame_id"] == "7"
    status, _ = robot.status("source", lambda status, values: values["situation"] == "waiting")
    assert "device '987' cannot be opened" in status.message and "refused" not in status.message


def test_bad_values_from_a_parameter_file(start, robot, tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(
        "/**:\n  gate:\n    ros__parameters:\n"
        "      max_blind_ms: 300\n      max_rate_hz: fast\n      luma_witdh_px: 200\n"
    )
    running = start([GateNode], ros_args=["--params-file", str(file)])
    assert running["gate"].params["max_blind_ms"] == 300.0
    assert running["gate"].params["max_rate_hz"] == 0.0
    status, _ = robot.status("gate")
    assert "max_rate_hz: expected double, got str 'fast'" in status.message
    assert "'luma_witdh_px': did you mean 'luma_width_px'?" in status.message


def test_a_live_set_takes_effect_and_an_integer_stays_a_double(start, robot):
    running = start([GateNode], {"gate": {"max_delay_ms": 300}})
    assert robot.set("gate", max_blind_ms=250).successful
    assert running["gate"].params["max_blind_ms"] == 250.0
    for name, value in (("max_blind_ms", 250.0), ("max_delay_ms", 300.0)):
        assert isinstance(robot.get("gate", name), float) and robot.get("gate", name) == value
    assert robot.set("gate", max_blind_ms=251.5, enabled=False).successful
    assert running["gate"]._gate.config.max_blind_ms == 251.5
    assert running["gate"]._gate.config.enabled is False


def test_parameters_keep_their_declared_type(start, robot):
    start([SourceNode, CascadeNode], {"source": {"autostart": False}, "cascade": {"autostart": False}})
    assert robot.set("source", uri=0).successful and robot.get("source", "uri") == "0"
    assert robot.set("cascade", wanted_labels=["dog"]).successful
    assert robot.set("cascade", wanted_labels=[]).successful and robot.get("cascade", "wanted_labels") == []


UNUSABLE_MODELS = [
    ("model", "nonsense", "model: expected the bundle 'nonsense' at "),
    ("model", "./nonsense", "model: expected the name of a bundle or its folder, got './nonsense'"),
    ("model", "", "model: expected the name of a bundle or its folder, got ''"),
    ("backend", "tensorflow", "backend: expected a backend out of auto, "),
    ("fallback", ["onnxruntime", "cafe"], "fallback: expected a backend out of auto, "),
    ("precision", "fp3", "precision: expected one of "),
]


@pytest.mark.parametrize("name,value,reason", UNUSABLE_MODELS)
def test_a_model_that_cannot_exist_is_refused_with_the_name_of_its_parameter(
    start, robot, name, value, reason
):
    start([DetectorNode], {"detector": {"autostart": False}}, need_model=False)
    before = robot.get("detector", name)
    result = robot.set("detector", **{name: value})
    assert not result.successful and result.reason.startswith(reason), result.reason
    assert robot.get("detector", name) == before


def test_an_empty_cascade_model_switches_it_off_and_an_unknown_one_is_refused(start, robot):
    start([CascadeNode], {"cascade": {"autostart": False}})
    assert "model: expected" in robot.set("cascade", model="nonsense").reason
    assert "next_models: expected" in robot.set("cascade", next_models=["nonsense"]).reason
    assert robot.set("cascade", model="").successful


REFUSED = [
    ({"max_blind_ms": 0.0}, "max_blind_ms"),
    ({"max_blind_ms": "x"}, "max_blind_ms"),
    ({"enabled": 1}, "enabled"),
    ({"luma_width_px": 200.5}, "luma_width_px"),
    ({"max_rate_hz": float("nan")}, "max_rate_hz"),
    ({"max_rate_hz": 5.0, "luma_width_px": 3000}, "luma_width_px"),
    ({"image_transport": "compressed"}, "deactivate and clean up the node first"),
    ({"autostart": False}, ""),
]


@pytest.mark.parametrize("values,needle", REFUSED)
def test_a_bad_live_set_is_refused_whole_with_the_reason(start, robot, values, needle):
    running = start([GateNode])
    before = running["gate"].params.values()
    result = robot.set("gate", **values)
    assert not result.successful
    assert needle in result.reason and result.reason
    assert running["gate"].params.values() == before
    for name in values:
        assert robot.get("gate", name) == before[name]
    assert running["gate"]._gate.config.max_rate_hz == 0.0


def test_configure_parameters_can_be_set_after_cleanup(start, robot):
    running = start([GateNode])
    assert not robot.set("gate", image_transport="compressed").successful
    assert robot.change_state("gate", Transition.TRANSITION_DEACTIVATE)
    assert not robot.set("gate", image_transport="compressed").successful
    assert robot.change_state("gate", Transition.TRANSITION_CLEANUP)
    assert robot.set("gate", image_transport="compressed").successful
    assert robot.change_state("gate", Transition.TRANSITION_CONFIGURE)
    assert robot.change_state("gate", Transition.TRANSITION_ACTIVATE)
    assert robot.node.count_subscribers("image_raw/compressed") == 1
    assert robot.node.count_subscribers("image_raw") == 0
    assert running["gate"].params["image_transport"] == "compressed"


def test_a_list_parameter(start, robot):
    running = start([CascadeNode], {"cascade": {"wanted_labels": ["dog", "bike"]}})
    assert running["cascade"].params["wanted_labels"] == ["dog", "bike"]
    assert not robot.set("cascade", wanted_labels=[1, 2]).successful


@pytest.mark.parametrize("threshold", [0.99999, 0.01])
def test_a_live_threshold_acts_on_the_next_frame(start, robot, threshold):
    from model_cases import video_frame
    from ros_cases import detections_of

    running = start()
    answers = detections_of(robot)
    camera = robot.publisher(Image, "image_raw")
    frame = video_frame("vtest.avi", 200).image
    camera.publish(image_message(frame, 10**9))
    robot.wait(lambda: len(answers) == 1, "an answer")
    assert robot.set("detector", score_threshold=threshold, max_detections=50).successful
    camera.publish(image_message(frame, 10**10))
    robot.wait(lambda: len(answers) == 2, "an answer")
    before, after = (len(answer.detections) for answer in answers)
    assert after == 0 if threshold > 0.9 else before < after <= 50
    assert robot.set("detector", score_threshold=-1, max_detections=0).successful
    camera.publish(image_message(frame, 10**11))
    robot.wait(lambda: len(answers) == 3, "an answer")
    assert len(answers[2].detections) == before
    assert running.ledger["failed"] == 0


def test_the_gate_switched_off_passes_all(start, robot):
    running = start(CHAIN, {"gate": {"enabled": False}})
    camera = robot.publisher(Image, "image_raw")
    for number in range(1, 4):
        camera.publish(image_message(picture(1), number))
        running.settled(number)
    assert running.ledger["inferred"] == 3


def test_every_parameter_has_its_descriptor(start, robot, tmp_path):
    folder = {"collector": {"folder": str(tmp_path / "pictures")}}
    start((*ALL, localizer_node(), recorder_node(), UpdaterNode, CollectorNode), folder)
    for spec in NODES:
        described = robot.describe(spec.name, [param.name for param in spec.params])
        for param, descriptor in zip(spec.params, described, strict=True):
            assert param.description in descriptor.description
            assert (param.unit or "") in descriptor.description
            assert descriptor.read_only == (param.applies == "start")
            if param.range is None:
                assert param.constraints in descriptor.additional_constraints
                continue
            ranges = descriptor.floating_point_range or descriptor.integer_range
            low = (
                param.range.low if param.range.special is None else min(param.range.low, param.range.special)
            )
            assert (ranges[0].from_value, ranges[0].to_value) == (low, param.range.high)


def test_the_detectors_parameters_are_known_under_its_name_only(start):
    running = start(
        [DetectorNode], ros_args=["-p", "detector:score_threshold:=0.7", "-p", "gate:enabled:=false"]
    )
    assert running["detector"].params["score_threshold"] == 0.7
    assert running["detector"].params["enabled"] is True


def test_a_preset_sets_defaults_and_given_values_win(start, robot):
    running = start([GateNode], {"gate": {"preset": "economy", "max_blind_ms": 700.0}})
    assert (robot.get("gate", "max_delay_ms"), robot.get("gate", "min_fidelity")) == (150.0, 0.95)
    assert robot.get("gate", "max_blind_ms") == 700.0
    config = running["gate"]._gate.config
    assert (config.max_delay_ms, config.min_fidelity, config.max_blind_ms) == (150.0, 0.95, 700.0)
    assert not robot.set("gate", preset="recall").successful, "it applies at start"


def test_an_unknown_preset_is_reported_and_the_default_applies(start, robot):
    start([GateNode], {"gate": {"preset": "turbo"}})
    status, _ = robot.status("gate")
    assert "preset: expected one of recall, balanced, economy, got 'turbo'" in status.message
    assert robot.get("gate", "max_delay_ms") == 100.0
