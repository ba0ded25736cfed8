"""`edge-vision demo`: command line, run, results."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from edge_vision.backends import known_backends
from edge_vision.bundles.store import cache_dir
from edge_vision.cli.demo.live import status_line
from edge_vision.cli.demo.summary import report_text, summarise, write_detections
from edge_vision.cli.demo.video import LiveRecorder, annotate_file
from edge_vision.core.command_line import duration_s, with_examples
from edge_vision.core.printable import printable_error, printable_output
from edge_vision.core.redaction import redact_url
from edge_vision.errors import EdgeVisionError, OutputError
from edge_vision.evaluate.live.pipeline_process import PipelineProcess, isolate_domain
from edge_vision.evaluate.live.run_record import RunRecord
from edge_vision.offline.config_files import config_file
from edge_vision.offline.output_folder import claim_folder
from edge_vision.offline.progress import ProgressLine
from edge_vision.offline.provenance import write_json
from edge_vision.source.opening import open_source
from edge_vision.source.uri import SourceError, source_kind

RESULTS = ("pipeline.log", "detections.jsonl", "summary.json", "annotated.*")
VIDEOS = ("vtest.avi", "bikes.mp4")
LIVE_SECONDS = 30.0
MAX_START_S = 60.0
MAX_ERROR_S = 8.0  # Nodes retry every 5 s: the demo gives up after one retry.
SETTLE_S = 0.3
_EXAMPLES = """examples:
  python -m edge_vision demo                                  a street with people, 80 s
  python -m edge_vision demo --seconds 15 --backend openvino
  python -m edge_vision demo --source clip.mp4 --out out/clip
  python -m edge_vision demo --source /dev/video0             a camera, for 30 s

