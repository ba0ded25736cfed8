"""A specialised model on its own scene, on another one, and back: what the detector node publishes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from model_cases import SSD, bundle_or_skip, specialised_bundle, video_frame
from ros_cases import DetectorNode, Image, detections_of, image_message, stamp_of

from edge_vision.backends import BackendRequest
from edge_vision.backends.serving.loaded_model import ModelRequest, load_model
from edge_vision.detect import scene_guard
from edge_vision.detect.detector import Detector

STEP_NS = 10**8
OWN, OTHER = (
    [("vtest.avi", i) for i in range(0, 200, 10)],
    [("segway_rider.mp4", i) for i in range(20, 60, 4)],
)


class GuardScene:
    """A detector with a specialised model, and a camera in front of clips."""

    def __init__(self, start, robot, folder: Path, **overrides) -> None:
        settings = {"model": f"{specialised_bundle(folder / 'student')}/", "backend": "onnxruntime"}
        self.running = start([DetectorNode], {"detector": {**settings, **overrides}})
        self.robot, self.found, self.last_ns, self.count = robot, detections_of(robot), 10**9, 0
        self.camera = robot.publisher(Image, "image_accepted")

    def show(self, frames) -> list:
        """Publish frames, each after the answer to the one before. Returns the answers."""
        first_ns = self.last_ns + 1
        for clip, number in frames:
            self.last_ns, self.count = self.last_ns + STEP_NS, self.count + 1
            self.camera.publish(image_message(video_frame(clip, number).image, self.last_ns, "cam"))
            self.running.settled(self.count)
        self.robot.wait(lambda: len(self.found) >= self.count, "all answers")
        return [one for one in self.found if stamp_of(one) >= first_ns]

    def state(self, wanted: str) -> dict[str, str]:
        return self.robot.status("detector", lambda _, values: values["guard.state"] == wanted)[1]

    def show_until(self, wanted: str, frames) -> list:
        """Show frames again and again until the guard has this state. Returns all answers."""
        answers = []
        for _ in range(20):
            answers += self.show(frames)
            if self.running["detector"].guard.status_values()["guard.state"] == wanted:
                self.state(wanted)
                return answers
        raise AssertionError(f"expected the guard to be {wanted}")


@pytest.fixture(autouse=True)
def frequent(monkeypatch) -> None:
    """A comparison of each frame, as these frames come faster than they were recorded."""
    monkeypatch.setattr(scene_guard, "PERIOD_S", 0.0)
    monkeypatch.setattr(scene_guard, "DOUBT_PERIOD_S", 0.0)


def test_no_object_is_lost_on_another_scene(start, robot, tmp_path) -> None:
    log = tmp_path / "log.jsonl"
    scene = GuardScene(start, robot, tmp_path, json_log=str(log))
    scene.state("trusted")
    assert all(one.detections for one in scene.show(OWN))
    assert scene.state("trusted")["guard.fallbacks"] == "0"
    answers = scene.show_until("fallback", OTHER)
    teacher = load_model(
        ModelRequest(SSD, "onnxruntime", BackendRequest(threads=1)), Detector.from_bundle
    ).runner
    labels = bundle_or_skip(SSD).labels
    for answer, (clip, number) in zip(answers, OTHER * 20, strict=False):
        expected = teacher.detect(replace(video_frame(clip, number), encoding="bgr8")).detections
        people = sum(labels[i] == "person" for i in expected.class_ids)
        assert len(answer.detections) >= people > 0
    status, _ = robot.status("detector")
    assert "disagrees with its teacher" in status.message
    scene.show_until("trusted", OWN)
    events = [json.loads(line)["event"] for line in log.read_text("utf-8").splitlines()]
    assert events.count("guard_loaded") == 1 and events.index("guard_loaded") < events.index("guard_fallback")
    assert events.index("guard_fallback") < len(events) - 1 - events[::-1].index("guard_trusted")


def test_the_teacher_runs_on_the_backend_that_was_chosen_for_the_model(start, robot, tmp_path) -> None:
    scene = GuardScene(start, robot, tmp_path, backend="auto")
    scene.state("trusted")
    guard = scene.running["detector"].guard
    robot.wait(lambda: guard._teacher.model, "the teacher")
    chosen = guard._model.report
    assert chosen.requested["backend"] == "auto"
    assert guard._teacher.model.report.requested["backend"] == chosen.actual.backend


def test_without_guard_the_model_runs_alone(start, robot, tmp_path) -> None:
    scene = GuardScene(start, robot, tmp_path, guard=False)
    assert not any(one.detections for one in scene.show(OTHER))
    scene.state("off")


def test_a_missing_teacher_is_reported_and_the_model_runs_on(start, robot, tmp_path) -> None:
    student = specialised_bundle(tmp_path / "lonely")
    manifest = student / "bundle.yaml"
    manifest.write_text(manifest.read_text("utf-8").replace(f"teacher: {SSD}", "teacher: no_such_bundle"))
    scene = GuardScene(start, robot, tmp_path, model=f"{student}/")
    status, _ = robot.status("detector", lambda status, _: "guard:" in status.message)
    assert "no_such_bundle" in status.message
    assert all(one.detections for one in scene.show(OWN[:3]))
