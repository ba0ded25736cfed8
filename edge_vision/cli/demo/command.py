"""The demo from its command line to its last words."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from edge_vision.backends import known_backends
from edge_vision.bundles.store import cache_dir
from edge_vision.cli.demo.live import status_line
from edge_vision.cli.demo.process import PipelineProcess
from edge_vision.cli.demo.record import RunRecord
from edge_vision.cli.demo.summary import last_words, summarise, write_detections
from edge_vision.cli.demo.video import LiveRecorder, annotate_file
from edge_vision.core.config_files import config_file
from edge_vision.core.output_folder import claim_folder
from edge_vision.core.printable import printable_error, printable_output
from edge_vision.core.progress import ProgressLine
from edge_vision.core.redaction import redact_url
from edge_vision.diagnostics.provenance import write_json
from edge_vision.errors import EdgeVisionError
from edge_vision.source.capture import Capture, SourceError, source_kind

RESULTS = ("pipeline.log", "detections.jsonl", "summary.json", "annotated.*")
VIDEOS = ("vtest.avi", "bikes.mp4")
LIVE_SECONDS = 30.0
LONGEST_START_S = 60.0
LONGEST_ERROR_S = 8.0  # Nodes try again every 5 s: once more, then the demo gives up.
SETTLE_S = 0.3
_EXAMPLES = """examples:
  python -m edge_vision demo                                  people on a street, 80 s
  python -m edge_vision demo --seconds 15 --backend openvino
  python -m edge_vision demo --source clip.mp4 --out out/clip
  python -m edge_vision demo --source /dev/video0             a camera, for 30 s

exit codes: 0 detections were received, 1 none were or the source cannot be read, 2 wrong arguments,
130 stopped before the first detection"""


class DemoError(EdgeVisionError):
    """A demo that showed nothing."""


@printable_output()
def main(argv: list[str] | None = None) -> int:
    """Run the demo. Returns the exit status: 0 where detections came."""
    options = _parser().parse_args(argv)
    stop = StopRequest()
    try:
        return run(options, stop)
    except EdgeVisionError as error:
        print(f"\ndemo: {printable_error(error)}", file=sys.stderr)
        return 130 if stop.asked else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m edge_vision demo",
        description="Runs the real pipeline on a video and leaves its results as files.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
        type=_positive,
        help=f"stop after this long (default: the file's end, {LIVE_SECONDS:.0f} s live)",
    )
    parser.add_argument(
        "--no-video", action="store_true", help="write no annotated video, only the contact sheet"
    )
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"expected seconds above 0, got {text}")
    return value


class StopRequest:
    """Turns Ctrl-C and SIGTERM into a wish, which each step grants at its next pause. A third one insists."""

    def __init__(self) -> None:
        self.count = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    @property
    def asked(self) -> bool:
        return self.count > 0

    def _ask(self, number: int, frame: Any) -> None:
        self.count += 1
        if self.count > 2:  # The pipeline dies with this process.
            os._exit(128 + number)


def run(options: argparse.Namespace, stop: StopRequest) -> int:
    """The whole demo. Raises EdgeVisionError with what to do where nothing came of it."""
    source = options.source or _default_source()
    live = not source_kind(source).is_file
    _check_source(source)
    claim_folder(options.out, "demo", RESULTS, () if live else (str(source_kind(source).target),))
    _own_domain()
    if live:
        _large_images()
    print(
        f"source {redact_url(source)}; log in {options.out / 'pipeline.log'}; Ctrl-C ends it in order",
        flush=True,
    )
    record = RunRecord()
    recorder = LiveRecorder(options.out, not options.no_video) if live else None
    if recorder:
        record.on_each_picture = recorder.add
    limit_s = options.seconds or (LIVE_SECONDS if live else None)
    process, complete = _watch(record, _arguments(options, source), options.out, limit_s, live, stop)
    return _finish(options, source, record, recorder, process, complete, stop)


def _default_source() -> str:
    folder = cache_dir() / "video"
    for name in VIDEOS:
        if (folder / name).is_file():
            return str(folder / name)
    raise DemoError(f"no video in {folder}: run `make demo`, which fetches one, or give --source FILE")


def _check_source(source: str) -> None:
    """Raise SourceError at once for a file without images; a camera may come later."""
    if not source_kind(source).is_file:
        return
    with contextlib.closing(Capture(source)) as capture:
        if capture.read() is None:
            raise SourceError(f"source '{redact_url(source)}' holds no image that OpenCV can read")


def _own_domain() -> None:
    """Two demos side by side must not see each other, nor a robot on the same network the demo."""
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")


def _large_images() -> None:
    """The debug images of a camera cross between two processes: with Fast DDS's defaults they get lost."""
    profile = config_file("fastdds.xml")
    for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
        if profile:
            os.environ.setdefault(name, str(profile))


