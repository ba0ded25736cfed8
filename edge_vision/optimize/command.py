"""The command `edge-vision optimize`."""

from __future__ import annotations

import argparse
import errno
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from edge_vision.bundles.store import cache_dir
from edge_vision.core.command_line import complete_help, run_command, with_examples
from edge_vision.core.printable import printable, printable_output
from edge_vision.errors import UsageError
from edge_vision.offline.executor_arguments import add_executor_arguments, is_local
from edge_vision.offline.output_folder import claim_folder, marker_path, remove_path, require_marker
from edge_vision.offline.progress import ProgressLine
from edge_vision.offline.ray_cluster import RayCluster
from edge_vision.optimize import settings
from edge_vision.optimize.data import dataset
from edge_vision.optimize.data.clips import split_clips
from edge_vision.optimize.device_studies import FOLDER as DEVICES
from edge_vision.optimize.device_studies import DeviceStudy, device_folders, run_studies, stored_study
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.remote.address import LOCAL
from edge_vision.optimize.report import devices, report_file, terminal
from edge_vision.optimize.report.report_file import StudyReport, read_report
from edge_vision.optimize.runtimes import build_only_backends, measurable_backends
from edge_vision.optimize.settings import PRECISIONS, Settings
from edge_vision.optimize.source import SHIPPED, TFLITE
from edge_vision.optimize.study import check_machine, run_study, write_results
from edge_vision.optimize.trained import COPY, TRAINING_COMMAND, trained_bundle
from edge_vision.optimize.trials.cluster import ClusterTrials
from edge_vision.optimize.trials.executor import FOLDER, LocalExecutor, TrialExecutor

_EXAMPLES = """\
examples:
  edge-vision optimize run ssdlite_mobilenet_v2_coco --frames street.mp4 --calibration yard.mp4 --out out/ssd
  edge-vision optimize run ./my_bundle --frames clips/ --budget-ms 50 --max-rss-mb 300 --out out/mine
  edge-vision optimize run mine --frames clips/ --device ssh://robot/home/pi/venv/bin/python --out out/pi
  edge-vision optimize run mine --frames clips/ --device local --device ssh://robot --out out/both
  edge-vision optimize resume out/both --device ssh://other                        on a further device
  edge-vision optimize run yolo.onnx --frames a.mp4 --frames b.mp4 --backends openvino --out out/yolo
  edge-vision optimize demo                                    the SSD on public clips, in out/optimize
  edge-vision optimize demo --out out/first
  edge-vision optimize resume out/ssd                          after a Ctrl-C or a failure
  edge-vision optimize resume out/optimize && edge-vision optimize report out/optimize
  edge-vision optimize report out/ssd                          the table, and report.html again
  edge-vision optimize explain out/ssd onnxruntime-int8-300x300-t1
  edge-vision optimize explain out/ssd openvino-mixed-300x300-t2
  ros2 launch edge_vision pipeline.launch.py params_file:=out/ssd/params.yaml

Without --calibration, the first of several clips is used for calibration, the others for evaluation. Finished
measurements are kept: after a Ctrl-C, `edge-vision optimize resume DIR` continues.
exit codes: 0 done, 1 error, 2 wrong arguments, 3 no candidate satisfies the bounds (the nearest is shown),
130 stopped by Ctrl-C
"""
_NEW_STUDY = {
    settings.FILE,
    dataset.FILE,
    dataset.LABELS,
    "source",
    TFLITE,
    SHIPPED,
    "images",
    FOLDER,
    "predictions",
    "variants",
    "ranges",
}
"""Entries of a folder before the first candidate is measured."""
COMMAND = "optimize"
STUDY = "study"
"""Folder of the study within that of `optimize auto`."""
DEMO_MODEL = "ssdlite_mobilenet_v2_coco"


@printable_output()
def main(argv: Sequence[str] | None = None, extend: Callable[[Any], None] | None = None) -> int:
    """Run the command. Returns the exit status. extend: adds subcommands of rooms above."""
    arguments = sys.argv[1:] if argv is None else argv
    parser = _parser(extend)
    # As of an unset variable of a shell; as a path it would be the current folder.
    for before, one in pairwise(("optimize", *arguments)):
        if not one or (one.startswith("--") and one.endswith("=")):
            parser.error(f"expected arguments with text, got an empty one after {one or before}")
    options = parser.parse_args(arguments)
    kept = f"finished measurements are kept, continue with: optimize resume {options.folder}"
    stopped = getattr(options, "stopped", f"stopped; {kept}")
    try:
        return run_command(options, "optimize", f"optimize: {stopped}")
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        print(f"optimize: {str(error.filename)[:60]}...: expected a shorter path", file=sys.stderr)
        return 2


