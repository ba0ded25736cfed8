"""The arguments of `python -m edge_vision models import`."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge_vision.detect.heads import HEADS
from edge_vision.importer.model import MAX_MB

_EXAMPLES = """\
examples:
  edge-vision models import yolo11n.onnx --try street.jpg
  edge-vision models import yolox_s.onnx --labels classes.txt --name forklifts --yes
  edge-vision models import centerface.onnx --input-size 640x480 --out ./faces
  edge-vision models import mine.onnx --set input.color=bgr --set 'input.mean=[104, 117, 123]'
  edge-vision models import odd.onnx --head detr --set 'head.outputs={logits: a, boxes: b}' \\
      --labels classes.txt

Only the graph in the file is run, by an installed backend. docs/models.md lists what each head reads.
exit codes: 0 written, 1 not written and why, 2 wrong arguments, 130 stopped by Ctrl-C
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.description = (
        "Make a bundle from a model file: guess its preprocessing and head, show them, try it, write it."
    )
    parser.epilog = _EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("file", metavar="MODEL", type=Path, help="a .onnx or .tflite file")
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="the bundle's folder (default: NAME in the store)"
    )
    parser.add_argument("--name", help="the bundle's name: a-z, 0-9, _ (default: from the file's name)")
    parser.add_argument("--head", help=f"the head that reads the outputs: {', '.join(HEADS)}")
    parser.add_argument("--labels", metavar="FILE", type=Path, help="names of the classes, one per line")
    parser.add_argument(
        "--input-size", metavar="WxH", help="pixels, for a graph that takes any size or another"
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="settings",
        help="any key of bundle.yaml, as in input.resize=letterbox; repeatable",
    )
    parser.add_argument(
        "--try",
        metavar="IMAGE",
        type=Path,
        dest="image",
        help="show what it finds in an image; writes NAME_try.png here",
    )
    parser.add_argument("--yes", action="store_true", help="write it without asking")
    parser.add_argument("--force", action="store_true", help="replace an existing bundle")
    parser.add_argument(
        "--max-mb", metavar="MB", type=int, default=MAX_MB, help=f"largest file to read (default {MAX_MB})"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    # Imported when used: other commands need no runtime.
    from edge_vision.importer.command import run

    return run(arguments)
