"""A healthy pipeline, watched from outside: what it says of itself against what others see of it."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import common  # noqa: F401  (the path of this repository)
import cv2
import numpy as np
from outside import Reading, read_process, slope_per_min
from vision_msgs.msg import Detection2DArray

from edge_vision.cli.demo.process import PipelineProcess
from edge_vision.core.diagnostic_status import StatusEntry
from edge_vision.core.frame import Frame
from edge_vision.core.progress import ProgressLine
from edge_vision.nodes.base_node import steady_clock
from edge_vision.nodes.diagnostics_listener import DiagnosticsListener
from edge_vision.nodes.interface.image_messages import ImageWriter
from edge_vision.nodes.qos import LATEST_IMAGE, RESULTS

DELAY_MS = 300.0
LONGEST_START_S = 60.0
# Of the run: the first reports are left out where figures are compared, as discovery and caches settle.
SETTLE_S = 5.0


@dataclass
class Heard:
    """What came, with its times (monotonic). pairs: a report of the process, and /proc at that moment."""

    pid: int = 0
    statuses: list[tuple[float, StatusEntry]] = field(default_factory=list)
    pairs: list[tuple[StatusEntry, Reading]] = field(default_factory=list)
    detections_s: list[float] = field(default_factory=list)
    reports: int = 0

    def hear(self, told: Any) -> None:
        """One message of /diagnostics. Keeps what is not OK, and the figures to compare."""
        now_s = time.monotonic()
        self.reports += 1
        for one in told:
            if one.local_name == f"process {self.pid}" and one.number("rss_mb") is not None:
                self.pairs.append((one, read_process(self.pid)))
            if one.level or one.local_name == "detector":
                self.statuses.append((now_s, one))

    def detector(self, key: str, since_s: float) -> list[tuple[float, float]]:
        """(time, figure) of the detector's reports from then on."""
        found = [(at_s, one.number(key)) for at_s, one in self.statuses if one.local_name == "detector"]
        return [(at_s, value) for at_s, value in found if at_s >= since_s and value is not None]


class Outsider(DiagnosticsListener):
    """Listens to /diagnostics, and counts what comes on `detections`."""

    def __init__(self, heard: Heard) -> None:
        super().__init__(heard.hear)
        self._heard = heard

    def __enter__(self) -> Outsider:
        super().__enter__()
        self.node.create_subscription(Detection2DArray, "detections", self._count, RESULTS)
        return self

    def _count(self, message: Detection2DArray) -> None:
        self._heard.detections_s.append(time.monotonic())


def watch(video: Path, minutes: float, more: Sequence[str] = ()) -> dict[str, Any]:
    """Play a clip at real time for this long, from before the start until after the end. more: arguments."""
    heard, line = Heard(), ProgressLine()
    readings: list[Reading] = []
    with tempfile.TemporaryDirectory() as folder, Outsider(heard) as outsider:
        spin_for(outsider, 1.0)
        arguments = ["--source", str(video), "--loop", "--backend", "onnxruntime", *more]
        process = PipelineProcess(arguments, Path(folder) / "log")
        heard.pid = process.pid
        try:
            while process.returncode is None and not _lasted(heard, process.started_s, minutes * 60.0):
                spin_for(outsider, 1.0)
                readings.append(read_process(process.pid))
                played_s = time.monotonic() - process.started_s
                line.show(f"{played_s:.0f} of {minutes * 60:.0f} s, {len(heard.detections_s)} detections")
        finally:
            process.stop(meanwhile=partial(spin_for, outsider))
            spin_for(outsider, 2.0)
            line.end()
        log = process.last_lines(200)
    if not heard.detections_s or process.returncode:
        raise SystemExit("\n".join([*log, f"no detections, or exit status {process.returncode}"]))
    return _alarms(heard, log) | _memory(readings) | _agreement(heard)


def _lasted(heard: Heard, started_s: float, seconds: float) -> bool:
    now_s = time.monotonic()
    if not heard.detections_s:
        return now_s - started_s > LONGEST_START_S
    return now_s - heard.detections_s[0] > seconds


def _alarms(heard: Heard, log: list[str]) -> dict[str, Any]:
    """What was called out although nothing is wrong with the pipeline."""
    alarms = sorted({f"{one.level_name} {one.name}: {one.message}" for _, one in heard.statuses if one.level})
    warned = [text for text in log if not text.startswith("[INFO]")]
    system = [text for text in alarms + warned if " system:" in text]
    false = [text for text in alarms + warned if text not in system]
    return {
        "false_alarms": len(false),
        "false_alarms_say": false,
        "system_alarms": system,
        "reports": heard.reports,
        "played_s": heard.detections_s[-1] - heard.detections_s[0],
    }


