"""The updater with a real pipeline, repository and model: promotion, probation, and the way back."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from model_cases import SSD, bundle_or_skip, video_frame
from ros_cases import CHAIN, Image, image_message, wait_until
from sensor_msgs.msg import CompressedImage
from std_srvs.srv import Trigger
from update_cases import GROUP, World

from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.nodes import updater_node, updater_shadow
from edge_vision.nodes.detector.stats import DetectorStats
from edge_vision.nodes.detector_node import DetectorNode
from edge_vision.nodes.interface.image_messages import jpeg_message
from edge_vision.nodes.updater_node import UpdaterNode
from edge_vision.updates import probation
from edge_vision.updates.robot_report import read_reports
from edge_vision.updates.slots import read_state

KINDS = (*CHAIN, UpdaterNode)
STREET = 200


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    bundle_or_skip(SSD)
    world = World(tmp_path)
    yield world
    world.close()


@pytest.fixture(autouse=True)
def slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the updater keeps its state."""
    monkeypatch.setattr(updater_node, "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr(updater_node, "TICK_S", 0.05)
    monkeypatch.setattr(updater_shadow, "PERIOD_S", 0.0)
    monkeypatch.setattr(probation, "PROBATION_S", 1.0)
    monkeypatch.setattr(probation, "MIN_FRAMES", 5)
    monkeypatch.setattr(probation, "JUDGED_FRAMES", 3)
    return tmp_path / "cache" / "updates" / "default"


def variant(folder: Path, version: str, *changes: tuple[str, str]) -> Bundle:
    """The SSD with another version and other lines in its manifest."""
    shutil.copytree(bundle_or_skip(SSD).folder, folder)
    manifest = folder / "bundle.yaml"
    text = manifest.read_text().replace("version: 1.0.0", f"version: {version}")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    manifest.write_text(text)
    return load_bundle(str(folder))


def overrides(world: World, **updater: Any) -> dict[str, dict[str, Any]]:
    settings = {"repository_url": world.url, "group": GROUP, "bootstrap_root": str(world.operator.root)}
    return {
        "gate": {"enabled": False},
        "cascade": {"enabled": False},
        "detector": {"model": SSD},
        "updater": {"auto": "off", **settings, **updater},
    }


def call(robot: Any, name: str) -> Trigger.Response:
    return robot.call(Trigger, f"updater/{name}", Trigger.Request())


class Camera:
    """Sends a street with people, as fast as the detector takes it."""

    def __init__(self, robot: Any, running: Any) -> None:
        self.frames, self._stop = 0, threading.Event()
        self._publisher = robot.publisher(Image, "image_raw")
        self._image, self._running = video_frame("vtest.avi", STREET).image, running
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        while not self._stop.is_set():
            self.frames += 1
            self._publisher.publish(image_message(self._image, self.frames * 10**8))
            while not self._stop.wait(0.02) and self._running.ledger["in_flight"]:
                pass

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def camera(robot: Any) -> Iterator[Callable[[Any], Camera]]:
    cameras: list[Camera] = []

    def begin(running: Any) -> Camera:
        cameras.append(Camera(robot, running))
        return cameras[-1]

    yield begin
    for one in cameras:
        one.stop()


def serving(robot: Any, version: str) -> None:
    robot.status("detector", lambda _, values: values["model"].endswith(version))


def events(slots: Path) -> list[str]:
    return [json.loads(line)["event"] for line in (slots / "history.jsonl").read_text().splitlines()]


def fetched(robot: Any, version: str) -> None:
    assert call(robot, "check").success
    robot.status("updater", lambda _, values: f" {version} " in values["candidate"])


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
        ([("score_threshold: 0.5", "score_threshold: 1.0")], "blind: 0.00 detections per frame"),
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


def test_auto_promote_compares_first_and_needs_nobody(start, robot, world, slots, camera, tmp_path):
    world.operator.publish_bundle(variant(tmp_path / "second", "2.0.0"))
    running = start(KINDS, overrides(world, auto="promote"))
    camera(running)
    robot.status("updater", lambda _, values: "within all bounds" in values["last_event"])
    serving(robot, "2.0.0")
    wait_until(lambda: read_state(slots).current and read_state(slots).current.proven, "the commit on disk")
    assert events(slots) == ["downloaded", "compares", "agrees", "promoted", "committed"]
    evidence = json.loads((slots / "history.jsonl").read_text().splitlines()[2])["evidence"]
    assert evidence["frames_with_a_miss"] == 0 and evidence["frames_with_objects"] <= 200


@pytest.mark.parametrize("how", ["blind", "other labels", "crashes"])
def test_shadow_rejects_a_bad_model_before_it_serves(
    start, robot, world, slots, camera, tmp_path, monkeypatch, how
):
    changes = [("score_threshold: 0.5", "score_threshold: 1.0")] if how == "blind" else []
    bundle = variant(tmp_path / "bad", "2.0.0", *changes)
    if how == "other labels":
        labels = bundle.folder / "labels.txt"
        labels.write_text(labels.read_text().replace("person", "traffic cone"))
    world.operator.publish_bundle(bundle)
    running = start(KINDS, overrides(world, auto="shadow"))
    camera(running)
    if how == "crashes":
        robot.status("updater", lambda _, values: values["shadow"] == "True")
        shadow = wait_until(lambda: running["updater"]._shadow, "the comparison")
        killed: set[int] = set()

        def all_killed() -> bool:
            child = shadow._process._child
            child.kill()
            killed.add(child.pid)
            return len(killed) == 3

        wait_until(all_killed, "three children")
    reason = (
        "cannot be compared: its process was killed by SIGKILL" if how == "crashes" else "misses or labels"
    )
    robot.status("updater", lambda _, values: reason in values["last_event"])
    serving(robot, "1.0.0")
    state = read_state(slots)
    assert state.slots == {} and len(state.barred) == 1
    assert events(slots) == ["downloaded", "compares", "rejected"]


def test_a_newer_release_ends_the_comparison_of_an_older_one(start, robot, world, slots, camera, tmp_path):
    world.operator.publish_bundle(variant(tmp_path / "second", "2.0.0"))
    start(KINDS, overrides(world, auto="shadow"))
    robot.status("updater", lambda _, values: values["shadow"] == "True")
    world.operator.publish_bundle(variant(tmp_path / "third", "3.0.0"))
    fetched(robot, "3.0.0")
    wait_until(
        lambda: events(slots) == ["downloaded", "compares", "downloaded", "compares"], "both comparisons"
    )


def test_shadow_does_not_promote(start, robot, world, slots, camera, tmp_path):
    world.operator.publish_bundle(variant(tmp_path / "second", "2.0.0"))
    running = start(KINDS, overrides(world, auto="shadow"))
    camera(running)
    robot.status("updater", lambda _, values: "agrees with the present model" in values["last_event"])
    serving(robot, "1.0.0")
    assert not running["updater"].count_subscribers("image_accepted") > 1


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


def test_shadow_compares_on_compressed_images(start, robot, world, slots, tmp_path):
    world.operator.publish_bundle(variant(tmp_path / "second", "2.0.0"))
    settings = overrides(world, auto="shadow")
    settings["detector"]["image_transport"] = "compressed"
    running = start((DetectorNode, UpdaterNode), settings)
    image = video_frame("vtest.avi", STREET)
    publisher = robot.publisher(CompressedImage, "image_accepted/compressed")
    sent, due_s = 0, 0.0

    def compared() -> bool:
        nonlocal sent, due_s
        if time.monotonic() >= due_s:  # No faster than a loaded machine detects.
            sent, due_s = sent + 1, time.monotonic() + 0.2
            publisher.publish(jpeg_message(replace(image, stamp_ns=sent * 10**8)))
        return bool((shadow := running["updater"]._shadow) and shadow.test.trials >= 2)

    wait_until(compared, "two comparisons")
    assert running["updater"]._shadow.test.misses == 0


def test_off_without_quotes_is_off(start, robot, world):
    """YAML and the command line read it as false."""
    running = start((UpdaterNode,), overrides(world, auto=False))
    assert running["updater"].params["auto"] == "off" and running["updater"].params.errors == []
    assert running["updater"].get_parameter("auto").value == "off"
