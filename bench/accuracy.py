#!/usr/bin/env python3
"""Accuracy and cost of all bundles in all their precisions: `make bench-accuracy`. Prints a table, and writes
out/bench/accuracy.json.

Each cell is a bundle's graph on a backend, on one thread, in a process of its own. All run on our labelled
frames of the public clips; then all take turns in short rounds, so that what else the machine does meets all
alike.

ap, ap50       COCO's average precision; over the labelled classes that the model has
recall         of the boxes that reach the bundle's score threshold, at IoU 0.5; so is precision
person         ap50 and recall of people, which every model knows
cpu ms         CPU time of a pass: preparation, inference and decoding, median
rss            peak memory of the process with eight frames, MB
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
from parts.common import REPO

from edge_vision.backends import available_backends
from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.errors import BackendError, BundleError
from edge_vision.evaluate.accuracy.detectors import header
from edge_vision.evaluate.accuracy.labels import LabelSet, labelled_frames, read_label_set
from edge_vision.evaluate.accuracy.scores import class_numbers, in_classes_of_labels, scores_of
from edge_vision.offline.provenance import machine, versions, write_json
from edge_vision.optimize.agreement import read_detections
from edge_vision.optimize.data.ground_truth import SCORE_THRESHOLD
from edge_vision.optimize.trials.worker import WorkerProcess, WorkerSetup

BUNDLES = (
    "ssdlite_mobilenet_v2_coco",
    "ssd_mobilenet_v2_oidv4",
    "nanodet_320",
    "nanodet",
    "centernet",
    "movenet",
)
BACKENDS = {"onnxruntime": "onnx", "openvino": "onnx", "litert": "tflite"}
"""Name: format of the graphs."""
ROUNDS, PER_ROUND, TIMED = 8, 4, 8
_COLUMNS = ("bundle", "size", "graph", "backend", "classes", "AP", "AP50", "recall", "precision")
_COLUMNS += ("person AP50", "person recall", "CPU ms", "RSS MB")


@dataclass
class Cell:
    """A bundle's graph of one precision on a backend."""

    bundle: Bundle
    backend: str
    precision: str
    worker: WorkerProcess | None = None
    cpu_ms: list[float] = field(default_factory=list)
    row: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.bundle.name} {self.precision} {self.backend}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", nargs="+", default=BUNDLES, metavar="BUNDLE", help="default: all known")
    parser.add_argument("--clips", nargs="+", metavar="NAME", help="only labels of these clips")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of timing (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=REPO / "out" / "bench" / "accuracy.json")
    options = parser.parse_args()
    labels = read_label_set(clips=options.clips)
    cells = cells_of(options.models)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        images = Path(name)
        for position, pixels in labelled_frames(labels):
            cv2.imwrite(str(images / f"{position:05d}.png"), pixels)
        for cell in cells:
            start(cell, images, stack)
        started = [cell for cell in cells if cell.worker is not None]
        for cell in started:
            judge(cell, images, labels)
            print(f"{cell.name}: ap50 {cell.row['ap50']}", file=sys.stderr, flush=True)
        time_cells(started, options.rounds)
        rows = [finished(cell) for cell in started]
    print(shown(rows))
    content = {"labels": header(labels), "rows": rows, "machine": machine(), "versions": versions()}
    write_json(options.out, content)
    print(options.out)
    return 0


def cells_of(models: Sequence[str]) -> list[Cell]:
    """All precisions of the graphs of the bundles that are there, on the backends that are."""
    reasons = available_backends()
    cells = []
    for name in models:
        try:
            bundle = load_bundle(name)
        except BundleError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        graphs = dict.fromkeys((one.precision, one.format) for one in bundle.manifest.graphs)
        cells += [
            Cell(bundle, backend, precision)
            for precision, form in graphs
            for backend, reads in BACKENDS.items()
            if form == reads and not reasons[backend]
        ]
    return cells


def start(cell: Cell, images: Path, stack: ExitStack) -> None:
    """Start the process of a cell; a cell that cannot run is left out."""
    setup = WorkerSetup(str(cell.bundle.folder), cell.backend, cell.precision, 1, str(images), TIMED)
    try:
        cell.worker = stack.enter_context(WorkerProcess(cell.name, setup))
    except BackendError as error:
        print(f"left out: {cell.name}: {error}", file=sys.stderr)


def judge(cell: Cell, images: Path, labels: LabelSet) -> None:
    """Add the figures against the labels to the row of a cell."""
    assert cell.worker is not None
    out = images / f"{cell.name}.npz"
    cell.row["rss_mb"] = round(cell.worker.request("rss"), 1)
    cell.worker.request("predict", images=str(images), out=str(out), score_threshold=SCORE_THRESHOLD)
    numbers = class_numbers(cell.bundle.labels, labels)
    found = [in_classes_of_labels(one, numbers) for one in read_detections(out)]
    threshold = cell.bundle.manifest.thresholds.score_threshold
    cell.row |= {"score_threshold": threshold, **scores_of(found, labels, numbers.values(), threshold)}


def time_cells(cells: Sequence[Cell], rounds: int) -> None:
    """Time all cells in rounds, each of which starts with another cell."""
    for number in range(-1, rounds):
        for cell in np.roll(np.array(cells, object), -number):
            passes = cell.worker.request("time", n=PER_ROUND)
            cell.cpu_ms += [one[2] for one in passes] if number >= 0 else []


def finished(cell: Cell) -> dict[str, Any]:
    """The row of a cell."""
    assert cell.worker is not None
    spec = cell.bundle.manifest.input
    return {
        "bundle": cell.bundle.name,
        "bundle_sha256": cell.bundle.sha256,
        "size": f"{spec.width_px}x{spec.height_px}",
        "precision": cell.precision,
        "backend": cell.backend,
        "actual": cell.worker.actual,
        "cpu_ms": round(median(cell.cpu_ms), 2),
        "passes": len(cell.cpu_ms),
        **{("precision_at_threshold" if key == "precision" else key): cell.row[key] for key in cell.row},
    }


def shown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    lines = [
        f"| {' | '.join(_COLUMNS)} |",
        "|" + " --- |" * len(_COLUMNS),
    ]
    for row in rows:
        person = row["classes"].get("person", {})
        figures = (row["ap"], row["ap50"], row["recall"], row["precision_at_threshold"])
        cells = [
            f"`{row['bundle']}`",
            row["size"],
            row["precision"],
            row["backend"],
            str(len(row["classes"])),
        ]
        figures += (person.get("ap50"), person.get("recall"))
        cells += ["-" if value is None else f"{value:.3f}" for value in figures]
        lines.append(f"| {' | '.join(cells)} | {row['cpu_ms']:.1f} | {row['rss_mb']:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