def _memory(readings: list[Reading]) -> dict[str, Any]:
    kept = readings[len(readings) // 5 :]
    return {
        "rss_slope_kb_per_min": slope_per_min([one.at_s for one in kept], [one.rss_kb for one in kept]),
        "rss_kb": [kept[0].rss_kb, kept[-1].rss_kb],
        "rss_kb_each_10_s": [one.rss_kb for one in readings[::10]],
        "fd_growth": kept[-1].fds - kept[0].fds,
    }


def _agreement(heard: Heard) -> dict[str, Any]:
    """Told against seen from outside, over one window: from the first to the last report of the process."""
    from_s = heard.detections_s[0] + SETTLE_S
    pairs = [(one, reading) for one, reading in heard.pairs if reading.at_s >= from_s]
    if len(pairs) < 3:
        raise SystemExit(f"expected reports of process {heard.pid}, got {len(pairs)}")
    first, last = pairs[0], pairs[-1]
    wall_s = last[1].at_s - first[1].at_s
    seen_cpu = 100.0 * (last[1].cpu_s - first[1].cpu_s) / wall_s
    # Each report tells of the second before it: the first one's lies outside the window.
    told_cpu = statistics.fmean(_figure(one, "cpu_percent") for one, _ in pairs[1:])
    rates = [value for at_s, value in heard.detector("rate_out_hz", from_s) if at_s <= last[1].at_s][1:]
    count = sum(first[1].at_s < at_s <= last[1].at_s for at_s in heard.detections_s)
    figures = {
        "cpu": (told_cpu, seen_cpu),
        "rss": tuple(
            statistics.fmean(values)
            for values in zip(*((_figure(o, "rss_mb"), r.rss_kb * 1024 / 1e6) for o, r in pairs), strict=True)
        ),
        "fds": tuple(
            statistics.fmean(values)
            for values in zip(*((_figure(o, "fds"), r.fds) for o, r in pairs), strict=True)
        ),
        "rate": (statistics.fmean(rates), count / wall_s),
    }
    return {"agreement": shares(figures), "agreement_figures": figures, "agreement_window_s": wall_s}


def shares(figures: Mapping[str, Any]) -> dict[str, float]:
    """(told - outside) / outside."""
    return {name: (told - outside) / outside for name, (told, outside) in figures.items()}


def _figure(one: StatusEntry, key: str) -> float:
    value = one.number(key)
    if value is None:
        raise SystemExit(f"expected a figure {key} of {one.name}, got '{one.values.get(key)}'")
    return value


def delayed(video: Path, rounds: int) -> dict[str, Any]:
    """Age at output with stamps that lie 300 ms in the past less that with true ones, in turns."""
    pictures = pictures_of(video)
    found = [
        (age_ms(pictures, DELAY_MS) - age_ms(pictures, 0.0))
        if n % 2
        else -(age_ms(pictures, 0.0) - age_ms(pictures, DELAY_MS))
        for n in range(rounds)
    ]
    figures = {"delay": (statistics.median(found), DELAY_MS)}
    return {
        "delay_agreement": shares(figures),
        "delay_agreement_figures": figures,
        "delay_ms_rounds": found,
    }


def pictures_of(video: Path, count: int = 30) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(video))
    pictures = [cv2.resize(capture.read()[1], (640, 480)) for _ in range(count)]
    capture.release()
    return pictures


def age_ms(pictures: list[np.ndarray], delay_ms: float, count: int = 60) -> float:
    """The p50 of the age at output that the detector tells, of a camera at 10 Hz in another process."""
    from sensor_msgs.msg import Image

    heard = Heard()
    with tempfile.TemporaryDirectory() as folder, Outsider(heard) as outsider:
        publisher = outsider.node.create_publisher(Image, "image_raw", LATEST_IMAGE)
        writer, sent = ImageWriter(), 0

        def send() -> None:
            nonlocal sent
            if publisher.get_subscription_count() == 0:
                return
            stamp_ns = outsider.node.get_clock().now().nanoseconds - round(delay_ms * 1e6)
            publisher.publish(
                writer.message(Frame(pictures[sent % len(pictures)], stamp_ns, "camera", "bgr8"))
            )
            sent += 1

        arguments = ["--backend", "onnxruntime", "--ros-args", "-p", "gate:enabled:=false"]
        process = PipelineProcess(arguments, Path(folder) / "log")
        try:
            outsider.node.create_timer(0.1, send, clock=steady_clock())
            until_s = time.monotonic() + LONGEST_START_S
            while sent < count and time.monotonic() < until_s and process.returncode is None:
                outsider.spin(0.2)
            spin_for(outsider, 1.5)
            # On a loaded machine, images and reports may not find their ways at the same time.
            while not heard.detector("age_ms.p50", 0.0) and time.monotonic() < until_s:
                outsider.spin(0.2)
        finally:
            process.stop(meanwhile=partial(spin_for, outsider))
        ages = heard.detector("age_ms.p50", 0.0)
        if not ages:
            raise SystemExit("\n".join([*process.last_lines(), "expected ages of the detector, none came"]))
    return ages[-1][1]


def spin_for(outsider: Outsider, seconds: float) -> None:
    """Take what comes for this long."""
    until_s = time.monotonic() + seconds
    while (left_s := until_s - time.monotonic()) > 0:
        outsider.spin(left_s)
