"""A healthy pipeline, monitored from outside: its own reports against independent measurements."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import parts.common  # noqa: F401  (the path of this repository)
from parts.process_stats import Reading, read_process, slope_per_min
from rclpy.clock import Clock, ClockType
from vision_msgs.msg import Detection2DArray

from edge_vision.core.diagnostic_status import StatusEntry
from edge_vision.core.frame import Frame
from edge_vision.evaluate.live.pipeline_process import PipelineProcess
from edge_vision.nodes.interface.image_messages import ImageWriter
from edge_vision.nodes.observers.diagnostics_listener import DiagnosticsListener
from edge_vision.nodes.transport.qos import LATEST_IMAGE, RESULTS
from edge_vision.offline.progress import ProgressLine

DELAY_MS = 300.0
LONGEST_START_S = 60.0
# Of the run: the first reports are left out where figures are compared, as discovery and caches settle.
SETTLE_S = 5.0


@dataclass
class Received:
    """Received messages with their monotonic times. pairs: process reports with /proc at that time."""

    pid: int = 0
    statuses: list[tuple[float, StatusEntry]] = field(default_factory=list)
    pairs: list[tuple[StatusEntry, Reading]] = field(default_factory=list)
    detections_s: list[float] = field(default_factory=list)
    reports: int = 0

    def add(self, entries: Any) -> None:
        """Add one message of /diagnostics: entries that are not OK, and the figures to compare."""
        now_s = time.monotonic()
        self.reports += 1
        for one in entries:
            if one.local_name == f"process {self.pid}" and one.number("rss_mb") is not None:
                self.pairs.append((one, read_process(self.pid)))
            if one.level or one.local_name == "detector":
                self.statuses.append((now_s, one))

    def detector(self, key: str, since_s: float) -> list[tuple[float, float]]:
        """(time, value) of the detector's reports since then."""
        found = [(at_s, one.number(key)) for at_s, one in self.statuses if one.local_name == "detector"]
        return [(at_s, value) for at_s, value in found if at_s >= since_s and value is not None]


class ExternalMonitor(DiagnosticsListener):
    """Subscribes to /diagnostics, and counts the messages on `detections`."""

    def __init__(self, received: Received) -> None:
        super().__init__(received.add)
        self._received = received

    def __enter__(self) -> ExternalMonitor:
        super().__enter__()
        self.node.create_subscription(Detection2DArray, "detections", self._count, RESULTS)
        return self

    def _count(self, message: Detection2DArray) -> None:
        self._received.detections_s.append(time.monotonic())


def watch(video: Path, minutes: float, more: Sequence[str] = ()) -> dict[str, Any]:
    """Play a clip at real time for this long, from before the start until after the end. more: arguments."""
    received, line = Received(), ProgressLine()
    readings: list[Reading] = []
    with tempfile.TemporaryDirectory() as folder, ExternalMonitor(received) as monitor:
        spin_for(monitor, 1.0)
        arguments = ["--source", str(video), "--loop", "--backend", "onnxruntime", *more]
        process = PipelineProcess(arguments, Path(folder) / "log")
        received.pid = process.pid
        try:
            while process.returncode is None and not _lasted(received, process.started_s, minutes * 60.0):
                spin_for(monitor, 1.0)
                readings.append(read_process(process.pid))
                played_s = time.monotonic() - process.started_s
                line.show(f"{played_s:.0f} of {minutes * 60:.0f} s, {len(received.detections_s)} detections")
        finally:
            process.stop(meanwhile=partial(spin_for, monitor))
            spin_for(monitor, 2.0)
            line.end()
        log = process.last_lines(200)
    if not received.detections_s or process.returncode:
        raise SystemExit("\n".join([*log, f"no detections, or exit status {process.returncode}"]))
    return _alarms(received, log) | _memory(readings) | _agreement(received)


def _lasted(received: Received, started_s: float, seconds: float) -> bool:
    now_s = time.monotonic()
    if not received.detections_s:
        return now_s - started_s > LONGEST_START_S
    return now_s - received.detections_s[0] > seconds


def _alarms(received: Received, log: list[str]) -> dict[str, Any]:
    """Alarms although the pipeline is healthy."""
    alarms = sorted(
        {f"{one.level_name} {one.name}: {one.message}" for _, one in received.statuses if one.level}
    )
    warned = [text for text in log if not text.startswith("[INFO]")]
    system = [text for text in alarms + warned if " system:" in text]
    false = [text for text in alarms + warned if text not in system]
    return {
        "false_alarms": len(false),
        "false_alarms_messages": false,
        "system_alarms": system,
        "reports": received.reports,
        "played_s": received.detections_s[-1] - received.detections_s[0],
    }


