"""The updater compares a new model with the present one on the same frames before it serves."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
from model_cases import video_frame
from ros_cases import wait_until
from sensor_msgs.msg import CompressedImage
from updater_cases import KINDS, STREET, events, fetched, overrides, serving, variant

from edge_vision.nodes.detector_node import DetectorNode
from edge_vision.nodes.interface.image_messages import jpeg_message
from edge_vision.nodes.updater_node import UpdaterNode
from edge_vision.updates.slots import read_state

pytestmark = pytest.mark.usefixtures("slots")


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