exit codes: 0 detections were received, 1 none were or the source cannot be read, 2 wrong arguments,
130 stopped before the first detection"""


class DemoError(EdgeVisionError):
    """The demo received no detection."""


@printable_output()
def main(argv: list[str] | None = None) -> int:
    """Run the demo. Returns the exit code: 0 if detections were received."""
    options = _parser().parse_args(argv)
    stop = StopRequest()
    try:
        return run(options, stop)
    except EdgeVisionError as error:
        print(f"\ndemo: {printable_error(error)}", file=sys.stderr)
        return 130 if stop.requested else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m edge_vision demo",
        **with_examples("Run the pipeline on a video and write the results as files.", _EXAMPLES),
    )
    parser.add_argument(
        "--source", help=f"video file, device or URL (default: {' or '.join(VIDEOS)} in the cache)"
    )
    parser.add_argument("--backend", help=f"auto (default), {', '.join(known_backends())}")
    parser.add_argument("--model", help="detector bundle, a name or a folder")
    parser.add_argument(
        "--out", type=Path, default=Path("out/demo"), help="folder for the results (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds",
        type=duration_s,
        help=f"stop after this long (default: the file's end, {LIVE_SECONDS:.0f} s live)",
    )
    parser.add_argument(
        "--no-video", action="store_true", help="write no annotated video, only the contact sheet"
    )
    return parser


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


def run(options: argparse.Namespace, stop: StopRequest) -> int:
    """The whole demo. Raises EdgeVisionError with the remedy if nothing was received."""
    source = options.source or _default_source()
    live = not source_kind(source).is_file
    check_source(source)
    claim_folder(options.out, "demo", RESULTS, () if live else (str(source_kind(source).target),))
    isolate_domain()
    if live:
        _use_large_image_profile()
    log = options.out / "pipeline.log"
    print(f"source {redact_url(source)}; log in {log}; Ctrl-C stops the demo", flush=True)
    record = RunRecord()
    recorder = LiveRecorder(options.out, not options.no_video) if live else None
    if recorder:
        record.on_image = recorder.add
    limit_s = options.seconds or (LIVE_SECONDS if live else None)
    child = _observe(record, _pipeline_arguments(options, source), log, limit_s, stop)
    summary = summarise(record, child.process, source, child.complete and bool(record.detections))
    results = write_results(options.out, record, summary)
    if not record.detections:
        reason = "stopped before the first detection" if stop.requested else _failure(record, child.process)
        raise DemoError(reason)
    images = recorder.close() if recorder else _annotate(options, source, record, stop)
    print("\n" + report_text(summary, [*images, *results]), flush=True)
    return 0


def write_results(folder: Path, record: RunRecord, summary: dict[str, Any]) -> list[Path]:
    """Write detections and summary. Returns their paths. Raises OutputError."""
    results = [folder / "detections.jsonl", folder / "summary.json"]
    try:
        write_detections(record, results[0])
        write_json(results[1], summary)
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


def check_source(source: str) -> None:
    """Raises SourceError for a file without images. A camera may become available later."""
    if not source_kind(source).is_file:
        return
    with contextlib.closing(open_source(source)) as capture:
        if capture.read() is None:
            raise SourceError(f"source '{redact_url(source)}' contains no image that OpenCV can read")


def _use_large_image_profile() -> None:
    """A camera's debug images cross between two processes and exceed Fast DDS's default buffers."""
    profile = config_file("fastdds.xml")
    for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
        if profile:
            os.environ.setdefault(name, str(profile))


def _pipeline_arguments(options: argparse.Namespace, source: str) -> list[str]:
    given = [("--source", source), ("--model", options.model), ("--backend", options.backend)]
    arguments = [text for name, value in given if value for text in (name, str(value))]
    params = config_file("pipeline.yaml")
    return [*arguments, "--ros-args", "--params-file", str(params)] if params else arguments


class _Run(NamedTuple):
    """complete: the run was neither stopped nor did the pipeline end by itself."""

    process: PipelineProcess
    complete: bool


def _observe(
    record: RunRecord, arguments: list[str], log: Path, limit_s: float | None, stop: StopRequest
) -> _Run:
    """Run the pipeline until the file ends, the limit is reached or the demo is stopped."""
    from edge_vision.nodes.monitoring.pipeline_monitor import PipelineMonitor

    line = ProgressLine()
    with PipelineMonitor({"": record}, debug_images=record.on_image is not None) as monitor:
        monitor.spin(SETTLE_S)
        process = PipelineProcess(arguments, log)
        try:
            while not (stop.requested or _is_over(record, process, limit_s)):
                monitor.spin(0.25)
                line.show(status_line(record, process.measure()))
            complete = not stop.requested and process.returncode is None
        finally:
            # The last status, with the final frame accounting, arrives while the pipeline shuts down.
            process.stop(meanwhile=monitor.spin)
            monitor.spin(SETTLE_S)
            line.end(status_line(record, process.usage))
    return _Run(process, complete)


def _is_over(record: RunRecord, process: PipelineProcess, limit_s: float | None) -> bool:
    if process.returncode is not None or record.finished:
        return True
    now_s = time.monotonic()
    if not record.detections and record.error_duration_s() > MAX_ERROR_S:
        return True
    start_s = record.first_detection_s or record.first_frame_s
    if start_s is None:
        return now_s - process.started_s > MAX_START_S
    return limit_s is not None and now_s - start_s >= limit_s


def _annotate(options: argparse.Namespace, source: str, record: RunRecord, stop: StopRequest) -> list[Path]:
    line, count_before = ProgressLine(), stop.count

    def show(done: int, total: int) -> bool:
        line.progress("drawing", done, total)
        return stop.count == count_before

    files = annotate_file(source, record.by_frame(), record.labels, options.out, not options.no_video, show)
    line.end()
    if stop.count != count_before:
        print("demo: the drawing was stopped; the frames drawn so far are kept", file=sys.stderr)
    return files


def _failure(record: RunRecord, process: PipelineProcess) -> str:
    """Why no detection was received: the reports of the nodes and the end of the log."""
    ended = process.returncode not in (0, None) or not record.statuses
    reason = f"the pipeline exited with status {process.returncode}" if ended else "no detection was received"
    reports = [f"  {node}: {text}" for node, text in (record.errors or record.texts).items()]
    log = [f"  {text}" for text in process.last_lines()]
    return "\n".join([f"{reason}. Reports of the nodes:", *(reports or ["  none"]), "End of the log:", *log])
