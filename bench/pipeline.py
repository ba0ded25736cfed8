#!/usr/bin/env python3
"""Measures the pipeline: `make bench-pipeline`. Prints a table, and writes out/bench/pipeline.json.

in_process_hop_ms       from `forward` in the gate's thread to `process` in the detector's, through the
                        cascade that is off, by reference; the real nodes in one process, the detector idle.
separate_1080p_arrived  share of 1920x1080 bgr8 images at 10 fps that arrive from source_node in gate_node,
                        two processes with config/fastdds.xml.
overhead_ratio          (latency - detector) / detector per frame, the median. latency: from the image's
                        intake at the gate to the return of `publish` of its detections; detector: the time
                        of `Detector.detect`. 640x480, 30 fps, one process, one subscriber to `detections`
                        in another. So it counts the gate, the hops, the message and its publishing.
overhead_ratio_strict   (latency - run) / run, where run is the runtime's session alone: pre- and
                        post-processing count as overhead too. The faster the model, the larger it is.
overhead_cpu_ratio      CPU time: (all threads of the process - those of the run) / those of the run.
process_cpu_ratio       CPU time of the whole process per frame if every frame is inferred, over that with the
                        preset `balanced`, which also tracks: the video at its own rate, one subscriber to
                        `detections` and `tracks`. The rows below it are where that time goes: reading the
                        video, messages and their publishing, the gate, the detector, tracking, statuses and
                        diagnostics, and the rest: hand-offs, waits, the executor, DDS.
wrapper_ratio           `Detector.detect` over the bare runtime plus the same pre- and post-processing.
rss_mb                  the most memory that the composed pipeline with ONNX Runtime ever had (VmHWM).
first_detection_s       from the process's start to the first detection in another process; warm disk.
                        The receiving process announces itself for 3 s (nodes/observers/discovery.py), as
                        Fast DDS's default of 0.5 s sometimes delays discovery by 3 s.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from parts.benchmark import finish, make_parser, new_result
from parts.common import REPO, Row, at_least, at_most, measured, part_command, script_environment

from edge_vision.evaluate.live.pipeline_process import isolate_domain
from edge_vision.offline.provenance import hash_of, write_json

SIZES = ("640x480", "1920x1080")
_EXAMPLES = """examples:
  python bench/pipeline.py                     about three minutes
  python bench/pipeline.py --quick             under one minute, noisier
  python bench/pipeline.py --only hop wrapper
  python bench/pipeline.py --strict            exit status 1 where a target is missed"""


def main() -> int:
    options = _parser().parse_args()
    isolate_domain()
    result = new_result(options.video) | {"quick": options.quick}
    result["hashes"]["fastdds.xml"] = hash_of(REPO / "config" / "fastdds.xml")
    for name in options.only or PARTS:
        print(f"[{time.strftime('%H:%M:%S')}] {name}: {PARTS[name].__doc__}", flush=True)
        result.update(PARTS[name](options))
        write_json(options.out, result)
    return finish(options, result, _rows(result))


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("pipeline", __doc__, _EXAMPLES)
    parser.add_argument("--quick", action="store_true", help="fewer frames and runs")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="only these measurements")
    return parser


def hop(options: argparse.Namespace) -> dict[str, Any]:
    """the hand-off in one process"""
    runs, count = (1, 50) if options.quick else (3, 80)
    medians: dict[str, list[float]] = {size: [] for size in SIZES}
    details: dict[str, list[Any]] = {size: [] for size in SIZES}
    for _ in range(runs):
        for size in SIZES:
            one = measured(
                "pipeline/in_process.py",
                "hop",
                "--video",
                options.video,
                "--size",
                size,
                "--count",
                count,
                "--fps",
                30,
            )
            medians[size].append(one["gate_to_detector_ms"]["p50"])
            details[size].append(one)
    return {
        "in_process_hop_ms": {size: statistics.median(found) for size, found in medians.items()},
        "in_process_hop_details": details,
    }


def overhead(options: argparse.Namespace) -> dict[str, Any]:
    """all that is not inference, with a subscriber in another process"""
    runs, count = (1, 100) if options.quick else (3, 200)
    rates = (
        {"30_fps": 30, "back_to_back": 0}
        if options.quick
        else {"30_fps": 30, "10_fps": 10, "back_to_back": 0}
    )
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in rates}
    with _subscriber("detections"):
        for _ in range(runs):
            for name, fps in rates.items():
                arguments = ("overhead", "--video", options.video, "--count", count, "--fps", fps)
                found[name].append(measured("pipeline/in_process.py", *arguments))
    figures = ("overhead_ratio", "overhead_ratio_strict", "overhead_cpu_ratio")
    by_rate = {
        name: {figure: statistics.median(one[figure] for one in ones) for figure in figures}
        for name, ones in found.items()
    }
    return {
        "overhead_ratio": by_rate["30_fps"]["overhead_ratio"],
        "overhead_ratio_strict": by_rate["30_fps"]["overhead_ratio_strict"],
        "overhead": by_rate,
        "overhead_details": found,
    }


@contextlib.contextmanager
def _subscriber(*topics: str) -> Iterator[None]:
    """A process that subscribes to these."""
    command = part_command("pipeline/subscriber.py", *topics)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, env=script_environment()) as process:
        assert process.stdin and process.stdout
        process.stdout.readline()
        try:
            yield
        finally:
            process.stdin.close()


def cpu(options: argparse.Namespace) -> dict[str, Any]:
    """CPU time of a frame in the whole process, and where it goes"""
    runs, seconds = (1, 15) if options.quick else (3, 30)
    found: dict[str, list[dict[str, float]]] = {"every_frame": [], "balanced": []}
    with _subscriber("detections", "tracks"):
        for _ in range(runs):
            for name, ones in found.items():
                preset = () if name == "every_frame" else ("--preset", name)
                arguments = ("--video", options.video, "--seconds", seconds, *preset)
                ones.append(measured("pipeline/cpu_shares.py", *arguments))
    medians = {
        name: {key: statistics.median(one[key] for one in ones) for key in ones[0]}
        for name, ones in found.items()
    }
    ratios = [a["total"] / b["total"] for a, b in zip(*found.values(), strict=True)]
    return {"process_cpu_ratio": statistics.median(ratios), "cpu_ms": medians, "cpu_details": found}


def wrapper(options: argparse.Namespace) -> dict[str, Any]:
    """Detector.detect against the bare runtime"""
    count = 100 if options.quick else 400
    one = measured("pipeline/wrapper.py", "--video", options.video, "--count", count)
    return {"wrapper_ratio": one.pop("wrapper_ratio"), "wrapper_details": one}


def start(options: argparse.Namespace) -> dict[str, Any]:
    """start, memory and age of the pipeline's executable on the video"""
    seconds = 10 if options.quick else 40
    one = measured(
        "pipeline/processes.py", "start", "--video", options.video, "--runs", 3, "--seconds", seconds
    )
    keys = ("rss_mb", "rss_steady_mb", "first_detection_s")
    return {**{key: one.pop(key) for key in keys}, "start_details": one}


