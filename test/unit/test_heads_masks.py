"""Masks against a decoding written from the published formulas."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from head_cases import specs_of
from shape_cases import Export
from shape_reference import (
    EXPORTS,
    MASKED,
    THRESHOLDS,
    assert_masks,
    detector_of,
    frame_of,
    head_spec,
    seg_outputs,
    shown,
)

from edge_vision.backends.base import BackendRequest
from edge_vision.backends.runtimes.onnxruntime import OnnxRuntimeBackend
from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.model_spec import HeadSpec, InputSpec
from edge_vision.core.object_shapes import MaskRegion, Masks, instance_image
from edge_vision.detect.crops import detect_on_crops, merge_detections
from edge_vision.detect.detector import Detector
from edge_vision.detect.heads import make_head
from edge_vision.errors import HeadError


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
