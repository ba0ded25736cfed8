"""Heads of masks, oriented boxes and key points against decodings written from the published formulas.

Each decoding here is a loop over candidates, points or pixels, after github.com/ultralytics/ultralytics:
`utils/ops.py` (process_mask_native, scale_masks, crop_mask, regularize_rboxes, scale_coords) and
`utils/metrics.py` (batch_probiou).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from head_cases import specs_of
from shape_cases import Export

from edge_vision.backends.base import BackendRequest, TensorSpec
from edge_vision.backends.runtimes.onnxruntime import OnnxRuntimeBackend
from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.model_spec import HeadSpec, InputSpec, Thresholds
from edge_vision.core.object_shapes import KeyPoints, MaskRegion, Masks, OrientedBoxes, instance_image
from edge_vision.detect.crops import detect_on_crops, merge_detections
from edge_vision.detect.detector import Detector
from edge_vision.detect.heads import make_head
from edge_vision.errors import HeadError

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


# --- Masks ---


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


@pytest.mark.parametrize("export", MASKED, ids=lambda export: export.name)
@pytest.mark.parametrize("channels_last", [False, True])
def test_masks_are_those_of_the_published_definition(tmp_path: Path, export: Export, channels_last: bool):
    columns, prototypes = seg_outputs(export)
    given = prototypes.transpose(1, 2, 0) if channels_last else prototypes
    graph = export.graph(tmp_path / "m.onnx", columns, {"output1": np.ascontiguousarray(given)[None]})
    spec = head_spec(export, "yolov8_seg", **({"prototype_layout": "nhwc"} if channels_last else {}))
    found = detector_of(graph, export, spec).detect(frame_of(export), with_masks=True).detections
    assert len(found) > 4
    assert_masks(found, export, shown(export, columns), columns, prototypes)


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


@pytest.mark.parametrize("resize", ["letterbox", "stretch", "center_crop"])
def test_a_mask_lies_where_its_object_is_whatever_the_resizing(tmp_path: Path, resize: str) -> None:
    """An ellipse, drawn at the resolution of the prototypes after the image has been resized."""
    export = Export("any", 320, 256, 2, (500, 350))
    columns = np.zeros((4 + 2 + 1, export.n_cells), np.float32)
    columns[:, 7] = [150, 120, 100, 60, 0, 0.9, 1.0]
    y, x = np.mgrid[:64, :80] * 4.0 + 2.0
    prototype = 1.0 - ((x - 150) / 50) ** 2 - ((y - 120) / 30) ** 2
    graph = export.graph(tmp_path / "m.onnx", columns, {"output1": prototype[None, None].astype(np.float32)})
    given = InputSpec("images", 320, 256, resize=resize)  # type: ignore[arg-type]
    session = OnnxRuntimeBackend().load(graph, BackendRequest())
    head = make_head(head_spec(export, "yolov8_seg"), given, session.outputs, 2)
    detector = Detector(given, head, session, THRESHOLDS)
    found = detector.detect(frame_of(export), with_masks=True).detections
    assert isinstance(found.shapes, Masks)
    (region,) = found.shapes.regions(found.xyxy_px)
    left, top, right, bottom = found.xyxy_px[0].tolist()
    rows, shown = np.mgrid[: region.inside.shape[0], : region.inside.shape[1]] + 0.5
    across = (shown + region.left - (left + right) / 2) / ((right - left) / 2)
    down = (rows + region.top - (top + bottom) / 2) / ((bottom - top) / 2)
    true = across**2 + down**2 < 1
    assert (region.inside != true).mean() < 0.02 and true.mean() > 0.7
    outline = region.outline()
    assert outline is not None and (outline.min(axis=0) - (left, top) < 2).all()


def test_the_first_object_owns_a_shared_pixel_and_values_are_those_of_the_order(tmp_path: Path) -> None:
    export = EXPORTS[0]
    columns, prototypes = seg_outputs(export)
    graph = export.graph(tmp_path / "m.onnx", columns, {"output1": prototypes[None]})
    found = detector_of(graph, export, head_spec(export, "yolov8_seg")).detect(
        frame_of(export), with_masks=True
    )
    masks = found.detections.shapes
    assert isinstance(masks, Masks)
    regions = masks.regions(found.detections.xyxy_px)
    image = instance_image(regions, export.source)
    assert image.dtype == np.uint16 and image.shape == export.source[::-1]
    for y, x in np.random.default_rng(2).integers(0, (480, 640), (2000, 2)).tolist():
        owners = [
            number
            for number, (left, top, inside) in enumerate(regions, 1)
            if left <= x < left + inside.shape[1]
            and top <= y < top + inside.shape[0]
            and inside[y - top, x - left]
        ]
        assert image[y, x] == (owners[0] if owners else 0)


def test_masks_are_not_made_unless_asked_for_and_not_for_low_scores(tmp_path: Path) -> None:
    export = EXPORTS[0]
    columns, prototypes = seg_outputs(export)
    damaged = prototypes.copy()
    damaged[3, 5, 5] = np.nan
    graph = export.graph(tmp_path / "m.onnx", columns, {"output1": damaged[None]})
    detector = detector_of(
        graph, export, head_spec(export, "yolov8_seg"), replace(THRESHOLDS, score_threshold=0.7)
    )
    assert detector.detect(frame_of(export), True).mask_error == ""
    result = detector.detect(frame_of(export), with_masks=True)
    assert result.detections.shapes is None and len(result.detections) > 1
    assert "1 of 204800 values of output 'output1' are not finite" in result.mask_error
    with pytest.raises(HeadError, match="not finite"):
        detector.warm_up()
    whole = detector_of(
        export.graph(tmp_path / "w.onnx", columns, {"output1": prototypes[None]}),
        export,
        head_spec(export, "yolov8_seg"),
        replace(THRESHOLDS, score_threshold=0.7),
    ).detect(frame_of(export), True, True)
    assert whole.low_score is not None and len(whole.low_score) and whole.low_score.shapes is None
    assert whole.detections.shapes is not None and len(whole.detections.shapes.rows) == len(whole.detections)


def test_masks_of_crops_lie_in_the_frame(tmp_path: Path) -> None:
    """The same object seen on a crop and on the whole frame."""
    export = Export("any", 320, 320, 1, (320, 320))
    columns = np.zeros((6, export.n_cells), np.float32)
    columns[:, 9] = [160, 160, 120, 80, 0.9, 1.0]
    y, x = np.mgrid[:80, :80] * 4.0 + 2.0
    prototype = 1.0 - ((x - 160) / 60) ** 2 - ((y - 160) / 40) ** 2
    graph = export.graph(tmp_path / "m.onnx", columns, {"output1": prototype[None, None].astype(np.float32)})
    detector = detector_of(graph, export, head_spec(export, "yolov8_seg"))
    frame = Frame(np.zeros((480, 640, 3), np.uint8), 0, "camera")

    def detect(part: Frame) -> Detections:
        return detector.detect(part, with_masks=True).detections

    crops = np.array([[40, 60, 200, 220], [300, 100, 620, 420]])
    found = merge_detections(detect_on_crops(detect, frame, crops)[0], 10)
    assert len(found) == 2 and isinstance(found.shapes, Masks)
    for region, box in zip(found.shapes.regions(found.xyxy_px), found.xyxy_px.tolist(), strict=True):
        rows, columns_at = np.nonzero(region.inside)
        assert columns_at.mean() + region.left + 0.5 == pytest.approx((box[0] + box[2]) / 2, abs=0.6)
        assert rows.mean() + region.top + 0.5 == pytest.approx((box[1] + box[3]) / 2, abs=0.6)
        assert region.inside.mean() == pytest.approx(math.pi / 4, abs=0.03)
    nothing = merge_detections(
        detect_on_crops(lambda part: detect(part).select(slice(0)), frame, crops)[0], 10
    )
    assert isinstance(nothing.shapes, Masks) and len(nothing.shapes.rows) == 0


def test_a_mask_of_a_pixel_has_no_outline() -> None:
    inside = np.zeros((5, 5), bool)
    assert MaskRegion(0, 0, inside).outline() is None
    inside[2, 2] = True
    assert MaskRegion(0, 0, inside).outline() is None
    inside[2, 3] = True
    assert MaskRegion(0, 0, inside).outline() is None
    inside[3, 2] = True
    assert MaskRegion(10, 20, inside).outline() is not None


@pytest.mark.parametrize(
    "columns, prototypes, message",
    [
        (
            (1, 38, 84),
            (1, 32, 40, 40),
            r"expects columns of shape \[1, 39, n\], output 'o' has \[1, 38, 84\]",
        ),
        (
            (1, 39, 84),
            (1, 16, 40, 40),
            r"expects columns of shape \[1, 23, n\], output 'o' has \[1, 39, 84\]",
        ),
        (
            (1, 39, 84),
            (1, 32, 40),
            r"expects prototypes of shape \[1, k, h, w\], output 'p' has \[1, 32, 40\]",
        ),
        ((1, 39, 84), (1, None, 40, 40), "expects a fixed number of prototypes"),
    ],
)
def test_masks_with_another_number_of_prototypes_are_refused(columns, prototypes, message) -> None:
    spec = HeadSpec("yolov8_seg", {"columns": "o", "prototypes": "p"})
    with pytest.raises(HeadError, match=message):
        make_head(spec, InputSpec("images", 320, 320), specs_of(o=columns, p=prototypes), 3)


# --- Oriented boxes ---


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


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: export.name)
def test_oriented_boxes_are_those_of_the_published_definition(tmp_path: Path, export: Export) -> None:
    columns = obb_columns(export)
    graph = export.graph(tmp_path / "m.onnx", columns)
    found = detector_of(graph, export, head_spec(export, "yolov8_obb")).detect(frame_of(export)).detections
    expected = kept(
        columns, export.n_classes, lambda a, b: prob_iou(oriented_at(columns, a), oriented_at(columns, b))
    )
    every = kept(columns, export.n_classes, lambda a, b: 0.0)
    assert 4 < len(expected) < len(every)
    assert_oriented(found, export, expected, columns)


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


def test_an_angle_out_of_range_and_a_stretched_input_are_refused() -> None:
    columns = np.zeros((1, 8, 50), np.float32)
    columns[0, :, 3] = [50, 50, 20, 10, 0, 0.9, 0, 9.0]
    spec = HeadSpec("yolov8_obb", {"columns": "o"})
    given = InputSpec("images", 320, 320, resize="letterbox")
    head = make_head(spec, given, specs_of(o=columns.shape), 3)
    with pytest.raises(HeadError, match=r"expects angles up to 6\.283 rad .* got 9"):
        head.decode({"o": columns}, THRESHOLDS)  # type: ignore[call-arg, union-attr]
    with pytest.raises(HeadError, match="letterbox or center_crop, got stretch"):
        make_head(spec, replace(given, resize="stretch"), specs_of(o=columns.shape), 3)


def test_an_oriented_box_without_area_is_dropped() -> None:
    columns = np.zeros((1, 8, 50), np.float32)
    columns[0, :, 3] = [50, 50, 20, 0, 0, 0.9, 0, 0.7]
    columns[0, :, 4] = [50, 50, -20, 10, 0, 0.9, 0, 0.7]
    columns[0, :, 5] = [50, 50, 20, 10, 0, 0.8, 0, 0.7]
    spec = HeadSpec("yolov8_obb", {"columns": "o"})
    head = make_head(spec, InputSpec("i", 320, 320, resize="letterbox"), specs_of(o=columns.shape), 3)
    found = head.decode({"o": columns}, THRESHOLDS)  # type: ignore[call-arg, union-attr]
    np.testing.assert_allclose(found.scores, [0.8])  # type: ignore[union-attr]


# --- Key points ---


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: export.name)
def test_key_points_are_those_of_the_published_definition(tmp_path: Path, export: Export) -> None:
    every = pose_columns(export)
    k, n_values = export.points
    spec = head_spec(export, "yolov8_pose", keypoints=k, point_values=n_values)
    graph = export.graph(tmp_path / "m.onnx", relative_points(export, every))
    found = detector_of(graph, export, spec).detect(frame_of(export)).detections
    assert len(found) > 4
    assert_points(found, export, shown(export, every), every)


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


def test_key_points_need_their_number(tmp_path: Path) -> None:
    spec = HeadSpec("yolov8_pose", {"columns": "o"}, {"keypoints": 16})
    with pytest.raises(
        HeadError, match=r"expects columns of shape \[1, 53, n\], output 'o' has \[1, 56, 84\]"
    ):
        make_head(spec, InputSpec("images", 320, 320), specs_of(o=(1, 56, 84)), 1)


@pytest.mark.parametrize("head, length", [("yolov8_obb", 8), ("yolov8_pose", 7 + 51)])
def test_values_that_are_not_finite_are_refused(head: str, length: int) -> None:
    columns = np.zeros((1, length, 50), np.float32)
    columns[0, -1, 3] = np.nan
    given = InputSpec("images", 320, 320, resize="letterbox")
    decoder = make_head(HeadSpec(head, {"columns": "o"}), given, specs_of(o=columns.shape), 3)
    with pytest.raises(HeadError, match=r"1 of .* values of output 'o' are not finite"):
        decoder.decode({"o": columns}, THRESHOLDS)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "head, extra, options",
    [
        ("yolov8_seg", 32, {}),
        ("yolov8_obb", 1, {}),
        ("yolov8_pose", 51, {}),
        ("yolov8_pose", 8, {"keypoints": 4, "point_values": 2}),
    ],
)
def test_a_frame_without_objects_has_shapes_of_none(
    tmp_path: Path, head: str, extra: int, options: dict
) -> None:
    export = EXPORTS[0]
    columns = np.zeros((7 + extra, export.n_cells), np.float32)
    more = {"output1": np.zeros((1, 32, 80, 80), np.float32)} if head == "yolov8_seg" else None
    graph = export.graph(tmp_path / "m.onnx", columns, more)
    found = detector_of(graph, export, head_spec(export, head, **options)).detect(
        frame_of(export), with_masks=True
    )
    assert found.detections.shapes is not None and len(found.detections.shapes.rows) == 0


class Outputs:
    """A session with these outputs: no runtime hands out values as damaged as these on request."""

    def __init__(self, export: Export, outputs: dict[str, np.ndarray]) -> None:
        self._outputs = outputs
        self.inputs = (TensorSpec("images", (1, 3, export.height, export.width), "float32"),)
        self.outputs = tuple(TensorSpec(name, value.shape, "float32") for name, value in outputs.items())

    def run(self, tensors: object) -> dict[str, np.ndarray]:
        return self._outputs


@pytest.mark.parametrize(
    "head", ["yolov8_seg", "yolov8_obb", "yolov8_pose", "end_to_end_seg", "end_to_end_obb"]
)
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_any_finite_values_give_a_result_or_a_reason(head: str) -> None:
    """Boxes of any place and size, also none; shapes as many as boxes, masks within them."""
    export, rng = Export("small", 64, 64, 2, (100, 80)), np.random.default_rng(0)
    extra = {"seg": 4, "obb": 1, "pose": 6}[head.rpartition("_")[2]]
    listed, first = head.startswith("end"), 6  # Of a grid: four of the box and two classes.
    found_any = refused = 0
    for at in range(150):
        scale = 10.0 ** rng.uniform(-3, 38 if at % 3 == 0 else 3, (first + extra, 1))
        columns = (rng.normal(0, 1, (first + extra, 84)) * scale).astype(np.float32)
        columns[4:6] = rng.uniform(0, 1, (2, 84))
        if at % 2:
            columns[:2], columns[2:4] = rng.uniform(0, 64, (2, 84)), rng.uniform(-9, 90, (2, 84))
        if listed:
            columns[5] = rng.integers(-1, 3, 84)
        if extra == 1 and at % 4:
            columns[-1] = rng.uniform(-6, 6, 84)
        if extra == 6 and at % 4:
            columns[[-1, -4]] = rng.uniform(0, 1, (2, 84))
        outputs = {"o": np.ascontiguousarray(columns.T if listed else columns)[None]}
        roles = {"rows" if listed else "columns": "o"}
        if extra == 4:
            outputs["p"] = (rng.normal(0, 1, (1, 4, 16, 16)) * 10.0 ** rng.uniform(0, 30)).astype(np.float32)
            roles["prototypes"] = "p"
        session, given = Outputs(export, outputs), InputSpec("images", 64, 64, resize="letterbox")
        options = {"keypoints": 2} if extra == 6 else {}
        decoder = make_head(HeadSpec(head, roles, options), given, session.outputs, export.n_classes)
        detector = Detector(given, decoder, session, THRESHOLDS)  # type: ignore[arg-type]
        try:
            result = detector.detect(frame_of(export), at % 4 == 0, True)
        except HeadError:
            refused += 1
            continue
        found, shapes = result.detections, result.detections.shapes
        found_any += len(found)
        if result.mask_error:
            continue
        assert shapes is not None and len(shapes.rows) == len(found)
        if isinstance(shapes, Masks):
            regions = shapes.regions(found.xyxy_px)
            for region, (left, top, right, bottom) in zip(regions, np.rint(found.xyxy_px), strict=True):
                assert region.inside.shape == (bottom - top, right - left)
            assert instance_image(regions, export.source).max() <= len(found)
    assert found_any > 100 and refused < 75
