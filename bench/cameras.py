#!/usr/bin/env python3
"""Several cameras with one detector: `make bench-cameras`. Prints a table and writes out/bench/cameras.json.

The pipeline's executable plays a clip at 10 fps as each of four cameras, in one process. This process
subscribes to the results of all of them, through DDS.

delay_ms      from a frame's stamp to that of the next inferred one, of all frames, also skipped ones. The
              clip has motion throughout, most of it within tracks: twice max_delay_ms is promised then.
age_ms        from an inferred frame's stamp to its detections here.
wait_ms       from the arrival of a camera's frame at the detector to the start of its inference, p95.
rss_mb        of the process, the median of the second half of the run; peak_mb: VmHWM.
models        loaded models, as the detectors report.
unaccounted   received - (inferred + gated + rejected + superseded + failed + in_flight) of all cameras.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from bisect import bisect_left
from pathlib import Path
from typing import Any

import cv2
import yaml
from parts.benchmark import finish, make_parser, new_result
from parts.common import Row, at_most, spread

from edge_vision.evaluate.live.pipeline_process import PipelineProcess, isolate_domain
from edge_vision.evaluate.live.run_record import RunRecord
from edge_vision.gate.scheduler import EXPLAINED_DELAYS
from edge_vision.offline.progress import ProgressLine

FPS_HZ = 10.0
MAX_RSS_MB = 300.0
# Of the stamps: they are taken when an image is read, with the jitter of the machine.
JITTER_MS = 5.0
WARM_UP_S = 3.0
LONGEST_START_S = 60.0
_EXAMPLES = """examples:
  python bench/cameras.py                      four cameras for a minute
  python bench/cameras.py --cameras 2 --seconds 20
  python bench/cameras.py --every-frame        the gate off: every frame is inferred
  python bench/cameras.py --strict             exit status 1 where a target is missed"""


def main() -> int:
    options = _parser().parse_args()
    isolate_domain()
    result = new_result(options.video)
    result |= measure(options)
    result["load_1m_end"] = round(os.getloadavg()[0], 2)
    load = f"load {result['machine']['load_1m']} at the start, {result['load_1m_end']} at the end"
    return finish(options, result, _rows(result), load)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("cameras", __doc__, _EXAMPLES)
    parser.add_argument("--cameras", type=int, default=4, help="number (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="length (default: %(default)g)")
    parser.add_argument("--max-delay-ms", type=float, default=100.0, help="promise (default: %(default)g)")
    parser.add_argument("--every-frame", action="store_true", help="switch the gates off")
    return parser


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run all cameras for the given time after the last of them had its first detection."""
    from edge_vision.nodes.observers.pipeline_monitor import PipelineMonitor

    records = {f"camera_{number}": RunRecord() for number in range(1, options.cameras + 1)}
    line, begun_s, cpu = ProgressLine(), 0.0, [0.0, 0.0]
    with tempfile.TemporaryDirectory() as folder, PipelineMonitor(records) as monitor:
        monitor.spin(0.5)
        arguments = ["--cameras", ",".join(records), *_arguments(options, Path(folder) / "params.yaml")]
        process = PipelineProcess(arguments, Path(folder) / "log")
        try:
            while process.returncode is None:
                monitor.spin(0.5)
                usage = process.measure()
                if not begun_s and all(record.detections for record in records.values()):
                    begun_s, cpu[0] = time.monotonic(), usage.cpu_s or 0.0
                now_s, cpu[1] = time.monotonic(), usage.cpu_s or cpu[1]
                if now_s - (begun_s or now_s) > options.seconds or (
                    not begun_s and now_s - process.started_s > LONGEST_START_S
                ):
                    break
                counts = ", ".join(str(len(record.detections)) for record in records.values())
                line.show(f"{now_s - process.started_s:.0f} s, detections {counts}")
            ended_s = time.monotonic()
        finally:
            # The last status, with the final accounting, arrives during the shutdown.
            process.stop(meanwhile=monitor.spin)
            monitor.spin(0.5)
            line.end()
        if not begun_s:
            print("\n".join(process.last_lines()), file=sys.stderr)
            raise SystemExit("expected detections of all cameras, see the log above")
    return {
        "max_delay_ms": options.max_delay_ms,
        "every_frame": options.every_frame,
        "seconds": ended_s - begun_s,
        "cpu_percent": 100.0 * (cpu[1] - cpu[0]) / (ended_s - begun_s),
        "rss_mb": process.steady_mb,
        "peak_mb": process.peak_mb,
        "cameras": {name: _camera(record) for name, record in records.items()},
    }


