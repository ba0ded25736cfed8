"""The teacher's outputs for a reviewed picture, corrected by its labels before they become targets.

An object that the teacher misses gets some anchors, with the label's box; a box that the reviewer removed
loses its score. Everything else stays the teacher's, bit for bit.

Source of the choice of anchors: Feng et al., "TOOD: Task-aligned One-stage Object Detection" (2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_vision.backends.base import TensorSpec
from edge_vision.bundles.store import Bundle
from edge_vision.core.detections import Detections
from edge_vision.core.geometry.boxes import SAME_BOX_IOU, SAME_OBJECT_IOU, iou_matrix
from edge_vision.core.preprocess import Transform
from edge_vision.detect.detector import to_source_pixels
from edge_vision.detect.heads import make_head
from edge_vision.detect.heads.nanodet import NanoDetHead
from edge_vision.detect.heads.ssd import SsdHead
from edge_vision.optimize.quantization import graph_session
from edge_vision.train.data.labels import visible_parts
from edge_vision.train.networks.cutting import class_columns

RAISED_SCORE, LOWERED_SCORE = 0.9, 0.02
"""Targets for a missed object and for a removed box."""
MOST_ANCHORS = 3
"""Of a missed object."""
LEAST_VISIBLE = 0.5
"""Of a label's box, after cropping. Less is neutral: neither an object nor none."""
_IOU_POWER = 6
"""Anchors are ordered by score * IoU ** 6, as in TOOD."""
_LEAST_SHARE = 1e-4
"""Of each step of a NanoDet distance, so that its logarithm is finite."""

Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True, eq=False)
class CorrectedOutputs:
    """outputs: of one image. raised, lowered: numbers of missed objects and of removed boxes."""

    outputs: dict[str, np.ndarray]
    raised: int
    lowered: int


