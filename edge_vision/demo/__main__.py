"""`python -m edge_vision.demo`: see --help."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_vision.bundles.store import cache_dir
from edge_vision.core.capture import source_kind
from edge_vision.demo.facts import write_json
from edge_vision.demo.live import LiveLine, status_line
from edge_vision.demo.process import PipelineProcess, params_file
from edge_vision.demo.record import Record
from edge_vision.demo.summary import last_words, summarise, write_detections
from edge_vision.demo.video import LiveRecorder, annotate_file
from edge_vision.errors import EdgeVisionError

VIDEOS = ("vtest.avi", "bikes.mp4")
LIVE_SECONDS = 30.0
LONGEST_START_S = 60.0
SETTLE_S = 0.3
_EXAMPLES = """examples:
  python -m edge_vision.demo                                  people on a street, 80 s
  python -m edge_vision.demo --seconds 15 --backend openvino
  python -m edge_vision.demo --source clip.mp4 --out out/clip
  python -m edge_vision.demo --source /dev/video0             a camera, for 30 s"""


class DemoError(EdgeVisionError):
    """A demo that showed nothing."""


def main(argv: list[str] | None = None) -> int:
    """Run the demo. Returns the exit status: 0 where detections came."""
    options = _parser().parse_args(argv)
    # A Ctrl-C is an exception until the pipeline is watched: nothing runs then that it could leave behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run(options)
    except EdgeVisionError as error:
        print(f"\ndemo: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\ndemo: stopped", file=sys.stderr)
        return 130
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m edge_vision.demo",
        description="Runs the real pipeline on a video and leaves its results as files.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--source", help=f"video file, device or URL (default: {' or '.join(VIDEOS)} in the cache)")
    parser.add_argument("--backend", help="auto, onnxruntime, openvino, ... (default: auto)")
    parser.add_argument("--model", help="detector bundle, a name or a folder")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for the results (default: %(default)s)")
    parser.add_argument("--seconds", type=_positive, help=f"stop after this long (default: the file's end, {LIVE_SECONDS:.0f} s live)")
    parser.add_argument("--no-video", action="store_true", help="write no annotated video, only the contact sheet")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"expected seconds above 0, got {text}")
    return value


def run(options: argparse.Namespace) -> int:
    """The whole demo. Raises EdgeVisionError with what to do where nothing came of it."""
    source = options.source or _default_source()
    live = not source_kind(source).ends
    _check_source(source)
    options.out.mkdir(parents=True, exist_ok=True)
    _own_domain()
    print(f"source {source}; log in {options.out / 'pipeline.log'}; Ctrl-C ends it in order", flush=True)
    record = Record()
    recorder = LiveRecorder(options.out, not options.no_video) if live else None
    if recorder:
        record.on_each_picture = recorder.add
    limit_s = options.seconds or (LIVE_SECONDS if live else None)
    process, complete = _watch(record, _arguments(options, source), options.out, limit_s, pictures=live)
    return _finish(options, source, record, recorder, process, complete)


def _default_source() -> str:
    folder = cache_dir() / "video"
    for name in VIDEOS:
        if (folder / name).is_file():
            return str(folder / name)
    raise DemoError(f"no video in {folder}: run `make demo`, which fetches one, or give --source FILE")


def _check_source(source: str) -> None:
    kind = source_kind(source)
    if kind.ends and not Path(str(kind.target)).is_file():
        raise DemoError(f"source '{source}' is no file: check the path (SOURCE=... of make, or --source)")


def _own_domain() -> None:
    """Two demos side by side must not see each other, nor a robot on the same network the demo."""
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")


def _arguments(options: argparse.Namespace, source: str) -> list[str]:
    given = [("--source", source), ("--model", options.model), ("--backend", options.backend)]
    arguments = [text for name, value in given if value for text in (name, str(value))]
    params = params_file()
    return [*arguments, "--ros-args", "--params-file", str(params)] if params else arguments


def _watch(
    record: Record, arguments: list[str], out: Path, limit_s: float | None, pictures: bool
) -> tuple[PipelineProcess, bool]:
    """Start the pipeline and listen until it is through. Returns whether it came to the end by itself."""
    from edge_vision.nodes.monitor import Monitor

    line, stopped = LiveLine(), _Stop()
    with Monitor(record, pictures=pictures) as monitor:
        monitor.spin(SETTLE_S)
        process = PipelineProcess(arguments, out / "pipeline.log")
        try:
            while not (stopped.asked or _over(record, process, limit_s)):
                monitor.spin(0.25)
                line.show(status_line(record, process.measure()))
        finally:
            through = record.played_out or (limit_s is not None and not stopped.asked)
            ended_by_itself = process.returncode is not None
            # Its last status, with the final books, comes while it ends.
            process.stop(meanwhile=monitor.spin)
            monitor.spin(SETTLE_S)
            line.end(status_line(record, process.usage))
    return process, through and not ended_by_itself


class _Stop:
    """Turns Ctrl-C into a wish: from now on it ends the watching, not the demo. A second one insists."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: Any) -> None:
        if self.asked:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self.asked = True


def _over(record: Record, process: PipelineProcess, limit_s: float | None) -> bool:
    if process.returncode is not None or record.played_out:
        return True
    now_s = time.monotonic()
    began_s = record.first_frame_s or record.first_detection_s
    if began_s is None:
        return now_s - process.started_s > LONGEST_START_S
    return limit_s is not None and now_s - began_s >= limit_s


def _finish(
    options: argparse.Namespace,
    source: str,
    record: Record,
    recorder: LiveRecorder | None,
    process: PipelineProcess,
    complete: bool,
) -> int:
    summary = summarise(record, process, source, complete)
    write_detections(record, options.out / "detections.jsonl")
    write_json(options.out / "summary.json", summary)
    if not record.seen:
        raise DemoError(_nothing_came(record, process))
    pictures = _pictures(options, source, record, recorder)
    files = [*pictures, options.out / "detections.jsonl", options.out / "summary.json"]
    print("\n" + last_words(summary, files), flush=True)
    return 0


def _pictures(
    options: argparse.Namespace, source: str, record: Record, recorder: LiveRecorder | None
) -> list[Path]:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    line = LiveLine()
    try:
        if recorder:
            return recorder.close()
        show: Callable[[int, int], None] = lambda done, total: line.progress("drawing", done, total)  # noqa: E731
        video = not options.no_video
        return annotate_file(source, record.by_frame(), record.labels, options.out, video, show)
    except KeyboardInterrupt:
        print("\ndemo: the drawing was stopped; detections.jsonl and summary.json are complete", file=sys.stderr)
        return []
    finally:
        line.end()


def _nothing_came(record: Record, process: PipelineProcess) -> str:
    why = "the pipeline ended by itself" if process.returncode not in (0, None, 130) else "no detection came"
    told = [f"  {node}: {text}" for node, text in record.texts.items()]
    log = [f"  {text}" for text in process.last_lines()]
    return "\n".join([f"{why}. The nodes said:", *(told or ["  nothing"]), "The end of its log:", *log])


if __name__ == "__main__":
    raise SystemExit(main())
