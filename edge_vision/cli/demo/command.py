"""`edge-vision demo`: command line, the two runs, results."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from edge_vision.backends import known_backends
from edge_vision.backends.registry import check_known
from edge_vision.bundles.store import cache_dir, load_bundle
from edge_vision.cli.demo import comparison
from edge_vision.cli.demo.live import status_line
from edge_vision.cli.demo.recording import record
from edge_vision.cli.demo.video import annotate
from edge_vision.core.command_line import duration_s, with_examples
from edge_vision.core.printable import printable, printable_error, printable_output
from edge_vision.core.redaction import redact_url
from edge_vision.errors import EdgeVisionError, OutputError
from edge_vision.evaluate.live.live_record import LiveRecord
from edge_vision.evaluate.live.pipeline_process import PipelineProcess, isolate_domain
from edge_vision.evaluate.schedule.live import EVERY_FRAME
from edge_vision.gate.frame_gate import DEFAULT_PRESET, PRESETS
from edge_vision.nodes.interface.specs import NODES
from edge_vision.offline.config_files import config_file
from edge_vision.offline.media_files import frame_times_s, source_sha256
from edge_vision.offline.output_folder import claim_folder
from edge_vision.offline.progress import ProgressLine
from edge_vision.offline.provenance import machine, versions, write_json
from edge_vision.source.opening import open_source
from edge_vision.source.uri import SourceError, source_kind

RESULTS = ("*.log", "recording.avi", "detections.jsonl", "report.json", "summary.json", "annotated.*")
VIDEOS = ("bikes.mp4", "vtest.avi")
LIVE_SECONDS = 15.0
MIN_FREE_BYTES = 100_000_000
MAX_START_S = 60.0
MAX_ERROR_S = 8.0  # Nodes retry every 5 s: the demo gives up after one retry.
SETTLE_S = 0.5
_EXAMPLES = """examples:
  edge-vision demo                                   a street with people and bicycles, 10 s
  edge-vision demo --preset economy --backend openvino
  edge-vision demo --source clip.mp4 --params gate:max_delay_ms:=200 detector:score_threshold:=0.4
  edge-vision demo --source drive.mcap#/cam/image_raw --params mine.yaml
  edge-vision demo --source /dev/video0              a camera, recorded first

