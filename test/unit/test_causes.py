"""From facts to one cause: which, in which order, and when none."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from edge_vision.core import causes
from edge_vision.core.causes import OK, find_cause
from edge_vision.core.facts import Endpoint, Facts, Intake, Stage, clash, nearest

IMAGE = "sensor_msgs/msg/Image"
OWN = Endpoint("/gate", IMAGE, "best_effort")
CAMERA = Endpoint("/camera", IMAGE)
HEALTHY = {"ledger.received": 10, "ledger.inferred": 5, "ledger.gated": 5, "detections_total": 7}


def chain(gate: dict | None = None, detector: dict | None = None, added: dict | None = None) -> Facts:
    """A healthy pipeline but for what is given."""
    values = {"state": "active", "use_sim_time": "False", "failure": ""}
    intake = Intake("/image_raw", OWN, (CAMERA,))
    first = {**values, "first_stage": "True", "silent_ms": "50.0", "input_age_ms": "5.0", **(gate or {})}
    last = {**values, "model": "m 1", "top_score": "0.3", "score_threshold": "0.4", **(detector or {})}
    books = HEALTHY if added is None else added
    return Facts(
        (Stage("gate", "running", first, books, intake), Stage("detector", "running", last, books, reports=9))
    )


def name(facts: Facts) -> str:
    cause = find_cause(facts)
    return cause.name if cause else ""


def with_intake(**fields: object) -> Facts:
    facts = chain()
    gate, detector = facts.stages
    assert gate.intake is not None
    return replace(facts, stages=(replace(gate, intake=replace(gate.intake, **fields)), detector))  # type: ignore[arg-type]


def test_a_healthy_pipeline_has_none() -> None:
    assert find_cause(chain()) is None
    assert find_cause(Facts(())) is None
    assert find_cause(chain(added={})) is None  # the first report: nothing counted yet


def test_one_that_stops_has_none() -> None:
    facts = with_intake(publishers=())
    assert name(facts) == "no_publisher"
    stopped = replace(facts.stages[0], message="stopped")
    assert find_cause(replace(facts, stages=(stopped, facts.stages[1]))) is None


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
def test_causes(expected: str, facts: Facts) -> None:
    assert name(facts) == expected


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
    source = Stage("source", "playing", {"state": "active", "stamps": "media", "uri": "clip.avi"})
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
    source = Path(causes.__file__).read_text("utf-8")
    names = set(re.findall(r'Cause\(\s*"(\w+)"', source))
    assert len(names) == 14
    repo = Path(__file__).resolve().parents[2]
    provoked = (repo / "test" / "nodes" / "test_causes_node.py").read_text("utf-8")
    assert {one for one in names if f'"{one}"' not in provoked} == set()
    documented = (repo / "docs" / "diagnostics.md").read_text("utf-8")
    assert {one for one in names if f"`{one}`" not in documented} == set()