def _memory(readings: list[Reading]) -> dict[str, Any]:
    kept = readings[len(readings) // 5 :]
    return {
        "rss_slope_kb_per_min": slope_per_min([one.at_s for one in kept], [one.rss_kb for one in kept]),
        "rss_kb": [kept[0].rss_kb, kept[-1].rss_kb],
        "rss_kb_each_10_s": [one.rss_kb for one in readings[::10]],
        "fd_growth": kept[-1].fds - kept[0].fds,
    }


def _agreement(received: Received) -> dict[str, Any]:
    """Reported against measured values, over one window: from the first to the last report of the process."""
    from_s = received.detections_s[0] + SETTLE_S
    pairs = [(one, reading) for one, reading in received.pairs if reading.at_s >= from_s]
    if len(pairs) < 3:
        raise SystemExit(f"expected reports of process {received.pid}, got {len(pairs)}")
    first, last = pairs[0], pairs[-1]
    wall_s = last[1].at_s - first[1].at_s
    measured_cpu = 100.0 * (last[1].cpu_s - first[1].cpu_s) / wall_s
    # Each report covers the second before it, so the first one lies outside the window.
    reported_cpu = statistics.fmean(_figure(one, "cpu_percent") for one, _ in pairs[1:])
    rates = [value for at_s, value in received.detector("rate_out_hz", from_s) if at_s <= last[1].at_s][1:]
    count = sum(first[1].at_s < at_s <= last[1].at_s for at_s in received.detections_s)
    figures = {
        "cpu": (reported_cpu, measured_cpu),
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
    """(reported - measured) / measured."""
    return {name: (reported - measured) / measured for name, (reported, measured) in figures.items()}


def _figure(one: StatusEntry, key: str) -> float:
    value = one.number(key)
    if value is None:
        raise SystemExit(f"expected a figure {key} of {one.name}, got '{one.values.get(key)}'")
    return value


def delayed(video: Path, rounds: int) -> dict[str, Any]:
    """Age at output with stamps 300 ms in the past, minus that with correct stamps, interleaved."""
    images = read_images(video)
    found = [
        (age_ms(images, DELAY_MS) - age_ms(images, 0.0))
        if n % 2
        else -(age_ms(images, 0.0) - age_ms(images, DELAY_MS))
        for n in range(rounds)
    ]
    figures = {"delay": (statistics.median(found), DELAY_MS)}
    return {
        "delay_agreement": shares(figures),
        "delay_agreement_figures": figures,
        "delay_ms_rounds": found,
    }


def read_images(video: Path, count: int = 30) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(video))
    images = [cv2.resize(capture.read()[1], (640, 480)) for _ in range(count)]
    capture.release()
    return images


def age_ms(images: list[np.ndarray], delay_ms: float, count: int = 60) -> float:
    """The p50 of the age at output that the detector reports, for a camera at 10 Hz in another process."""
    from sensor_msgs.msg import Image

    received = Received()
    with tempfile.TemporaryDirectory() as folder, ExternalMonitor(received) as monitor:
        publisher = monitor.node.create_publisher(Image, "image_raw", LATEST_IMAGE)
        writer, sent = ImageWriter(), 0

        def send() -> None:
            nonlocal sent
            if publisher.get_subscription_count() == 0:
                return
            stamp_ns = monitor.node.get_clock().now().nanoseconds - round(delay_ms * 1e6)
            publisher.publish(writer.message(Frame(images[sent % len(images)], stamp_ns, "camera", "bgr8")))
            sent += 1

        arguments = ["--backend", "onnxruntime", "--ros-args", "-p", "gate:enabled:=false"]
        process = PipelineProcess(arguments, Path(folder) / "log")
        try:
            monitor.node.create_timer(0.1, send, clock=Clock(clock_type=ClockType.STEADY_TIME))
            until_s = time.monotonic() + LONGEST_START_S
            while sent < count and time.monotonic() < until_s and process.returncode is None:
                monitor.spin(0.2)
            spin_for(monitor, 1.5)
            # On a loaded machine, images and reports may be discovered at different times.
            while not received.detector("age_ms.p50", 0.0) and time.monotonic() < until_s:
                monitor.spin(0.2)
        finally:
            process.stop(meanwhile=partial(spin_for, monitor))
        ages = received.detector("age_ms.p50", 0.0)
        if not ages:
            raise SystemExit(
                "\n".join([*process.last_lines(), "expected reports of the detector's age, got none"])
            )
    return ages[-1][1]


def spin_for(monitor: ExternalMonitor, seconds: float) -> None:
    """Receive messages for this long."""
    until_s = time.monotonic() + seconds
    while (left_s := until_s - time.monotonic()) > 0:
        monitor.spin(left_s)
