"""`edge-vision models`: make, import, list, verify and show model bundles."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from edge_vision.bundles.store import DEFAULT, bundles_dir, list_bundles, load_bundle
from edge_vision.core.command_line import complete_help, run_command, with_examples
from edge_vision.core.printable import printable, printable_output
from edge_vision.errors import EdgeVisionError
from edge_vision.export.formats import FORMATS, export
from edge_vision.importer import cli
from edge_vision.model_zoo.fetch import fetch_bundle, find_recipe
from edge_vision.model_zoo.recipes import RECIPES
from edge_vision.offline.manifest_writer import dump_manifest

_EXAMPLES = """\
examples:
  edge-vision models fetch                              make the bundles without a large download
  edge-vision models fetch nanodet                      make one
  edge-vision models import yolo11n.onnx                your own model; `import --help` has more
  edge-vision models list                               the store, and what can be made
  EDGE_VISION_CACHE=/data edge-vision models list       another store
  edge-vision models verify ./my_bundle                 verify a folder: manifest, files, hashes
  edge-vision models verify nanodet                     a bundle of the store
  edge-vision models show nanodet                       print a manifest
  edge-vision models show ./my_bundle                   of a folder
  edge-vision models export nanodet --format tflite --precision int8 --out ./mine
  edge-vision models export ssdlite_mobilenet_v2_coco --format pte --out ./mine

The store is $EDGE_VISION_CACHE/bundles, by default ~/.cache/edge_vision/bundles.
exit codes: 0 success, 1 bundle missing, invalid or not made, 2 wrong arguments, 130 stopped by Ctrl-C
"""


@printable_output()
def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    return run_command(_parser().parse_args(argv), "error", "stopped; run the same command again to continue")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-vision models",
        **with_examples("Make, import, list, verify and show model bundles.", _EXAMPLES),
    )
    commands = parser.add_subparsers(required=True, metavar="{fetch,import,list,verify,show,export}")
    fetch = commands.add_parser("fetch", help="make known bundles in the store")
    fetch.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {' '.join(RECIPES)}; default: the first {len(DEFAULT)}"
    )
    fetch.add_argument("--force", action="store_true", help="make them again even if they exist")
    fetch.set_defaults(run=_fetch)
    cli.add_arguments(commands.add_parser("import", help="make a bundle from your own model file"))
    commands.add_parser("list", help="the bundles in the store").set_defaults(run=_list)
    for command, run, text in (
        ("verify", _verify, "verify a bundle's manifest, files and hashes"),
        ("show", _show, "print a bundle's manifest and hash"),
    ):
        sub = commands.add_parser(command, help=text)
        sub.add_argument("bundle", metavar="PATH_OR_NAME", help="a bundle's folder, or a name in the store")
        sub.set_defaults(run=run)
    _add_export(commands.add_parser("export", help="a copy of a bundle with a graph in another format"))
    return complete_help(parser, commands)


def _add_export(one: argparse.ArgumentParser) -> None:
    one.add_argument("bundle", metavar="PATH_OR_NAME", help="a bundle's folder, or a name in the store")
    one.add_argument(
        "--format",
        dest="form",
        required=True,
        choices=list(FORMATS),
        help="for litert, executorch, torchscript",
    )
    one.add_argument("--precision", default="fp32", help="of the ONNX graph to convert (default: fp32)")
    one.add_argument("--out", metavar="DIR", type=Path, required=True, help="the folder of the copy")
    one.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> int:
    bundle = export(arguments.bundle, arguments.form, arguments.precision, arguments.out.absolute())
    graph = bundle.manifest.graphs[-1]
    size_bytes = (bundle.folder / graph.file).stat().st_size
    print(f"{bundle.folder}: {graph.file}, {graph.format} {graph.precision}, {size_bytes / 1e6:.1f} MB")
    return 0


def _fetch(arguments: argparse.Namespace) -> int:
    # All names are checked before the first bundle is made.
    recipes = [find_recipe(name) for name in arguments.names or DEFAULT]
    for recipe in recipes:
        fetch_bundle(recipe.manifest.name, force=arguments.force, report=lambda line: print(line, flush=True))
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from edge_vision.nodes.interface.specs import DETECTOR  # Imports OpenCV.

    print(f"store: {bundles_dir()}")
    broken = 0
    for name in sorted({*RECIPES, *list_bundles()}):
        try:
            bundle = load_bundle(name)
            default = "  (the default detector)" if name == DETECTOR.param("model").default else ""
            print(printable(f"  {bundle}  {bundle.manifest.task}  {bundle.manifest.description}{default}"))
        except EdgeVisionError as error:
            absent = not (bundles_dir() / name).is_dir()
            broken += not absent
            print(
                f"  {name}: "
                + (f"not made yet: python -m edge_vision models fetch {name}" if absent else f"{error}")
            )
    return 1 if broken else 0


def _verify(arguments: argparse.Namespace) -> int:
    bundle = load_bundle(arguments.bundle)
    for graph in bundle.manifest.graphs:
        bundle.verify(graph)
        print(f"{graph.file}: {graph.format} {graph.precision}, sha256 {graph.sha256}, as in the manifest")
    print(f"{bundle}: valid, {len(bundle.labels)} labels, in {bundle.folder}")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    bundle = load_bundle(arguments.bundle)
    print(f"# {bundle.folder}\n# sha256 {bundle.sha256}, {len(bundle.labels)} labels")
    print(dump_manifest(bundle.manifest), end="")
    return 0
