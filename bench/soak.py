#!/usr/bin/env python3
"""Sustained overload: `make soak MINUTES=10`. Prints a table and writes out/bench/soak.json.

The pipeline's executable plays a clip with the gate off, at twice the detector's capacity, which is measured
first. This process subscribes to `detections`.

age_ms_p99              from the image's stamp to its detections here, through DDS. The mailbox of the
                        detector contains the newest image, so an age is below two service times.
service_ms_p50          the detector's reported time per frame, median of the run; service_ms_p99 likewise.
                        Under load of other programs, it is far from p50, and so is the age.
age_slope_ms_per_min    Theil-Sen slope of medians over 5 s, as for the memory, without the first 15 s.
age_growth_services     growth of the age over the run, in service times: both rise with the load of other
                        programs, only the age with a queue.
rss_slope_kb_per_min    of the pipeline's VmRSS, read from /proc once a second, without the first fifth, in
                        which allocators settle; rss_slope_late_kb_per_min: of the second half.
rss_growth_kb           and so on: the median of the last tenth minus that of the first, of the same readings;
                        thread_growth and fd_growth of all readings.
load_factor             received images divided by inferred images: the actual overload.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from parts.benchmark import finish, make_parser, new_result
from parts.common import Row, at_most
from parts.process_stats import Reading, binned_medians, read_process, slope_per_min

from edge_vision.core.detections import Detections
from edge_vision.evaluate.live.pipeline_process import PipelineProcess, isolate_domain
from edge_vision.evaluate.live.run_record import RunRecord
from edge_vision.offline.progress import ProgressLine

OVERLOAD = 2.0
MEASURE_S = 10.0
# Caches, allocators and the percentiles' windows fill in this time.
WARM_UP_S = 15.0
LONGEST_START_S = 30.0
BIN_S = 5.0
# Limits of a slope: a tenth of the age over the whole run, and less memory than leaking one small object per
# frame would take.
AGE_GROWTH = 0.10
RSS_KB_PER_MIN = 100.0
_EXAMPLES = """examples:
  python bench/soak.py                 ten minutes and a half
  python bench/soak.py --minutes 1     a short run
  python bench/soak.py --strict        exit status 1 where a target is missed"""


def main() -> int:
    options = _parser().parse_args()
    isolate_domain()
    result = new_result(options.video) | {"minutes": options.minutes}
    result |= soak(options.video, options.minutes)
    result["load_1m_end"] = round(os.getloadavg()[0], 2)
    load = f"load {result['machine']['load_1m']} at the start, {result['load_1m_end']} at the end"
    return finish(options, result, _rows(result), load)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("soak", __doc__, _EXAMPLES)
    parser.add_argument("--minutes", type=_minutes, default=10.0, help="length (default: %(default)g)")
    return parser


def _minutes(text: str) -> float:
    value = float(text)
    if not 0.5 <= value < 1e5:
        raise argparse.ArgumentTypeError(f"expected minutes from 0.5 on, got {text}")
    return value


class Watch(RunRecord):
    """Keeps ages and statuses with their times, and nothing that grows fast."""

    def __init__(self) -> None:
        super().__init__()
        self.ages: list[tuple[float, float]] = []
        self.services: list[tuple[float, float, float]] = []
        self.ledgers: list[tuple[float, dict[str, int]]] = []

    def on_detections(self, stamp_ns: int, frame_id: str, found: Detections, age_ms: float) -> None:
        self.ages.append((time.monotonic(), age_ms))

    def on_source(self, stamp_ns: int, index: int) -> None:
        pass

    def on_status(self, node: str, level: int, text: str, values: dict[str, str]) -> None:
        super().on_status(node, level, text, values)
        if node == "detector":
            now_s = time.monotonic()
            self.ledgers.append((now_s, self.ledger))
            if values.get("process_ms.p50", "unavailable") != "unavailable":
                p50, p99 = (float(values[f"process_ms.{p}"]) for p in ("p50", "p99"))
                self.services.append((now_s, p50, p99))

    def rate_hz(self, fate: str, since_s: float) -> float:
        """Frames per second of an account, from the ledgers since then."""
        ledgers = [entry for entry in self.ledgers if entry[0] >= since_s]
        if len(ledgers) < 2:
            raise SystemExit("expected reports of the detector, got none; see the log above")
        (first_s, first), (last_s, last) = ledgers[0], ledgers[-1]
        return (last[fate] - first[fate]) / (last_s - first_s)


def soak(video: Path, minutes: float) -> dict[str, Any]:
    """Measure the capacity, idle and flooded, then overload. Raises SystemExit where no detection comes."""
    fps_hz = float(cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FPS)) or 10.0
    one_by_one_hz = _capacity_hz(video, 0.0, "one image at a time")
    flooded_hz = _capacity_hz(video, OVERLOAD * one_by_one_hz / fps_hz, "flooded")
    rate = OVERLOAD * flooded_hz / fps_hz
    watch, readings, began_s = play(video, rate, minutes * 60.0, f"overload at {rate * fps_hz:.0f} Hz")
    result = {"capacity_hz": flooded_hz, "capacity_one_by_one_hz": one_by_one_hz, "offered_hz": rate * fps_hz}
    return result | figures(watch, readings, began_s)


def _capacity_hz(video: Path, playback_rate: float, what: str) -> float:
    watch, _, began_s = play(video, playback_rate, MEASURE_S, f"capacity, {what}")
    return watch.rate_hz("inferred", began_s + 2.0)


def play(video: Path, rate: float, seconds: float, what: str) -> tuple[Watch, list[Reading], float]:
    """Run the pipeline for this long after the first detection: what came, what it cost, when that was."""
    from edge_vision.nodes.observers.pipeline_monitor import PipelineMonitor

    watch, line = Watch(), ProgressLine()
    readings: list[Reading] = []
    arguments = ["--source", str(video), "--loop", "--backend", "onnxruntime", "--ros-args"]
    arguments += ["-p", f"source:playback_rate:={rate:.4f}", "-p", "gate:enabled:=false"]
    with tempfile.TemporaryDirectory() as folder, PipelineMonitor({"": watch}) as monitor:
        process = PipelineProcess(arguments, Path(folder) / "log")
        try:
            while not _over(watch, process, seconds):
                monitor.spin(1.0)
                if process.returncode is None:
                    readings.append(read_process(process.pid))
                since_s = time.monotonic() - (watch.ages[0][0] if watch.ages else process.started_s)
                line.show(f"{what}: {since_s:.0f} of {seconds:.0f} s, {len(watch.ages)} detections")
        finally:
            process.stop(meanwhile=monitor.spin)
            monitor.spin(0.3)
            line.end()
        if not watch.ages or process.returncode:
            print("\n".join(process.last_lines()), file=sys.stderr)
            raise SystemExit(f"expected detections, got {len(watch.ages)}, exit status {process.returncode}")
    return watch, readings, watch.ages[0][0]


def _over(watch: Watch, process: PipelineProcess, seconds: float) -> bool:
    now_s = time.monotonic()
    if process.returncode is not None:
        return True
    if not watch.ages:
        return now_s - process.started_s > LONGEST_START_S
    return now_s - watch.ages[0][0] > seconds


def figures(
    watch: Watch, readings: list[Reading], began_s: float, warm_up_s: float = WARM_UP_S
) -> dict[str, Any]:
    """The figures of the run, without its first seconds."""
    from_s, to_s = began_s + warm_up_s, readings[-1].at_s
    ages = [(at_s, age_ms) for at_s, age_ms in watch.ages if from_s <= at_s <= to_s]
    kept = [one for one in readings if one.at_s >= from_s]
    at_s, age_ms = zip(*ages, strict=True)
    p50, p95, p99 = (float(value) for value in np.percentile(age_ms, (50, 95, 99)))
    settled, late = (kept[round(len(kept) * share) :] for share in (0.2, 0.5))
    binned = binned_medians(at_s, age_ms, BIN_S)
    return {
        "age_ms_p99": p99,
        "age_ms_p95": p95,
        "age_ms_p50": p50,
        "age_ms_max": max(age_ms),
        "service_ms_p50": statistics.median(p50 for at_s, p50, _ in watch.services if at_s >= from_s),
        "service_ms_p99": statistics.median(p99 for at_s, _, p99 in watch.services if at_s >= from_s),
        "age_slope_ms_per_min": slope_per_min(*binned),
        "age_growth_services": _age_growth(watch, *binned),
        "rss_slope_kb_per_min": _slope(settled, "rss_kb"),
        "rss_slope_late_kb_per_min": _slope(late, "rss_kb"),
        "rss_growth_kb": _growth(settled, "rss_kb"),
        "rss_kb": [kept[0].rss_kb, kept[-1].rss_kb],
        "fd_slope_per_min": _slope(kept, "fds"),
        "fd_growth": _growth(kept, "fds"),
        "fds": kept[-1].fds,
        "thread_growth": _growth(kept, "threads"),
        "threads": [kept[0].threads, kept[-1].threads],
        "ledger": watch.ledger,
        "reasons": watch.reasons,
        "ledgers": len(watch.ledgers),
        "ledgers_out_of_balance": sum(not _balanced(ledger) for _, ledger in watch.ledgers),
        "load_factor": watch.rate_hz("received", from_s) / watch.rate_hz("inferred", from_s),
        "inferred_hz": watch.rate_hz("inferred", from_s),
        "cpu_percent": 100.0 * (kept[-1].cpu_s - kept[0].cpu_s) / (kept[-1].at_s - kept[0].at_s),
        "detections_received": len(watch.ages),
        "measured_s": to_s - from_s,
        "by_minute": _by_minute(ages, kept, from_s),
    }


def _slope(readings: list[Reading], name: str) -> float | None:
    return slope_per_min([one.at_s for one in readings], [getattr(one, name) for one in readings])


def _growth(readings: list[Reading], name: str) -> int:
    """Medians: the pipeline opens files for a moment to read /proc and /sys."""
    count = max(1, len(readings) // 10)
    first, last = (
        statistics.median(getattr(one, name) for one in part)
        for part in (readings[:count], readings[-count:])
    )
    return round(last - first)


def _age_growth(watch: Watch, at_s: list[float], age_ms: list[float]) -> float | None:
    """Growth of the age from the first to the last of these times, in service times at the same time."""
    times_s, services_ms, _ = zip(*watch.services, strict=True)
    slope = slope_per_min(at_s, list(np.asarray(age_ms) / np.interp(at_s, times_s, services_ms)))
    return None if slope is None else slope * (at_s[-1] - at_s[0]) / 60.0


def _balanced(ledger: Mapping[str, int]) -> bool:
    return ledger["received"] == sum(count for name, count in ledger.items() if name != "received")


def _by_minute(
    ages: list[tuple[float, float]], readings: list[Reading], from_s: float
) -> list[dict[str, float]]:
    """Per minute: median and p99 of the age, memory, open files, load of the machine."""
    minutes: dict[int, list[float]] = {}
    for at_s, age_ms in ages:
        minutes.setdefault(int((at_s - from_s) // 60), []).append(age_ms)
    rows = []
    for minute, found in sorted(minutes.items()):
        here = [one for one in readings if int((one.at_s - from_s) // 60) == minute]
        p50, p99 = (round(float(value), 1) for value in np.percentile(found, (50, 99)))
        row: dict[str, float] = {"age_ms_p50": p50, "age_ms_p99": p99}
        if here:
            row |= {"rss_kb": here[-1].rss_kb, "fds": here[-1].fds, "load_1m": here[-1].load_1m}
        rows.append(row)
    return rows


def _rows(result: dict[str, Any]) -> list[Row]:
    service_ms, age_ms = result["service_ms_p50"], result["age_ms_p50"]
    minutes = result["measured_s"] / 60.0
    counts = ", ".join(f"{name} {count}" for name, count in result["ledger"].items() if count)
    note = f"p50 {age_ms:.1f}, p95 {result['age_ms_p95']:.1f}, max {result['age_ms_max']:.0f}"
    first_kb, last_kb = result["rss_kb"]
    memory = f"{first_kb} to {last_kb} KB; late {result['rss_slope_late_kb_per_min']:.0f}"
    age_limit = AGE_GROWTH * age_ms / minutes
    return [
        Row("load_factor", result["load_factor"], "x", note=f"{result['offered_hz']:.0f} Hz offered"),
        Row("capacity_hz", result["capacity_hz"], "Hz", note="flooded, before"),
        Row("service_ms_p50", service_ms, "ms", note=f"p99 {result['service_ms_p99']:.1f}"),
        at_most("age_ms_p99", result["age_ms_p99"], round(2 * service_ms, 1), "ms", note),
        at_most("age_slope_ms_per_min", result["age_slope_ms_per_min"], round(age_limit, 3), "ms/min"),
        at_most("rss_slope_kb_per_min", result["rss_slope_kb_per_min"], RSS_KB_PER_MIN, "KB/min", memory),
        at_most("fd_growth", result["fd_growth"], 0, "files", f"{result['fds']} at the end"),
        at_most("ledgers_out_of_balance", result["ledgers_out_of_balance"], 0, "", counts),
    ]


if __name__ == "__main__":
    sys.exit(main())