exit codes: 0 both runs were compared, 1 not or the source cannot be read, 2 wrong arguments, 130 stopped"""


class DemoError(EdgeVisionError):
    """A run without detections, or the demo was stopped."""


@printable_output()
def main(argv: list[str] | None = None) -> int:
    """Run the demo. Returns the exit code: 0 if both runs were compared."""
    options = _parser().parse_args(argv)
    stop = StopRequest()
    try:
        return run(options, stop)
    except EdgeVisionError as error:
        print(f"\ndemo: {printable_error(error)}", file=sys.stderr)
        return 130 if stop.requested else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-vision demo",
        **with_examples(
            "Play a clip twice, with the detector on every frame and as the gate schedules it, and compare.",
            _EXAMPLES,
        ),
    )
    add = parser.add_argument
    add("--source", help=f"video, bag, device or URL (default: {' or '.join(VIDEOS)} in the cache)")
    add("--backend", help=f"auto (default), {', '.join(known_backends())}")
    add("--model", help="detector bundle, a name or a folder")
    add("--preset", choices=tuple(PRESETS), default=DEFAULT_PRESET, help="default: %(default)s")
    add(
        "--params",
        nargs="+",
        action="extend",
        type=parameter,
        default=[],
        metavar="P",
        help="parameters of both runs, NODE:NAME:=VALUE or a parameter file; they win over the preset",
    )
    add("--out", type=Path, default=Path("out/demo"), help="folder for the results (default: %(default)s)")
    add(
        "--seconds",
        type=duration_s,
        help=f"only the first seconds (default: the whole file, {LIVE_SECONDS:.0f} of a camera)",
    )
    add("--no-video", action="store_true", help="write no annotated video and picture")
    return parser


_ASSIGNMENT = re.compile(r"(\w+):(\w+):=.+", re.DOTALL)
_PARAMS = {spec.name: {param.name for param in spec.params} for spec in NODES}


def parameter(text: str) -> list[str]:
    """The ROS arguments of NODE:NAME:=VALUE or a parameter file, as an argparse type."""
    if text.endswith((".yaml", ".yml")):
        if not Path(text).is_file():
            raise argparse.ArgumentTypeError(f"expected a parameter file, got none at {text}")
        return ["--params-file", text]
    found = _ASSIGNMENT.fullmatch(text)
    if not found or found[1] not in _PARAMS:
        raise argparse.ArgumentTypeError(
            f"expected a .yaml file or NODE:NAME:=VALUE with a node out of {', '.join(_PARAMS)}, got '{text}'"
        )
    if found[2] not in _PARAMS[found[1]]:
        raise argparse.ArgumentTypeError(
            f"{found[1]} has no parameter '{found[2]}'; docs/parameters.md lists them"
        )
    return ["-p", text]


class StopRequest:
    """Counts Ctrl-C and SIGTERM; each step stops at its next check. The third one exits at once."""

    def __init__(self) -> None:
        self.count = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._record)

    @property
    def requested(self) -> bool:
        return self.count > 0

    def _record(self, number: int, frame: Any) -> None:
        self.count += 1
        if self.count > 2:  # The pipeline ends with this process.
            os._exit(128 + number)


class DemoRun(NamedTuple):
    """What was received in a run, and its process."""

    record: LiveRecord
    process: PipelineProcess


def run(options: argparse.Namespace, stop: StopRequest) -> int:
    """The whole demo. Raises EdgeVisionError with the remedy if the runs cannot be compared."""
    check_detector(options.backend, options.model)
    source = options.source or _default_source()
    is_file = check_source(source)
    claim_folder(options.out, "demo", RESULTS, (str(source_kind(source).target),) if is_file else ())
    check_space(options.out)
    isolate_domain()
    print(f"source {redact_url(source)}; results in {options.out}; Ctrl-C stops the demo", flush=True)
    played = source if is_file else _recorded(source, options, stop)
    all_times_s = frame_times_s(played)
    times_s = [time_s for time_s in all_times_s if time_s < (options.seconds or float("inf"))]
    limit = len(times_s) if len(times_s) < len(all_times_s) else None
    runs = {
        name: _play(name, options, played, limit, stop)
        for name in (comparison.EVERY_FRAME, comparison.SCHEDULED)
    }
    log = (options.out / f"{comparison.SCHEDULED}.log").read_text("utf-8", "replace")
    promise = {**PRESETS[options.preset], **{name: value for name, value, _ in _promise(log)}}
    report = _report(options, source, played, runs, times_s, promise)
    scheduled = runs[comparison.SCHEDULED].record
    files = write_results(options.out, scheduled, report)
    print(f"\n{comparison.table(report)}\n", flush=True)
    print("\n".join(map(printable, report["notes"])), flush=True)
    if not options.no_video:
        files += _draw(options, played, scheduled, times_s, stop)
    print("\n".join(["\nResults:", *(f"  {file}" for file in files), "", _NEXT]), flush=True)
    return 0


_NEXT = """Next:
  make demo SOURCE=clip.mp4 PRESET=economy     your own video, bag or camera, and another preset
  make demo BACKEND=openvino                   another runtime
  make top                                     the running pipeline, in another terminal
  .venv/bin/python -m edge_vision run --help   the pipeline without the demo; see README.md"""


def check_detector(backend: str | None, model: str | None) -> None:
    """Raises BackendError or BundleError for what the pipeline could not load."""
    check_known([backend or "auto"])
    if model:
        load_bundle(model)


def check_space(folder: Path) -> None:
    """Raises OutputError if the folder's file system is nearly full."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < MIN_FREE_BYTES:
        raise OutputError(
            f"{folder}: expected {MIN_FREE_BYTES / 1e6:.0f} MB of free space for the results, got "
            f"{free_bytes / 1e6:.0f} MB; free space there, or choose another folder with --out"
        )


