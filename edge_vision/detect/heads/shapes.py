"""Heads of the YOLOv8, YOLO11, YOLO12 and YOLO26 models that report masks, oriented boxes or key points.

Source: github.com/ultralytics/ultralytics, `ultralytics/nn/modules/head.py` (Segment, OBB, Pose, and their
`postprocess` for YOLO26's end-to-end exports) and `ultralytics/utils/ops.py` (process_mask_native,
regularize_rboxes).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edge_vision.core.geometry.oriented_boxes import canonical_angles, enclosing_boxes, oriented_overlaps
from edge_vision.core.model_spec import Thresholds
from edge_vision.core.object_shapes import KeyPoints, MaskPatch, Masks, ObjectShapes, OrientedBoxes
from edge_vision.detect.heads.base import ModelBoxes, OutputReader
from edge_vision.detect.heads.end_to_end import EndToEndHead
from edge_vision.detect.heads.extra import ExtraValuesHead
from edge_vision.detect.heads.yolov8 import YoloV8Head
from edge_vision.errors import HeadError

if TYPE_CHECKING:
    from edge_vision.core.preprocess import Transform

PROTOTYPE_LAYOUTS = {"nchw": "(1, k, h, w)", "nhwc": "(1, h, w, k), as TFLite exports have"}
_MASK_OPTIONS: dict[str, object] = {"prototype_layout": "nchw"}
_POINT_OPTIONS: dict[str, object] = {"keypoints": 17, "point_values": 3}
MAX_ANGLE = 2 * math.pi
"""YOLOv8's angles are from -pi / 4 to 3 pi / 4; YOLO26's have no limit, but are trained for the same."""


class _MaskHead(ExtraValuesHead):
    """The further values are k mask coefficients. Role in addition: prototypes (1, k, h, w), or (1, h, w, k)
    with the option prototype_layout: nhwc.

    The logits of an object's mask are its coefficients times the prototypes.
    """

    shape_kind = Masks.kind

    def _count_extra(self) -> int:
        self._channels_last = self.choice("prototype_layout", PROTOTYPE_LAYOUTS) == "nhwc"
        shape = (1, "h", "w", "k") if self._channels_last else (1, "k", "h", "w")
        found = self.output("prototypes", shape)
        (sides,) = (one.shape for one in self._outputs if one.name == found.name)
        k = sides[3 if self._channels_last else 1]
        if k is None:
            raise HeadError(
                f"head '{found.head}' expects a fixed number of prototypes, output '{found.name}' leaves it "
                f"free: export the model with a fixed size"
            )
        self._prototypes = OutputReader(
            found.head, found.role, found.name, tuple(k if side == "k" else side for side in shape)
        )
        return k

    def shapes(
        self, outputs: Mapping[str, np.ndarray], found: ModelBoxes, transform: Transform
    ) -> ObjectShapes | None:
        """The mask logits around each box, at the resolution of the prototypes. Bars of a letterbox take no
        part. Raises HeadError as `decode`."""
        prototypes = self._prototypes.read(outputs)[0]
        if self._channels_last:
            prototypes = prototypes.transpose(2, 0, 1)
        sides = np.array(prototypes.shape[:0:-1], np.float64)
        ratio = sides / (self._input.width_px, self._input.height_px)
        step_px, origin_px = transform.scale[:2] / ratio, transform.offset[:2]
        # The image's own part, in prototype cells.
        low = np.clip(np.floor(-origin_px / step_px + 1e-6), 0, sides - 1)
        high = np.clip(np.ceil((transform.size[:2] - origin_px) / step_px - 1e-6), low + 1, sides)
        boxes = found.xyxy_model.reshape(-1, 2, 2) * ratio
        # Pixels within a box lie between the centres of these cells.
        firsts = np.clip(np.floor(boxes[:, 0] - 0.5), low, high - 1).astype(int)
        lasts = np.clip(np.floor(boxes[:, 1] - 0.5) + 2, firsts + 1, high).astype(int)
        assert found.extra is not None
        patches = []
        for (left, top), (right, bottom), coefficients in zip(
            firsts.tolist(), lasts.tolist(), found.extra, strict=True
        ):
            # Faster than BLAS, whose threads wait for each other on a busy machine.
            logits = np.einsum("k,khw->hw", coefficients, prototypes[:, top:bottom, left:right])
            patches.append(MaskPatch(logits, np.array((left, top)) * step_px + origin_px, step_px))
        return Masks.of(patches)


class _ObbHead(ExtraValuesHead):
    """The further value is an angle in radians; the box is centre and size. NMS compares the oriented boxes.

    The input must keep the aspect ratio, as a stretched oriented box is no rectangle.
    """

    shape_kind = OrientedBoxes.kind

    def _count_extra(self) -> int:
        if self._input.resize == "stretch":
            raise HeadError(
                f"head '{self._spec.type}' expects input.resize letterbox or center_crop, got stretch: a "
                f"stretched oriented box is no rectangle; correct bundle.yaml"
            )
        return 1

    def _objects(
        self,
        boxes: np.ndarray,
        scores: np.ndarray,
        class_ids: np.ndarray,
        thresholds: Thresholds,
        extra: np.ndarray | None,
    ) -> ModelBoxes:
        assert extra is not None
        self._check_angles(extra)
        oriented = canonical_angles(np.concatenate((boxes, extra), axis=1))
        # Turned, an empty box would have an enclosing one.
        solid = (oriented[:, 2:4] > 0).all(axis=1)
        oriented, scores, class_ids = oriented[solid], scores[solid], class_ids[solid]
        keep = self._keep(oriented, scores, class_ids, thresholds, oriented_overlaps)
        return ModelBoxes.kept(keep, enclosing_boxes(oriented), scores, class_ids, oriented)

    def _check_angles(self, angles: np.ndarray) -> None:
        if (highest := float(np.abs(angles).max(initial=0.0))) > MAX_ANGLE:
            raise HeadError(
                f"head '{self._output.head}' expects angles up to {MAX_ANGLE:.4g} rad at the end of "
                f"output '{self._output.name}', got {highest:.4g}: is it a model of oriented boxes, with "
                f"this number of labels?"
            )

    def shapes(
        self, outputs: Mapping[str, np.ndarray], found: ModelBoxes, transform: Transform
    ) -> ObjectShapes | None:
        assert found.extra is not None
        boxes, (x, y) = found.extra.astype(np.float64), transform.scale[:2]
        cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
        boxes[:, :2] = boxes[:, :2] * transform.scale[:2] + transform.offset[:2]
        # Both scales are equal but for the letterbox's rounding to whole pixels.
        boxes[:, 2] *= np.hypot(cos * x, sin * y)
        boxes[:, 3] *= np.hypot(sin * x, cos * y)
        boxes[:, 4] = np.arctan2(sin * y, cos * x)
        return OrientedBoxes(boxes.astype(np.float32))


class _PoseHead(ExtraValuesHead):
    """The further values are key points, each x, y and, with point_values: 3, its score."""

    shape_kind = KeyPoints.kind

    def _count_extra(self) -> int:
        self._n_values = self.integer("point_values", 2, 3)
        self._n_points = self.integer("keypoints", 1, 1000)
        return self._n_values * self._n_points

    def shapes(
        self, outputs: Mapping[str, np.ndarray], found: ModelBoxes, transform: Transform
    ) -> ObjectShapes | None:
        assert found.extra is not None
        values = found.extra.reshape(-1, self._n_points, self._n_values)
        points = np.ones((*values.shape[:2], 3), np.float32)
        points[..., : self._n_values] = values
        points[..., :2] *= self._scale[:2] * transform.scale[:2]
        points[..., :2] += transform.offset[:2]
        self._output.check_scores(points[..., 2])
        return KeyPoints(points)


class YoloV8SegHead(_MaskHead, YoloV8Head):
    """Roles: columns (1, 4 + classes + k, n) or rows, and prototypes."""

    defaults: ClassVar[Mapping[str, object]] = {**YoloV8Head.defaults, **_MASK_OPTIONS}


class YoloV8ObbHead(_ObbHead, YoloV8Head):
    """Role: columns (1, 4 + classes + 1, n) or rows."""


class YoloV8PoseHead(_PoseHead, YoloV8Head):
    """Role: columns (1, 4 + classes + keypoints * point_values, n) or rows."""

    defaults: ClassVar[Mapping[str, object]] = {**YoloV8Head.defaults, **_POINT_OPTIONS}


class EndToEndSegHead(_MaskHead, EndToEndHead):
    """Roles: rows (1, n, 6 + k), and prototypes."""

    defaults: ClassVar[Mapping[str, object]] = {**EndToEndHead.defaults, **_MASK_OPTIONS}


class EndToEndObbHead(_ObbHead, EndToEndHead):
    """Role: rows (1, n, 6 + 1)."""

    defaults: ClassVar[Mapping[str, object]] = ExtraValuesHead.defaults


class EndToEndPoseHead(_PoseHead, EndToEndHead):
    """Role: rows (1, n, 6 + keypoints * point_values)."""

    defaults: ClassVar[Mapping[str, object]] = {**EndToEndHead.defaults, **_POINT_OPTIONS}
