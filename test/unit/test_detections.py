"""What a detector found, as plain arrays."""

from __future__ import annotations

import warnings

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from edge_vision.core.detections import MAX_COORDINATE_PX, Detections
from edge_vision.core.geometry.boxes import best_iou


def detections(xyxy_px: np.ndarray, scores: list[float] | None = None) -> Detections:
    n = len(xyxy_px)
    given_scores = np.linspace(0.9, 0.1, n) if scores is None else np.array(scores)
    return Detections(
        xyxy_px.astype(np.float32), given_scores.astype(np.float32), np.arange(n, dtype=np.int32)
    )


def test_split_parts_at_a_score():
    found = detections(np.arange(16.0).reshape(4, 4), [0.9, 0.5, 0.4, 0.3])
    high, low = found.split(0.5)
    assert (high.class_ids.tolist(), low.class_ids.tolist()) == ([0, 1], [2, 3])
    assert np.array_equal(np.concatenate([high.xyxy_px, low.xyxy_px]), found.xyxy_px)
    assert [len(part) for part in found.split(1.0)] == [0, 4]
    assert [len(part) for part in found.split(0.0)] == [4, 0]


@given(npst.arrays(np.float32, st.tuples(st.integers(0, 8), st.just(4)), elements=st.floats(width=32)))
def test_valid_boxes_have_a_finite_overlap(xyxy_px):
    sane = detections(xyxy_px).valid()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        overlap = best_iou(sane.xyxy_px, sane.xyxy_px)
    assert np.isfinite(overlap).all() and np.abs(sane.xyxy_px).max(initial=0.0) <= MAX_COORDINATE_PX
    assert set(sane.class_ids.tolist()) <= set(range(len(xyxy_px)))


def test_valid_detections_are_unchanged():
    found = detections(np.array([[0.0, 0.0, 5.0, 5.0], [-3.0, 2.0, 700.0, 9.0]]))
    assert found.valid() is found
    assert len(Detections.empty().valid()) == 0
