"""The guard of a specialised model: what decides, and two real bundles on two clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from model_cases import SSD, bundle_or_skip, clip_or_skip

from edge_vision.backends import BackendRequest
from edge_vision.backends.serving.loaded_model import ModelRequest, load_model
from edge_vision.core.detections import DetectionResult, Detections, StageTiming
from edge_vision.core.frame import Frame
from edge_vision.detect.detector import Detector
from edge_vision.detect.scene_guard import DOUBTFUL, FALLBACK, QUIET_S, TRUSTED, SceneGuard, agreement
from edge_vision.errors import BundleError
from edge_vision.optimize.errors import OptimizeError
from edge_vision.train.networks.cutting import cut_bundle

CLASSES = ("person", "car")
ONE_LEVEL = 1
"""The finest feature map alone: right for small people, blind for large ones."""


def result(
    *rows: tuple[float, float, int], low: tuple[tuple[float, float, int], ...] = ()
) -> DetectionResult:
    """rows: left edge, score, class of boxes of 10 px."""
    found, low_score = (
        Detections(
            np.array([[x, 0, x + 10, 10] for x, _, _ in part], np.float32).reshape(-1, 4),
            np.array([score for _, score, _ in part], np.float32),
            np.array([c for _, _, c in part], np.int32),
        )
        for part in (rows, low)
    )
    return DetectionResult(found, StageTiming.between(0.0, 0.0, 0.0, 0.0), None, low_score)


def fed(guard: SceneGuard, agrees: bool | None, seconds: float, now_s: float) -> float:
    """Compare at 30 frames per second. Returns the time of the first change of state, or of the end."""
    for step in range(int(30 * seconds)):
        at = now_s + step / 30
        if guard.is_due(at) and guard.add(agrees, at):
            return at
    return now_s + seconds


def test_the_guard_falls_back_within_ten_seconds_and_comes_back() -> None:
    guard = SceneGuard(0.7)
    now_s = fed(guard, True, 60, 0.0)
    assert guard.state == TRUSTED and now_s == 60.0
    doubt_s = fed(guard, False, 10, now_s)
    assert guard.state == DOUBTFUL and guard.uses_teacher
    assert fed(guard, False, 10, doubt_s + 0.1) - now_s < 10 and guard.state == FALLBACK
    now_s = fed(guard, False, 3600, 100.0)
    assert guard.state == FALLBACK
    fed(guard, True, 60, now_s)
    assert guard.state == TRUSTED and guard.falls == 1


def test_a_single_disagreement_is_no_fallback() -> None:
    guard = SceneGuard(0.7)
    guard.add(False, 0.0)
    fed(guard, True, 60, 1.0)
    assert guard.state == TRUSTED and guard.falls == 0


def test_doubt_ends_where_nothing_is_seen() -> None:
    guard = SceneGuard(0.7)
    guard.add(False, 0.0)
    assert fed(guard, None, 60, 1.0) == pytest.approx(QUIET_S, abs=0.5)
    assert guard.state == TRUSTED


def test_a_fallback_needs_evidence() -> None:
    """At the promised share of agreement, the bounds seldom call a model worse: 1 % of the doubts."""
    rng, falls = np.random.default_rng(0), 0
    for _ in range(200):
        guard = SceneGuard(0.7)
        guard.add(False, 0.0)
        for at in range(1, 40):
            guard.add(bool(rng.random() < 0.75), float(at))
        falls += guard.falls
    assert falls <= 4


def test_frames_agree_by_their_sure_boxes() -> None:
    two = result((0, 0.9, 0), (50, 0.9, 1))
    assert agreement(two, two, 0.5) is True
    assert agreement(result(), two, 0.5) is False
    assert agreement(result(), result((0, 0.55, 0)), 0.5) is None
    assert agreement(result(low=((0, 0.4, 0),)), result((0, 0.9, 0)), 0.5) is True
    assert agreement(result((0, 0.9, 1)), result((0, 0.9, 0)), 0.5) is False


def loaded(folder: Path) -> Detector:
    request = ModelRequest(f"{folder}/", "onnxruntime", BackendRequest(threads=1))
    return load_model(request, Detector.from_bundle).runner


def test_a_cut_detector_has_the_same_boxes_of_its_classes(tmp_path: Path) -> None:
    parent = bundle_or_skip(SSD)
    whole, part = loaded(parent.folder), loaded(cut_bundle(parent, tmp_path / "cut", CLASSES).folder)
    frame = next(frames("vtest.avi", 40))[1]
    expected, found = (one.detect(frame).detections for one in (whole, part))
    kept = expected.select(np.isin(expected.class_ids, [parent.labels.index(name) for name in CLASSES]))
    assert len(kept) > 2
    np.testing.assert_allclose(found.xyxy_px, kept.xyxy_px, atol=0.01)
    assert [CLASSES[i] for i in found.class_ids] == [parent.labels[i] for i in kept.class_ids]


def frames(clip: str, first: int = 0):
    capture = cv2.VideoCapture(clip_or_skip(clip))
    rate_hz, number = capture.get(cv2.CAP_PROP_FPS), 0
    while (read := capture.read())[0]:
        if number >= first:
            yield (number - first) / rate_hz, Frame(read[1], 0, "", "bgr8")
        number += 1


def run_guard(clip: str, seconds: float, ours: Detector, teacher: Detector) -> tuple[SceneGuard, float]:
    """The guard after a clip, and when it fell back. Both detectors have the same classes."""
    guard, fell_s = SceneGuard(0.7), float("inf")
    for at_s, frame in frames(clip):
        if at_s > seconds or guard.state == FALLBACK:
            break
        if guard.is_due(at_s):
            results = [one.detect(frame, with_low_score=True) for one in (ours, teacher)]
            guard.add(agreement(*results, ours.thresholds.score_threshold), at_s)
            fell_s = at_s if guard.state == FALLBACK else fell_s
    return guard, fell_s


def test_it_stays_on_its_own_scene_and_falls_back_on_another(tmp_path: Path) -> None:
    parent = bundle_or_skip(SSD)
    teacher = loaded(cut_bundle(parent, tmp_path / "teacher", CLASSES).folder)
    ours = loaded(cut_bundle(parent, tmp_path / "ours", CLASSES, ONE_LEVEL).folder)
    guard, _ = run_guard("vtest.avi", 8.0, ours, teacher)
    assert guard.state == TRUSTED and guard.compared >= 8
    guard, fell_s = run_guard("segway_rider.mp4", 10.0, ours, teacher)
    assert guard.state == FALLBACK and fell_s < 10.0


def test_unknown_classes_and_other_heads_are_refused(tmp_path: Path) -> None:
    parent = bundle_or_skip(SSD)
    with pytest.raises(OptimizeError, match=r"--classes: expected labels .* got unicorn"):
        cut_bundle(parent, tmp_path / "a", ["unicorn"])
    head = replace(parent.manifest.head, type="centernet")
    other = replace(parent, manifest=replace(parent.manifest, head=head))
    with pytest.raises(OptimizeError, match="expected a detector with a head of ssd or nanodet"):
        cut_bundle(other, tmp_path / "b", ["person"])


def test_valid_for_is_of_detectors_only(tmp_path: Path) -> None:
    from edge_vision.bundles.manifest import parse_manifest

    parent = bundle_or_skip(SSD)
    text = (parent.folder / "bundle.yaml").read_text("utf-8")
    valid = "valid_for: {teacher: nanodet, classes: [person]}\n"
    found = parse_manifest(text + valid, parent.folder).valid_for
    assert found is not None and (found.teacher, found.agreement) == ("nanodet", 0.7)
    with pytest.raises(BundleError, match=r"valid_for\.classes"):
        parse_manifest(text + "valid_for: {teacher: nanodet, classes: []}\n", parent.folder)
