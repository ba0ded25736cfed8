"""The cascade node: stages from bundles, refused settings, unusual regions, one that always rejects."""

from __future__ import annotations

import numpy as np
import pytest
from model_cases import DETECTOR, bundle_or_skip, video_frame
from ros_cases import CHAIN, ONLY_CHANGES, CascadeNode, DiagnosticArray, Image, image_message
from stage_cases import LABELS, RED, color_bundle

from edge_vision.core.frame_event import FrameEvent
from edge_vision.core.geometry.boxes import NO_REGIONS
from edge_vision.core.model_spec import StageSpec
from edge_vision.nodes.interface.frame_event_messages import frame_event_message

NEVER_BLIND = {"max_blind_ms": 60000.0}
ONE_BACKEND = {"backend": "onnxruntime"}
WIDTH_PX, HEIGHT_PX = 64, 48
COLORS = {"red": (0, 0, 255), "green": (0, 255, 0), "dull": (0, 0, 115)}
"""BGR. A dull red is between the two thresholds of RED."""


def painted(name: str, box: tuple[int, int, int, int] = (0, 0, WIDTH_PX, HEIGHT_PX)) -> np.ndarray:
    """A black picture with one box in a colour."""
    image = np.zeros((HEIGHT_PX, WIDTH_PX, 3), np.uint8)
    left, top, right, bottom = box
    image[top:bottom, left:right] = COLORS[name]
    return image


class CascadeScene:
    """A cascade alone, with the ends of the gate before it."""

    def __init__(self, start, robot, folder, **params):
        params = {"model": str(color_bundle(folder).folder), **ONE_BACKEND, **NEVER_BLIND, **params}
        self.running, self.robot, self.n = start([CascadeNode], {"cascade": params}), robot, 0
        self._ticks = robot.publisher(DiagnosticArray, "gate_events", 100)
        self._images = robot.publisher(Image, "gate/image")

    def show(self, image: np.ndarray, regions: np.ndarray = NO_REGIONS, reason: str = "motion"):
        """Pass one frame through; the ledger afterwards."""
        self.n += 1
        self._ticks.publish(frame_event_message(FrameEvent(self.n, "camera", "gate", "", reason, regions)))
        self._images.publish(image_message(image, self.n))
        return self.running.settled(self.n)


@pytest.fixture
def scene(start, robot, tmp_path):
    one = CascadeScene(start, robot, tmp_path, round_robin=0)
    assert one.show(painted("green"))["handed_on.refresh"] == 1
    return one


def test_crops_are_classified_at_the_regions(scene):
    right = np.array([[50, 20, 60, 30]], np.float32)
    red_right = painted("red", (40, 0, 64, 48))
    assert scene.show(red_right, right)["handed_on.wanted"] == 1
    assert scene.show(red_right, right - [45, 0, 45, 0])["rejected.unwanted"] == 1
    assert scene.show(painted("dull"), right)["handed_on.unsure"] == 1
    assert scene.show(painted("green"), right)["rejected.unwanted"] == 2
    _, values = scene.robot.status("cascade", lambda _, values: values["stage1.reject"] == "2")
    assert (values["stage1"], values["stage1.accept"], values["stage1.unsure"]) == ("color", "1", "1")
    assert float(values["stage1.crop_ms.p50"]) > 0 and values["cascade.reason.unwanted"] == "2"
    assert values["ledger.balanced"] == "True"


ODD = {
    "outside": np.array([[900, 900, 950, 950], [-50, -50, -5, -5]], np.float32),
    "without area": np.array([[9, 9, 9, 9]], np.float32),
}


@pytest.mark.parametrize("regions", ODD.values(), ids=ODD)
def test_regions_that_cannot_be_classified_accept_the_frame(scene, regions):
    assert scene.show(painted("green"), regions)["handed_on.classifier_error"] == 1
    status, _ = scene.robot.status("cascade", lambda status, _: status.level == b"\x02")
    assert "regions lies within the frame" in status.message
    assert scene.show(painted("green"))["rejected.unwanted"] == 1
    scene.robot.status("cascade", lambda status, _: status.level == b"\x00")


def test_five_hundred_regions_and_none(scene):
    corners = np.random.default_rng(3).uniform(0, 1, (500, 2)) * [WIDTH_PX - 4, HEIGHT_PX - 4]
    regions = np.concatenate([corners, corners + 4], axis=1).astype(np.float32)
    ledger = scene.show(painted("green"), regions)
    assert ledger["handed_on"] == 2 and ledger["handed_on.crowded"] == 1
    assert scene.show(painted("green"), regions / 8)["rejected.unwanted"] == 1
    assert scene.show(painted("green"), NO_REGIONS)["rejected.unwanted"] == 2


@pytest.mark.parametrize("reason", ["audit", "audit_open", "model_swap"])
def test_frames_that_the_gate_must_know_about_are_accepted(scene, reason):
    assert scene.show(painted("green"), reason=reason)[f"handed_on.{reason}"] == 1


def test_a_second_stage_classifies_what_the_first_was_unsure_about(start, robot, tmp_path):
    (tmp_path / "second").mkdir()
    strict = color_bundle(tmp_path / "second", StageSpec(("red",), 0.5, 0.5, 0.5))
    scene = CascadeScene(start, robot, tmp_path, next_models=[str(strict.folder)])
    scene.show(painted("green"))
    assert scene.show(painted("dull"))["rejected.unwanted"] == 1
    assert scene.show(painted("green"))["rejected.unwanted"] == 2
    _, values = robot.status("cascade", lambda _, values: values["cascade.reason.unwanted"] == "2")
    assert int(values["stage1.unsure"]) > 0 and values["stage2.reject"] == values["stage1.unsure"]
    assert scene.running["cascade"].last_model.startswith("color 1.0.0")


