"""The shipped cascade stage: a head of a few kB, and the measurements of its fit.

`python -m edge_vision evaluate fit-cascade --head-out edge_vision/model_zoo/data` wrote both files.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.core.model_spec import InputSpec, StageSpec

NAME, SIZE_PX = "person_vehicle_stage", 96
LABELS = ("nothing", "wanted")
_DATA = Path(__file__).parent / "data"


def graph(classifier: bytes) -> bytes:
    """The features of EfficientNet-Lite0, a serialised ONNX model, with the head on top."""
    from edge_vision.offline.linear_head import cut_features, with_linear_head

    with np.load(_DATA / f"{NAME}.npz", allow_pickle=False) as head:
        weight, bias = head["weight"], float(head["bias"])
    return with_linear_head(cut_features(classifier, "features", SIZE_PX), weight, bias)


def input_of(classifier: InputSpec) -> InputSpec:
    """The classifier's input at the stage's size. A crop is square, so nothing is cut off."""
    return replace(classifier, width_px=SIZE_PX, height_px=SIZE_PX, resize="stretch")


def spec_and_figures() -> tuple[StageSpec, dict[str, Any]]:
    """How a cascade uses it, and the figures of its fit and evaluation."""
    about = json.loads((_DATA / f"{NAME}.json").read_text("utf-8"))
    stage = about["stage"]
    return StageSpec(**{**stage, "wanted": tuple(stage["wanted"])}), about["figures"]
