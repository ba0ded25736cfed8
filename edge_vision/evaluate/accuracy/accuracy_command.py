"""The command `python -m edge_vision evaluate accuracy`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edge_vision.backends import known_backends
from edge_vision.backends.base import PRECISIONS
from edge_vision.bundles.store import sha256_of
from edge_vision.errors import OutputError
from edge_vision.evaluate.accuracy.chain_accuracy import chains_on_labels
from edge_vision.evaluate.accuracy.detectors import header, open_detector, run_detectors
from edge_vision.evaluate.accuracy.labels import LABELS_FILE, LabelSet, read_label_set, write_frames
from edge_vision.evaluate.accuracy.sizes import at_sizes
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.reference.detector import BACKEND
from edge_vision.evaluate.selection import add_command
from edge_vision.offline.output_folder import claim_folder
from edge_vision.offline.provenance import machine, versions, write_json
from edge_vision.optimize.data import ground_truth
from edge_vision.optimize.errors import OptimizeError

EXAMPLES = """\
examples:
  edge-vision evaluate accuracy nanodet centernet               on our labels of the clips
  edge-vision evaluate accuracy nanodet --clips vtest bikes             on some of the clips
  edge-vision evaluate accuracy ./mine --labels val.json --images val   on your own labels
  edge-vision evaluate accuracy nanodet --backend openvino --precision int8
  edge-vision evaluate accuracy nanodet --chain                         the tracks of each preset
  edge-vision evaluate accuracy nanodet --size native 320 384x256       other input sizes
  edge-vision evaluate accuracy --export out/frames                     images for optimize --labels
  edge-vision evaluate accuracy nanodet --json out/accuracy.json

ap: COCO's average precision over IoU 0.5 to 0.95; ap50: at IoU 0.5; recall and precision: of the boxes that
reach the bundle's score threshold, at IoU 0.5. Classes match by name; those that a model does not have are
named and do not count. iscrowd marks regions in which boxes do not count. hota: of the tracks on the frames
with track_id (Luiten et al. 2021); evenly_as_X: inferred as often as preset X, at even intervals. Labels of
video frames use COCO-VID's keys: docs/accuracy.md.
exit codes: 0 done, 1 a model fails, 2 wrong arguments, labels that do not fit, 130 stopped by Ctrl-C
"""
_HOTA = ("hota", "det_a", "ass_a")
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
    add("models", nargs="*", metavar="MODEL", help="bundles, by name or folder")
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
    add("--size", nargs="+", default=[], metavar="S", help="input sizes: native, 320, 384x256, ...")
    add("--chain", action="store_true", help="also what gate and tracker publish, by preset, and HOTA")
    add(
        "--export",
        type=Path,
        metavar="DIR",
        help="write the labelled frames of videos as images, for optimize --labels",
    )
    add("--json", type=Path, metavar="FILE", help="write all figures to this file")


def run_accuracy(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit status. Raises EvaluateError, BundleError, BackendError."""
    try:
        ground_truth.check_installed()
    except OptimizeError as error:
        raise EvaluateError(str(error)) from None
    if options.chain and options.backend != BACKEND:
        raise EvaluateError(f"--chain: expected the backend {BACKEND}, which it uses, got {options.backend}")
    if not options.models and options.export is None:
        raise EvaluateError("expected a MODEL, or --export DIR, got neither")
    labels = read_label_set(options.labels, options.images, options.clips)
    if options.export is not None:
        claim_folder(options.export, "evaluate-accuracy", ("*.png",))
        print(f"{options.export}: {write_frames(labels, options.export)} frames")
    if not options.models:
        return 0
    with TemporaryDirectory() as folder:
        return _judge(options, labels, at_sizes(options.models, options.size, Path(folder)))


def _judge(options: argparse.Namespace, labels: LabelSet, models: Mapping[str, str]) -> int:
    """models: what to call each, and the bundle to load."""
    judged = [
        open_detector(bundle, options.backend, options.precision, len(labels.images))
        for bundle in models.values()
    ]
    run_detectors(judged, labels)
    content: dict[str, Any] = {"labels": {**header(labels), "sha256": sha256_of(labels.file)}, "models": {}}
    print(f"{labels.file.name}: {len(labels.images)} images, {labels.boxes} objects")
    for (model, bundle), one in zip(models.items(), judged, strict=True):
        scores = one.scores(labels)
        content["models"][model] = scores
        print("\n".join(["", *lines(model, scores)]), flush=True)
        if options.chain:
            scores["chains"] = chains_on_labels(bundle, labels)
            print("\n".join(["", *chain_lines(scores["chains"])]), flush=True)
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


def chain_lines(chains: Mapping[str, Any]) -> list[str]:
    """The figures of the published boxes as a table."""
    names = ("inferred_share", "ap50", "recall", "precision", "hota50", *_HOTA)
    return [
        "published boxes",
        f"{'':22}" + "".join(f"{name.replace('_share', ''):>10}" for name in names),
        *(
            f"{name:22}" + "".join(f"{_shown(chain[key]):>10}" for key in names)
            for name, chain in chains.items()
        ),
    ]


def _shown(value: float | int | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"