def write_results(folder: Path, record: LiveRecord, report: dict[str, Any]) -> list[Path]:
    """Write detections and report. Returns their paths. Raises OutputError."""
    results = [folder / "report.json", folder / "detections.jsonl"]
    try:
        comparison.write_detections(record, results[1])
        write_json(results[0], report)
    except OSError as error:
        raise OutputError(
            f"{folder}: expected a folder to write the results to, got: {error.strerror}; free space there, "
            "or choose another with --out"
        ) from None
    return results


def _default_source() -> str:
    folder = cache_dir() / "video"
    for name in VIDEOS:
        if (folder / name).is_file():
            return str(folder / name)
    raise DemoError(f"no video in {folder}: run `make demo`, which fetches one, or pass --source FILE")


def check_source(source: str) -> bool:
    """Whether the source can be played twice. Raises SourceError for a file without images."""
    kind = source_kind(source)
    if not kind.is_file or Path(str(kind.target)).is_fifo():
        return False
    with contextlib.closing(open_source(source)) as capture:
        if capture.read() is None:
            raise SourceError(f"source '{redact_url(source)}' contains no image that can be read")
    return True


def _recorded(source: str, options: argparse.Namespace, stop: StopRequest) -> str:
    """The path of a recording of a camera or stream."""
    line, seconds = ProgressLine(), options.seconds or LIVE_SECONDS

    def show(elapsed_s: float) -> bool:
        line.progress("recording", round(elapsed_s), round(seconds))
        return not stop.requested

    path = record(source, seconds, options.out / "recording.avi", show)
    line.end()
    return str(path)


def _play(
    name: str, options: argparse.Namespace, source: str, limit: int | None, stop: StopRequest
) -> DemoRun:
    """Play the first frames, all if limit is None. Raises DemoError without detections or if stopped."""
    title = "every frame" if name == comparison.EVERY_FRAME else options.preset
    log = options.out / f"{name}.log"
    done = _observe(_arguments(name, options, source), log, title, limit, stop)
    if stop.requested:
        raise DemoError("stopped before both runs were compared")
    if not done.record.detections:
        raise DemoError(_failure(done.record, done.process))
    for text in parameter_notes(log) if name == comparison.SCHEDULED else ():
        print(printable(text), flush=True)
    return done


def parameter_notes(log: Path) -> list[str]:
    """The values given in place of those of the preset, and what was wrong with parameters, as
    the nodes log it before the first one is configured."""
    text = log.read_text("utf-8", "replace")
    given = [
        f"given: {name} {value:g} instead of the preset's {default}{' ms' if name.endswith('_ms') else ''}"
        for name, value, default in _promise(text)
        if default
    ]
    start = text.partition("inactive, was unconfigured")[0]
    wrong = re.findall(r"^\[(WARN|ERROR)\] \[[\d.]+\] \[(\S+)\]: (.*)", start, re.MULTILINE)
    return [*given, *(f"{level} {node}: {message}" for level, node, message in wrong)]


def _promise(log: str) -> list[tuple[str, float, str]]:
    """(name, value, value of the preset if another was given, otherwise "") as the gate logs them."""
    line = re.search(r"preset \w+ \((?:given|the default)\): (.*)", log)
    found = re.findall(r"(\w+) ([\d.e+-]+)(?: \(given, preset ([\d.e+-]+)\))?", line[1] if line else "")
    return [(name, float(value), default) for name, value, default in found]


