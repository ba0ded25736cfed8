"""How each family of models prepares its images, as its own training or demo code does.

A graph does not declare its preprocessing, so these are conventions: check the boxes that the trial draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge_vision.core.model_spec import InputSpec, Thresholds
from edge_vision.importer.model import ImageTensor, Model

_ZERO, _ONE = (0.0,) * 3, (1.0,) * 3
_IMAGENET_MEAN, _IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@dataclass(frozen=True, slots=True)
class Family:
    """label: the origin of the convention. mean, std: on 0..255, in the order of color."""

    label: str
    color: Literal["rgb", "bgr"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: Literal["stretch", "letterbox", "center_crop"]
    pad_value: int
    thresholds: Thresholds


FAMILIES = {
    "ultralytics": Family(
        "Ultralytics' predict", "rgb", _ZERO, (255.0,) * 3, "letterbox", 114, Thresholds(0.25, 0.7, 100)
    ),
    "yolox": Family("YOLOX's demo", "bgr", _ZERO, _ONE, "letterbox", 114, Thresholds(0.3, 0.45, 100)),
    "nanodet": Family(
        "NanoDet-Plus's configurations",
        "bgr",
        (103.53, 116.28, 123.675),
        (57.375, 57.12, 58.395),
        "stretch",
        114,
        Thresholds(0.35, 0.6, 100),
    ),
    "nanodet_m": Family(
        "NanoDet's configurations",
        "bgr",
        (103.53, 116.28, 123.675),
        (57.375, 57.12, 58.395),
        "letterbox",
        0,
        Thresholds(0.35, 0.6, 100),
    ),
    "centernet": Family(
        "CenterNet's configuration for COCO",
        "bgr",
        (104.04, 113.985, 119.85),
        (73.695, 69.87, 70.89),
        "letterbox",
        0,
        Thresholds(0.3, 0.5, 100),
    ),
    "centerface": Family("CenterFace's demo", "rgb", _ZERO, _ONE, "letterbox", 0, Thresholds(0.5, 0.3, 100)),
    "rtdetr": Family(
        "RT-DETR's configurations", "rgb", _ZERO, (255.0,) * 3, "stretch", 114, Thresholds(0.5, 0.5, 100)
    ),
    "detr": Family(
        "DETR's code", "rgb", _IMAGENET_MEAN, _IMAGENET_STD, "letterbox", 116, Thresholds(0.5, 0.5, 100)
    ),
    "tf": Family(
        "TF object detection", "rgb", (127.5,) * 3, (127.5,) * 3, "stretch", 127, Thresholds(0.5, 0.6, 100)
    ),
    "classifier": Family(
        "torchvision's and timm's models",
        "rgb",
        _IMAGENET_MEAN,
        _IMAGENET_STD,
        "center_crop",
        116,
        Thresholds(),
    ),
    "ultralytics_classifier": Family(
        "Ultralytics' predict", "rgb", _ZERO, (255.0,) * 3, "center_crop", 114, Thresholds()
    ),
    # TensorFlow's classifiers have the channels last.
    "tf_classifier": Family(
        "TensorFlow's MobileNets", "rgb", (127.5,) * 3, (127.5,) * 3, "center_crop", 127, Thresholds()
    ),
}
# The convention for a head that was requested but not recognised.
FAMILY_OF_HEAD = {
    "ssd": "tf",
    "yolov5": "ultralytics",
    "yolov8": "ultralytics",
    "yolov8_seg": "ultralytics",
    "yolov8_obb": "ultralytics",
    "yolov8_pose": "ultralytics",
    "yolox": "yolox",
    "end_to_end": "ultralytics",
    "end_to_end_seg": "ultralytics",
    "end_to_end_obb": "ultralytics",
    "end_to_end_pose": "ultralytics",
    "nanodet": "nanodet",
    "centernet": "centernet",
    "detr": "rtdetr",
    "detr_rows": "rtdetr",
    "decoded": "rtdetr",
    "tflite_detection": "tf",
    "classifier": "classifier",
}


def input_spec(
    image_tensor: ImageTensor, width_px: int, height_px: int, family: Family, model: Model
) -> tuple[InputSpec, str]:
    """The input of a bundle, and the reason for its mean and std."""
    mean, std, why = family.mean, family.std, f"as {family.label}; not declared by the graph"
    if image_tensor.dtype == "uint8":
        mean, std, why = _ZERO, _ONE, "the input is uint8: pixels are not normalised"
    elif model.first_step:
        mean, std, why = _ZERO, _ONE, f"the graph begins with {model.first_step}: it normalises its input"
    spec = InputSpec(
        name=image_tensor.name,
        width_px=width_px,
        height_px=height_px,
        layout=image_tensor.layout,  # type: ignore[arg-type]
        color=family.color if image_tensor.channels == 3 else "gray",
        dtype=image_tensor.dtype,  # type: ignore[arg-type]
        mean=mean[: image_tensor.channels],
        std=std[: image_tensor.channels],
        resize=family.resize,
        pad_value=family.pad_value,
    )
    return spec, why
