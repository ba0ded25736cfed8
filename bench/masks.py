#!/usr/bin/env python3
"""Measures what masks cost: `make bench-masks`. Prints a table, and writes out/bench/masks.json.

20 objects on frames of 640x480, from the outputs of a YOLOv8-seg export. The outputs are synthetic: smooth
prototypes, boxes with sides of 60 to 220 px of the model. Medians of the CPU time of
the calling thread.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from parts.common import REPO, Row, table

from edge_vision.backends.base import TensorSpec
from edge_vision.core.frame import Frame
from edge_vision.core.model_spec import HeadSpec, InputSpec, Thresholds
from edge_vision.core.object_shapes import Masks, instance_image
from edge_vision.core.preprocess import Preprocessor
from edge_vision.detect.heads import DetectionHead, make_head
from edge_vision.offline.provenance import machine, versions, write_json

SIZE_PX = (640, 480)
N_CLASSES, N_OBJECTS, K, N_CELLS = 80, 20, 32, 8400
ROUNDS = 100


def outputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    columns = np.zeros((1, 4 + N_CLASSES + K, N_CELLS), np.float32)
    columns[0, 4 : 4 + N_CLASSES] = rng.uniform(0, 0.02, (N_CLASSES, N_CELLS))
    columns[0, 4 + N_CLASSES :] = rng.normal(0, 1, (K, N_CELLS))
    for number, cell in enumerate(rng.choice(N_CELLS, N_OBJECTS, replace=False)):
        w, h = rng.uniform(60, 220, 2)
        x, y = rng.uniform(w / 2, 640 - w / 2), rng.uniform(80 + h / 2, 560 - h / 2)
        columns[0, :4, cell] = x, y, w, h
        columns[0, 4 + number, cell] = 0.9
    coarse = rng.normal(0, 1, (K, 10, 10)).astype(np.float32)
    prototypes = [cv2.resize(one, (160, 160), interpolation=cv2.INTER_CUBIC) for one in coarse]
    return {"columns": columns, "prototypes": np.stack(prototypes)[None]}


def head_of(name: str, given: dict[str, np.ndarray], spec: InputSpec) -> DetectionHead:
    tensors = [TensorSpec(role, values.shape, "float32") for role, values in given.items()]
    head = make_head(HeadSpec(name, {role: role for role in given}), spec, tensors, N_CLASSES)
    assert isinstance(head, DetectionHead)
    return head


def median_ms(work: Callable[[], object]) -> float:
    """CPU time of this thread, which depends less on other programs than the time that passes."""
    times = []
    for _ in range(ROUNDS):
        started = time.thread_time()
        work()
        times.append((time.thread_time() - started) * 1e3)
    return round(statistics.median(times), 3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=REPO / "out" / "bench" / "masks.json")
    options = parser.parse_args()
    results = measure()
    print(table([Row(name, value, name.rpartition("_")[2]) for name, value in results.items()]))
    write_json(options.out, {"machine": machine(), "versions": versions(), **results})
    print(options.out)
    return 0


def measure() -> dict[str, float]:
    """Mean side of the masks and the cost of each step."""
    from edge_vision.nodes.interface.image_messages import ImageWriter

    spec, thresholds = InputSpec("images", 640, 640, resize="letterbox"), Thresholds(0.25, 0.7, 100)
    given = outputs()
    boxes_alone = {"columns": np.ascontiguousarray(given["columns"][:, : 4 + N_CLASSES])}
    head, plain = head_of("yolov8_seg", given, spec), head_of("yolov8", boxes_alone, spec)
    frame = Frame(np.zeros((*SIZE_PX[::-1], 3), np.uint8), 0, "camera")
    _, transform = Preprocessor(spec).prepare(frame)
    found = head.decode(given, thresholds)
    xyxy_px, writer = transform.to_source(found.xyxy_model), ImageWriter()
    assert len(found) == N_OBJECTS

    def masks() -> Masks:
        shapes = head.shapes(given, found, transform)
        assert isinstance(shapes, Masks)
        return shapes

    def image_of_masks() -> object:
        pixels = instance_image(masks().regions(xyxy_px), SIZE_PX)
        return writer.message(Frame(pixels, 1, "camera", "mono16"))

    regions = masks().regions(xyxy_px)
    return {
        "mean_side_px": round(float(np.mean([region.inside.size**0.5 for region in regions])), 1),
        "boxes_ms": median_ms(lambda: plain.decode(boxes_alone, thresholds)),
        "boxes_of_masks_model_ms": median_ms(lambda: head.decode(given, thresholds)),
        "masks_ms": median_ms(image_of_masks),
        "outlines_ms": median_ms(lambda: [region.outline() for region in regions]),
    }


if __name__ == "__main__":
    sys.exit(main())