def _parser(extend: Callable[[Any], None] | None = None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-vision optimize",
        **with_examples(
            "Finds the best bundle of a model for this device, and reports all measurements.", _EXAMPLES
        ),
    )
    names = f"run,demo,resume,report,explain{',train,search,auto' * (extend is not None)}"
    commands = parser.add_subparsers(required=True, metavar=f"{{{names}}}")
    _add_run(commands.add_parser("run", help="measure candidates and choose one"))
    one = commands.add_parser("demo", help="optimize the SSD on the public clips that `make setup` fetches")
    one.add_argument(
        "--out",
        dest="folder",
        type=Path,
        default=Path("out/optimize"),
        metavar="DIR",
        help="default: %(default)s",
    )
    add_executor_arguments(one)
    one.set_defaults(run=_demo)
    for name, run, text in (
        ("resume", _resume, "continue a stopped run"),
        ("report", _report, "rewrite the report of a folder and print the table"),
    ):
        one = commands.add_parser(name, help=text)
        one.add_argument("folder", type=Path, metavar="DIR")
        if run is _resume:
            add_executor_arguments(one)
        one.set_defaults(run=run)
    _add_device(commands.choices["resume"])
    one = commands.add_parser("explain", help="why a candidate was chosen or rejected")
    one.add_argument("folder", type=Path, metavar="DIR")
    one.add_argument("candidate", metavar="CANDIDATE", help="its id, as in the table")
    one.set_defaults(run=_explain)
    complete_help(parser, commands)
    if extend is not None:
        extend(commands)
    return parser


def _add_run(one: argparse.ArgumentParser) -> None:
    defaults = Settings("", ())
    backends = ", ".join((*measurable_backends(), *build_only_backends()))
    one.add_argument("model", metavar="MODEL_OR_BUNDLE", help="name or folder of a bundle, or a .onnx file")
    one.add_argument(
        "--frames",
        action="append",
        required=True,
        metavar="VIDEO|FOLDER",
        help="evaluation clip, a folder of images or of clips; may be repeated",
    )
    for name, kind, metavar, text in (
        ("calibration", str, "VIDEO|FOLDER", "clip for calibration and the layer search"),
        ("labels", str, "COCO.json", "labels of the evaluation folder, for mAP"),
        ("budget-ms", float, "MS", "latency bound, 95th percentile"),
        ("max-rss-mb", float, "MB", "peak memory bound of the process"),
        ("max-accuracy-loss", float, "SHARE", "bound of the loss of agreement with fp32"),
        ("images", int, "N", "images for evaluation and for calibration, each"),
        ("timeout-s", float, "S", "time limit of a trial"),
        ("measure-s", float, "S", "time to measure each candidate"),
    ):
        default = getattr(defaults, name.replace("-", "_"))
        shown = "" if default in ("", None) else f" (default: {default})"
        one.add_argument(f"--{name}", type=kind, default=default, metavar=metavar, help=f"{text}{shown}")
    one.add_argument("--backends", nargs="+", default=[], metavar="B", help=f"of {backends}")
    one.add_argument(
        "--precisions",
        nargs="+",
        default=[],
        metavar="P",
        help=f"of {', '.join(PRECISIONS)}; int8 also measures shipped, the bundle's own, and "
        f"int8_default, ONNX Runtime's own, for comparison",
    )
    one.add_argument("--sizes", nargs="+", default=[], metavar="S", help="native, 256, 320x240, ...")
    one.add_argument(
        "--trained",
        action="append",
        default=[],
        metavar="DIR",
        help="a result of `optimize train` from this model, as further rows; may be repeated",
    )
    _add_device(one)
    one.add_argument("--threads", nargs="+", type=int, default=[], metavar="N")
    one.add_argument("--exhaustive", action="store_true", help="measure every combination, no search")
    one.add_argument(
        "--out", dest="folder", type=Path, required=True, metavar="DIR", help="folder for all results"
    )
    add_executor_arguments(one)
    one.set_defaults(run=_run)


