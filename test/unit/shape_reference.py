"""Decodings of masks, oriented boxes and key points, written from the published formulas.

Each is a loop over candidates, points or pixels, after github.com/ultralytics/ultralytics:
`utils/ops.py` (process_mask_native, scale_masks, crop_mask, regularize_rboxes, scale_coords) and
`utils/metrics.py` (batch_probiou).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from shape_cases import Export

from edge_vision.backends.base import BackendRequest
from edge_vision.backends.runtimes.onnxruntime import OnnxRuntimeBackend
from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.model_spec import HeadSpec, InputSpec, Thresholds
from edge_vision.core.object_shapes import KeyPoints, Masks, OrientedBoxes
from edge_vision.detect.detector import Detector
from edge_vision.detect.heads import make_head

THRESHOLDS = Thresholds(0.4, 0.6, 100)


EXPORTS = (
    Export("square", 320, 320, 3, (640, 480)),
    Export("wide, rows", 256, 160, 1, (320, 200), transposed=True, k=16, points=(5, 2)),
    Export("relative", 192, 192, 5, (192, 144), relative=True, k=8, points=(3, 3)),
    Export("upright", 160, 224, 2, (500, 350), transposed=True, relative=True, points=(21, 3)),
)


def head_spec(export: Export, head: str, **options: object) -> HeadSpec:
    roles = {export.role: "output0"}
    if head == "yolov8_seg":
        roles["prototypes"] = "output1"
    return HeadSpec(head, roles, {**({"box_unit": "relative"} if export.relative else {}), **options})


def detector_of(graph: Path, export: Export, spec: HeadSpec, thresholds: Thresholds = THRESHOLDS) -> Detector:
    session = OnnxRuntimeBackend().load(graph, BackendRequest())
    layout = "nhwc" if export.channels_last else "nchw"
    given = InputSpec("images", export.width, export.height, layout, resize="letterbox")
    head = make_head(spec, given, session.outputs, export.n_classes)
    return Detector(given, head, session, thresholds)


def frame_of(export: Export) -> Frame:
    return Frame(np.zeros((export.source[1], export.source[0], 3), np.uint8), 0, "camera")


def kept(
    columns: np.ndarray, n_classes: int, similarity: Callable[[int, int], float]
) -> list[tuple[int, int, float]]:
    """Cell, class and score of each candidate that greedy suppression keeps, best first."""
    candidates = []
    for cell in range(columns.shape[1]):
        scores = columns[4 : 4 + n_classes, cell]
        best = int(np.argmax(scores))
        if scores[best] >= THRESHOLDS.score_threshold:
            candidates.append((cell, best, float(scores[best])))
    candidates.sort(key=lambda one: -one[2])
    left: list[tuple[int, int, float]] = []
    for one in candidates:
        if all(
            one[1] != other[1] or similarity(one[0], other[0]) <= THRESHOLDS.iou_threshold for other in left
        ):
            left.append(one)
    return left


def corners_at(columns: np.ndarray, cell: int) -> tuple[float, float, float, float]:
    x, y, w, h = map(float, columns[:4, cell])
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def iou_of(columns: np.ndarray) -> Callable[[int, int], float]:
    def iou(first: int, second: int) -> float:
        a, b = corners_at(columns, first), corners_at(columns, second)
        width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
        height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
        both = width * height
        return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)

    return iou


def to_source(export: Export, x: float, y: float) -> tuple[float, float]:
    return (x - export.bars[0]) / export.scale, (y - export.bars[1]) / export.scale


def source_box(export: Export, box: tuple[float, float, float, float]) -> list[float]:
    width, height = export.source
    left, top = to_source(export, box[0], box[1])
    right, bottom = to_source(export, box[2], box[3])
    return [
        min(max(left, 0), width),
        min(max(top, 0), height),
        min(max(right, 0), width),
        min(max(bottom, 0), height),
    ]


def shown(export: Export, columns: np.ndarray) -> list[tuple[int, int, float]]:
    """As `kept`, by the IoU of axis-aligned boxes, without those in the bars."""
    boxes = [
        (one, source_box(export, corners_at(columns, one[0])))
        for one in kept(columns, export.n_classes, iou_of(columns))
    ]
    return [one for one, box in boxes if box[2] > box[0] and box[3] > box[1]]


def seg_outputs(export: Export, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """(4 + classes + k, cells) columns, (k, h, w) smooth prototypes."""
    rng = np.random.default_rng(seed)
    columns, _ = export.columns(seed)
    coefficients = rng.normal(0, 1, (export.k, export.n_cells))
    coarse = rng.normal(0, 1, (export.k, export.height // 16, export.width // 16))
    prototypes = np.kron(coarse, np.ones((4, 4))) + rng.normal(
        0, 0.2, (export.k, export.height // 4, export.width // 4)
    )
    return np.concatenate((columns, coefficients)).astype(np.float32), prototypes.astype(np.float32)


def expected_mask(
    export: Export, logits: np.ndarray, box: list[float], pixels: list[tuple[int, int]]
) -> list[float]:
    """The logit of each (x, y) source pixel, -1 outside the box: bilinear, half-pixel centres, over the part
    of the prototypes that the image covers (scale_masks), cropped to the box (crop_mask)."""
    step = export.width / logits.shape[1]
    left, top = export.bars[0] / step, export.bars[1] / step
    part = logits[round(top) : logits.shape[0] - round(top), round(left) : logits.shape[1] - round(left)]
    height, width = part.shape
    result = []
    for x, y in pixels:
        if not (round(box[0]) <= x < round(box[2]) and round(box[1]) <= y < round(box[3])):
            result.append(-1.0)
            continue
        u = min(max((x + 0.5) * width / export.source[0] - 0.5, 0.0), width - 1)
        v = min(max((y + 0.5) * height / export.source[1] - 0.5, 0.0), height - 1)
        x0, y0 = int(u), int(v)
        x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
        upper = part[y0, x0] * (1 - (u - x0)) + part[y0, x1] * (u - x0)
        lower = part[y1, x0] * (1 - (u - x0)) + part[y1, x1] * (u - x0)
        result.append(float(upper * (1 - (v - y0)) + lower * (v - y0)))
    return result


# The bars of the last one are no whole prototype cells; cells of the other are no whole pixels.


MASKED = (*EXPORTS[:-1], Export("fractions of a pixel", 320, 320, 2, (500, 375)))


def assert_masks(
    found: Detections,
    export: Export,
    expected: list[tuple[int, int, float]],
    columns: np.ndarray,
    prototypes: np.ndarray,
) -> None:
    """The boxes of these cells, and their masks at random pixels."""
    assert [round(s, 5) for s in found.scores.tolist()] == [round(one[2], 5) for one in expected]
    assert found.class_ids.tolist() == [one[1] for one in expected]
    assert isinstance(found.shapes, Masks)
    regions = found.shapes.regions(found.xyxy_px)
    rng = np.random.default_rng(0)
    inside = 0
    for (cell, _, _), box, region in zip(expected, found.xyxy_px.tolist(), regions, strict=True):
        np.testing.assert_allclose(box, source_box(export, corners_at(columns, cell)), atol=1e-3)
        logits = np.einsum("k,khw->hw", columns[4 + export.n_classes :, cell], prototypes.astype(np.float64))
        xs, ys = rng.integers(0, export.source[0], 300), rng.integers(0, export.source[1], 300)
        xs[:200] = rng.integers(int(box[0]), math.ceil(box[2]), 200)
        ys[:200] = rng.integers(int(box[1]), math.ceil(box[3]), 200)
        pixels = list(zip(xs.tolist(), ys.tolist(), strict=True))
        for (x, y), logit in zip(pixels, expected_mask(export, logits, box, pixels), strict=True):
            if abs(logit) < 1e-4:
                continue
            row, column = y - region.top, x - region.left
            height, width = region.inside.shape
            marked = 0 <= row < height and 0 <= column < width and bool(region.inside[row, column])
            assert marked == (logit > 0), (x, y, logit)
            inside += marked
    assert inside > 300


def prob_iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """batch_probiou for one pair."""

    def covariance(w: float, h: float, r: float) -> tuple[float, float, float]:
        v, u = w * w / 12, h * h / 12
        cos, sin = math.cos(r), math.sin(r)
        return v * cos * cos + u * sin * sin, v * sin * sin + u * cos * cos, (v - u) * cos * sin

    eps = 1e-7
    x1, y1, x2, y2 = a[0], a[1], b[0], b[1]
    a1, b1, c1 = covariance(*a[2:])
    a2, b2, c2 = covariance(*b[2:])
    det = (a1 + a2) * (b1 + b2) - (c1 + c2) ** 2
    t1 = ((a1 + a2) * (y1 - y2) ** 2 + (b1 + b2) * (x1 - x2) ** 2) / (det + eps) * 0.25
    t2 = ((c1 + c2) * (x2 - x1) * (y1 - y2)) / (det + eps) * 0.5
    own = math.sqrt(max(a1 * b1 - c1**2, 0) * max(a2 * b2 - c2**2, 0))
    t3 = math.log(det / (4 * own + eps) + eps) * 0.5
    distance = min(max(t1 + t2 + t3, eps), 100.0)
    return 1 - math.sqrt(1 - math.exp(-distance) + eps)


def obb_columns(export: Export, seed: int = 3) -> np.ndarray:
    """(4 + classes + 1, cells), with near copies of some objects, of which some must be suppressed."""
    rng = np.random.default_rng(seed)
    columns, cells = export.columns(seed, 16)
    angles = rng.uniform(-math.pi / 4, 3 * math.pi / 4, (1, export.n_cells))
    columns = np.concatenate((columns, angles)).astype(np.float32)
    for first, second in zip(cells[:8], cells[8:], strict=True):
        columns[:, second] = columns[:, first]
        columns[:4, second] += rng.uniform(-4, 4, 4)
        columns[4:-1, second] *= 0.95
        columns[-1, second] += rng.uniform(-0.4, 0.4)
    columns[-1] = np.clip(columns[-1], -math.pi / 4, 3 * math.pi / 4)
    return columns


def oriented_at(columns: np.ndarray, cell: int) -> tuple[float, ...]:
    return (*map(float, columns[:4, cell]), float(columns[-1, cell]))


def assert_oriented(
    found: Detections, export: Export, expected: list[tuple[int, int, float]], columns: np.ndarray
) -> None:
    """The oriented boxes of these cells, with angles from 0 to pi / 2 (regularize_rboxes)."""
    rows, boxes = [], []
    for cell, _, _ in expected:
        x, y, w, h, angle = oriented_at(columns, cell)
        if angle % math.pi >= math.pi / 2:
            w, h = h, w
        angle %= math.pi / 2
        px, py = to_source(export, x, y)
        rows.append([px, py, w / export.scale, h / export.scale, angle])
        corners = [
            (
                x + sx * w / 2 * math.cos(angle) - sy * h / 2 * math.sin(angle),
                y + sx * w / 2 * math.sin(angle) + sy * h / 2 * math.cos(angle),
            )
            for sx in (-1, 1)
            for sy in (-1, 1)
        ]
        xs, ys = zip(*corners, strict=True)
        boxes.append(source_box(export, (min(xs), min(ys), max(xs), max(ys))))
    shown = [i for i, box in enumerate(boxes) if box[2] > box[0] and box[3] > box[1]]
    assert isinstance(found.shapes, OrientedBoxes)
    assert found.class_ids.tolist() == [expected[i][1] for i in shown]
    np.testing.assert_allclose(found.scores, [expected[i][2] for i in shown], atol=1e-6)
    np.testing.assert_allclose(found.xyxy_px, [boxes[i] for i in shown], atol=0.02)
    np.testing.assert_allclose(found.shapes.rows[:, :4], [rows[i][:4] for i in shown], atol=0.02)
    np.testing.assert_allclose(found.shapes.rows[:, 4], [rows[i][4] for i in shown], atol=1e-4)


def pose_columns(export: Export) -> np.ndarray:
    """(4 + classes + values of the points, cells), in pixels."""
    k, n_values = export.points
    points = np.random.default_rng(4).uniform(0, 1, (k, n_values, export.n_cells))
    points[:, :2] *= np.array([export.width, export.height])[:, None]
    return np.concatenate((export.columns(4)[0], points.reshape(-1, export.n_cells))).astype(np.float32)


def relative_points(export: Export, columns: np.ndarray) -> np.ndarray:
    """The columns with the points in the export's unit."""
    given = columns.copy()
    if export.relative:
        block = given[4 + export.n_classes :].reshape(*export.points, -1)
        block[:, :2] /= np.array([export.width, export.height])[:, None]
    return given


def assert_points(
    found: Detections, export: Export, expected: list[tuple[int, int, float]], columns: np.ndarray
) -> None:
    """The key points of these cells."""
    k, n_values = export.points
    assert isinstance(found.shapes, KeyPoints)
    assert found.class_ids.tolist() == [one[1] for one in expected]
    for (cell, _, _), rows in zip(expected, found.shapes.rows.tolist(), strict=True):
        for at in range(k):
            x, y, *score = map(float, columns[4 + export.n_classes + at * n_values :, cell][:n_values])
            assert rows[at] == pytest.approx([*to_source(export, x, y), *(score or [1.0])], abs=0.02)
