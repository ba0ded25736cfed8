"""The command `python -m edge_vision evaluate accuracy`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_vision.backends import known_backends
from edge_vision.backends.base import PRECISIONS
from edge_vision.bundles.store import sha256_of
from edge_vision.errors import OutputError
from edge_vision.evaluate.accuracy.detectors import header, open_detector, run_detectors
from edge_vision.evaluate.accuracy.labels import LABELS_FILE, read_label_set
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.selection import add_command
from edge_vision.offline.provenance import machine, versions, write_json
from edge_vision.optimize import ground_truth
from edge_vision.optimize.errors import OptimizeError

EXAMPLES = """\
examples:
  python -m edge_vision evaluate accuracy nanodet centernet               on our labels of the clips
  python -m edge_vision evaluate accuracy nanodet --clips vtest bikes             on some of the clips
  python -m edge_vision evaluate accuracy ./mine --labels val.json --images val   on your own labels
  python -m edge_vision evaluate accuracy nanodet --backend openvino --precision int8
  python -m edge_vision evaluate accuracy nanodet --json out/accuracy.json

ap: COCO's average precision over IoU 0.5 to 0.95; ap50: at IoU 0.5; recall and precision: of the boxes that
reach the bundle's score threshold, at IoU 0.5. Classes match by name; those that a model does not have are
named and do not count. iscrowd marks regions in which boxes do not count. Labels of video frames use
COCO-VID's keys: docs/accuracy.md.
exit codes: 0 done, 1 a model fails, 2 wrong arguments, labels that do not fit, 130 stopped by Ctrl-C
"""
_COLUMNS = ("boxes", "ap", "ap50", "ar", "recall", "precision")


def add_parser(commands: Any) -> None:
    """Add the sub-command to those of `evaluate`."""
    parser = add_command(
        commands,
        "accuracy",
        run_accuracy,
        "average precision and recall of detectors against labels",
        "Average precision and recall of detectors against labels, by class and by size.",
        EXAMPLES,
    )
    add = parser.add_argument
    add("models", nargs="+", metavar="MODEL", help="bundles, by name or folder")
    add(
        "--labels",
        type=Path,
        default=LABELS_FILE,
        metavar="COCO.json",
        help="default: our labels of the public clips",
    )
    add("--images", type=Path, metavar="DIR", help="folder of the images or videos (default: of the labels)")
    add("--clips", nargs="+", metavar="NAME", help="only these videos of the labels, without suffix")
    add("--backend", choices=("auto", *known_backends()), default="onnxruntime", help="default: %(default)s")
    add("--precision", choices=PRECISIONS, default="auto", help="default: %(default)s")
    add("--json", type=Path, metavar="FILE", help="write all figures to this file")


def run_accuracy(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit status. Raises EvaluateError, BundleError, BackendError."""
    try:
        ground_truth.check_installed()
    except OptimizeError as error:
        raise EvaluateError(str(error)) from None
    labels = read_label_set(options.labels, options.images, options.clips)
    judged = [
        open_detector(model, options.backend, options.precision, len(labels.images))
        for model in options.models
    ]
    run_detectors(judged, labels)
    content: dict[str, Any] = {"labels": {**header(labels), "sha256": sha256_of(labels.file)}, "models": {}}
    print(f"{labels.file.name}: {len(labels.images)} images, {labels.boxes} objects")
    for model, one in zip(options.models, judged, strict=True):
        scores = one.scores(labels)
        content["models"][model] = scores
        print("\n".join(["", *lines(model, scores)]), flush=True)
    if options.json is not None:
        _write(options.json, {**content, "machine": machine(), "versions": versions()})
    return 0


def _write(file: Path, content: dict[str, Any]) -> None:
    try:
        write_json(file, content)
    except OSError as error:
        raise OutputError(f"{file}: expected a file to write to, got: {error.strerror}") from None


def lines(model: str, scores: Mapping[str, Any]) -> list[str]:
    """The figures of one model as a table."""
    missing = scores["missing_classes"]
    rows = {
        "all": scores,
        **scores["classes"],
        **{f"size {name}": one for name, one in scores["sizes"].items()},
    }
    return [
        f"{model}, {scores['backend']}, {scores['precision_of_arithmetic']}, {scores['cpu_ms']} ms CPU on "
        f"one thread; recall and precision at score {scores['score_threshold']:g}",
        *([f"not in this model, not counted: {', '.join(missing)}"] if missing else []),
        f"{'':14}" + "".join(f"{name:>10}" for name in _COLUMNS),
        *(
            f"{name:14}" + "".join(f"{_shown(row[key]):>10}" for key in _COLUMNS)
            for name, row in rows.items()
        ),
    ]


def _shown(value: float | int | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"
