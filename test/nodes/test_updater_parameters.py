"""Releases with parameters: set with the release, and back with it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from model_cases import SSD, bundle_or_skip
from ros_cases import wait_until
from update_cases import GROUP
from updater_cases import KINDS, call, events, fetched, overrides, serving, variant

from edge_vision.nodes.updater_node import UpdaterNode
from edge_vision.updates import probation
from edge_vision.updates.slots import read_state

pytestmark = pytest.mark.usefixtures("slots")


PARAMETERS = b"""
/**/gate: {ros__parameters: {max_delay_ms: 700}}
/**/detector:
  ros__parameters:
    score_threshold: 0.35
    zones: ["exclude road 0,0.9 1,0.9 1,1 0,1"]
"""


def values_of(running: Any) -> tuple[Any, ...]:
    return (
        running["gate"].params["max_delay_ms"],
        running["detector"].params["score_threshold"],
        running["detector"].params["zones"],
    )


NEW_VALUES = (700.0, 0.35, ["exclude road 0,0.9 1,0.9 1,1 0,1"])


def test_parameters_of_a_release_are_set_with_it_and_go_back_with_it(start, robot, world, slots, tmp_path):
    bundle = variant(tmp_path / "second", "2.0.0")
    world.operator.publish_bundle(bundle, parameters=PARAMETERS)
    running = start(KINDS, overrides(world))
    before = values_of(running)
    fetched(robot, "2.0.0")
    assert values_of(running) == before
    assert call(robot, "promote").success
    wait_until(lambda: values_of(running) == NEW_VALUES, "the release's parameters")
    running.end()
    # The next start: the nodes have the values of their own parameter file at first.
    running = start(KINDS, overrides(world))
    wait_until(lambda: values_of(running) == NEW_VALUES, "the release's parameters again")
    assert call(robot, "rollback").success
    wait_until(lambda: values_of(running) == before, "the values before")
    robot.status("updater", lambda _, values: values["parameters.pending"] == "")
    assert json.loads((slots / "parameters_before.json").read_text()) == {}


def test_a_release_with_other_parameters_is_another_release(start, robot, world, slots, tmp_path):
    """The same bundle: only the parameter file is downloaded, and the earlier parameters go back."""
    bundle = variant(tmp_path / "second", "2.0.0")
    world.operator.publish_bundle(bundle, parameters=PARAMETERS)
    running = start(KINDS, overrides(world))
    before = values_of(running)
    fetched(robot, "2.0.0")
    assert call(robot, "promote").success
    wait_until(lambda: values_of(running) == NEW_VALUES, "the release's parameters")
    running["updater"]._served._end_probation(probation.Verdict(True, "for this test", {}))
    world.server.requests.clear()
    other = b"/**/gate: {ros__parameters: {max_delay_ms: 800.0}}"
    world.operator.publish_bundle(bundle, parameters=other)
    assert call(robot, "check").success
    robot.status("updater", lambda _, values: "release 2" in values["candidate"])
    fetched_files = [path for path, _ in world.server.requests if path.startswith("targets/")]
    assert len(fetched_files) == 1 and "parameters.yaml" in fetched_files[0]
    assert call(robot, "promote").success
    wait_until(lambda: values_of(running) == (800.0, *before[1:]), "the second release's parameters")
    assert call(robot, "rollback").success
    wait_until(lambda: values_of(running) == NEW_VALUES, "the first release's parameters")


LADDER = b"""
/**/gate:
  ros__parameters: {max_delay_ms: 700.0, ladder: LADDER}
/**/detector:
  ros__parameters: {score_threshold: 0.35, zones: ["exclude road 0,0.9 1,0.9 1,1 0,1"]}
