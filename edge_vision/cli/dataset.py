"""`edge-vision dataset`: the pictures that the collector keeps."""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_vision.core.command_line import complete_help, run_command, with_examples
from edge_vision.core.printable import printable_output
from edge_vision.dataset.errors import DatasetError
from edge_vision.dataset.export import SUBSETS, write_export
from edge_vision.dataset.folder import DatasetFolder
from edge_vision.dataset.picture import STATES
from edge_vision.dataset.statistics import DatasetStatistics, statistics_of
from edge_vision.offline.output_folder import claim_folder, remove_path
from edge_vision.offline.progress import raw_stream
from edge_vision.web.access import access_of, add_access_options

PORT = 9465
EXPORT = "dataset-export"
_WRITTEN = ("images", "annotations")
_EXAMPLES = """\
examples:
  edge-vision dataset review ~/pictures                    http://127.0.0.1:9465/
  edge-vision dataset review ~/pictures --address 0.0.0.0  from another machine, with a token
  edge-vision dataset stats ~/pictures                     what there is, and how right the model was
  edge-vision dataset stats ~/pictures --json              for a program
  edge-vision dataset export ~/pictures --out out/coco     accepted pictures as COCO, split by time
  edge-vision dataset export ~/pictures --out out/coco     again: replaces what it wrote there
  edge-vision optimize train qat nanodet --video ~/pictures --out out/qat

`edge-vision run --ros-args -p collect:=true` keeps the pictures; docs/dataset.md describes the folder.
exit codes: 0 done, or stopped by Ctrl-C (review), 1 error, 2 wrong arguments
"""


@printable_output()
def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    return run_command(_parser().parse_args(argv), "dataset", "stopped")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-vision dataset",
        **with_examples("Review, export and count the pictures that the collector keeps.", _EXAMPLES),
    )
    commands = parser.add_subparsers(required=True, metavar="{review,export,stats}")
    review = commands.add_parser("review", help="a page to accept, correct and reject the pictures")
    add_access_options(review, PORT)
    export = commands.add_parser("export", help="accepted pictures as a COCO data set, split by time")
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder of the data set")
    stats = commands.add_parser("stats", help="numbers of pictures, and how right the model was")
    stats.add_argument("--json", action="store_true", help="as JSON")
    for one, run in ((review, _review), (export, _export), (stats, _stats)):
        one.add_argument("folder", type=Path, metavar="FOLDER", help="of the collector")
        one.set_defaults(run=run)
    return complete_help(parser, commands)


def _review(options: argparse.Namespace) -> int:
    from edge_vision.dataset.review import review_app
    from edge_vision.web.server import ListenError, run

    folder = DatasetFolder(options.folder)
    try:
        access = access_of(options)
    except ValueError as error:
        raise DatasetError(str(error)) from None

    async def serve() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        # Its link is for the user, with the token.
        out = raw_stream(sys.stdout)
        await run(
            review_app(access, folder), stop, lambda: print(f"review: {access.url}", file=out, flush=True)
        )

    try:
        asyncio.run(serve())
    except ListenError as error:
        raise DatasetError(str(error)) from None
    return 0


def _export(options: argparse.Namespace) -> int:
    folder, out = DatasetFolder(options.folder), options.out.expanduser()
    claim_folder(out, EXPORT, _WRITTEN, [folder.folder])
    for name in _WRITTEN:
        remove_path(out / name)
    try:
        report = write_export(folder, out)
    except OSError as error:
        hint = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose another --out"
        raise DatasetError(
            f"{out}: expected a folder to write to, got: {error.strerror or error}; {hint}"
        ) from None
    print(f"{report.train} pictures in {SUBSETS[0]}, {report.val} in {SUBSETS[1]}, {report.unused} between")
    print(f"in {out}: images, annotations")
    return 0


def _stats(options: argparse.Namespace) -> int:
    damaged: list[str] = []
    found = statistics_of(DatasetFolder(options.folder).pictures(damaged))
    if options.json:
        print(json.dumps({**found.as_json(), "damaged": damaged}, indent=1))
    else:
        print("\n".join(_table(found)))
        for text in damaged:
            print(f"damaged: {text}")
    return 1 if damaged else 0


def _table(found: DatasetStatistics) -> list[str]:
    rows = [f"{'reason':14}" + "".join(f"{state:>10}" for state in STATES) + "  precision    recall"]
    for reason, counts in sorted(found.states.items()):
        right = found.correctness[reason]
        figures = ("n/a" if one is None else f"{one:.3f}" for one in (right.precision, right.recall))
        rows.append(
            f"{reason:14}"
            + "".join(f"{counts[state]:10}" for state in STATES)
            + "".join(f"{one:>11}" for one in figures)
        )
    for title, counts in (
        ("labelled boxes", found.classes),
        ("cameras", found.cameras),
        ("models", found.bundles),
        ("days", found.days),
    ):
        listed = ", ".join(f"{name} {count}" for name, count in counts.most_common(20))
        rows.append(f"{title}: {listed or 'none'}")
    return rows
