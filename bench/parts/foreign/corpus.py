"""The graphs of `make bench-foreign`: published networks, and trained features with tails of other detectors.

Each is a bundle in out/bench/foreign/models/.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from parts.foreign.published import blazeface, blazeface_fp16, centernet, movenet, nanodet
from parts.foreign.tails import efficientdet, rtdetr, yolov8, yolox

from edge_vision.bundles.manifest import Manifest

STREET, FACE = ("bikes.mp4", "vtest.avi"), ("tvshow_van_cuts.mp4", "carphone_pristine.mp4")


@dataclass(frozen=True, slots=True)
class Foreign:
    """A graph of the corpus. clips: for calibration, for evaluation. traits: what is unusual about it."""

    name: str
    traits: str
    make: Callable[[Path], Manifest]
    clips: tuple[str, str] = STREET


CORPUS = (
    Foreign("nanodet", "the published network", nanodet),
    Foreign("centernet", "the published network; sorted rows, no names of nodes", centernet),
    Foreign("movenet", "the published network without its tail; NHWC", movenet),
    Foreign("blazeface", "the published network, boxes decoded; opset 11", blazeface, FACE),
    Foreign("blazeface_fp16", "the same in float16 throughout", blazeface_fp16, FACE),
    Foreign("yolov8", "softmax and expectation in the graph; dynamic axes, opset 21, no names", yolov8),
    Foreign("yolox", "scores and logarithms in one output; float16 weights", yolox),
    Foreign("rtdetr", "TopK between layers, attention, inverse sigmoids", rtdetr),
    Foreign("efficientdet", "TopK and NMS in the graph, dynamic output; NHWC", efficientdet),
)
