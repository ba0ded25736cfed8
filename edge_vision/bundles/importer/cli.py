"""The command `python -m edge_vision.bundles import`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2

from edge_vision.bundles.importer.draft import Ask, Draft, Options, Row, make_draft, name_of, parse_size
from edge_vision.bundles.importer.read import MAX_MB, read_model
from edge_vision.bundles.importer.run import (
    Trial,
    place_for,
    put_in_place,
    read_picture,
    try_bundle,
    workspace,
    write_draft,
)
from edge_vision.core.heads import HEADS
from edge_vision.errors import BundleError

_EXAMPLES = """\
examples:
  python -m edge_vision.bundles import yolo11n.onnx --try street.jpg
  python -m edge_vision.bundles import yolox_s.onnx --labels classes.txt --name forklifts --yes
  python -m edge_vision.bundles import centerface.onnx --input-size 640x480 --out ./faces
  python -m edge_vision.bundles import mine.onnx --set input.color=bgr --set 'input.mean=[104, 117, 123]'
  python -m edge_vision.bundles import odd.onnx --head detr --set 'head.outputs={logits: a, boxes: b}' \\
      --labels classes.txt

Nothing in the file is run but its graph, by an installed backend. docs/models.md has what each head reads.
exit codes: 0 written, 1 not written and why, 2 wrong arguments, 130 stopped by Ctrl-C
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.description = (
        "Make a bundle from a model file: guess how it is fed and read, show it, try it, write it."
    )
    parser.epilog = _EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("file", metavar="MODEL", type=Path, help="a .onnx or .tflite file")
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="the bundle's folder (default: NAME in the store)"
    )
    parser.add_argument("--name", help="the bundle's name: a-z, 0-9, _ (default: from the file's)")
    parser.add_argument("--head", help=f"how the outputs are read: {', '.join(HEADS)}")
    parser.add_argument("--labels", metavar="FILE", type=Path, help="names of the classes, one on each line")
    parser.add_argument(
        "--input-size", metavar="WxH", help="pixels, for a graph that takes any size or another"
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="settings",
        help="any key of bundle.yaml, as in input.resize=letterbox; may be given again",
    )
    parser.add_argument(
        "--try",
        metavar="PICTURE",
        type=Path,
        dest="picture",
        help="show what it finds; writes NAME_try.png here",
    )
    parser.add_argument("--yes", action="store_true", help="write it without asking")
    parser.add_argument("--force", action="store_true", help="replace what is at the bundle's place")
    parser.add_argument(
        "--max-mb", metavar="MB", type=int, default=MAX_MB, help=f"largest file to read (default {MAX_MB})"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Import one model. Raises BundleError."""
    if not 1 <= arguments.max_mb <= 2047:
        raise BundleError(f"--max-mb: expected 1 to 2047, got {arguments.max_mb}")
    options = Options(
        head=arguments.head,
        labels=arguments.labels,
        size=parse_size(arguments.input_size) if arguments.input_size else None,
        name=arguments.name,
        settings=tuple(arguments.settings),
    )
    image = read_picture(arguments.picture) if arguments.picture else None
    place = place_for(arguments.out, options.name or name_of(arguments.file), arguments.force)
    ask = _question if sys.stdin.isatty() and not arguments.yes else None
    with workspace(place.parent) as folder:
        draft = make_draft(read_model(arguments.file, arguments.max_mb), options, folder, ask)
        _show(arguments.file, draft)
        bundle_folder = folder / draft.manifest.name
        trial = try_bundle(write_draft(draft, bundle_folder), draft.outputs, image)
        _show_trial(trial, Path(f"{draft.manifest.name}_try.png"))
        if not arguments.yes and not _agreed(ask):
            print("nothing was written")
            return 1
        bundle = put_in_place(bundle_folder, place, print)
    print(f"{bundle}: in {bundle.folder}, verified")
    return 0


def _question(text: str) -> str:
    try:
        return input(text)
    except EOFError:
        raise BundleError("expected an answer, got the end of the input; nothing was written") from None


def _agreed(ask: Ask | None) -> bool:
    if ask is None:
        raise BundleError("nothing was written, as nobody is there to ask: --yes writes the bundle as shown")
    return ask("write this bundle? [Y/n] ").strip().lower() in ("", "y", "yes")


def _show(file: Path, draft: Draft) -> None:
    print(f"{file}:")
    _table(("what", "guess", "change with", "because"), draft.rows)
    if draft.unknown:
        print("not guessed:")
        _table(("what", "taken", "give with", ""), draft.unknown)


def _table(titles: Sequence[str], rows: Sequence[Row]) -> None:
    cells = [titles, *((row.what, row.value, row.option, row.why) for row in rows)]
    # A long cell must not push the others out of sight: it only makes its own line longer.
    widths = [min(max(len(line[i]) for line in cells), limit) for i, limit in enumerate((12, 54, 24, 80))]
    for line in cells:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _show_trial(trial: Trial, path: Path) -> None:
    print("\n".join(trial.lines))
    if trial.picture is not None:
        if not cv2.imwrite(str(path), trial.picture):
            raise BundleError(f"{path}: expected a file that can be written, got none")
        print(f"  drawn into {path}")
