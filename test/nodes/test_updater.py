"""The updater with a real pipeline, repository and model: promotion, probation, and the way back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ros_cases import wait_until
from update_cases import GROUP
from updater_cases import KINDS, call, events, fetched, overrides, serving, variant

from edge_vision.core.running_clock import running_s
from edge_vision.nodes.detector.stats import DetectorStats
from edge_vision.nodes.updater_node import UpdaterNode
from edge_vision.updates import probation
from edge_vision.updates.robot_report import check_share, read_reports
from edge_vision.updates.slots import read_state

pytestmark = pytest.mark.usefixtures("slots")


def test_without_a_repository_it_is_idle_and_writes_nothing(start, robot, slots):
    start((UpdaterNode,))
    status, values = robot.status("updater")
    assert (status.level, status.message) == (b"\x00", "idle: no repository_url")
    assert values["state"] == "active"
    for name in ("check", "promote", "rollback"):
        answer = call(robot, name)
        assert not answer.success and "expected an active updater with a repository_url" in answer.message
    assert not slots.exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"group": "Fleet A"}, "group: expected names"),
        ({"channel": "a/b"}, "channel: expected a name"),
        ({"bootstrap_root": "/no/such/1.root.json"}, "bootstrap_root: expected the root file"),
    ],
)
def test_wrong_settings_are_named(start, robot, world, wrong, message):
    start((UpdaterNode,), overrides(world, **wrong))
    status, _ = robot.status("updater")
    assert status.level == b"\x02" and message in status.message


def test_a_refused_repository_is_a_warning_with_its_reason(start, robot, world):
    world.server.faults["metadata"] = lambda handler, data: handler.send_bytes(b"<html>Log in</html>")
    start((UpdaterNode,), overrides(world, auto="download"))
    status, _ = robot.status("updater", lambda _, values: values["last_check"] == "failed")
    assert status.level == b"\x01" and "captive_portal: " in status.message


def test_the_second_check_is_at_a_time_of_the_robots_own(start, robot, world):
    given = {"auto": "download", "robot_id": "yard-7", "check_interval_s": 36000.0}
    updater = start((UpdaterNode,), overrides(world, **given))["updater"]
    robot.status("updater", lambda _, values: values["last_check"])
    share = check_share("yard-7")
    assert 0.1 < share < 0.9
    assert updater._next_check_s - running_s() == pytest.approx(36000 * share, abs=300)
    assert call(robot, "check").success
    assert updater._next_check_s - running_s() == pytest.approx(36000, abs=300)


def test_a_good_model_is_downloaded_promoted_and_kept(start, robot, world, slots, camera, tmp_path):
    world.operator.publish_bundle(variant(tmp_path / "second", "2.0.0"))
    running = start(KINDS, overrides(world))
    sender = camera(running)
    fetched(robot, "2.0.0")
    serving(robot, "1.0.0")
    assert call(robot, "promote").success
    serving(robot, "2.0.0")
    robot.status("updater", lambda _, values: "within all bounds" in values["last_event"])
    assert events(slots) == ["downloaded", "promoted", "committed"]
    sender.stop()
    running.settled(1)
    assert running.ledger["failed"] == 0
    running.end()
    # The next start: the detector's own parameter still names the first model.
    start(KINDS, overrides(world))
    serving(robot, "2.0.0")
    answer = call(robot, "rollback")
    assert answer.success and answer.message == "the factory model serves"
    serving(robot, "1.0.0")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ([("score_threshold: 0.5", "score_threshold: 1.0")], "blind: 0."),
        ([("score_threshold: 0.5", "score_threshold: 0.0")], "flooding: "),
    ],
    ids=["blind", "flooding"],
)
def test_a_bad_model_is_rolled_back_and_barred(start, robot, world, slots, camera, tmp_path, change, reason):
    world.operator.publish_bundle(variant(tmp_path / "bad", "2.0.0", *change))
    running = start(KINDS, overrides(world))
    camera(running)
    running.settled(10)
    fetched(robot, "2.0.0")
    robot.status("detector")
    assert call(robot, "promote").success
    robot.status("updater", lambda _, values: reason in values["last_event"])
    serving(robot, "1.0.0")
    state = read_state(slots)
    assert state.current is None and len(state.barred) == 1
    assert call(robot, "check").success
    status, _ = robot.status("updater", lambda _, values: values["last_check"] == "failed")
    assert "barred on this robot: " in status.message


def test_a_model_that_does_not_load_is_rolled_back(start, robot, world, slots, camera, tmp_path):
    world.operator.publish_bundle(variant(tmp_path / "second", "2.0.0"))
    running = start(KINDS, overrides(world))
    camera(running)
    fetched(robot, "2.0.0")
    graph = next((slots / "bundles").glob("*/model.onnx"))
    graph.write_bytes(graph.read_bytes()[:1000])
    assert call(robot, "promote").success
    robot.status("updater", lambda _, values: "the detector refused it" in values["last_event"])
    serving(robot, "1.0.0")


def test_each_start_during_probation_is_one_try(start, robot, world, slots, tmp_path):
    world.operator.publish_bundle(variant(tmp_path / "second", "2.0.0"))
    running = start(KINDS, overrides(world))
    fetched(robot, "2.0.0")
    assert call(robot, "promote").success
    for tries in (1, 2, 3):
        serving(robot, "2.0.0")
        for _ in range(3):
            robot.status("updater", lambda _, values: values["probation"] == "True")
        assert read_state(slots).tries == tries
        world.operator.publish_bundle(variant(tmp_path / f"next{tries}", f"3.0.{tries}"))
        for name in ("check", "promote"):
            answer = call(robot, name)
            assert not answer.success, answer.message
        running.end()
        running = start(KINDS, overrides(world))
    robot.status("updater", lambda _, values: "3 starts with it were not confirmed" in values["last_event"])
    serving(robot, "1.0.0")


def test_the_status_keys_are_documented(start, robot, world):
    start((UpdaterNode,), overrides(world))
    _, values = robot.status("updater")
    repository = Path(__file__).resolve().parents[2]
    text = "".join((repository / "docs" / name).read_text() for name in ("updates.md", "status_keys.md"))
    assert [key for key in values if f"`{key}`" not in text] == []


def test_a_second_updater_is_refused(start, robot, world, slots):
    running = start((UpdaterNode,), overrides(world))
    second = UpdaterNode(overrides=overrides(world)["updater"])
    try:
        second.trigger_configure()
        assert second.state == "unconfigured" and "another that is running" in second.failure
    finally:
        second.destroy_node()
    assert running["updater"].state == "active"


def test_reports_follow_the_life_of_an_update(start, robot, world, slots, camera, tmp_path):
    folder = tmp_path / "reports"
    world.operator.publish_bundle(variant(tmp_path / "second", "2.0.0"))
    start(KINDS, overrides(world, robot_id="yard7", report_to=str(folder)))

    def reported(outcome: str) -> None:
        wait_until(
            lambda: (folder / "yard7.json").exists() and read_reports(folder).valid[0].outcome == outcome,
            f"the report {outcome}",
        )

    fetched(robot, "2.0.0")
    reported("downloaded")
    assert call(robot, "promote").success
    reported("promoted")
    assert call(robot, "rollback").success
    reported("rolled_back")
    (one,) = read_reports(folder).valid
    assert (one.group, one.release, one.serving) == (GROUP, 1, "factory")
    assert "requested by ~/rollback" in one.text


def test_a_halted_release_is_withdrawn_before_it_serves(start, robot, world, slots, tmp_path):
    world.operator.publish_bundle(variant(tmp_path / "second", "2.0.0"))
    start((UpdaterNode,), overrides(world))
    fetched(robot, "2.0.0")
    world.operator.repository.stage(GROUP, "stable", 0)
    assert call(robot, "check").success
    robot.status("updater", lambda _, values: values["last_check"] == "waiting")
    wait_until(lambda: read_state(slots).slots == {}, "the withdrawal")
    assert events(slots) == ["downloaded", "withdrawn"] and read_state(slots).barred == {}


def test_an_invalid_report_target_or_id_is_named(start, robot, world):
    start((UpdaterNode,), overrides(world, report_to="ftp://x"))
    status, _ = robot.status("updater")
    assert status.level == b"\x02" and "report_to: expected a folder" in status.message


@pytest.mark.parametrize("slow", [("2.0.0",), ("1.0.0", "2.0.0")], ids=["the new model", "the machine"])
def test_age_ends_probation_only_if_the_model_before_is_faster_now(
    start, robot, world, slots, camera, tmp_path, monkeypatch, slow
):
    monkeypatch.setattr(probation, "SLOW_REPORTS", 2)
    monkeypatch.setattr(probation, "PROBATION_S", 5.0)
    world.operator.publish_bundle(variant(tmp_path / "second", "2.0.0"))
    record, slowed = DetectorStats.record, []

    def slower(self: DetectorStats, result: Any, age_ms: float) -> None:
        version = running["detector"].model.current.bundle.version
        record(self, result, 2000.0 if slowed and version in slow else 50.0)

    monkeypatch.setattr(DetectorStats, "record", slower)
    running = start(KINDS, overrides(world))
    camera(running)
    running.settled(10)
    fetched(robot, "2.0.0")
    slowed.append(True)
    assert call(robot, "promote").success
    if len(slow) == 1:
        robot.status("updater", lambda _, values: "the model before has 50 ms now" in values["last_event"])
        serving(robot, "1.0.0")
        assert len(read_state(slots).barred) == 1
    else:
        robot.status("updater", lambda _, values: "within all bounds" in values["last_event"])
        serving(robot, "2.0.0")
        evidence = json.loads((slots / "history.jsonl").read_text().splitlines()[-1])["evidence"]
        assert evidence["before"]["age_ms"] == 2000.0, "the model before served again for a moment"


def test_off_without_quotes_is_off(start, robot, world):
    """YAML and the command line read it as false."""
    running = start((UpdaterNode,), overrides(world, auto=False))
    assert running["updater"].params["auto"] == "off" and running["updater"].params.errors == []
    assert running["updater"].get_parameter("auto").value == "off"