def _arguments(options: argparse.Namespace, source: str) -> list[str]:
    given = [("--source", source), ("--model", options.model), ("--backend", options.backend)]
    arguments = [text for name, value in given if value for text in (name, str(value))]
    params = config_file("pipeline.yaml")
    return [*arguments, "--ros-args", "--params-file", str(params)] if params else arguments


def _watch(
    record: RunRecord,
    arguments: list[str],
    out: Path,
    limit_s: float | None,
    pictures: bool,
    stop: StopRequest,
) -> tuple[PipelineProcess, bool]:
    """Start the pipeline and listen until it is through. Returns whether nothing cut it short."""
    from edge_vision.nodes.pipeline_monitor import PipelineMonitor

    line = ProgressLine()
    with PipelineMonitor(record, debug_images=pictures) as monitor:
        monitor.spin(SETTLE_S)
        process = PipelineProcess(arguments, out / "pipeline.log")
        try:
            while not (stop.asked or _over(record, process, limit_s)):
                monitor.spin(0.25)
                line.show(status_line(record, process.measure()))
            complete = not stop.asked and process.returncode is None
        finally:
            # Its last status, with the final books, comes while it ends.
            process.stop(meanwhile=monitor.spin)
            monitor.spin(SETTLE_S)
            line.end(status_line(record, process.usage))
    return process, complete


def _over(record: RunRecord, process: PipelineProcess, limit_s: float | None) -> bool:
    if process.returncode is not None or record.played_out:
        return True
    now_s = time.monotonic()
    if not record.seen and record.in_error_for_s() > LONGEST_ERROR_S:
        return True
    began_s = record.first_detection_s or record.first_frame_s
    if began_s is None:
        return now_s - process.started_s > LONGEST_START_S
    return limit_s is not None and now_s - began_s >= limit_s


def _finish(
    options: argparse.Namespace,
    source: str,
    record: RunRecord,
    recorder: LiveRecorder | None,
    process: PipelineProcess,
    complete: bool,
    stop: StopRequest,
) -> int:
    """Write the results. Raises DemoError where there are none."""
    summary = summarise(record, process, source, complete and bool(record.seen))
    write_detections(record, options.out / "detections.jsonl")
    write_json(options.out / "summary.json", summary)
    if not record.seen:
        raise DemoError(
            "stopped before the first detection" if stop.asked else _nothing_came(record, process)
        )
    pictures = recorder.close() if recorder else _annotate(options, source, record, stop)
    files = [*pictures, options.out / "detections.jsonl", options.out / "summary.json"]
    print("\n" + last_words(summary, files), flush=True)
    return 0


def _annotate(options: argparse.Namespace, source: str, record: RunRecord, stop: StopRequest) -> list[Path]:
    line, before = ProgressLine(), stop.count

    def show(done: int, total: int) -> bool:
        line.progress("drawing", done, total)
        return stop.count == before

    files = annotate_file(source, record.by_frame(), record.labels, options.out, not options.no_video, show)
    line.end()
    if stop.count != before:
        print("demo: the drawing was stopped; what it had drawn is there", file=sys.stderr)
    return files


def _nothing_came(record: RunRecord, process: PipelineProcess) -> str:
    ended = process.returncode not in (0, None) or not record.statuses
    why = f"the pipeline ended with status {process.returncode}" if ended else "no detection came"
    said = [f"  {node}: {text}" for node, text in (record.errors or record.texts).items()]
    log = [f"  {text}" for text in process.last_lines()]
    return "\n".join([f"{why}. The nodes said:", *(said or ["  nothing"]), "The end of its log:", *log])
