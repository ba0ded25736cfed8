"""The suppression equals a naive one and ONNX's own operator."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edge_vision.core.geometry import boxes
from edge_vision.core.geometry.boxes import MAX_CANDIDATES, nms


def naive(xyxy, scores, class_ids, iou_threshold, max_detections):
    """Per class, quadratic, one number at a time; then the best of all classes."""
    keep = []
    for one in sorted(set(class_ids.tolist())):
        mine = []
        for i in sorted(np.flatnonzero(class_ids == one), key=lambda i: (-scores[i], i)):
            if all(iou(xyxy[i], xyxy[j]) <= iou_threshold for j in mine):
                mine.append(i)
        keep += mine
    return sorted(keep, key=lambda i: (-scores[i], i))[:max_detections]


def iou(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inner = max(w, 0) * max(h, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner
    return inner / union if union > 0 else 0.0


def candidates(n, n_classes, seed, spread=300.0):
    """Clusters of overlapping boxes, all scores different."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, spread, (max(1, n // 6), 2))[rng.integers(0, max(1, n // 6), n)]
    half = rng.uniform(10, 30, (n, 2))
    centres = centres + rng.normal(0, 5, (n, 2))
    xyxy = np.concatenate((centres - half, centres + half), axis=1).astype(np.float32)
    scores = (rng.permutation(n) + 1).astype(np.float32) / (n + 1)
    return xyxy, scores, rng.integers(0, n_classes, n).astype(np.int32)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 300), st.integers(1, 5), st.integers(0, 10**6), st.floats(0.05, 0.95), st.integers(1, 120)
)
def test_equals_the_naive_one(n, n_classes, seed, iou_threshold, max_detections):
    args = (*candidates(n, n_classes, seed), iou_threshold, max_detections)
    assert nms(*args).tolist() == naive(*args)


@pytest.mark.parametrize("n, iou_threshold", [(50, 0.5), (400, 0.3), (1500, 0.6)])
def test_equals_the_operator_of_onnx(n, iou_threshold):
    n_classes = 4
    xyxy, scores, class_ids = candidates(n, n_classes, n)
    node = helper.make_node(
        "NonMaxSuppression", ["boxes", "scores", "most", "iou", "score"], ["kept"], center_point_box=0
    )
    shapes = {"boxes": (TensorProto.FLOAT, [1, n, 4]), "scores": (TensorProto.FLOAT, [1, n_classes, n])}
    shapes |= {
        "most": (TensorProto.INT64, [1]),
        "iou": (TensorProto.FLOAT, [1]),
        "score": (TensorProto.FLOAT, [1]),
    }
    inputs = [helper.make_tensor_value_info(name, *kind) for name, kind in shapes.items()]
    output = helper.make_tensor_value_info("kept", TensorProto.INT64, [None, 3])
    graph = helper.make_graph([node], "nms", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    per_class = np.zeros((1, n_classes, n), np.float32)
    per_class[0, class_ids, np.arange(n)] = scores
    feed = {"boxes": xyxy[None, :, [1, 0, 3, 2]], "scores": per_class, "most": np.array([n])}
    feed |= {"iou": np.array([iou_threshold], np.float32), "score": np.array([0], np.float32)}
    expected = sorted(session.run(None, feed)[0][:, 2], key=lambda i: -scores[i])
    assert nms(xyxy, scores, class_ids, iou_threshold, n).tolist() == expected
    assert nms(xyxy, scores, class_ids, iou_threshold, 7).tolist() == expected[:7]


def test_of_too_many_candidates_the_best_are_compared(monkeypatch):
    """All overlap, so one is kept, and never max_detections."""
    compared = []
    overlaps = boxes.overlaps

    def counted(xyxy, class_ids, first, second, iou_threshold):
        compared.append(len(second) if first is second else 0)
        return overlaps(xyxy, class_ids, first, second, iou_threshold)

    monkeypatch.setattr(boxes, "overlaps", counted)
    n = 10 * MAX_CANDIDATES
    xyxy = np.tile(np.array([0, 0, 10, 10], np.float32), (n, 1))
    scores = np.linspace(0.0, 1.0, n, dtype=np.float32)
    assert nms(xyxy, scores, np.zeros(n, np.int32), 0.5, 100).tolist() == [n - 1]
    assert sum(compared) <= MAX_CANDIDATES


def test_equal_scores_keep_their_order_and_empty_boxes_stay():
    xyxy = np.array([[0, 0, 10, 10], [50, 50, 60, 60], [5, 5, 5, 9], [5, 5, 5, 9]], np.float32)
    kept = nms(xyxy, np.full(4, 0.7, np.float32), np.zeros(4, np.int32), 0.5, 10)
    assert kept.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("iou_threshold, kept", [(0.0, [0]), (0.49, [0]), (0.51, [0, 1]), (1.0, [0, 1])])
def test_the_threshold_decides(iou_threshold, kept):
    xyxy = np.array([[0, 0, 10, 10], [0, 0, 10, 5]], np.float32)  # IoU 0.5
    scores, same = np.array([0.9, 0.8], np.float32), np.zeros(2, np.int32)
    assert nms(xyxy, scores, same, iou_threshold, 10).tolist() == kept
    assert nms(xyxy, scores, np.array([0, 1]), iou_threshold, 10).tolist() == [0, 1]
