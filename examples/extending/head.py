#!/usr/bin/env python3
"""A head for a graph whose output has one row per object: class, score, left, top, right, bottom.

python examples/extending/head.py                            decode one output
python examples/extending/head.py pipeline --model ./mine    run the pipeline with it

The bundle of the model has: head: {type: class_first, outputs: {rows: detections}}
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import numpy as np

from edge_vision.backends.base import TensorSpec
from edge_vision.core.model_spec import HeadSpec, InputSpec, Thresholds
from edge_vision.detect.heads import HEADS, DetectionHead, ModelBoxes, make_head
from edge_vision.nodes import cli


class ClassFirstHead(DetectionHead):
    """Role: rows (1, n, 6)."""

    def set_up(self) -> None:
        self._rows = self.output("rows", (1, "n", 6))

    def decode(self, outputs: Mapping[str, np.ndarray], thresholds: Thresholds) -> ModelBoxes:
        rows = self._rows.read(outputs)[0]
        rows = rows[rows[:, 1] >= thresholds.score_threshold]
        return ModelBoxes.best(rows[:, 2:], rows[:, 1], rows[:, 0], thresholds)


HEADS["class_first"] = ClassFirstHead


def main() -> int:
    if len(sys.argv) > 1:  # The nodes run in this process, and so know the head.
        return cli.main()
    spec = HeadSpec("class_first", {"rows": "detections"})
    graph_outputs = [TensorSpec("detections", (1, 100, 6), "float32")]
    head = make_head(spec, InputSpec("images", 320, 320), graph_outputs, 2)
    rows = np.zeros((1, 100, 6), np.float32)
    rows[0, 7] = [1, 0.9, 10, 20, 50, 60]
    assert isinstance(head, DetectionHead)
    boxes = head.decode({"detections": rows}, Thresholds(score_threshold=0.5))
    print(f"class {boxes.class_ids[0]} at {boxes.xyxy_model[0].tolist()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