def _add_device(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--device",
        action="append",
        default=[],
        metavar="DEVICE",
        help="measure on local, or over SSH on ssh://HOST or ssh://HOST/PATH/TO/PYTHON, with a user before "
        "and a port behind HOST if needed; may be repeated",
    )


def _run(options: argparse.Namespace) -> int:
    calibration, frames = split_clips(options.calibration, options.frames)
    requested = _checked(
        Settings,
        model=_absolute(options.model),
        frames=frames,
        calibration=calibration,
        labels=str(Path(options.labels).expanduser().absolute()) if options.labels else "",
        budget_ms=options.budget_ms,
        max_rss_mb=options.max_rss_mb,
        max_accuracy_loss=options.max_accuracy_loss,
        backends=tuple(options.backends),
        precisions=tuple(options.precisions),
        sizes=tuple(options.sizes),
        threads=tuple(options.threads),
        images=options.images,
        measure_s=options.measure_s,
        timeout_s=options.timeout_s,
        exhaustive=options.exhaustive,
        trained=tuple(str(Path(one).expanduser().absolute()) for one in options.trained),
        devices=tuple(dict.fromkeys(options.device)),
    )
    for path in requested.trained:
        if not Path(path).is_dir():
            raise UsageError(f"--trained: expected a folder that `optimize train` wrote, got {path}")
        trained_bundle(Path(path))
    cluster = _cluster(options, requested)  # Before the folder is made: it may be impossible.
    folder = options.folder.absolute()
    _prepare_folder(folder, requested)
    requested.write(folder)
    return _study(folder, requested, cluster)


def _checked(make: Callable[..., Settings], *values: Any, **arguments: Any) -> Settings:
    """Settings of the command line. Raises UsageError if they are invalid."""
    try:
        return make(*values, **arguments)
    except OptimizeError as error:
        raise UsageError(str(error)) from None


def _cluster(options: argparse.Namespace, requested: Settings) -> RayCluster | None:
    """The cluster that runs the trials, None for this machine or devices. Raises EdgeVisionError."""
    if is_local(options.executor, options.address):
        return None
    if requested.devices:
        raise UsageError(f"--device: expected --executor local with it, got --executor {options.executor}")
    return RayCluster(options.address, same_cpu=True)


def _prepare_folder(folder: Path, requested: Settings) -> None:
    """Claim the folder, and empty it if a run left no measurement. Raises OptimizeError, OutputError."""
    given = (requested.model, *requested.frames, requested.calibration, requested.labels, *requested.trained)
    # A model without a folder in its name is in the store.
    claim_folder(folder, COMMAND, inputs=[path for path in given if Path(path).is_absolute()])
    entries = {file.name for file in folder.iterdir()} - {marker_path(folder, COMMAND).name}
    measured = report_file.FILE in entries or any((folder / DEVICES).glob(f"*/{report_file.FILE}"))
    if settings.FILE in entries and measured:
        raise OptimizeError(
            f"{folder}: expected a new folder, got one with results; `optimize resume {folder}` continues it"
        )
    if settings.FILE in entries:
        for name in (DEVICES, devices.FILE):  # No device has a measurement.
            entries.discard(name)
            remove_path(folder / name)
    others = {name for name in entries - _NEW_STUDY if not COPY.fullmatch(name)}
    if others:
        raise OptimizeError(
            f"{folder}: expected a new or empty folder, got one with {min(others)}; choose another"
        )
    for name in entries:
        remove_path(folder / name)


def _demo(options: argparse.Namespace) -> int:
    """Start the demo, or resume it."""
    folder = options.folder.absolute()
    if (folder / settings.FILE).is_file():
        return _resume(options)
    calibration, evaluation = (cache_dir() / "video" / name for name in ("bikes.mp4", "vtest.avi"))
    if not evaluation.is_file():
        raise OptimizeError(f"{evaluation}: expected the clip, got no file: python scripts/fetch_data.py")
    arguments = ["run", DEMO_MODEL, "--frames", str(evaluation), "--calibration", str(calibration)]
    parsed = _parser().parse_args([*arguments, "--out", str(folder)])
    parsed.executor, parsed.address = options.executor, options.address
    return _run(parsed)


def _absolute(model: str) -> str:
    """A path as absolute path; the name of a bundle is unchanged."""
    path = Path(model).expanduser()
    return str(path.absolute()) if "/" in model or path.suffix else model


