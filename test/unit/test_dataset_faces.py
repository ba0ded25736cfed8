"""Covered faces: heads of persons, faces that OpenCV finds, nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from dataset_cases import BOX, Clock, candidate, detections, picture
from model_cases import clip_or_skip

from edge_vision.dataset.collector import Collector, CollectorConfig
from edge_vision.dataset.errors import DatasetError
from edge_vision.dataset.faces import FaceBlur


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return np.abs(before.astype(int) - after).max(axis=2) > 8


def test_the_head_of_a_person_is_covered_and_the_rest_stays() -> None:
    image = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    boxes = np.array([[20, 20, 60, 120], [120, 20, 180, 120]], np.float32)
    covered, areas = FaceBlur().covered(image, boxes, ["Person", "car"])
    assert areas == 1
    differs = changed(image, covered)
    assert differs[22:46, 21:59].mean() > 0.9, "the head"
    assert not differs[50:].any() and not differs[:, 61:].any()


def test_a_covered_head_has_too_few_cells_to_recognise_anyone() -> None:
    image = picture(1, 300, 300)
    covered, _ = FaceBlur().covered(image, np.array([[0, 0, 300, 300]], np.float32), ["face"])
    cells = cv2.resize(covered, (6, 6), interpolation=cv2.INTER_AREA)
    again = cv2.resize(cells, (300, 300), interpolation=cv2.INTER_LINEAR)
    assert np.abs(again.astype(int) - covered).mean() < 12


@pytest.mark.parametrize(
    "box", [[-50, -50, 10, 10], [190, 190, 260, 260], [300, 300, 310, 310], [5, 5, 6, 6]]
)
def test_boxes_at_and_beyond_the_border_are_no_error(box: list[float]) -> None:
    image = picture(1, 200, 200)
    assert FaceBlur().covered(image, np.array([box], np.float32), ["person"])[0].shape == image.shape


def test_opencv_finds_a_face_of_which_there_is_no_box() -> None:
    blur = FaceBlur()
    if not blur.detector:
        pytest.skip("this OpenCV ships no cascades")
    capture = cv2.VideoCapture(clip_or_skip("carphone_pristine.mp4"))
    image = capture.read()[1]
    capture.release()
    covered, areas = blur.covered(image, np.zeros((0, 4), np.float32), [])
    assert areas >= 1 and changed(image, covered).any()


def test_a_file_that_is_no_face_model_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"face_model: expected a YuNet .onnx file, got"):
        FaceBlur(str(tmp_path / "none.onnx"))


def test_pictures_are_covered_before_they_are_written(tmp_path: Path) -> None:
    found = {}
    for name, blur in (("plain", False), ("covered", True)):
        collector = Collector(tmp_path / name, CollectorConfig(blur_faces=blur), Clock())
        low = detections((50, 5, 80, 60, 0.3, 0))
        kept = collector.keep(replace(candidate(3), low_score=low))
        assert kept is not None and kept.blurred == blur
        found[name] = cv2.imread(str(collector.folder.image_path(kept.name)))
    differs = changed(found["plain"], found["covered"])
    left, top, right, _ = map(int, BOX)
    assert differs[top : top + 16, left:right].any(), "of the detection"
    assert differs[5:20, 52:78].any(), "of the low-score detection"
    assert not differs[60:].any()
