"""Runs `python -m edge_vision models import`: guess, show, try, ask, write."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2

from edge_vision.core.printable import printable
from edge_vision.errors import BundleError
from edge_vision.importer.draft import Ask, Draft, Options, Row, bundle_name, make_draft, parse_size
from edge_vision.importer.read import read_model
from edge_vision.importer.run import (
    TrialInference,
    destination,
    install,
    read_image,
    try_bundle,
    workspace,
    write_draft,
)
from edge_vision.offline.output_folder import check_inputs


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
    image = read_image(arguments.image) if arguments.image else None
    target = destination(arguments.out, options.name or bundle_name(arguments.file), arguments.force)
    check_inputs(target, [arguments.file, *([options.labels] if options.labels else [])])
    ask = _question if sys.stdin.isatty() and not arguments.yes else None
    print(f"reading {arguments.file}, and running it once", flush=True)
    with workspace(target.parent) as folder:
        draft = make_draft(read_model(arguments.file, arguments.max_mb), options, folder, ask)
        _show(arguments.file, draft)
        bundle_folder = folder / draft.manifest.name
        trial = try_bundle(write_draft(draft, bundle_folder), draft.outputs, image)
        _show_trial(trial, Path(f"{draft.manifest.name}_try.png"))
        if not arguments.yes and not _confirmed(ask):
            print("nothing was written")
            return 1
        bundle = install(bundle_folder, target, print)
    print(f"{bundle}: in {bundle.folder}, verified")
    return 0


def _question(text: str) -> str:
    try:
        return input(printable(text))
    except EOFError:
        raise BundleError("expected an answer, got the end of the input; nothing was written") from None


def _confirmed(ask: Ask | None) -> bool:
    if ask is None:
        raise BundleError(
            "not written: stdin is not a terminal. Pass --yes to accept the guesses shown above"
        )
    return ask("write this bundle? [Y/n] ").strip().lower() in ("", "y", "yes")


def _show(file: Path, draft: Draft) -> None:
    print(f"{file}:")
    _table(("what", "guess", "change with", "because"), draft.rows)
    if draft.unknown:
        print("not guessed:")
        _table(("what", "taken", "give with", ""), draft.unknown)


def _table(titles: Sequence[str], rows: Sequence[Row]) -> None:
    texts = [titles, *((row.what, row.value, row.option, row.why) for row in rows)]
    cells = [[printable(text) for text in line] for line in texts]
    # A long cell only makes its own line longer.
    widths = [min(max(len(line[i]) for line in cells), limit) for i, limit in enumerate((12, 54, 24, 80))]
    for line in cells:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _show_trial(trial: TrialInference, path: Path) -> None:
    print("\n".join(map(printable, trial.lines)))
    if trial.overlay is not None:
        if not cv2.imwrite(str(path), trial.overlay):
            raise BundleError(f"{path}: expected a writable file")
        print(f"  drawn into {path}")