def _study_folder(folder: Path) -> Path:
    """The folder itself; of `optimize auto`, the one with its study. Raises OptimizeError for a training."""
    study = folder / STUDY
    if marker_path(folder, TRAINING_COMMAND).is_file() and not marker_path(folder, COMMAND).is_file():
        raise OptimizeError(
            f"{folder}: expected a folder of `optimize run`, got one of a training: its figures are in "
            f"{report_file.FILE}, and `optimize run ... --trained {folder}` has them in its table"
        )
    is_auto = marker_path(study, COMMAND).is_file() and not marker_path(folder, COMMAND).is_file()
    return study if is_auto else folder


def _resume(options: argparse.Namespace) -> int:
    folder = options.folder.absolute()
    if _study_folder(folder) != folder:
        raise OptimizeError(
            f"{folder}: expected a folder of `optimize run`, got one of `optimize auto`: the command that "
            f"made it continues it"
        )
    require_marker(folder, COMMAND)
    requested = Settings.read(folder)
    more = getattr(options, "device", [])  # `demo` continues without the option.
    if more:
        known = requested.devices or ((LOCAL,) if (folder / report_file.FILE).is_file() else ())
        requested = _checked(replace, requested, devices=tuple(dict.fromkeys((*known, *more))))
    cluster = _cluster(options, requested)
    if not cluster:
        check_machine(folder)
    requested.write(folder)
    return _study(folder, requested, cluster)


def _study(folder: Path, requested: Settings, cluster: RayCluster | None) -> int:
    line = ProgressLine()

    def log(text: str) -> None:
        line.end()
        print(text, flush=True)

    print(f"calibration clip: {requested.calibration or 'none'}")
    print(f"evaluation clips: {', '.join(requested.frames)}")
    if requested.devices:
        return _device_studies(folder, requested, log, line.show)
    executor: TrialExecutor = ClusterTrials(cluster, line.show) if cluster else LocalExecutor(line.show)
    report = run_study(folder, requested, executor, log)
    line.end()
    return _finish(folder, report)


def _device_studies(
    folder: Path, requested: Settings, log: Callable[[str], None], show: Callable[[str], None]
) -> int:
    """Run the study on its devices. Lines begin with the device's name."""
    one_at_a_time = threading.Lock()

    def named(write: Callable[[str], None]) -> Callable[[str, str], None]:
        def say(name: str, text: str) -> None:
            with one_at_a_time:
                write(printable(f"{name}: {text}" if name else text))

        return say

    studies = run_studies(folder, requested, COMMAND, named(log), named(show))
    return _finish_devices(folder, studies)


def _finish_devices(folder: Path, studies: Sequence[DeviceStudy]) -> int:
    """Write the results of each device and print their table. Returns the exit status."""
    statuses = []
    for one in studies:
        if one.report is None or one.error:
            statuses.append(1)
            continue
        write_results(one.folder, one.report)
        statuses.append(0 if one.report.decision.chosen else 3)
    file = devices.write(folder, studies)
    print(devices.table(studies))
    for one in studies:
        if one.report and not one.error:
            print(f"{one.name}: bundle and report in {one.folder}")
    print(f"all devices in {file}")
    if 1 in statuses:
        print(f"finished measurements are kept, continue with: optimize resume {folder}")
        return 1
    return max(statuses)


def _finish(folder: Path, report: StudyReport) -> int:
    """Write the results and print the table. Returns the exit status."""
    files = [folder / report_file.FILE, *write_results(folder, report)]
    print(terminal.table(report.results))
    print(terminal.verdict(report))
    names = ", ".join(str(file.relative_to(folder)) for file in files)
    print(f"in {folder}: {names}; {report.wall_s:.0f} s")
    return 0 if report.decision.chosen else 3


def _report(options: argparse.Namespace) -> int:
    folder = _study_folder(options.folder)
    require_marker(folder, COMMAND)
    chosen = Settings.read(folder).devices if (folder / settings.FILE).is_file() else ()
    if chosen:
        paths = device_folders(folder, chosen)
        return _finish_devices(folder, [stored_study(one, path) for one, path in paths.items()])
    return _finish(folder, read_report(folder))


def _explain(options: argparse.Namespace) -> int:
    report = read_report(_study_folder(options.folder))
    print(terminal.explanation(report.result(options.candidate)))
    return 0
