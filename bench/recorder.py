#!/usr/bin/env python3
"""Measures the flight recorder: `make bench-recorder`. Writes out/bench/recorder.json.

kills              a recorder in a process of its own, with triggers at random, is killed with SIGKILL at
                   random instants. Each of its files, recovered as at the next start, is read by two readers.
messages_lost      of those that had been flushed before the kill. gaps: recordings that lack a message.
ring_max_share     the largest size of the ring over its bound, while messages of random sizes arrive.
cpu_ms_a_frame     of the whole process with the recorder on, less the same without: the pipeline plays a clip
                   of 640x480 at 10 Hz; off, on, and on while a file is written take turns in one run.
age_ms             from the stamp of an image to its detections at a robot, in the same run.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
from parts.benchmark import finish, make_parser, new_result
from parts.common import REPO, Row, at_least, at_most, script_environment, spread

sys.path[:0] = [str(REPO / "test"), str(REPO / "test" / "unit")]

import record_cases  # noqa: E402

from edge_vision.record.folder import RecordingFolder  # noqa: E402
from edge_vision.record.recording_file import PART  # noqa: E402
from edge_vision.record.ring import Ring  # noqa: E402

STATES = ("off", "on", "writing")
WIDTH_PX, HEIGHT_PX, FPS = 640, 480, 10.0
SETTLE_S = 1.0
_EXAMPLES = """examples:
  python bench/recorder.py              about four minutes
  python bench/recorder.py --quick
  python bench/recorder.py --strict     exit status 1 where a target is missed"""


def main() -> int:
    options = _parser().parse_args()
    kills, rounds = (5, 2) if options.quick else (50, 8)
    result = new_result(options.video) | {"quick": options.quick}
    print(f"{kills} kills ...", flush=True)
    result["kills"] = killed(kills)
    print("the ring ...", flush=True)
    result["ring"] = filled(20_000 if options.quick else 200_000)
    print(f"{rounds} rounds of {', '.join(STATES)} ...", flush=True)
    result["cost"] = cost(options, rounds)
    return finish(options, result, _rows(result))


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("recorder", __doc__, _EXAMPLES)
    parser.add_argument("--domain", type=int, default=91, help="ROS domain of the run")
    parser.add_argument("--quick", action="store_true", help="fewer kills and rounds")
    parser.add_argument("--segment", type=float, default=6.0, help="seconds of each state (default: 6)")
    return parser


def killed(count: int) -> dict[str, Any]:
    """Kill a recorder this many times; what its files have then."""
    draw, found = random.Random(7), {"kills": 0, "files": 0, "readable": 0, "gaps": 0, "messages_lost": 0}
    environment = {**script_environment(), "PYTHONPATH": os.pathsep.join(sys.path)}
    for seed in range(count):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, record_cases.__file__, folder, str(seed)]
            child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=REPO)
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(draw.random() * 2.0)
            child.send_signal(signal.SIGKILL)
            lines = child.stdout.read().splitlines()
            child.wait()
            found["kills"] += 1
            flushed = dict(line.split() for line in lines if line.count(" ") == 1)
            RecordingFolder(Path(folder), "/front").recover()
            assert not list(Path(folder).glob(f"*{PART}"))
            for path in Path(folder).iterdir():
                found["files"] += 1
                numbers = record_cases.numbers_in(path)
                found["readable"] += 1
                found["gaps"] += numbers != list(range(numbers[0], numbers[0] + len(numbers)))
                found["messages_lost"] += max(0, int(flushed.get(path.name, 0)) - len(numbers))
    return found


def filled(count: int) -> dict[str, Any]:
    """The largest share of a ring in use while messages arrive, from the size of a status to that of 4K."""
    draw, ring, largest = random.Random(7), Ring(32_000_000), 0
    for number in range(count):
        ring.add("/a", number, bytes(int(draw.lognormvariate(8.0, 2.5))))
        largest = max(largest, ring.bytes)
    return {
        "messages": count,
        "max_share": largest / ring.max_bytes,
        "refused": ring.refused,
        "balanced": ring.added == len(ring) + ring.removed,
    }


def small_clip(video: Path, folder: Path) -> Path:
    """The clip at WIDTH_PX x HEIGHT_PX and FPS."""
    path, reader = folder / "small.avi", cv2.VideoCapture(str(video))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (WIDTH_PX, HEIGHT_PX))
    while (image := reader.read()[1]) is not None:
        writer.write(cv2.resize(image, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_AREA))
    writer.release()
    return path


def cost(options: argparse.Namespace, rounds: int) -> dict[str, Any]:
    """CPU time and ages in each state, in turns."""
    folder = Path(tempfile.mkdtemp(prefix="edge_vision_bench_"))
    try:
        return _cost(options, rounds, small_clip(options.video, folder), folder)
    finally:
        shutil.rmtree(folder)


def _cost(options: argparse.Namespace, rounds: int, clip: Path, folder: Path) -> dict[str, Any]:
    from ros_cases import ALL, Robot, Running
    from vision_msgs.msg import Detection2DArray

    from edge_vision.nodes.recorder_node import RecorderNode

    given = {"folder": str(folder / "recordings"), "before_s": 10.0, "after_s": options.segment}
    source = {"uri": str(clip), "loop": True, "stamps": "clock"}
    robot = Robot(options.domain)
    running = Running(options.domain, (*ALL, RecorderNode), {"source": source, "recorder": given, "gate": {}})
    ages: dict[str, list[float]] = {state: [] for state in STATES}
    state = ["settling"]

    def on_detections(message: Any) -> None:
        stamp = message.header.stamp
        if state[0] in ages:
            ages[state[0]].append((time.time() - stamp.sec - stamp.nanosec / 1e9) * 1e3)

    robot.node.create_subscription(Detection2DArray, "detections", on_detections, 10)
    cpu_ms: dict[str, list[float]] = {one: [] for one in STATES}
    try:
        robot.wait(lambda: running.ledger["inferred"] > 20, "the pipeline to run")
        for number in range(rounds):
            for one in STATES if number % 2 == 0 else STATES[::-1]:
                _enter(running, one)
                robot.turns(SETTLE_S)
                state[0] = one
                frames, started_s = running.ledger["received"], time.process_time()
                robot.turns(options.segment)
                used_ms = (time.process_time() - started_s) * 1e3
                cpu_ms[one].append(used_ms / (running.ledger["received"] - frames))
                state[0] = "settling"
        status = running["recorder"].status_values()
    finally:
        running.end()
        robot.close()
    pairs = {one: [a - b for a, b in zip(cpu_ms[one], cpu_ms["off"], strict=True)] for one in STATES[1:]}
    return {
        "cpu_ms_a_frame": {one: statistics.median(values) for one, values in cpu_ms.items()},
        "added_ms_a_frame": {one: statistics.median(values) for one, values in pairs.items()},
        "runs_ms": cpu_ms,
        "age_ms": {one: spread(values) for one, values in ages.items()},
        "status": {name: value for name, value in status.items() if isinstance(value, (int, float))},
    }


def _enter(running: Any, state: str) -> None:
    """Switch the recorder."""
    recorder = running["recorder"]
    if state == "off" and recorder.state == "active":
        running.in_executor(recorder.trigger_deactivate)
    elif state != "off" and recorder.state != "active":
        running.in_executor(recorder.trigger_activate)
    if state == "writing":
        recorder._recorder.trigger("bench")


def _rows(result: dict[str, Any]) -> list[Row]:
    kills, ring, cost = result["kills"], result["ring"], result["cost"]
    age = {one: values.get("p50") for one, values in cost["age_ms"].items()}
    return [
        at_least("kills", kills["kills"], 50, "kills"),
        at_most("files that cannot be read", kills["files"] - kills["readable"], 0, "files"),
        at_most("recordings with a gap", kills["gaps"], 0, "files", f"of {kills['files']}"),
        at_most("flushed messages lost", kills["messages_lost"], 0, "messages"),
        at_most("largest size of the ring over its bound", ring["max_share"], 1.0, ""),
        at_most("CPU a frame, added: on", cost["added_ms_a_frame"]["on"], 3.0, "ms"),
        at_most("CPU a frame, added: writing a file", cost["added_ms_a_frame"]["writing"], 3.0, "ms"),
        Row("CPU a frame: off", cost["cpu_ms_a_frame"]["off"], "ms"),
        *(Row(f"age of detections, median: {one}", age[one], "ms") for one in STATES),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
