"""The noise ceiling: the detector's agreement with itself on a picture that moved by 1 or 2 pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from box_cases import Box, boxes
from evaluate_cases import HERE, THERE, needs_clips, reference

from edge_vision.bundles.store import cache_dir, load_bundle
from edge_vision.core.detections import Detections
from edge_vision.evaluate.conditions import Condition, ConditionFrame
from edge_vision.evaluate.reference.clips import clip_condition
from edge_vision.evaluate.reference.detector import BUNDLE, ReferenceDetector
from edge_vision.evaluate.reference.noise_ceiling import moved, noise_ceiling

N = 9


class BlackFrames:
    """N frames with one white pixel."""

    def render(self) -> Iterator[tuple[np.ndarray, list[Any]]]:
        for _ in range(N):
            image = np.zeros((360, 640, 3), np.uint8)
            image[100, 100] = 255
            yield image, []

    def fingerprint(self) -> str:
        return "black"


class FollowsThePixel(ReferenceDetector):
    """Finds one box at the white pixel, and a second one where it moved by less than 2 px."""

    def __init__(self) -> None:
        self.bundle = load_bundle(BUNDLE)
        self.calls = 0

    def detect(self, frame: ConditionFrame) -> tuple[Detections, Detections, float]:
        self.calls += 1
        y, x = np.argwhere(frame.image[:, :, 0])[0].tolist()
        first: Box = (x, y, x + 40, y + 100)
        second: Box = tuple(v + (x - 100) for v in THERE)  # type: ignore[assignment]
        return boxes(*((first, second) if x < 102 else (first,))), boxes(), 0.01


@pytest.fixture
def black(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Condition:
    bundles = cache_dir() / "bundles"
    (tmp_path / "bundles").symlink_to(bundles)
    monkeypatch.setenv("EDGE_VISION_CACHE", str(tmp_path))
    return Condition("black", "black", False, "clip", 30.0, N, BlackFrames)


@needs_clips
def test_boxes_are_moved_back_and_pooled_over_both_shifts(black: Condition) -> None:
    two = reference([[HERE, THERE]] * N)
    # 3 of 9 frames: at 1 px both boxes agree (4 of 4), at 2 px one (2 of 3).
    assert noise_ceiling(black, two, FollowsThePixel()) == pytest.approx(6 / 7)


@needs_clips
def test_the_ceiling_is_cached_and_extended_with_the_reference(black: Condition) -> None:
    detector = FollowsThePixel()
    first = noise_ceiling(black, reference([[HERE, THERE]] * 4), detector)
    assert detector.calls == 2
    assert noise_ceiling(black, reference([[HERE, THERE]] * N), detector) == first
    assert detector.calls == 6
    noise_ceiling(black, reference([[HERE, THERE]] * N), detector)
    assert detector.calls == 6


def test_a_moved_picture_keeps_its_shape_and_repeats_its_border() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert (moved(image, 1) == image[0, 0]).all()
    big = np.random.default_rng(1).integers(0, 255, (20, 30, 3), np.uint8)
    assert (moved(big, 2)[2:, 2:] == big[:-2, :-2]).all()
    assert (moved(big, 2)[0, 2:] == big[0, :-2]).all()


@needs_clips
def test_the_detector_disagrees_with_itself_on_a_real_clip() -> None:
    condition = replace(clip_condition(cache_dir() / "video" / "vtest.avi"), n_frames=17)
    ceiling = noise_ceiling(condition)
    assert ceiling is not None
    assert 0.8 < ceiling < 1.0
