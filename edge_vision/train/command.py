"""The commands `edge-vision optimize train` and `edge-vision optimize search`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_vision.core.command_line import complete_help, with_examples
from edge_vision.errors import EdgeVisionError
from edge_vision.offline.output_folder import claim_folder, locked_folder, release_folder
from edge_vision.offline.progress import ProgressLine
from edge_vision.optimize.trained import TRAINING_COMMAND
from edge_vision.train.option_ranges import SHARE_TO_PRUNE, TRAINING
from edge_vision.train.run import run_recipe
from edge_vision.train.summary import summary

COMMAND = TRAINING_COMMAND
_EXAMPLES = """\
examples:
  edge-vision optimize train qat efficientnet_lite0_imagenet --video yard.mp4 --video gate.mp4 --out out/qat
  edge-vision optimize train qat nanodet --video street.mp4 --judge other.mp4 --out out/qat
  edge-vision optimize train qat ./my_bundle --video drive.mcap --steps 600 --out out/mine
  edge-vision optimize train qat efficientnet_lite0_imagenet --video street.mp4 --mixed 0.75 --out out/mixed
  edge-vision optimize train prune ssdlite_mobilenet_v2_coco --video street.mp4 --share 0.3 --out out/pruned
  edge-vision optimize train student ssdlite_mobilenet_v2_coco --classes person car --video yard.mp4 \\
      --other gate.mp4 --share 0.3 --samples 1600 --out out/yard
  edge-vision optimize train qat out/pruned/bundle/ --video street.mp4 --out out/pruned_qat

No labels are needed: the fp32 bundle is the teacher. A folder of collected pictures (`edge-vision dataset`)
is a clip, too: its labels correct the teacher (prune, student) and judge the result. Without --judge, the
first 65 % of each clip are for training, the last 30 % for the verdict. After a Ctrl-C or a failure, the
same command continues; with other options, results in DIR are kept unless you pass --restart.
exit codes: 0 done (a student also with --anyway), 1 error, 2 wrong arguments, 3 refused: no improvement,
130 stopped by Ctrl-C
"""
_SEARCH_EXAMPLES = """\
examples:
  edge-vision optimize search ssdlite_mobilenet_v2_coco --video street.mp4 --budgets 0.8 0.6 --out out/nas
  edge-vision optimize search ssdlite_mobilenet_v2_coco --video street.mp4 --runtime openvino --out out/nas
  edge-vision optimize search nanodet --video yard.mp4 --budgets 0.3 --budget-hours 8 --out out/family
  edge-vision optimize run ssdlite_mobilenet_v2_coco --frames a.mp4 --trained out/nas/budget_0.8 --out out/ssd