def _arguments(name: str, options: argparse.Namespace, source: str) -> list[str]:
    """The pipeline's command line. Ages are measured by the clock, also of a bag."""
    given = [("--source", source), ("--model", options.model), ("--backend", options.backend)]
    if name == comparison.SCHEDULED:
        given.append(("--preset", options.preset))
    arguments = [text for option, value in given if value for text in (option, str(value))]
    defaults = config_file("pipeline.yaml")
    ros = [*(["--params-file", str(defaults)] if defaults else []), "-p", "source:stamps:=clock"]
    ros += [text for one in options.params for text in one]
    if name == comparison.EVERY_FRAME:
        ros += [text for one in EVERY_FRAME for text in ("-p", one)]
    return [*arguments, "--ros-args", *ros]


def _observe(arguments: list[str], log: Path, title: str, limit: int | None, stop: StopRequest) -> DemoRun:
    """Run the pipeline until limit or all frames are through, it fails, or the demo is stopped."""
    from edge_vision.nodes.observers.pipeline_monitor import PipelineMonitor

    line, seen = ProgressLine(), LiveRecord(limit=limit)
    with PipelineMonitor({"": seen}, tracked=True, gate_events=True) as monitor:
        monitor.spin(SETTLE_S)
        process = seen.process = PipelineProcess(arguments, log)
        try:
            while not (stop.requested or _is_over(seen, process, limit)):
                monitor.spin(0.25)
                line.show(f"{title}: {status_line(seen, process.measure())}")
            process.measure()
        finally:
            # The last status, with the final frame accounting, arrives while the pipeline shuts down.
            process.stop(meanwhile=monitor.spin)
            monitor.spin(SETTLE_S)
            line.end(f"{title}: {status_line(seen, process.usage, ended=True)}")
    return DemoRun(seen, process)


def _is_over(seen: LiveRecord, process: PipelineProcess, limit: int | None) -> bool:
    if process.returncode is not None or seen.finished or (limit and seen.is_over(limit)):
        return True
    if not seen.detections and seen.error_duration_s() > MAX_ERROR_S:
        return True
    return seen.first_frame_s is None and time.monotonic() - process.started_s > MAX_START_S


def _report(
    options: argparse.Namespace,
    source: str,
    played: str,
    runs: dict[str, DemoRun],
    times_s: Sequence[float],
    promise: dict[str, float],
) -> dict[str, Any]:
    """report.json: the request, the figures of both runs, and their agreement. An unknown figure is null."""
    reference, scheduled = (runs[name].record for name in (comparison.EVERY_FRAME, comparison.SCHEDULED))
    report: dict[str, Any] = {
        "source": redact_url(source),
        "video_sha256": source_sha256(played),
        "preset": options.preset,
        "params": [one[-1] for one in options.params],
        "promise": promise,
        "runs": {name: comparison.run_figures(one.record, one.process) for name, one in runs.items()},
        "agreement": comparison.agreement(reference, scheduled, times_s, promise["max_delay_ms"]),
        "versions": versions(),
        "machine": machine(),
    }
    return {**report, "notes": comparison.notes(report)}


def _draw(
    options: argparse.Namespace,
    source: str,
    scheduled: LiveRecord,
    times_s: Sequence[float],
    stop: StopRequest,
) -> list[Path]:
    line, before = ProgressLine(), stop.count

    def show(done: int, total: int) -> bool:
        line.progress("drawing", done, total)
        return stop.count == before

    files = annotate(source, scheduled, times_s, options.out, show)
    line.end()
    if stop.count != before:
        print("demo: the drawing was stopped; the frames drawn so far are kept", file=sys.stderr)
    return files


def _failure(record: LiveRecord, process: PipelineProcess) -> str:
    """Why no detection was received: the reports of the nodes and the end of the log."""
    ended = process.returncode not in (0, None) or not record.statuses
    reason = f"the pipeline exited with status {process.returncode}" if ended else "no detection was received"
    reports = [f"  {node}: {text}" for node, text in (record.errors or record.texts).items()]
    log = [f"  {text}" for text in process.last_lines()]
    return "\n".join([f"{reason}. Reports of the nodes:", *(reports or ["  none"]), "End of the log:", *log])
