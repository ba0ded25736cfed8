"""From a snapshot to one cause: which one, in which order, and when there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edge_vision.diagnostics.causes import CUSTOM_CAUSES, ERROR, OK, WARN, Match, cause_entries, find_cause
from edge_vision.diagnostics.snapshot import (
    Endpoint,
    ImageInput,
    NodeReport,
    PipelineSnapshot,
    qos_mismatch,
    similar_names,
)

TEST = Path(__file__).resolve().parents[1]
IMAGE = "sensor_msgs/msg/Image"
SUBSCRIPTION = Endpoint("/gate", IMAGE, "best_effort")
CAMERA = Endpoint("/camera", IMAGE)
HEALTHY = {"ledger.received": 10, "ledger.inferred": 5, "ledger.gated": 5, "detections_total": 7}


def chain(
    gate: dict | None = None, detector: dict | None = None, increments: dict | None = None
) -> PipelineSnapshot:
    """A healthy pipeline, except for the given values."""
    values = {"state": "active", "use_sim_time": "False", "failure": ""}
    images = ImageInput("/image_raw", SUBSCRIPTION, (CAMERA,))
    first = {**values, "first_stage": "True", "silent_ms": "50.0", "input_age_ms": "5.0", **(gate or {})}
    last = {**values, "model": "m 1", "top_score": "0.3", "score_threshold": "0.4", **(detector or {})}
    counted = HEALTHY if increments is None else increments
    return PipelineSnapshot(
        (
            NodeReport("gate", "running", first, counted, images),
            NodeReport("detector", "running", last, counted, report_count=9),
        )
    )


def name(snapshot: PipelineSnapshot) -> str:
    cause = find_cause(snapshot)
    return cause.name if cause else ""


def with_images(**fields: object) -> PipelineSnapshot:
    snapshot = chain()
    gate, detector = snapshot.stages
    assert gate.image_input is not None
    return replace(
        snapshot, stages=(replace(gate, image_input=replace(gate.image_input, **fields)), detector)
    )  # type: ignore[arg-type]


def test_a_healthy_pipeline_has_no_cause() -> None:
    assert find_cause(chain()) is None
    assert find_cause(PipelineSnapshot(())) is None
    assert find_cause(chain(increments={})) is None  # the first report: nothing counted yet


def test_a_pipeline_that_shuts_down_has_no_cause() -> None:
    snapshot = with_images(publishers=())
    assert name(snapshot) == "no_publisher"
    stopped = replace(snapshot.stages[0], message="stopped")
    assert find_cause(replace(snapshot, stages=(stopped, snapshot.stages[1]))) is None
    ended = replace(stopped, silent_s=3.0)
    cause = find_cause(replace(snapshot, stages=snapshot.stages[1:], silent=(ended,), missing=()))
    assert cause is None, "frames still reach the detector"
    cause = find_cause(replace(chain(increments={}), silent=(ended,)))
    assert cause is not None and cause.name == "node_silent" and "has ended; start it again" in cause.text


NOTHING_INFERRED = {"ledger.received": 10, "ledger.inferred": 0, "detections_total": 0}


@pytest.mark.parametrize(
    "expected,snapshot",
    [
        ("sim_time_without_clock", replace(chain(gate={"use_sim_time": "True"}), clock_publishers=0)),
        (
            "model_not_loaded",
            chain(detector={"model": "unavailable", "failure": "cannot configure: no file"}),
        ),
        ("node_inactive", chain(detector={"state": "inactive"})),
        ("wrong_type", with_images(publishers=(replace(CAMERA, type="std_msgs/msg/String"),))),
        (
            "incompatible_qos",
            with_images(
                publishers=(CAMERA,), subscription=replace(SUBSCRIPTION, durability="transient_local")
            ),
        ),
        ("detector_stuck", chain(detector={"busy_ms": "1900.0"})),
        ("detector_stuck", chain(detector={"busy_ms": "9000.0", "process_ms.p99": "1700.0"})),
        ("", chain(detector={"busy_ms": "8000.0", "process_ms.p99": "1700.0"})),  # a slow machine
        (
            "unsupported_encoding",
            chain(increments={**NOTHING_INFERRED, "ledger.failed.unsupported_encoding": 10}),
        ),
        ("", chain(increments={**HEALTHY, "ledger.failed.unsupported_encoding": 1})),  # one of many
        ("bad_images", chain(increments={**NOTHING_INFERRED, "ledger.failed.too_large": 10})),
        ("", chain(increments={**HEALTHY, "ledger.failed.too_large": 1})),
        ("bad_stamps", chain(increments={**NOTHING_INFERRED, "ledger.failed.stamp_zero": 10})),
        ("bad_stamps", chain(gate={"input_age_ms": "-20000.0"})),
        ("", chain(gate={"input_age_ms": "-200.0"})),
        ("transport_loss", chain(increments={**HEALTHY, "ledger.failed.transport": 2})),
        ("", chain(increments={**HEALTHY, "ledger.received": 30, "ledger.failed.transport": 1})),
        (
            "all_rejected",
            chain(increments={**NOTHING_INFERRED, "ledger.rejected": 10, "ledger.rejected.unwanted": 10}),
        ),
        (
            "gate_closed",
            chain(gate={"blind_ms": "2500.0"}, increments={**NOTHING_INFERRED, "ledger.gated": 10}),
        ),
        ("", chain(gate={"blind_ms": "1900.0"}, increments={**NOTHING_INFERRED, "ledger.gated": 10})),
        (
            "",
            chain(
                gate={"blind_ms": "1900.0", "max_blind_ms": "2000.0"},
                increments={**NOTHING_INFERRED, "ledger.gated": 10},
            ),
        ),
        (
            "gate_closed",
            chain(
                gate={"blind_ms": "1900.0", "max_blind_ms": "9000.0"},
                increments={**NOTHING_INFERRED, "ledger.gated": 10},
            ),
        ),
        ("publisher_silent", chain(gate={"silent_ms": "3100.0"})),
        ("", chain(gate={"silent_ms": "3100.0", "first_stage": "False"})),  # behind a gate
        ("below_threshold", chain(increments={**HEALTHY, "detections_total": 0})),
        ("", chain(detector={"top_score": "unavailable"}, increments={**HEALTHY, "detections_total": 0})),
    ],
)
def test_the_cause_of_a_snapshot(expected: str, snapshot: PipelineSnapshot) -> None:
    assert name(snapshot) == expected


def source(**values: str) -> PipelineSnapshot:
    """A pipeline that receives no frame, with a source of its own."""
    snapshot = chain(increments={})
    given = {"state": "active", "uri": "clip.avi", "situation": "playing", "trouble": "", **values}
    return replace(snapshot, stages=(NodeReport("source", "playing", given), *snapshot.stages))


SILENT = NodeReport("cascade", "running", {"pid": "7"}, silent_s=2.5)
FAILING = replace(chain(increments=NOTHING_INFERRED).stages[1], level=ERROR, message="it is broken")


@pytest.mark.parametrize(
    "expected,snapshot",
    [
        (("node_missing", ERROR, "cascade, detector are not running"), {"missing": ("cascade", "detector")}),
        (None, {"missing": ("source",)}),
        (("node_silent", ERROR, "cascade has not reported for 2 s"), {"silent": (SILENT,)}),
        (
            ("node_silent", ERROR, "process 7 has ended"),
            {"silent": (replace(SILENT, process_state="ended"),)},
        ),
        (("node_silent", ERROR, "kill -CONT"), {"silent": (replace(SILENT, process_state="stopped"),)}),
        (
            ("node_finalized", ERROR, "cascade is finalized"),
            {"stages": (NodeReport("cascade", "stopped", {"state": "finalized"}),)},
        ),
        (
            ("source_unavailable", WARN, "no file"),
            {"stages": source(situation="waiting", trouble="no file").stages},
        ),
        (("source_asleep", WARN, "in 60 s"), {"stages": source(trouble="in 60 s", asleep="True").stages}),
        (
            ("source_finished", OK, "clip.avi has been played"),
            {"stages": source(situation="finished").stages},
        ),
        (
            ("source_finished", WARN, "truncated"),
            {"stages": source(situation="finished", trouble="truncated").stages},
        ),
        (("node_error", ERROR, "detector: it is broken"), {"stages": (FAILING,), "no_inference_s": 2.0}),
        (None, {"stages": (FAILING,), "no_inference_s": 0.5}),
        (("nothing_published", WARN, "no known cause applies"), {"unexplained_s": 3.5}),
        (None, {"unexplained_s": 2.5}),
        (
            None,
            {"unexplained_s": 4.5, "stages": chain(gate={"max_blind_ms": "2000.0"}, increments={}).stages},
        ),
    ],
)
def test_name_level_and_text_of_causes_of_silence(
    expected: tuple[str, int, str] | None, snapshot: dict
) -> None:
    cause = find_cause(replace(chain(increments={}), **snapshot))
    if expected is None:
        assert cause is None
    else:
        assert cause is not None and (cause.name, cause.level) == expected[:2] and expected[2] in cause.text


def test_a_missing_node_is_no_cause_while_frames_flow() -> None:
    assert find_cause(replace(chain(), silent=(SILENT,), missing=("cascade",))) is None


def test_a_gate_that_exceeds_its_bound_is_a_warning() -> None:
    closed = {**NOTHING_INFERRED, "ledger.gated": 10}
    for blind_ms, level in (("4900.0", OK), ("5100.0", WARN)):
        cause = find_cause(chain(gate={"blind_ms": blind_ms, "max_blind_ms": "2000.0"}, increments=closed))
        assert cause is not None and (cause.name, cause.level) == ("gate_closed", level)


def test_two_cameras_on_one_topic_are_named() -> None:
    jumps = {**HEALTHY, "ledger.failed.stamp_backwards": 3}
    both = with_images(publishers=(CAMERA, replace(CAMERA, node="/rear")))
    cause = find_cause(both)
    assert cause is not None and (cause.name, cause.level) == ("several_publishers", OK)
    assert "(/camera, /rear): use one topic per camera, unless only one" in cause.text
    sending = tuple(replace(one, increments={**HEALTHY, "format_changes": 5}) for one in both.stages)
    cause = find_cause(replace(both, stages=sending))
    assert cause is not None and (cause.name, cause.level) == ("several_publishers", WARN)
    # A driver that was killed and restarted has two publishers for a while.
    again = with_images(publishers=(CAMERA, CAMERA))
    assert find_cause(again) is None
    stages = tuple(replace(stage, increments=jumps) for stage in again.stages)
    assert name(replace(again, stages=stages)) == "several_publishers"


def test_a_cause_that_explains_others_comes_first() -> None:
    snapshot = chain(
        gate={"silent_ms": "9000.0"}, detector={"state": "inactive"}, increments=NOTHING_INFERRED
    )
    assert name(snapshot) == "node_inactive"
    assert name(replace(snapshot, stages=snapshot.stages[:1])) == "publisher_silent"


def test_a_setting_that_intends_silence_is_ok() -> None:
    for snapshot in (
        chain(gate={"blind_ms": "2500.0"}, increments={**NOTHING_INFERRED, "ledger.gated": 10}),
        chain(increments={**HEALTHY, "detections_total": 0}),
    ):
        cause = find_cause(snapshot)
        assert cause is not None and cause.level == OK


def test_media_stamps_are_not_compared_with_the_clock() -> None:
    snapshot = chain(gate={"input_age_ms": "1e12"})
    assert name(snapshot) == "bad_stamps"
    source = NodeReport("source", "playing", {"state": "active", "stamps": "media", "uri": "clip.avi"})
    assert name(replace(snapshot, stages=(source, *snapshot.stages))) == ""


def test_images_are_lost_only_if_camera_info_arrives() -> None:
    snapshot = with_images(camera_info_count=15)
    gate = replace(snapshot.stages[0], values={**snapshot.stages[0].values, "silent_ms": "1600.0"})
    assert name(replace(snapshot, stages=(gate, snapshot.stages[1]))) == "transport_loss"
    assert name(snapshot) == ""


def test_a_camera_that_has_just_started_is_not_silent() -> None:
    """The stage has subscribed for longer than there has been a publisher."""
    snapshot = with_images(published_ms=500.0)
    gate = replace(snapshot.stages[0], values={**snapshot.stages[0].values, "silent_ms": "60000.0"})
    assert name(replace(snapshot, stages=(gate, snapshot.stages[1]))) == ""
    assert gate.image_input is not None
    late = replace(gate, image_input=replace(gate.image_input, published_ms=3500.0))
    assert name(replace(snapshot, stages=(late, snapshot.stages[1]))) == "publisher_silent"


@pytest.mark.parametrize(("refused", "at_once"), [(1, False), (2, True), (30, True)])
def test_one_image_with_a_bad_stamp_may_be_a_clock_jump(refused: int, at_once: bool) -> None:
    increments = {**NOTHING_INFERRED, "ledger.received": refused, "ledger.failed.stamp_backwards": refused}
    cause = find_cause(chain(increments=increments))
    assert cause is not None and cause.name == "bad_stamps"
    # Reports arrive once a second: a cause that must persist longer is in two of them.
    assert (cause.wait_s < 1.0) is at_once


def test_the_command_contains_the_namespace() -> None:
    cause = find_cause(replace(chain(gate={"state": "inactive"}), namespace="/front"))
    assert cause is not None and cause.text.endswith("ros2 lifecycle set /front/gate activate")


def test_similar_names() -> None:
    others = ("/depth", "/front/image_raw", "/front/image_rect", "/rear/image_raw", "/tf")
    assert similar_names("/image_raw", others)[0] in ("/front/image_raw", "/rear/image_raw")
    assert similar_names("/image_raw", ()) == []


@pytest.mark.parametrize(
    "offered,requested,policy",
    [
        ({}, {}, None),
        ({"reliability": "best_effort"}, {"reliability": "reliable"}, "reliability"),
        ({"reliability": "reliable"}, {"reliability": "best_effort"}, None),
        ({"durability": "volatile"}, {"durability": "transient_local"}, "durability"),
        ({"durability": "transient_local"}, {"durability": "volatile"}, None),
        ({"liveliness": "automatic"}, {"liveliness": "manual_by_topic"}, "liveliness"),
        ({}, {"deadline_ns": 10**8}, "deadline"),
        ({"deadline_ns": 10**9}, {"deadline_ns": 10**8}, "deadline"),
        ({"deadline_ns": 10**7}, {"deadline_ns": 10**8}, None),
        ({"reliability": "best_effort"}, {"reliability": "unknown"}, None),
    ],
)
def test_qos_mismatch(offered: dict, requested: dict, policy: str | None) -> None:
    found = qos_mismatch(Endpoint("/a", IMAGE, **offered), Endpoint("/b", IMAGE, **requested))
    assert (found[0] if found else None) == policy


def test_every_cause_is_provoked_with_real_nodes() -> None:
    tests = ("nodes/test_causes_node.py", "e2e/test_diagnostics_live.py")
    provoked = "".join((TEST / one).read_text("utf-8") for one in tests)
    assert {entry.name for entry in cause_entries() if f'"{entry.name}"' not in provoked} == set()


def test_every_cause_is_documented() -> None:
    assert [entry.name for entry in cause_entries() if not (entry.symptom and entry.remedy)] == []


def test_a_cause_of_another_package_comes_before_those_of_last_resort(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(CUSTOM_CAUSES, "_entries", [])
    CUSTOM_CAUSES.add("lens_covered", WARN, "Uncover it.")(lambda snapshot: Match("dark"))
    nothing_detected = chain(increments={**HEALTHY, "detections_total": 0})
    assert name(nothing_detected) == "lens_covered"
    assert name(chain(detector={"state": "inactive"})) == "node_inactive"