def separate(options: argparse.Namespace) -> dict[str, Any]:
    """1080p images between two processes"""
    seconds = 10 if options.quick else 30
    one = measured("pipeline/processes.py", "separate", "--video", options.video, "--seconds", seconds)
    return {"separate_1080p_arrived": one.pop("separate_1080p_arrived"), "separate_details": one}


PARTS = {
    "hop": hop,
    "wrapper": wrapper,
    "overhead": overhead,
    "cpu": cpu,
    "start": start,
    "separate": separate,
}


def _rows(result: dict[str, Any]) -> list[Row]:
    """The table: every figure that was measured, with its target where it has one."""
    rows: list[Row] = []
    for size, value in result.get("in_process_hop_ms", {}).items():
        p95 = statistics.median(
            one["gate_to_detector_ms"]["p95"] for one in result["in_process_hop_details"][size]
        )
        rows.append(at_most(f"in_process_hop_ms {size}", value, 0.1, "ms", f"p95 {p95:.3f}"))
    if "separate_1080p_arrived" in result:
        details = result["separate_details"]
        latency = details["source_to_gate_decision_ms"]
        note = f"of {details['sent']}; until the gate's decision p50 {latency['p50']:.0f} ms"
        note += f", p95 {latency['p95']:.0f} ms; {_listed(details['gate_decisions'])}"
        rows.append(at_least("separate_1080p_arrived", result["separate_1080p_arrived"], 0.95, "", note))
    if "overhead_ratio" in result:
        rows += _overhead_rows(result)
    if "process_cpu_ratio" in result:
        rows += _cpu_rows(result)
    if "wrapper_ratio" in result:
        note = f"detect p50 {result['wrapper_details']['detect_ms']['p50']:.1f} ms"
        rows.append(at_most("wrapper_ratio", result["wrapper_ratio"], 1.05, "", note))
    if "rss_mb" in result:
        runs = result["start_details"]["first_detection_runs_s"]
        age = result["start_details"]["age_ms"]
        rows.append(at_most("rss_mb", result["rss_mb"], 256, "MB", f"steady {result['rss_steady_mb']:.0f}"))
        note = "runs " + ", ".join(f"{value:.2f}" for value in runs)
        rows.append(at_most("first_detection_s", result["first_detection_s"], 2.5, "s", note))
        rows.append(
            Row("age at the subscriber", age["p50"], "ms", note=f"p95 {age['p95']:.0f}, 768x576 at 10 fps")
        )
    return rows


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items())


def _overhead_rows(result: dict[str, Any]) -> list[Row]:
    last = result["overhead_details"]["30_fps"][-1]
    overhead_ms, run_ms = last["overhead_ms"]["p50"], last["inference_ms"]["p50"]
    detect_ms = last["parts_ms"]["detect"]["p50"]
    rows = [
        at_most("overhead_ratio", result["overhead_ratio"], 0.10, "", f"detector {detect_ms:.1f} ms, 30 fps"),
        at_most(
            "overhead_ratio_strict",
            result["overhead_ratio_strict"],
            0.10,
            "",
            f"{overhead_ms:.2f} ms over a run of {run_ms:.1f} ms, 30 fps",
        ),
    ]
    for rate, figures in result["overhead"].items():
        note = f"strict {figures['overhead_ratio_strict']:.3f}, CPU {figures['overhead_cpu_ratio']:.3f}"
        rows.append(
            Row(f"overhead_ratio, {rate.replace('_', ' ')}", figures["overhead_ratio"], "", note=note)
        )
    rows += [
        Row(f"  {name}", part["p50"], "ms", note=f"p95 {part['p95']:.2f}")
        for name, part in last["parts_ms"].items()
    ]
    return rows


def _cpu_rows(result: dict[str, Any]) -> list[Row]:
    every, balanced = (result["cpu_ms"][name] for name in ("every_frame", "balanced"))
    note = f"balanced infers {balanced['inferred']:.0%}; of every frame {every['inferred']:.0%} were inferred"
    rows = [at_least("process_cpu_ratio", result["process_cpu_ratio"], 1.65, "", note)]
    for share in (key for key in every if key not in ("frames", "inferred", "superseded")):
        rows.append(Row(f"  {share}", every[share], "ms", note=f"balanced {balanced[share]:.2f}"))
    return rows


if __name__ == "__main__":
    sys.exit(main())
