"""The collector in the pipeline's process: what it keeps, and that nothing of it reaches the pipeline."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
from model_cases import DETECTOR, SSD, bundle_or_skip, video_frame
from ros_cases import CHAIN, ONLY_CHANGES, RELIABLE, CompressedImage, Image, image_message, wait_until
from test_cascade_node import NEVER_BLIND, ONE_BACKEND, color_bundle
from test_guard import OTHER, GuardScene

from edge_vision.core.frame import Frame
from edge_vision.dataset.collector import Collector
from edge_vision.dataset.folder import COCO_FILE, DatasetFolder
from edge_vision.nodes import collector_node, pipeline
from edge_vision.nodes.collector_node import CollectorNode
from edge_vision.nodes.interface.image_messages import jpeg_message

STEP_NS = 10**8
EASY = {"min_interval_ms": 0.0, "random_per_hour": 0.0, "daily_per_class": 1000}


class Street:
    """A camera in front of a street, frame by frame."""

    def __init__(self, start, robot, folder: Path, reasons: list[str], **overrides: Any) -> None:
        given = {"collector": {"folder": str(folder), "reasons": reasons, **EASY}, **overrides}
        self.running = start((*CHAIN, CollectorNode), given)
        self.robot, self.path, self.count = robot, folder, 0
        self.camera = robot.publisher(Image, "image_raw")
        self.node = self.running["collector"]
        robot.wait(lambda: self.node._model.labels and self.node._model.name, "the labels and the model")

    @property
    def folder(self) -> DatasetFolder:
        return DatasetFolder(self.path)

    def show(self, image: np.ndarray) -> None:
        self.count += 1
        message = image_message(np.ascontiguousarray(image), self.count * STEP_NS, "cam")
        self.camera.publish(message)
        self.running.settled(self.count)

    def kept(self, count: int = 1) -> list[Any]:
        """The pictures once there are so many."""
        wait_until(lambda: len(self.folder.names()) >= count, f"{count} pictures")
        return list(self.folder.pictures())

    def counts(self) -> dict[str, Any]:
        return self.node.status_values()


def test_uncertain_frames_are_kept_with_their_model_and_annotations(start, robot, tmp_path):
    bundle = bundle_or_skip(DETECTOR)
    street = Street(start, robot, tmp_path / "new", ["low_margin"])
    assert robot.set("collector", score_margin=0.45).successful
    for at in range(5):
        street.show(video_frame("vtest.avi", 60 * at).image)
    one = street.kept()[0]
    assert one.reason == "low_margin" and "person" in one.classes
    assert one.frame_id == "cam" and one.stamp_ns % STEP_NS == 0
    assert one.bundle == f"{bundle.name} {bundle.version}" and one.bundle_sha256 == bundle.sha256
    assert (one.width_px, one.height_px) == (768, 576) and one.proposals
    _, values = robot.status("collector", lambda _, values: int(values["kept.low_margin"]) >= 1)
    assert int(values["pictures"]) >= 1 and int(values["bytes"]) > 1000 and values["failed"] == "0"
    street.running.end()
    found = json.loads((tmp_path / "new" / COCO_FILE).read_text("utf-8"))
    assert len(found["images"]) == len(street.folder.names()), "written when the node ends"


def test_a_miss_that_the_audit_confirms_is_kept(start, robot, tmp_path):
    """A cascade that always rejects: audited frames bypass it, and show unknown walkers."""
    bundle_or_skip(DETECTOR)
    blind = {"model": str(color_bundle(tmp_path).folder), "score_threshold": 1.0, "reject_threshold": 1.0}
    gate = {**ONLY_CHANGES, "audit_rate": 1.0, "audit_max_hz": 1000.0}
    cascade = {**blind, **ONE_BACKEND, **NEVER_BLIND}
    street = Street(start, robot, tmp_path / "new", ["audit_miss"], gate=gate, cascade=cascade)
    for at in range(40):
        image = video_frame("vtest.avi", 12 * at).image
        for _ in range(3):  # Changed, and so passed and rejected; then still, and so audited and confirmed.
            street.show(image[:, ::-1] if at % 2 else image)
        if street.folder.names():
            break
    one = street.kept()[0]
    assert one.reason == "audit_miss" and "person" in one.classes and one.inferred
    audited = street.running["gate"]._gate.status()
    assert int(audited["audit.missed"]) >= 1


def test_random_frames_are_kept_whatever_is_on_them(start, robot, tmp_path):
    bundle_or_skip(DETECTOR)
    street = Street(start, robot, tmp_path / "new", ["random"], gate=ONLY_CHANGES)
    assert robot.set("collector", random_per_hour=3600.0).successful
    images = [video_frame("vtest.avi", at).image for at in (0, 200)]

    def show() -> None:
        street.show(images[street.count // 3 % 2])
        threading.Event().wait(0.02)

    wait_until(lambda: len(street.folder.names()) >= 2, "two random pictures", show)
    assert {one.reason for one in street.folder.pictures()} == {"random"}
    assert {one.classes for one in street.folder.pictures()} == {("",)}


def test_what_a_student_and_its_teacher_disagree_about_is_kept(start, robot, tmp_path, monkeypatch):
    from edge_vision.detect import scene_guard

    bundle_or_skip(SSD)
    monkeypatch.setattr(scene_guard, "PERIOD_S", 0.0)
    monkeypatch.setattr(scene_guard, "DOUBT_PERIOD_S", 0.0)
    settings = {"folder": str(tmp_path / "new"), "reasons": ["disagreement"], **EASY}

    def with_collector(kinds: list, overrides: dict) -> Any:
        return start([*kinds, CollectorNode], {**overrides, "collector": settings})

    scene = GuardScene(with_collector, robot, tmp_path)
    node, folder = scene.running["collector"], DatasetFolder(tmp_path / "new")
    robot.wait(lambda: node._model.labels, "the labels")
    scene.show_until("fallback", OTHER)
    wait_until(folder.names, "a picture")
    one = next(iter(folder.pictures()))
    assert one.reason == "disagreement" and one.classes != ("",) and one.proposals
    assert {box.label for box in (*one.proposals, *one.other)} <= set(node._model.labels)


def test_a_frame_that_the_updater_returns_is_kept_with_the_known_proposals(start, robot, tmp_path):
    bundle_or_skip(DETECTOR)
    street = Street(start, robot, tmp_path / "new", ["disagreement"])
    image = video_frame("vtest.avi", 200).image
    street.show(image)
    updater = robot.publisher(CompressedImage, "updater/disagreements", RELIABLE)
    updater.publish(jpeg_message(Frame(image, STEP_NS, "cam")))
    one = street.kept()[0]
    assert one.reason == "disagreement" and one.stamp_ns == STEP_NS and one.proposals
    broken = jpeg_message(Frame(image, 2 * STEP_NS, "cam"))
    broken.data = broken.data[:100]
    updater.publish(broken)
    updater.publish(CompressedImage())
    robot.status(
        "collector",
        lambda _, values: "invalid_messages.updater/disagreements" in values or values["failed"] != "0",
    )
    assert len(street.folder.names()) == 1


def test_faces_are_covered_on_request(start, robot, tmp_path):
    bundle_or_skip(DETECTOR)
    given = {"folder": str(tmp_path / "new"), "reasons": ["low_margin"], "blur_faces": True, **EASY}
    running = start((*CHAIN, CollectorNode), {"collector": {**given, "score_margin": 0.45}})
    camera, node = robot.publisher(Image, "image_raw"), running["collector"]
    robot.wait(lambda: node._model.labels, "the labels")
    for number in range(1, 4):
        camera.publish(image_message(video_frame("vtest.avi", 60 * number).image, number * STEP_NS))
        running.settled(number)
    folder = DatasetFolder(tmp_path / "new")
    wait_until(folder.names, "a picture")
    assert all(one.blurred for one in folder.pictures())
    wait_until(lambda: node.status_values()["covered_faces"] > 0, "covered faces")


def test_a_slow_disk_delays_no_frame(start, robot, tmp_path, monkeypatch):
    bundle_or_skip(DETECTOR)
    entered, released = threading.Event(), threading.Event()

    def slow(collector: Collector, candidate: Any) -> None:
        entered.set()
        released.wait(60.0)

    monkeypatch.setattr(Collector, "keep", slow)
    street = Street(start, robot, tmp_path / "new", ["low_margin"])
    assert robot.set("collector", score_margin=0.45).successful
    try:
        for at in range(6):
            street.show(video_frame("vtest.avi", 60 * at).image)
        assert entered.wait(60.0)
        assert street.running.ledger["inferred"] == 6, "all frames are inferred while a picture is written"
        assert street.counts()["superseded"] >= 3, "the newest one waits"
    finally:
        released.set()


def test_a_failing_collector_costs_the_pipeline_nothing(start, robot, tmp_path, monkeypatch):
    bundle_or_skip(DETECTOR)
    street = Street(start, robot, tmp_path / "new", ["low_margin"])

    def fail(*values: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(collector_node, "uncertain", fail)
    for at in range(3):
        street.show(video_frame("vtest.avi", 60 * at).image)
    assert (street.running.ledger["inferred"], street.running.ledger["failed"]) == (3, 0)


def test_a_full_disk_is_a_warning_and_passes(start, robot, tmp_path, monkeypatch):
    import errno

    from edge_vision.dataset import folder as folder_module

    bundle_or_skip(DETECTOR)
    street = Street(start, robot, tmp_path / "new", ["low_margin"])
    assert robot.set("collector", score_margin=0.45).successful

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "write_file", full)
        street.show(video_frame("vtest.avi", 0).image)
        status, _ = robot.status("collector", lambda _, values: values["failed"] != "0")
        assert status.level == b"\x01" and "No space left" in status.message
    street.show(video_frame("vtest.avi", 300).image)
    street.kept()
    robot.status("collector", lambda status, _: status.level == b"\x00")


def test_a_folder_of_somebody_else_leaves_the_pipeline_running(start, robot, tmp_path):
    bundle_or_skip(DETECTOR)
    (tmp_path / "notes.txt").write_text("mine")
    running = start((*CHAIN, CollectorNode), {"collector": {"folder": str(tmp_path)}})
    status, _ = robot.status("collector")
    assert status.level == b"\x02" and "expected a new or empty folder" in status.message
    camera = robot.publisher(Image, "image_raw")
    camera.publish(image_message(video_frame("vtest.avi", 0).image, STEP_NS))
    assert running.settled(1)["inferred"] == 1
    assert [one.name for one in tmp_path.iterdir()] == ["notes.txt"]


def test_it_is_a_component_of_the_pipeline():
    assert pipeline.COMPONENTS["collect"]() is CollectorNode
    code = "import sys, edge_vision.nodes.pipeline; sys.exit('edge_vision.dataset.collector' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0, (
        "imported on request only"
    )


def test_the_status_keys_are_documented(start, robot, tmp_path):
    start([CollectorNode], {"collector": {"folder": str(tmp_path / "new")}})
    _, values = robot.status("collector")
    text = (Path(__file__).parents[2] / "docs" / "dataset.md").read_text("utf-8")
    own = [key for key in values if key.partition(".")[0] in ("kept", "not_kept")] + [
        "pictures",
        "removed",
        "bytes",
    ]
    assert all(f"`{key.partition('.')[0]}" in text for key in own)