class LabelCorrection:
    """Corrects the outputs of a graph of a bundle with a head of `cutting.CLASS_ROLES`."""

    def __init__(self, bundle: Bundle, model: Any) -> None:
        """Raises OptimizeError or HeadError if the graph does not match its head."""
        manifest = bundle.manifest
        outputs = graph_session.session(model).get_outputs()
        specs = [TensorSpec(one.name, tuple(one.shape), "float32") for one in outputs]
        head = make_head(manifest.head, manifest.input, specs, len(bundle.labels))
        assert isinstance(head, (SsdHead, NanoDetHead))
        self._head, self._columns, self._thresholds = head, class_columns(bundle), manifest.thresholds
        self._boxes = manifest.head.outputs.get("boxes", self._columns.output)
        self._canvas = np.array([[0, 0, manifest.input.width_px, manifest.input.height_px]], np.float32)

    def corrected(self, outputs: Outputs, labels: Detections, transform: Transform) -> CorrectedOutputs:
        """Outputs of one image, changed where labels contradict them; the given ones are not changed.

        labels: in pixels of the image, complete; scores: the visible share of each box. transform: from the
        input tensor to the image.
        """
        labels = visible_parts(labels, transform.to_source(self._canvas)[0])
        changed = dict(outputs)
        for name in (self._columns.output, self._boxes):
            changed[name] = np.array(outputs[name], np.float32)
        first = self._columns.first
        raw = changed[self._columns.output][0, :, first : first + self._columns.classes]
        boxes = transform.to_source(self._anchor_boxes(outputs))
        lowered = self._lower(raw, boxes, self._found(outputs, transform), labels)
        missed = self._missed(self._scores(outputs), boxes, labels)
        for number, anchors in missed.items():
            class_id = labels.class_ids[number]
            raw[anchors, class_id] = np.maximum(raw[anchors, class_id], self._head.to_raw(RAISED_SCORE))
            scale, offset = transform.scale, transform.offset
            self._write_box(changed, anchors, (labels.xyxy_px[number] - offset) / scale)
        return CorrectedOutputs(changed, len(missed), lowered)

    def _found(self, outputs: Outputs, transform: Transform) -> Detections:
        return to_source_pixels(self._head.decode(outputs, self._thresholds), transform)

    def _scores(self, outputs: Outputs) -> np.ndarray:
        """(n, classes)."""
        first = self._columns.first
        raw = outputs[self._columns.output][0, :, first : first + self._columns.classes]
        return np.asarray(self._head.to_score(np.asarray(raw, np.float32)))

    def _lower(self, raw: np.ndarray, boxes: np.ndarray, found: Detections, labels: Detections) -> int:
        """Lower the scores of the boxes without a label; returns their number. Anchors of a label stay."""
        lowest, lowered = self._head.to_raw(LOWERED_SCORE), 0
        for box, class_id in zip(found.xyxy_px, found.class_ids, strict=True):
            of_class = labels.select(labels.class_ids == class_id)
            least = np.where(of_class.scores < LEAST_VISIBLE, SAME_OBJECT_IOU, SAME_BOX_IOU)
            if (iou_matrix(box[None], of_class.xyxy_px) >= least).any():
                continue
            own = iou_matrix(boxes, box[None])[:, 0] >= SAME_BOX_IOU
            own &= ~(iou_matrix(boxes, of_class.xyxy_px) >= least).any(axis=1)
            raw[own, class_id] = np.minimum(raw[own, class_id], lowest)
            lowered += 1
        return lowered

    def _missed(self, scores: np.ndarray, boxes: np.ndarray, labels: Detections) -> dict[int, np.ndarray]:
        """Number of each label that no anchor finds -> the anchors that shall find it, if any can.

        An anchor belongs to the label that it overlaps most, of whichever class: it has one box."""
        overlaps = iou_matrix(boxes, labels.xyxy_px)
        overlaps_most = overlaps.max(axis=1, initial=0.0)
        missed = {}
        for number, (class_id, visible) in enumerate(zip(labels.class_ids, labels.scores, strict=True)):
            overlap, score = overlaps[:, number], scores[:, class_id]
            near = overlap >= SAME_BOX_IOU
            if visible < LEAST_VISIBLE or (score[near] >= self._thresholds.score_threshold).any():
                continue
            own = np.flatnonzero(overlap >= np.maximum(overlaps_most, SAME_OBJECT_IOU))
            rank = np.argsort(-score[own] * overlap[own] ** _IOU_POWER, kind="stable")
            best = own[rank][near[own[rank]]][:MOST_ANCHORS]
            if not len(best):
                best = own[np.argsort(-overlap[own], kind="stable")][:1]
            if len(best):
                missed[number] = best
        return missed

    def _anchor_boxes(self, outputs: Outputs) -> np.ndarray:
        """(n, 4) boxes of all anchors, in pixels of the input tensor."""
        head, codes = self._head, np.asarray(outputs[self._boxes][0], np.float32)
        if isinstance(head, SsdHead):
            return head.to_boxes(codes, head.anchors)
        return head.to_boxes(codes[:, self._columns.classes :], head.points)

    def _write_box(self, outputs: Outputs, anchors: np.ndarray, xyxy_model: np.ndarray) -> None:
        """The inverse of the head's decoder. A distance beyond the last step becomes that step."""
        head, codes = self._head, outputs[self._boxes][0]
        if isinstance(head, SsdHead):
            of = head.anchors[anchors]
            left, top, right, bottom = xyxy_model
            centre, size = np.array([top + bottom, left + right]) / 2, np.array([bottom - top, right - left])
            steps = (centre - of[:, :2]) / of[:, 2:], np.log(np.maximum(size, 1e-3) / of[:, 2:])
            codes[anchors] = np.concatenate(steps, axis=1) / head.per_code
            return
        x, y, stride = head.points[anchors].T
        left, top, right, bottom = xyxy_model
        distances = np.stack([x - left, y - top, right - x, bottom - y], axis=1) / stride[:, None]
        distances = np.clip(distances, 0.0, head.steps[-1])[..., None]
        # Two neighbouring steps whose mean is the distance.
        shares = np.maximum(0.0, 1.0 - np.abs(distances - head.steps))
        logits = np.log(np.maximum(shares, _LEAST_SHARE))
        codes[anchors, self._columns.classes :] = logits.reshape(len(anchors), -1)