The teacher is the supernet: channels, blocks, input size and precision are chosen for each budget with a
model of the time on this device, then the network is tuned. After a Ctrl-C or a failure, the same command
continues; with other options, results in DIR are kept unless you pass --restart.
exit codes: 0 done, 1 error, 2 wrong arguments, 3 refused: no network is good enough, 130 stopped by Ctrl-C
"""


def add_to(commands: Any) -> None:
    """Add `train` and `search` to the subcommands of `optimize`."""
    _add_search(commands)
    parser = commands.add_parser(
        "train",
        **with_examples(
            "Trains a bundle on unlabelled clips, to lose less by compression. Needs PyTorch.", _EXAMPLES
        ),
        help="train on your own clips, to lose less by compression",
    )
    recipes = parser.add_subparsers(required=True, metavar="{qat,prune,student}")
    one = recipes.add_parser("qat", help="quantization-aware training: int8 closer to fp32")
    one.add_argument(
        "--mixed",
        type=TRAINING["mixed"].parsed,
        default=0.0,
        metavar="S",
        help="of fp32's time, up to which the most sensitive layers stay in fp32 (default: only the first, "
        "where that is faster)",
    )
    _add(one, "qat", 300)
    one = recipes.add_parser("prune", help="structured pruning: fewer channels, a faster graph")
    one.add_argument(
        "--share",
        type=SHARE_TO_PRUNE.parsed,
        default=0.3,
        metavar="S",
        help="of the time to remove (default: %(default)s)",
    )
    _add(one, "prune", 120)
    _add_student(recipes.add_parser("student", help="a small detector for some classes and your own scenes"))
    complete_help(parser, recipes)


def _add_search(commands: Any) -> None:
    parser = commands.add_parser(
        "search",
        **with_examples(
            "Searches smaller networks within a bundle, for times on this device. Needs PyTorch.",
            _SEARCH_EXAMPLES,
        ),
        help="search smaller networks within a bundle, for times on this device",
    )
    parser.add_argument(
        "--budgets",
        nargs="+",
        type=TRAINING["budgets"].parsed,
        default=[0.8, 0.65, 0.5],
        metavar="T",
        help="times as shares of that of the teacher's int8 (default: 0.8 0.65 0.5)",
    )
    parser.add_argument(
        "--budget-hours",
        dest="hours",
        type=TRAINING["hours"].parsed,
        default=0.0,
        metavar="H",
        help="train a new supernet of small blocks for so long instead; 0 = the teacher is the supernet",
    )
    _add(parser, "search", 40, 4, 320)


def _add_student(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--classes", nargs="+", required=True, metavar="LABEL", help="labels of the model to keep"
    )
    one.add_argument(
        "--other",
        action="append",
        required=True,
        metavar="VIDEO|BAG|FOLDER",
        help="another scene, for the report; may be repeated",
    )
    for name, default, text in (
        ("share", 0.0, "of the time to prune of the teacher"),
        ("width", 0.0, "of a new network instead of the teacher; 1 = 16 to 128 channels"),
    ):
        _add_number(one, name, default, "S", text)
    for name, number, text in (
        ("depth", 2, "blocks of each stage of a new network"),
        (
            "levels",
            0,
            "feature maps to keep, the finest first: large objects are no longer detected; 0 = all",
        ),
    ):
        _add_number(one, name, number, "N", text)
    one.add_argument("--anyway", action="store_true", help="write the bundles even if they are refused")
    _add(one, "student", 400)


def _add(one: argparse.ArgumentParser, recipe: str, steps: int, batch: int = 8, samples: int = 640) -> None:
    add_inputs(one)
    for name, default, text in (
        ("steps", steps, "training steps"),
        ("batch", batch, "samples per step; fewer need less memory"),
        ("samples", samples, "augmented images, each with the teacher's outputs on the disk"),
        ("frames", 480, "frames of all clips to train on"),
        ("seed", 0, "of the augmentation and the order"),
        ("threads", 0, "of PyTorch; 0 = its default"),
    ):
        _add_number(one, name, default, "N", text)
    one.add_argument(
        "--runtime",
        choices=("onnxruntime", "openvino"),
        default="onnxruntime",
        help="that int8 is made for, and whose times decide (default: %(default)s)",
    )
    add_output(one)
    one.set_defaults(run=_train, recipe=recipe)


def _add_number(one: argparse.ArgumentParser, name: str, default: float, metavar: str, text: str) -> None:
    one.add_argument(
        f"--{name}",
        type=TRAINING[name].parsed,
        default=default,
        metavar=metavar,
        help=f"{text} (default: %(default)s)",
    )


def add_inputs(one: argparse.ArgumentParser) -> None:
    """Add the model and the clips."""
    clip = "VIDEO|BAG|FOLDER"
    one.add_argument("model", metavar="MODEL_OR_BUNDLE", help="name or folder of a bundle, or a .onnx file")
    one.add_argument("--video", action="append", required=True, metavar=clip, help="may be repeated")
    one.add_argument("--judge", action="append", default=[], metavar=clip, help="clips for the verdict")


def add_output(one: argparse.ArgumentParser) -> None:
    """Add --out and --restart."""
    one.add_argument(
        "--out", dest="folder", type=Path, required=True, metavar="DIR", help="folder for all results"
    )
    one.add_argument("--restart", action="store_true", help="delete the results of an earlier run in DIR")
    one.set_defaults(stopped="stopped; the same command continues")


def _train(options: argparse.Namespace) -> int:
    line, log = progress_and_log()
    line.show("loading PyTorch")
    import torch

    from edge_vision.train.data.time_split import check_clips
    from edge_vision.train.recipes.run_folder import remove_results
    from edge_vision.train.recipes.training_request import TrainingRequest

    if options.threads > 0:
        torch.set_num_threads(options.threads)
    folder = options.folder.absolute()
    request = TrainingRequest(
        options.recipe,
        absolute(options.model),
        tuple(map(absolute, options.video)),
        tuple(map(absolute, options.judge)),
        options.steps,
        options.batch,
        options.samples,
        options.frames,
        seed=options.seed,
        share=getattr(options, "share", 0.0),
        runtime=options.runtime,
        **_further_options(options),
    )
    inputs = (request.model, *request.videos, *request.judge, *request.other)
    # Before the folder is made, or results are deleted.
    check_clips(request.videos, request.judge, request.other)
    claim_folder(folder, COMMAND, inputs=inputs)
    with locked_folder(folder, COMMAND):
        if options.restart:
            remove_results(folder)
        report = _run(folder, request, log, line.show)
    line.end()
    print(summary(report))
    if report.refused and not request.anyway:
        print(report.refused)
        return 3
    if report.refused:
        print(f"warning: written with --anyway, but it is no replacement: {report.refused}")
    elif report.best_step != 0:
        print("accepted by all bounds of its verdict")
    print(f"in {folder}: {', '.join(_bundles(folder))}, report.json")
    return 0


def _bundles(folder: Path) -> list[str]:
    """The names of the bundles that a run wrote."""
    found = [name for name in ("bundle", "int8") if (folder / name / "bundle.yaml").is_file()]
    return found + sorted(path.name for path in folder.glob("budget_*"))


def _run(folder: Path, request: Any, log: Callable[[str], None], show: Callable[[str], None]) -> Any:
    """The report. A new run that fails before it trains leaves nothing."""
    from edge_vision.train.recipes.run_folder import REQUEST, remove_failed

    is_new = not (folder / REQUEST).exists()
    try:
        return run_recipe(folder, request, log, show)
    except EdgeVisionError as error:
        if is_new:
            remove_failed(folder, error)
        raise
    finally:
        release_folder(folder, COMMAND)


def _further_options(options: argparse.Namespace) -> dict[str, Any]:
    if options.recipe == "search":
        return {
            "budgets": tuple(dict.fromkeys(float(f"{one:g}") for one in options.budgets)),
            "hours": options.hours,
        }
    if options.recipe != "student":
        return {"mixed": getattr(options, "mixed", 0.0)}
    names = ("levels", "width", "depth", "anyway")
    return {
        "classes": tuple(options.classes),
        "other": tuple(map(absolute, options.other)),
        **{name: getattr(options, name) for name in names},
    }


def progress_and_log() -> tuple[ProgressLine, Callable[[str], None]]:
    """A progress line, and a function that prints a line of its own."""
    line = ProgressLine()

    def log(text: str) -> None:
        line.end()
        print(text, flush=True)

    return line, log


def absolute(given: str) -> str:
    """An existing path as absolute path; the name of a bundle, an address or a topic is unchanged."""
    path = Path(given).expanduser()
    return str(path.absolute()) if path.exists() else given
