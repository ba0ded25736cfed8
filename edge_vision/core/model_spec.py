"""What a bundle's manifest tells the core about a model: its input, its head, its thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class InputSpec:
    """How a source image becomes the input tensor.

    Each channel is `(value - mean) / std`, on 0..255, in the order of `color`.
    """

    name: str
    width_px: int
    height_px: int
    layout: Literal["nchw", "nhwc"] = "nchw"
    color: Literal["rgb", "bgr", "gray"] = "rgb"
    dtype: Literal["float32", "float16", "uint8"] = "float32"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    resize: Literal["stretch", "letterbox", "center_crop"] = "stretch"
    pad_value: int = 114
    """Grey value, 0..255, of the bars that a letterbox adds."""


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """How the outputs become boxes or classes: a head of `detect/heads/`, the outputs it reads, its options.

    outputs maps the head's role names to the graph's output names.
    """

    type: str
    outputs: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What is kept. score_threshold and iou_threshold in 0..1."""

    score_threshold: float = 0.5
    iou_threshold: float = 0.5
    max_detections: int = 100


@dataclass(frozen=True, slots=True)
class StageSpec:
    """How a cascade uses a classifier that was fitted as one of its stages.

    wanted: the labels that are worth the detector. reject_below, accept_from: of their summed probability,
    0..1; a look below the first is rejected, one from the second on is accepted, between them it is unsure.
    look_share: the side of its square looks as a share of the frame's shorter side; 0 = regions as they are.
    """

    wanted: tuple[str, ...]
    reject_below: float
    accept_from: float
    look_share: float = 0.0
