"""The command: `optimize`, which is `python -m edge_vision optimize`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_vision.bundles.store import cache_dir
from edge_vision.core.output_folder import claim_folder, marker_path, remove_path, require_marker
from edge_vision.core.printable import printable_error, printable_output
from edge_vision.core.progress import ProgressLine
from edge_vision.errors import EdgeVisionError
from edge_vision.optimize.clips import clips_of
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.report import explain
from edge_vision.optimize.report.output import write_output
from edge_vision.optimize.report.page import write_page
from edge_vision.optimize.report.report_file import read_report
from edge_vision.optimize.settings import FILE, PRECISIONS, Settings, build_only_backends, measurable_backends
from edge_vision.optimize.study import Study
from edge_vision.optimize.trial import LocalExecutor

_EXAMPLES = """\
examples:
  optimize run ssdlite_mobilenet_v2_coco --frames street.mp4 --calibration yard.mp4 --out out/ssd
  optimize run ./my_bundle --frames clips/ --budget-ms 50 --max-rss-mb 300 --out out/mine
  optimize run yolo11n.onnx --frames a.mp4 --frames b.mp4 --backends openvino --threads 1 2 --out out/yolo
  optimize explain out/ssd onnxruntime-int8-300x300-t1
  ros2 launch edge_vision pipeline.launch.py params_file:=out/ssd/params.yaml