def _arguments(options: argparse.Namespace, params: Path) -> list[str]:
    """Of the pipeline, without the cameras. params: the parameter file that this writes."""
    rate = FPS_HZ / (float(cv2.VideoCapture(str(options.video)).get(cv2.CAP_PROP_FPS)) or FPS_HZ)
    gate = {"max_delay_ms": options.max_delay_ms, "enabled": not options.every_frame}
    nodes = {"/**/source": {"playback_rate": rate}, "/**/gate": gate}
    params.write_text(yaml.safe_dump({name: {"ros__parameters": values} for name, values in nodes.items()}))
    arguments = ["--source", str(options.video), "--loop", "--backend", "onnxruntime"]
    return [*arguments, "--ros-args", "--params-file", str(params)]


def _camera(record: RunRecord) -> dict[str, Any]:
    """The figures of one camera, without its first seconds."""
    inferred = sorted(one.stamp_ns for one in record.detections)
    since_ns = inferred[0] + int(WARM_UP_S * 1e9)
    values, ledger = record.statuses["detector"], record.ledger
    delays_ms = [
        (inferred[bisect_left(inferred, stamp_ns)] - stamp_ns) / 1e6
        for stamp_ns in record.index_of
        if since_ns <= stamp_ns <= inferred[-1]
    ]
    ages_ms = [one.age_ms for one in record.detections if one.stamp_ns >= since_ns]
    return {
        "delay_ms": {**spread(delays_ms), "max": max(delays_ms, default=None)},
        "age_ms": spread(ages_ms),
        "wait_ms_p95": float(values["wait_ms.p95"]),
        "service_ms_p50": float(values["process_ms.p50"]),
        "load_percent": float(values["shared.load_percent"]),
        "models": int(values["shared.models"]),
        "report": record.texts["detector"],
        "ledger": ledger,
        "reasons": record.reasons,
        "unaccounted": ledger["received"] - sum(n for name, n in ledger.items() if name != "received"),
    }


def _rows(result: dict[str, Any]) -> list[Row]:
    cameras, rows = result["cameras"], []
    for name, one in cameras.items():
        counts = ", ".join(f"{fate} {count}" for fate, count in one["ledger"].items() if count)
        limit_ms = EXPLAINED_DELAYS * result["max_delay_ms"] + JITTER_MS
        note = f"p50 {one['delay_ms']['p50']:.0f}, max {one['delay_ms']['max']:.0f}"
        rows += [
            at_most(f"{name} delay_ms p95", one["delay_ms"]["p95"], limit_ms, "ms", note),
            Row(f"{name} age_ms p95", one["age_ms"]["p95"], "ms", note=f"wait p95 {one['wait_ms_p95']:.0f}"),
            at_most(f"{name} unaccounted", abs(one["unaccounted"]), 0, "frames", counts),
        ]
    models, service_ms = ({one[key] for one in cameras.values()} for key in ("models", "service_ms_p50"))
    return [
        *rows,
        at_most("rss_mb", result["rss_mb"], MAX_RSS_MB, "MB", f"peak {result['peak_mb']:.0f}"),
        at_most("models", max(models), 1, ""),
        Row("service_ms p50", max(service_ms), "ms", note="the slowest camera's"),
        Row("cpu", result["cpu_percent"], "%", note="of one core"),
    ]


if __name__ == "__main__":
    sys.exit(main())
