"""Measurements with real processes, from outside. Started by bench/pipeline.py.

python bench/parts/pipeline/processes.py start --video clip.avi --runs 3 --seconds 30
python bench/parts/pipeline/processes.py separate --video clip.avi --seconds 15
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cv2
from parts.common import REPO, script_environment, spread
from parts.pipeline.in_process import read_pictures

SIZE_PX = (1920, 1080)
FPS_HZ = 10.0
LONGEST_START_S = 30.0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    print("RESULT " + json.dumps(PARTS[options.part](options)))
    return 0


def start(options: argparse.Namespace) -> dict[str, Any]:
    """Start the pipeline on a video several times. The first start is not counted: it warms the disk cache.

    The listener is there before, so that the time is that of the pipeline: from the start of its process to
    the first Detection2DArray that arrives in this one. The last run goes on, for memory and age.
    """
    first_s, last = [], {}
    for i in range(options.runs + 1):
        seconds = options.seconds if i == options.runs else 1.0
        last = _one_start(options.video, seconds)
        if i:
            first_s.append(last.pop("first_detection_s"))
    return {"first_detection_s": statistics.median(first_s), "first_detection_runs_s": first_s, **last}


def _one_start(video: Path, seconds: float) -> dict[str, Any]:
    from edge_vision.evaluate.live.pipeline_process import PipelineProcess
    from edge_vision.evaluate.live.run_record import RunRecord
    from edge_vision.nodes.observers.pipeline_monitor import PipelineMonitor

    record = RunRecord()
    with tempfile.TemporaryDirectory() as folder, PipelineMonitor({"": record}) as monitor:
        monitor.spin(0.5)
        log = Path(folder) / "log"
        process = PipelineProcess(["--source", str(video), "--loop", "--backend", "onnxruntime"], log)
        try:
            while process.returncode is None and not _lasted(record, process.started_s, seconds):
                monitor.spin(0.1)
                process.measure()
        finally:
            process.stop(meanwhile=monitor.spin)
        if record.first_detection_s is None:
            raise SystemExit("no detection came; the log ends in\n" + "\n".join(process.last_lines()))
        return {
            "first_detection_s": record.first_detection_s - process.started_s,
            "rss_mb": process.peak_mb,
            "rss_steady_mb": process.steady_mb,
            "age_ms": record.age_ms(),
            "cpu_s": process.usage.cpu_s,
            "played_s": seconds,
            "ledger": record.ledger,
        }


def _lasted(record: Any, started_s: float, seconds: float) -> bool:
    now_s = time.monotonic()
    if record.first_detection_s is None:
        return now_s - started_s > LONGEST_START_S
    return bool(now_s - record.first_detection_s > seconds)


def separate(options: argparse.Namespace) -> dict[str, Any]:
    """source_node and gate_node as processes of their own, 1920x1080 bgr8 images between them at 10 fps.

    Counted by the ticks of both, which are small and reliable. What was sent before the two had found each
    other is left out: from the first image that arrived to the last one sent, less those of the last 0.5 s.
    """
    profile = REPO / "config" / "fastdds.xml"
    os.environ["FASTRTPS_DEFAULT_PROFILES_FILE"] = os.environ["FASTDDS_DEFAULT_PROFILES_FILE"] = str(profile)
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.avi"
        _write_clip(options.video, clip)
        with _node("gate_node"):
            time.sleep(2.0)
            with _node("source_node", "--source", str(clip), "--loop"):
                sent, arrived, decisions = _listen(options.seconds)
    first = min(arrived, default=None)
    last = max(sent, default=0) - int(0.5e9)
    counted = [stamp for stamp in sent if first is not None and first <= stamp <= last]
    if not counted:
        raise SystemExit(
            f"expected images between two processes, {len(sent)} were sent and {len(arrived)} arrived"
        )
    return {
        "separate_1080p_arrived": sum(stamp in arrived for stamp in counted) / len(counted),
        "sent": len(counted),
        "not_counted_before_the_first": sum(stamp < first for stamp in sent) if first else None,
        "profile": str(profile.relative_to(REPO)) if profile.is_file() else "none: Fast DDS defaults",
        "gate_decisions": dict(decisions),
        "source_to_gate_decision_ms": spread(arrived[stamp] for stamp in counted if stamp in arrived),
    }


def _write_clip(video: Path, clip: Path) -> None:
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), FPS_HZ, SIZE_PX)
    for picture in read_pictures(video, SIZE_PX):
        writer.write(picture)
    writer.release()


@contextlib.contextmanager
def _node(*arguments: str) -> Iterator[None]:
    """One of the executables, ended at the end."""
    environment = script_environment()
    command = [sys.executable, "-m", "edge_vision.nodes.cli", *arguments]
    child = subprocess.Popen(command, cwd=REPO, env=environment, stdout=sys.stderr)
    try:
        yield
    finally:
        child.send_signal(signal.SIGINT)
        try:
            child.wait(4)
        except subprocess.TimeoutExpired:
            child.kill()


def _listen(seconds: float) -> tuple[set[int], dict[int, float], Counter[str]]:
    """Stamps of the images sent; stamps of those arrived -> ms from the stamp to the gate's tick here; how
    often the gate decided what. On a moving picture that arrives whole, it is motion."""
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray

    from edge_vision.nodes.interface.frame_event_messages import frame_event_from_message
    from edge_vision.nodes.run import make_executor
    from edge_vision.nodes.transport.qos import FRAME_EVENTS

    sent: set[int] = set()
    arrived: dict[int, float] = {}
    decisions: Counter[str] = Counter()
    rclpy.init()
    node = rclpy.create_node("bench_ticks")

    def on_arrived(message: DiagnosticArray) -> None:
        tick = frame_event_from_message(message)
        stamp_ns = tick.stamp_ns
        decisions[tick.reason] += 1
        arrived[stamp_ns] = (node.get_clock().now().nanoseconds - stamp_ns) / 1e6

    def on_sent(message: DiagnosticArray) -> None:
        sent.add(frame_event_from_message(message).stamp_ns)

    node.create_subscription(DiagnosticArray, "source_events", on_sent, FRAME_EVENTS)
    node.create_subscription(DiagnosticArray, "gate_events", on_arrived, FRAME_EVENTS)
    executor = make_executor()
    executor.add_node(node)
    end_s = time.monotonic() + LONGEST_START_S
    while time.monotonic() < end_s:
        if arrived:
            end_s = min(end_s, time.monotonic() + seconds)
            seconds = float("inf")
        executor.spin_once(timeout_sec=0.1)
    node.destroy_node()  # type: ignore[no-untyped-call]
    rclpy.try_shutdown()
    return sent, arrived, decisions


PARTS = {"start": start, "separate": separate}

if __name__ == "__main__":
    sys.exit(main())
