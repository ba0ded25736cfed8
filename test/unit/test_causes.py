"""From facts to one cause: which, in which order, and when none."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from edge_vision.diagnostics import causes
from edge_vision.diagnostics.causes import ERROR, OK, WARN, find_cause
from edge_vision.diagnostics.snapshot import Endpoint, Intake, NodeReport, PipelineSnapshot, clash, nearest

IMAGE = "sensor_msgs/msg/Image"
OWN = Endpoint("/gate", IMAGE, "best_effort")
CAMERA = Endpoint("/camera", IMAGE)
HEALTHY = {"ledger.received": 10, "ledger.inferred": 5, "ledger.gated": 5, "detections_total": 7}


def chain(
    gate: dict | None = None, detector: dict | None = None, added: dict | None = None
) -> PipelineSnapshot:
    """A healthy pipeline but for what is given."""
    values = {"state": "active", "use_sim_time": "False", "failure": ""}
    intake = Intake("/image_raw", OWN, (CAMERA,))
    first = {**values, "first_stage": "True", "silent_ms": "50.0", "input_age_ms": "5.0", **(gate or {})}
    last = {**values, "model": "m 1", "top_score": "0.3", "score_threshold": "0.4", **(detector or {})}
    books = HEALTHY if added is None else added
    return PipelineSnapshot(
        (
            NodeReport("gate", "running", first, books, intake),
            NodeReport("detector", "running", last, books, reports=9),
        )
    )


def name(facts: PipelineSnapshot) -> str:
    cause = find_cause(facts)
    return cause.name if cause else ""


def with_intake(**fields: object) -> PipelineSnapshot:
    facts = chain()
    gate, detector = facts.stages
    assert gate.intake is not None
    return replace(facts, stages=(replace(gate, intake=replace(gate.intake, **fields)), detector))  # type: ignore[arg-type]


def test_a_healthy_pipeline_has_none() -> None:
    assert find_cause(chain()) is None
    assert find_cause(PipelineSnapshot(())) is None
    assert find_cause(chain(added={})) is None  # the first report: nothing counted yet


def test_one_that_stops_has_none() -> None:
    facts = with_intake(publishers=())
    assert name(facts) == "no_publisher"
    stopped = replace(facts.stages[0], message="stopped")
    assert find_cause(replace(facts, stages=(stopped, facts.stages[1]))) is None
    ended = replace(stopped, silent_s=3.0)
    cause = find_cause(replace(facts, stages=facts.stages[1:], silent=(ended,), missing=()))
    assert cause is None, "frames come all the same"
    cause = find_cause(replace(chain(added={}), silent=(ended,)))
    assert cause is not None and cause.name == "node_silent" and "has ended; start it again" in cause.text


BARREN = {"ledger.received": 10, "ledger.inferred": 0, "detections_total": 0}


@pytest.mark.parametrize(
    "expected,facts",
    [
        ("sim_time_without_clock", replace(chain(gate={"use_sim_time": "True"}), clock_publishers=0)),
        (
            "model_not_loaded",
            chain(detector={"model": "unavailable", "failure": "cannot configure: no file"}),
        ),
        ("node_inactive", chain(detector={"state": "inactive"})),
        ("wrong_type", with_intake(publishers=(replace(CAMERA, type="std_msgs/msg/String"),))),
        (
            "incompatible_qos",
            with_intake(publishers=(CAMERA,), own=replace(OWN, durability="transient_local")),
        ),
        ("detector_stuck", chain(detector={"busy_ms": "1900.0"})),
        ("detector_stuck", chain(detector={"busy_ms": "9000.0", "process_ms.p99": "1700.0"})),
        ("", chain(detector={"busy_ms": "8000.0", "process_ms.p99": "1700.0"})),  # a slow machine
        ("unsupported_encoding", chain(added={**BARREN, "ledger.failed.unsupported_encoding": 10})),
        ("", chain(added={**HEALTHY, "ledger.failed.unsupported_encoding": 1})),  # one of many
        ("bad_stamps", chain(added={**BARREN, "ledger.failed.stamp_zero": 10})),
        ("bad_stamps", chain(gate={"input_age_ms": "-20000.0"})),
        ("", chain(gate={"input_age_ms": "-200.0"})),
        ("transport_loss", chain(added={**HEALTHY, "ledger.failed.transport": 2})),
        ("", chain(added={**HEALTHY, "ledger.received": 30, "ledger.failed.transport": 1})),
        ("all_rejected", chain(added={**BARREN, "ledger.rejected": 10, "ledger.rejected.unwanted": 10})),
        ("gate_closed", chain(gate={"blind_ms": "2500.0"}, added={**BARREN, "ledger.gated": 10})),
        ("", chain(gate={"blind_ms": "1900.0"}, added={**BARREN, "ledger.gated": 10})),
        (
            "",
            chain(
                gate={"blind_ms": "1900.0", "max_blind_ms": "2000.0"}, added={**BARREN, "ledger.gated": 10}
            ),
        ),
        (
            "gate_closed",
            chain(
                gate={"blind_ms": "1900.0", "max_blind_ms": "9000.0"}, added={**BARREN, "ledger.gated": 10}
            ),
        ),
        ("publisher_silent", chain(gate={"silent_ms": "3100.0"})),
        ("", chain(gate={"silent_ms": "3100.0", "first_stage": "False"})),  # behind a gate
        ("below_threshold", chain(added={**HEALTHY, "detections_total": 0})),
        ("", chain(detector={"top_score": "unavailable"}, added={**HEALTHY, "detections_total": 0})),
    ],
)
def test_causes(expected: str, facts: PipelineSnapshot) -> None:
    assert name(facts) == expected


def source(**values: str) -> PipelineSnapshot:
    """A pipeline to which no frame comes, with a source of its own."""
    facts = chain(added={})
    given = {"state": "active", "uri": "clip.avi", "situation": "playing", "trouble": "", **values}
    return replace(facts, stages=(NodeReport("source", "playing", given), *facts.stages))


SILENT = NodeReport("cascade", "running", {"pid": "7"}, silent_s=2.5)
FAILING = replace(chain(added=BARREN).stages[1], level=ERROR, message="it is broken")


@pytest.mark.parametrize(
    "expected,facts",
    [
        (("node_missing", ERROR, "cascade, detector are not running"), {"missing": ("cascade", "detector")}),
        (None, {"missing": ("source",)}),
        (("node_silent", ERROR, "cascade has not reported for 2 s"), {"silent": (SILENT,)}),
        (("node_silent", ERROR, "process 7 has ended"), {"silent": (replace(SILENT, process="ended"),)}),
        (("node_silent", ERROR, "kill -CONT"), {"silent": (replace(SILENT, process="stopped"),)}),
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
        (("node_error", ERROR, "detector: it is broken"), {"stages": (FAILING,), "barren_s": 2.0}),
        (None, {"stages": (FAILING,), "barren_s": 0.5}),
        (("nothing_published", WARN, "no known cause fits"), {"unexplained_s": 3.5}),
        (None, {"unexplained_s": 2.5}),
        (None, {"unexplained_s": 4.5, "stages": chain(gate={"max_blind_ms": "2000.0"}, added={}).stages}),
    ],
)
def test_causes_of_silence(expected: tuple[str, int, str] | None, facts: dict) -> None:
    cause = find_cause(replace(chain(added={}), **facts))
    if expected is None:
        assert cause is None
    else:
        assert cause is not None and (cause.name, cause.level) == expected[:2] and expected[2] in cause.text


def test_a_node_that_is_away_is_no_cause_while_frames_flow() -> None:
    assert find_cause(replace(chain(), silent=(SILENT,), missing=("cascade",))) is None


def test_a_gate_that_breaks_its_bound_is_an_alarm() -> None:
    closed = {**BARREN, "ledger.gated": 10}
    for blind_ms, level in (("4900.0", OK), ("5100.0", WARN)):
        cause = find_cause(chain(gate={"blind_ms": blind_ms, "max_blind_ms": "2000.0"}, added=closed))
        assert cause is not None and (cause.name, cause.level) == ("gate_closed", level)


def test_two_cameras_on_one_topic() -> None:
    jumps = {**HEALTHY, "ledger.failed.stamp_backwards": 3}
    both = with_intake(publishers=(CAMERA, replace(CAMERA, node="/rear")))
    cause = find_cause(both)
    assert cause is not None and cause.name == "several_publishers" and "(/camera, /rear)" in cause.text
    # A driver that was killed and started again has two for a while.
    again = with_intake(publishers=(CAMERA, CAMERA))
    assert find_cause(again) is None
    stages = tuple(replace(stage, added=jumps) for stage in again.stages)
    assert name(replace(again, stages=stages)) == "several_publishers"


def test_what_explains_others_comes_first() -> None:
    facts = chain(gate={"silent_ms": "9000.0"}, detector={"state": "inactive"}, added=BARREN)
    assert name(facts) == "node_inactive"
    assert name(replace(facts, stages=facts.stages[:1])) == "publisher_silent"


def test_a_setting_that_wants_silence_is_no_alarm() -> None:
    for facts in (
        chain(gate={"blind_ms": "2500.0"}, added={**BARREN, "ledger.gated": 10}),
        chain(added={**HEALTHY, "detections_total": 0}),
    ):
        cause = find_cause(facts)
        assert cause is not None and cause.level == OK


def test_media_stamps_are_what_the_user_asked_for() -> None:
    facts = chain(gate={"input_age_ms": "1e12"})
    assert name(facts) == "bad_stamps"
    source = NodeReport("source", "playing", {"state": "active", "stamps": "media", "uri": "clip.avi"})
    assert name(replace(facts, stages=(source, *facts.stages))) == ""


def test_images_lost_or_not_sent_at_all() -> None:
    facts = with_intake(beside=15)
    gate = replace(facts.stages[0], values={**facts.stages[0].values, "silent_ms": "1600.0"})
    assert name(replace(facts, stages=(gate, facts.stages[1]))) == "transport_loss"
    assert name(facts) == ""


def test_a_camera_that_has_just_come_up_may_take_its_time() -> None:
    """It is silent since the stage listens, but published only now."""
    facts = with_intake(published_ms=500.0)
    gate = replace(facts.stages[0], values={**facts.stages[0].values, "silent_ms": "60000.0"})
    assert name(replace(facts, stages=(gate, facts.stages[1]))) == ""
    assert gate.intake is not None
    late = replace(gate, intake=replace(gate.intake, published_ms=3500.0))
    assert name(replace(facts, stages=(late, facts.stages[1]))) == "publisher_silent"


@pytest.mark.parametrize(("refused", "at_once"), [(1, False), (2, True), (30, True)])
def test_one_refused_image_may_be_a_jump_of_the_clock(refused: int, at_once: bool) -> None:
    added = {**BARREN, "ledger.received": refused, "ledger.failed.stamp_backwards": refused}
    cause = find_cause(chain(added=added))
    assert cause is not None and cause.name == "bad_stamps"
    # A report comes once a second: what must last for longer is in two of them.
    assert (cause.wait_s < 1.0) is at_once


def test_the_path_of_a_namespace() -> None:
    cause = find_cause(replace(chain(gate={"state": "inactive"}), namespace="/front"))
    assert cause is not None and cause.text.endswith("ros2 lifecycle set /front/gate activate")


def test_nearest_names() -> None:
    others = ("/depth", "/front/image_raw", "/front/image_rect", "/rear/image_raw", "/tf")
    assert nearest("/image_raw", others)[0] in ("/front/image_raw", "/rear/image_raw")
    assert nearest("/image_raw", ()) == []


@pytest.mark.parametrize(
    "offered,asked,policy",
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
def test_clash(offered: dict, asked: dict, policy: str | None) -> None:
    found = clash(Endpoint("/a", IMAGE, **offered), Endpoint("/b", IMAGE, **asked))
    assert (found[0] if found else None) == policy


def test_every_cause_is_provoked_with_real_nodes_and_documented() -> None:
    source = "".join(path.read_text("utf-8") for path in Path(causes.__file__).parent.glob("*.py"))
    names = set(re.findall(r'(?:Cause\(\s*|name = )"(\w+)"', source)) | {"source_unavailable"}
    repo = Path(__file__).resolve().parents[2]
    tests = ("nodes/test_causes_node.py", "e2e/test_silent_nodes.py")
    provoked = "".join((repo / "test" / one).read_text("utf-8") for one in tests)
    assert {one for one in names if f'"{one}"' not in provoked} == set()
    documented = (repo / "docs" / "diagnostics.md").read_text("utf-8")
    assert {one for one in names if f"`{one}`" not in documented} == set()