"""


def test_parameters_without_a_model_are_a_release_with_probation(
    start, robot, world, slots, camera, tmp_path
):
    """With the factory model, and automatic; the same model is not compared with itself."""
    ladder = tmp_path / "ladder.yaml"
    ladder.write_text(json.dumps([{"bundle": str(bundle_or_skip(SSD).folder), "relative": 1.0}]))
    parameters = LADDER.replace(b"LADDER", str(ladder).encode())
    world.operator.repository.publish(None, GROUP, "stable", None, parameters=parameters)
    running = start(KINDS, overrides(world, auto="promote"))
    before = values_of(running)
    camera(running)
    wait_until(lambda: values_of(running) == NEW_VALUES, "the release's parameters")
    robot.status("updater", lambda _, values: "within all bounds" in values["last_event"])
    assert running["gate"].params["ladder"] == str(ladder) and len(running["gate"]._rungs) == 1
    assert events(slots) == ["downloaded", "agrees", "promoted", "committed"]
    assert read_state(slots).current.name == "parameters"
    paths = [path for path, _ in world.server.requests if path.startswith("targets/")]
    assert len(paths) == 1 and "parameters.yaml" in paths[0], "no model is downloaded"
    serving(robot, "1.0.0")
    assert call(robot, "rollback").success
    wait_until(lambda: values_of(running) == before, "the values before")
    assert running["gate"].params["ladder"] == "" and running["gate"]._rungs == ()


def test_parameters_without_a_model_keep_the_model_of_the_slot(start, robot, world, slots, camera, tmp_path):
    world.operator.publish_bundle(variant(tmp_path / "second", "2.0.0"))
    running = start(KINDS, overrides(world))
    camera(running)
    fetched(robot, "2.0.0")
    assert call(robot, "promote").success
    robot.status("updater", lambda _, values: "within all bounds" in values["last_event"])
    world.operator.repository.publish(None, GROUP, "stable", None, parameters=PARAMETERS)
    assert call(robot, "check").success
    robot.status("updater", lambda _, values: "parameters 2.0.0 (release 2)" in values["candidate"])
    assert call(robot, "promote").success
    wait_until(lambda: values_of(running) == NEW_VALUES, "the release's parameters")
    robot.status("updater", lambda _, values: "parameters 2.0.0 (release 2): w" in values["last_event"])
    # The next model takes the place of the first; that of the parameters stays.
    world.operator.publish_bundle(variant(tmp_path / "third", "3.0.0"))
    fetched(robot, "3.0.0")
    running.end()
    running = start(KINDS, overrides(world))
    serving(robot, "2.0.0")
    wait_until(lambda: values_of(running) == NEW_VALUES, "the release's parameters again")


def test_parameters_that_a_node_refuses_roll_the_release_back(start, robot, world, slots, tmp_path):
    """A class that the model does not have."""
    wrong = b"/**/detector: {ros__parameters: {wanted_classes: [no_such_class]}}"
    world.operator.publish_bundle(variant(tmp_path / "second", "2.0.0"), parameters=wrong)
    running = start(KINDS, overrides(world))
    before = values_of(running)
    fetched(robot, "2.0.0")
    assert call(robot, "promote").success
    robot.status("updater", lambda _, values: "refused its parameters" in values["last_event"])
    serving(robot, "1.0.0")
    assert values_of(running) == before and read_state(slots).current is None


def test_parameters_of_a_node_that_does_not_run_roll_the_release_back(
    start, robot, world, slots, camera, tmp_path
):
    parameters = b"/**/localizer: {ros__parameters: {max_range_m: 30.0}}"
    world.operator.publish_bundle(variant(tmp_path / "second", "2.0.0"), parameters=parameters)
    running = start(KINDS, overrides(world))
    camera(running)
    fetched(robot, "2.0.0")
    assert call(robot, "promote").success
    robot.status("updater", lambda _, values: values["parameters.pending"] == "localizer")
    robot.status("updater", lambda _, values: "expected localizer to run" in values["last_event"])


def test_a_release_with_unknown_parameters_is_not_installed(start, robot, world, slots, tmp_path):
    world.operator.publish_bundle(
        variant(tmp_path / "second", "2.0.0"), parameters=b"/**/gate: {ros__parameters: {max_delay: 1}}"
    )
    start((UpdaterNode,), overrides(world, auto="download"))
    robot.status("updater", lambda _, values: values["last_check"] == "staged")
    robot.status("updater", lambda status, _: "did you mean 'max_delay_ms'" in status.message)
    assert read_state(slots).slots == {}
