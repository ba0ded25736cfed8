"""Heads decode the outputs of a graph to boxes or classes. A new head is one class and one entry in HEADS."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edge_vision.backends.base import TensorSpec
from edge_vision.core.model_spec import HeadSpec, InputSpec
from edge_vision.detect.heads.base import ClassificationHead, DetectionHead, Head, ModelBoxes
from edge_vision.detect.heads.centernet import CenterNetHead
from edge_vision.detect.heads.classifier import ClassifierHead
from edge_vision.detect.heads.decoded import DecodedHead, TfliteDetectionHead
from edge_vision.detect.heads.detr import DetrHead, DetrRowsHead
from edge_vision.detect.heads.end_to_end import EndToEndHead
from edge_vision.detect.heads.nanodet import NanoDetHead
from edge_vision.detect.heads.objectness import YoloV5Head, YoloxHead
from edge_vision.detect.heads.shapes import (
    EndToEndObbHead,
    EndToEndPoseHead,
    EndToEndSegHead,
    YoloV8ObbHead,
    YoloV8PoseHead,
    YoloV8SegHead,
)
from edge_vision.detect.heads.ssd import SsdHead
from edge_vision.detect.heads.yolov8 import YoloV8Head
from edge_vision.errors import HeadError

HEADS: dict[str, Callable[[HeadSpec, InputSpec, Sequence[TensorSpec], int], Head]] = {
    "ssd": SsdHead,
    "yolov5": YoloV5Head,
    "yolov8": YoloV8Head,
    "yolov8_seg": YoloV8SegHead,
    "yolov8_obb": YoloV8ObbHead,
    "yolov8_pose": YoloV8PoseHead,
    "yolox": YoloxHead,
    "end_to_end": EndToEndHead,
    "end_to_end_seg": EndToEndSegHead,
    "end_to_end_obb": EndToEndObbHead,
    "end_to_end_pose": EndToEndPoseHead,
    "nanodet": NanoDetHead,
    "centernet": CenterNetHead,
    "detr": DetrHead,
    "detr_rows": DetrRowsHead,
    "decoded": DecodedHead,
    "tflite_detection": TfliteDetectionHead,
    "classifier": ClassifierHead,
}

__all__ = ["HEADS", "ClassificationHead", "DetectionHead", "Head", "ModelBoxes", "make_head"]


def make_head(spec: HeadSpec, input_spec: InputSpec, outputs: Sequence[TensorSpec], n_labels: int) -> Head:
    """The head that a bundle describes, checked against the graph's outputs. Raises HeadError."""
    if spec.type not in HEADS:
        raise HeadError(f"expected head.type to be one of {', '.join(HEADS)}, got '{spec.type}'")
    return HEADS[spec.type](spec, input_spec, outputs, n_labels)
