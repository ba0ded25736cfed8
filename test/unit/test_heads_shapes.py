"""Heads of oriented boxes and key points against decodings written from the published formulas."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from head_cases import specs_of
from shape_cases import Export
from shape_reference import (
    EXPORTS,
    THRESHOLDS,
    assert_oriented,
    assert_points,
    detector_of,
    frame_of,
    head_spec,
    kept,
    obb_columns,
    oriented_at,
    pose_columns,
    prob_iou,
    relative_points,
    shown,
)

from edge_vision.backends.base import TensorSpec
from edge_vision.core.model_spec import HeadSpec, InputSpec
from edge_vision.core.object_shapes import Masks, instance_image
from edge_vision.detect.detector import Detector
from edge_vision.detect.heads import make_head
from edge_vision.errors import HeadError


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


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: export.name)
def test_key_points_are_those_of_the_published_definition(tmp_path: Path, export: Export) -> None:
    every = pose_columns(export)
    k, n_values = export.points
    spec = head_spec(export, "yolov8_pose", keypoints=k, point_values=n_values)
    graph = export.graph(tmp_path / "m.onnx", relative_points(export, every))
    found = detector_of(graph, export, spec).detect(frame_of(export)).detections
    assert len(found) > 4
    assert_points(found, export, shown(export, every), every)


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
