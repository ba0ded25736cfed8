"""Model description in a bundle's manifest: input, head, thresholds, cascade stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class InputSpec:
    """Preprocessing of a source image to the input tensor.

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

    @property
    def channels(self) -> int:
        return 1 if self.color == "gray" else 3

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of the input tensor."""
        if self.layout == "nhwc":
            return (1, self.height_px, self.width_px, self.channels)
        return (1, self.channels, self.height_px, self.width_px)


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """Decoding of the outputs: a head of `detect/heads/`, the outputs that it reads, its options.

    outputs maps the head's role names to the graph's output names.
    """

    type: str
    outputs: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


MAX_DETECTIONS = 1000
"""Upper bound of `max_detections`, and of the detections in a message."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Filters of detections. score_threshold, iou_threshold: 0..1. max_detections: 1..MAX_DETECTIONS."""

    score_threshold: float = 0.5
    iou_threshold: float = 0.5
    max_detections: int = 100


@dataclass(frozen=True, slots=True)
class StageSpec:
    """Use of a classifier as a stage of a cascade.

    wanted: the labels of interest. reject_below, accept_from: thresholds on their summed probability, 0..1; a
    crop below the first is rejected, one at or above the second is accepted, between them it is undecided.
    look_share: side of a square crop as a share of the frame's shorter side; 0 = regions are classified as
    they are.
    """

    wanted: tuple[str, ...]
    reject_below: float
    accept_from: float
    look_share: float = 0.0


@dataclass(frozen=True, slots=True)
class ValidFor:
    """What a specialised model was trained for.

    teacher: the bundle that it replaces there, by name or folder. classes: its labels. agreement: least share
    of frames, 0..1, on which it must agree with the teacher. scene: fingerprint of the training clips.
    """

    teacher: str
    classes: tuple[str, ...]
    agreement: float = 0.7
    scene: str = ""