def test_the_shipped_stage_accepts_a_court_with_walkers_and_rejects_a_meadow(start, robot, tmp_path):
    """Both are of clips that it was fitted on: this is about the node, not about how good the stage is."""
    bundle_or_skip("person_vehicle_stage")
    scene = CascadeScene(start, robot, tmp_path, model="person_vehicle_stage")
    meadow, court = video_frame("bigbuckbunny.mp4", 60).image, video_frame("vtest.avi", 300).image
    scene.show(meadow)
    assert scene.show(meadow)["rejected.unwanted"] == 1
    assert scene.show(court)["handed_on.wanted"] == 1
    lawn = np.array([[20, 420, 60, 460]], np.float32)
    assert scene.show(court, lawn)["received"] == 4
    _, values = robot.status("cascade", lambda _, values: values["ledger.received"] == "4")
    assert values["ledger.balanced"] == "True" and int(values["stage1.reject"]) >= 8


# What is refused.


def refusal(start, robot, **params) -> str:
    running = start([CascadeNode], {"cascade": {**ONE_BACKEND, **params}})
    status, _ = robot.status("cascade")
    assert status.level == b"\x02" and running["cascade"].state != "active"
    return status.message


def test_a_next_stage_that_is_missing_is_named(start, robot, tmp_path):
    model = str(color_bundle(tmp_path).folder)
    message = refusal(start, robot, model=model, next_models=["no_such_bundle"])
    assert "expected the bundle 'no_such_bundle'" in message


def test_a_stage_of_another_task_is_refused(start, robot, tmp_path):
    bundle_or_skip(DETECTOR)
    model = str(color_bundle(tmp_path).folder)
    message = refusal(start, robot, model=model, next_models=[DETECTOR])
    assert "a classifier needs a head for task 'classify', got one for 'detect'" in message


def test_next_models_without_a_model_are_refused(start, robot, tmp_path):
    message = refusal(start, robot, next_models=[str(color_bundle(tmp_path).folder)])
    assert "next_models: expected with a model, got an empty one" in message


def test_thresholds_that_cross_are_refused_at_the_start(start, robot, tmp_path):
    model = str(color_bundle(tmp_path).folder)
    message = refusal(start, robot, model=model, reject_threshold=0.7)
    assert "reject_below <= accept_from" in message and "0.7" in message


def test_crossing_thresholds_are_refused_live_and_the_old_ones_stay(scene):
    robot, cascade = scene.robot, scene.running["cascade"]._cascade
    answer = robot.set("cascade", score_threshold=0.2)
    assert (
        not answer.successful and "expected at most score_threshold, 0.2 for color, got 0.3" in answer.reason
    )
    assert cascade.status()["stage1.accept_from"] == RED.accept_from
    assert robot.get("cascade", "score_threshold") == -1.0
    assert robot.set("cascade", score_threshold=0.2, reject_threshold=0.1).successful
    assert (cascade.status()["stage1.reject_below"], cascade.status()["stage1.accept_from"]) == (0.1, 0.2)
    assert scene.show(painted("dull"))["handed_on.wanted"] == 1


def test_a_plain_classifier_as_before(start, robot, tmp_path):
    model = str(color_bundle(tmp_path, stage=None).folder)
    message = refusal(start, robot, model=model, wanted_labels=[])
    assert "color was not fitted for a cascade and there are no wanted_labels" in message
    assert LABELS[0] == "red"


# A classifier that always rejects.


def test_the_audit_notices_a_cascade_that_always_rejects(start, robot, tmp_path):
    """Audited frames bypass it and show unknown walkers: the gate opens, and every frame is inferred."""
    bundle_or_skip(DETECTOR)
    blind = {"model": str(color_bundle(tmp_path).folder), "score_threshold": 1.0, "reject_threshold": 1.0}
    gate = {**ONLY_CHANGES, "audit_rate": 1.0, "audit_max_hz": 1000.0}
    running = start(CHAIN, {"cascade": {**blind, **ONE_BACKEND, **NEVER_BLIND}, "gate": gate})
    camera = robot.publisher(Image, "image_raw")
    number = 0

    def show(image: np.ndarray) -> dict[str, int]:
        nonlocal number
        number += 1
        camera.publish(image_message(np.ascontiguousarray(image), number * 10**8))
        return running.settled(number)

    for at in range(60):
        street = video_frame("vtest.avi", 12 * at).image
        for _ in range(3):  # Changed, and so passed and rejected; then still, and so audited and confirmed.
            ledger = show(street[:, ::-1] if at % 2 else street)
        if running["gate"]._gate.status()["audit.open"]:
            break
    assert ledger.get("rejected.unwanted", 0) >= 2, "the cascade rejects what the gate lets pass"
    status, values = robot.status("gate", lambda _, values: values["audit.open"] == "True")
    assert status.level == b"\x01" and "the audit opened the gate" in status.message
    assert float(values["audit.miss_rate_low"]) > 0.2
    before = ledger["inferred"]
    ledger = show(video_frame("vtest.avi", 790).image)
    assert ledger["inferred"] == before + 1, "an open gate opens the cascade"
    assert ledger["received"] == ledger["inferred"] + ledger["rejected"] + ledger.get("gated", 0)