Of several clips the first calibrates, unless --calibration names another; the others judge. What was
measured is kept: after a Ctrl-C, `optimize resume DIR` goes on.
exit codes: 0 done, 1 cannot go on, 2 wrong arguments, 3 nothing holds the budgets (the nearest is told),
130 stopped by Ctrl-C
"""


MADE_FIRST = {FILE, "prepared.json", "source", "tflite", "pictures", "jobs", "found", "graphs", "ranges"}
MADE_FIRST |= {"truth.json"}
"""What is in a folder before the first row is measured."""
COMMAND = "optimize"
DEMO_MODEL = "ssdlite_mobilenet_v2_coco"


@printable_output()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status."""
    options = _parser().parse_args(argv)
    # The executables' start ends the process at once on a Ctrl-C; from here on jobs are to be ended.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return int(options.run(options))
    except EdgeVisionError as error:
        print(f"optimize: {printable_error(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        place = getattr(options, "out", None) or getattr(options, "folder", None)
        print(
            f"\noptimize: stopped; what was measured is kept, go on with: optimize resume {place}",
            file=sys.stderr,
        )
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="optimize",
        description="Finds the best bundle of a model for this device, and shows all that was measured.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="{run,demo,resume,report,explain}")
    _add_run(commands.add_parser("run", help="measure candidates and choose one"))
    one = commands.add_parser("demo", help="the SSD on the public clips that `make setup` fetches")
    one.add_argument(
        "--out", type=Path, default=Path("out/optimize"), metavar="DIR", help="default: %(default)s"
    )
    one.set_defaults(run=_demo)
    for name, run, text in (
        ("resume", _resume, "go on where a run was stopped"),
        ("report", _report, "write the reports of a folder anew and print the table"),
    ):
        one = commands.add_parser(name, help=text)
        one.add_argument("folder", type=Path, metavar="DIR")
        one.set_defaults(run=run)
    one = commands.add_parser("explain", help="why a candidate was chosen or not")
    one.add_argument("folder", type=Path, metavar="DIR")
    one.add_argument("candidate", metavar="CANDIDATE", help="its id, as in the table")
    one.set_defaults(run=_explain)
    return parser


def _add_run(one: argparse.ArgumentParser) -> None:
    one.add_argument("model", metavar="MODEL_OR_BUNDLE", help="name or folder of a bundle, or a .onnx file")
    one.add_argument(
        "--frames",
        action="append",
        required=True,
        metavar="VIDEO|FOLDER",
        help="clip to judge on, or a folder of pictures or of clips; may be repeated",
    )
    one.add_argument("--calibration", metavar="VIDEO|FOLDER", help="clip for int8's ranges and the search")
    one.add_argument(
        "--labels", type=Path, metavar="COCO.json", help="labels of the folder to judge on, for mAP"
    )
    one.add_argument("--budget-ms", type=float, metavar="MS", help="a frame's time, 95th percentile")
    one.add_argument("--max-rss-mb", type=float, metavar="MB", help="peak memory of the process that runs it")
    one.add_argument(
        "--max-accuracy-loss", type=float, default=0.01, metavar="SHARE", help="default: %(default)s"
    )
    one.add_argument(
        "--backends",
        nargs="+",
        default=[],
        metavar="B",
        help=f"of {', '.join((*measurable_backends(), *build_only_backends()))}",
    )
    one.add_argument("--precisions", nargs="+", default=[], metavar="P", help=f"of {', '.join(PRECISIONS)}")
    one.add_argument("--sizes", nargs="+", default=[], metavar="S", help="native, 256, 320x240, ...")
    one.add_argument("--threads", nargs="+", type=int, default=[], metavar="N")
    one.add_argument(
        "--pictures", type=int, default=32, metavar="N", help="of each side (default: %(default)s)"
    )
    one.add_argument(
        "--timeout-s", type=float, default=900.0, metavar="S", help="of one step (default: %(default)s)"
    )
    one.add_argument(
        "--measure-s", type=float, default=3.0, metavar="S", help="timing of each row (default: %(default)s)"
    )
    one.add_argument("--exhaustive", action="store_true", help="measure every cell instead of searching")
    one.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for all results")
    one.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    calibration, frames = clips_of(options.calibration, options.frames)
    settings = Settings(
        model=_absolute(options.model),
        frames=frames,
        calibration=calibration,
        labels=str(options.labels.expanduser().absolute()) if options.labels else "",
        budget_ms=options.budget_ms,
        max_rss_mb=options.max_rss_mb,
        max_accuracy_loss=options.max_accuracy_loss,
        backends=tuple(options.backends),
        precisions=tuple(options.precisions),
        sizes=tuple(options.sizes),
        threads=tuple(options.threads),
        pictures=options.pictures,
        measure_s=options.measure_s,
        timeout_s=options.timeout_s,
        exhaustive=options.exhaustive,
    )
    out = options.out.absolute()
    _make_room(out, settings)
    settings.write(out)
    return _study(out, settings)


def _make_room(out: Path, settings: Settings) -> None:
    """A folder of ours, without what a run left that measured nothing. Raises OptimizeError, OutputError."""
    given = (settings.model, *settings.frames, settings.calibration, settings.labels)
    # A model without a folder in its name is in the store.
    claim_folder(out, COMMAND, inputs=[path for path in given if Path(path).is_absolute()])
    left = {file.name for file in out.iterdir()} - {marker_path(out, COMMAND).name}
    if (out / FILE).is_file() and (out / "report.json").is_file():
        raise OptimizeError(
            f"{out}: expected a new folder, got one with results; `optimize resume {out}` goes on"
        )
    if left - MADE_FIRST:
        raise OptimizeError(
            f"{out}: expected a new or empty folder, got one with {min(left - MADE_FIRST)}; choose another"
        )
    for name in left:
        remove_path(out / name)


def _demo(options: argparse.Namespace) -> int:
    """Goes on where it was stopped."""
    out = options.out.absolute()
    if (out / FILE).is_file():
        return _resumed(out)
    calibration, judged = (cache_dir() / "video" / name for name in ("bikes.mp4", "vtest.avi"))
    if not judged.is_file():
        raise OptimizeError(f"{judged}: expected the clip there, got nothing: python scripts/fetch_data.py")
    arguments = ["run", DEMO_MODEL, "--frames", str(judged), "--calibration", str(calibration)]
    return _run(_parser().parse_args([*arguments, "--out", str(out)]))


def _absolute(model: str) -> str:
    """A path that holds from any folder; a bundle's name stays a name."""
    path = Path(model).expanduser()
    return str(path.absolute()) if "/" in model or path.suffix else model


def _resume(options: argparse.Namespace) -> int:
    return _resumed(options.folder.absolute())


def _resumed(folder: Path) -> int:
    require_marker(folder, COMMAND)
    return _study(folder, Settings.read(folder))


def _study(folder: Path, settings: Settings) -> int:
    line = ProgressLine()

    def say(text: str) -> None:
        line.end()
        print(text, flush=True)

    print(f"calibrates on {settings.calibration or 'nothing'}, judges on {', '.join(settings.frames)}")
    # Where nobody watches, a line without news is none.
    show = (
        line.show if sys.stdout.isatty() else lambda text: None if text.endswith("...") else line.show(text)
    )
    report = Study(folder, settings, LocalExecutor(show), say).run()
    line.end()
    return _leave(folder, report)


def _leave(folder: Path, report: dict[str, Any]) -> int:
    """Write the page and what is to be used, and print what was found."""
    files = [folder / "report.json", write_page(folder, report), *write_output(folder, report)]
    print(explain.table(report))
    print(explain.verdict(report))
    print(
        f"in {folder}: {', '.join(str(file.relative_to(folder)) for file in files)}; {report['wall_s']:.0f} s"
    )
    return 0 if report["chosen"] else 3


def _report(options: argparse.Namespace) -> int:
    require_marker(options.folder, COMMAND)
    return _leave(options.folder, read_report(options.folder))


def _explain(options: argparse.Namespace) -> int:
    print(explain.candidate(read_report(options.folder), options.candidate))
    return 0
