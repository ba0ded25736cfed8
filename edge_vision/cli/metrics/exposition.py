"""The metrics of the pipelines, made from their statuses when Prometheus scrapes. Imports no ROS.

Names and units follow https://prometheus.io/docs/practices/naming/. The nodes count the histograms of their
times, so none is lost between two reports, and nothing is subscribed to for them.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)

from edge_vision.cli.top.board import SILENT_S, STAGES, Board, PipelineStatus, of_pipelines
from edge_vision.core.diagnostic_status import StatusEntry
from edge_vision.core.latency import BUCKETS_MS
from edge_vision.core.ledger import FATES, MAX_REASONS, OTHER
from edge_vision.diagnostics.causes.frames import has_stamps_of_file

PREFIX = "edge_vision"
MAX_LABEL_CHARS = 100
BOUNDS_S = (*(str(bound_ms / 1e3) for bound_ms in BUCKETS_MS), "+Inf")
STEPS = ("process", "preprocess", "inference", "postprocess", "wait", "classification")
# Part, key, name, factor to the base unit, description. In place of a flag's factor: the text that counts as
# 0; any other counts as 1. A name in _total is a counter.
NUMBERS = (
    ("detector", "ledger.received", "frames_received_total", 1, "Frames received."),
    ("detector", "ledger.in_flight", "frames_in_flight", 1, "Frames still being processed."),
    ("detector", "detections_total", "detections_total", 1, "Objects detected."),
    ("source", "sent", "source_images_total", 1, "Images sent by the source."),
    ("gate", "rate_in_hz", "gate_input_hertz", 1, "Images per second that reach the gate."),
    ("gate", "blind_ms", "gate_blind_seconds", 1e-3, "Time since the last frame that passed the gate."),
    ("gate", "audit.audited", "audit_frames", 1, "Skipped frames inferred for the present estimate."),
    ("gate", "audit.missed", "audit_missed_frames", 1, "Of these: frames with a missed object."),
    ("gate", "audit.miss_rate", "audit_miss_ratio", 1, "Share of audited frames with a missed object."),
    ("gate", "audit.miss_rate_low", "audit_miss_ratio_lower", 1, "Lower bound of its 95 % interval."),
    ("gate", "audit.miss_rate_high", "audit_miss_ratio_upper", 1, "Upper bound of its 95 % interval."),
    ("system", "cpu.percent", "host_cpu_ratio", 1e-2, "Load of all cores of the machine, 0 to 1."),
    ("system", "memory.used_mb", "host_memory_used_bytes", 1e6, "Memory of the machine in use."),
    ("system", "memory.total_mb", "host_memory_size_bytes", 1e6, "Memory of the machine."),
    ("system", "temperature_c.max", "host_temperature_celsius", 1, "The hottest sensor of the machine."),
    ("system", "power_w", "host_power_watts", 1, "Power of the machine."),
    ("system", "energy_j", "host_energy_joules_total", 1, "Energy of the machine since the first reading."),
    ("system", "energy_per_inferred_frame_j", "energy_per_inferred_frame_joules", 1, "Mean of 10 s."),
    ("system", "gpu.0.percent", "host_gpu_ratio", 1e-2, "Load of the first GPU, 0 to 1."),
    ("updater", "security_floor", "update_security_floor", 1, "Lowest release that the updater accepts."),
    ("updater", "tries", "update_tries", 1, "Starts with an unproven model."),
    ("updater", "download.bytes", "update_downloaded_bytes", 1, "Progress of the present download."),
    ("gate", "audit.open", "audit_open", "False", "1 if the miss rate exceeds the gate's max_miss_rate."),
    ("detector", "ledger.balanced", "ledger_balanced", "False", "1 if the frame counts add up."),
    ("detector", "swap.loading", "model_loading", "False", "1 while another model is being loaded."),
    ("system", "throttling", "host_throttling", "no", "1 if heat or voltage slows the machine down."),
    ("updater", "probation", "update_probation", "False", "1 while an update is on probation."),
    ("updater", "shadow", "update_shadow", "False", "1 while two models are compared."),
    ("updater", "checking", "update_checking", "False", "1 while a check for updates runs."),
)
# Key of a process's status, name, factor: sums of the processes of a pipeline.
PROCESSES = (
    ("cpu_s", "process_cpu_seconds_total", 1, "CPU time of the pipeline's processes."),
    ("rss_mb", "process_resident_memory_bytes", 1e6, "Resident memory of the pipeline's processes."),
    ("threads", "process_threads", 1, "Threads of the pipeline's processes."),
    ("fds", "process_open_fds", 1, "Open files of the pipeline's processes."),
)
# Part, name, label -> key.
INFOS = (
    (
        "detector",
        "backend",
        {label: f"backend.actual.{label}" for label in ("backend", "device", "precision", "provider")},
        "What runs the detector.",
    ),
    ("detector", "model", {"model": "model", "sha256": "model_sha256"}, "The detector's bundle."),
    (
        "updater",
        "update",
        {"serving": "serving", "candidate": "candidate", "last_check": "last_check"},
        "State of model updates.",
    ),
)


class LabelValues:
    """Limits how many values a label takes while the process runs: peers can invent any number of them."""

    def __init__(self) -> None:
        self._seen: dict[str, set[str]] = {}

    def limited(self, label: str, value: str) -> str:
        """The value, cut to MAX_LABEL_CHARS; OTHER if the label has had MAX_REASONS others."""
        value, seen = value[:MAX_LABEL_CHARS], self._seen.setdefault(label, set())
        if len(seen) < MAX_REASONS:
            seen.add(value)
        return value if value in seen else OTHER


class PipelineMetrics:
    """A collector for prometheus_client. `collect` may be called in any thread, the rest in one.

    clock: monotonic time in s.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._board = Board()
        self._updaters: dict[str, tuple[StatusEntry, float]] = {}
        self._labels = LabelValues()

    def update(self, statuses: Sequence[StatusEntry]) -> None:
        """Take one message of /diagnostics."""
        ours = of_pipelines(statuses, self.cameras)
        with self._lock:
            self._board.update(ours, self._clock())

    def update_updater(self, namespace: str, status: StatusEntry) -> None:
        """Take a status of the updater, which /diagnostics has only if it is among `watched_nodes`."""
        with self._lock:
            self._updaters[namespace] = status, self._clock()

    @property
    def cameras(self) -> list[str]:
        """The namespaces of the pipelines that have reported."""
        return [one.namespace for one in self._board.pipelines]

    def collect(self) -> Iterator[Any]:
        """All metric families. Those of a pipeline that does not report end, except `edge_vision_up` = 0."""
        with self._lock:
            now_s = self._clock()
            live = {one.namespace: now_s - one.received_s <= SILENT_S for one in self._board.pipelines}
            pipelines = [
                self._with_updater(one, now_s) for one in self._board.pipelines if live[one.namespace]
            ]
            families = [
                _family(
                    GaugeMetricFamily,
                    "up",
                    "1 if the pipeline reports.",
                    (),
                    [((camera,), float(up)) for camera, up in live.items()],
                ),
                *_families(pipelines, self._labels),
            ]
        yield from families

    def _with_updater(self, pipeline: PipelineStatus, now_s: float) -> PipelineStatus:
        status, received_s = self._updaters.get(pipeline.namespace, (StatusEntry("updater"), now_s))
        parts = dict(pipeline.parts)
        if now_s - received_s <= SILENT_S and status.values:
            parts["updater"] = status
        return PipelineStatus(pipeline.namespace, parts, pipeline.received_s)


Samples = Sequence[tuple[tuple[str, ...], float]]


def _family(kind: Any, name: str, text: str, labels: Sequence[str], samples: Samples) -> Any:
    """A family of gauges or counters. labels: in addition to `camera`."""
    family = kind(f"{PREFIX}_{name}", text, labels=["camera", *labels])
    for values, number in samples:
        family.add_metric(values, number)
    return family


def _kind(name: str) -> Any:
    return CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily


def _families(pipelines: Sequence[PipelineStatus], labels: LabelValues) -> Iterator[Any]:
    text = "Frames by what became of them; reason is empty where there is none."
    frames = [sample for one in pipelines for sample in _frames(one, labels)]
    yield _family(CounterMetricFamily, "frames_total", text, ("outcome", "reason"), frames)
    levels = [
        ((one.namespace, name), float(one.part(name).level))
        for one in pipelines
        for name in (*STAGES, "system", "output")
        if name in one.parts
    ]
    text = "Level of a status: 0 OK, 1 warning, 2 error, 3 no report."
    yield _family(GaugeMetricFamily, "status_level", text, ("status",), levels)
    for part, key, name, scale, text in NUMBERS:
        numbers = [(one.namespace, _value(one.part(part), key, scale)) for one in pipelines]
        if name.endswith("_total"):
            numbers = [(camera, number) for camera, number in numbers if (number or 0.0) >= 0]
        yield _family(_kind(name), name, text, (), [((c,), n) for c, n in numbers if n is not None])
    for key, name, factor, text in PROCESSES:
        found = [(one.namespace, [s.number(key) for s in one.processes]) for one in pipelines]
        sums = [((c,), factor * sum(n for n in ns if n is not None and n >= 0)) for c, ns in found if any(ns)]
        yield _family(_kind(name), name, text, (), sums)
    fallbacks = [
        ((one.namespace,), float(bool(one.part("detector").text("backend.fallback_reason"))))
        for one in pipelines
        if "backend.actual.backend" in one.part("detector").values
    ]
    text = "1 if the detector runs on another backend or device than requested."
    yield _family(GaugeMetricFamily, "backend_fallback", text, (), fallbacks)
    causes = [
        ((one.namespace, labels.limited("cause", one.part("output").text("cause"))), 1.0)
        for one in pipelines
        if "output" in one.parts
    ]
    text = "1 for the cause why nothing is published, or none."
    yield _family(GaugeMetricFamily, "cause", text, ("cause",), causes)
    yield from _infos(pipelines, labels)
    yield from _histograms(pipelines)


def _value(status: StatusEntry, key: str, scale: float | str) -> float | None:
    """A value in its base unit, see NUMBERS. None if it is unavailable."""
    if isinstance(scale, str):
        text = status.text(key)
        return float(text != scale) if text else None
    number = status.number(key)
    return None if number is None else number * scale


def _frames(pipeline: PipelineStatus, labels: LabelValues) -> Samples:
    """The ledger: per outcome, the counts by reason, and the rest without one, so that sums are right."""
    values = pipeline.part("detector")
    samples: list[tuple[tuple[str, ...], float]] = []
    for fate in FATES[:-1]:
        total = values.number(f"ledger.{fate}")
        if total is None or total < 0:
            continue
        reasons: dict[str, float] = {}
        for key in values.values:
            reason = key.removeprefix(f"ledger.{fate}.")
            if reason != key and (number := values.number(key)) is not None and number >= 0:
                label = labels.limited(f"{pipeline.namespace} {fate}", reason)
                reasons[label] = reasons.get(label, 0.0) + number
        reasons[""] = max(0.0, total - sum(reasons.values()))
        samples += [((pipeline.namespace, fate, reason), number) for reason, number in reasons.items()]
    return samples


def _infos(pipelines: Sequence[PipelineStatus], labels: LabelValues) -> Iterator[Any]:
    for part, name, keys, text in INFOS:
        family = InfoMetricFamily(f"{PREFIX}_{name}", text, labels=["camera"])
        for one in pipelines:
            found = {label: labels.limited(label, one.part(part).text(key)) for label, key in keys.items()}
            if any(found.values()):
                family.add_metric([one.namespace], found)
        yield family


def _histograms(pipelines: Sequence[PipelineStatus]) -> Iterator[Any]:
    text = "Time of a processing step per frame."
    steps = HistogramMetricFamily(f"{PREFIX}_step_seconds", text, labels=["camera", "stage", "step"])
    text = "From the image's stamp to the publication of its detections; not with stamps of a file."
    ages = HistogramMetricFamily(f"{PREFIX}_detections_age_seconds", text, labels=["camera"])
    for one in pipelines:
        for stage in STAGES:
            for step in STEPS:
                _add_histogram(steps, one.part(stage), f"{step}_ms", [one.namespace, stage, step])
        if not has_stamps_of_file(one.part("source").values):
            _add_histogram(ages, one.part("detector"), "age_ms", [one.namespace])
    yield steps
    yield ages


def _add_histogram(family: Any, status: StatusEntry, key: str, labels: list[str]) -> None:
    """Add the text of LatencyWindow.histogram, unless it is none."""
    try:
        *counts, sum_ms = map(float, status.text(f"{key}.histogram").split())
    except ValueError:
        return
    # Counts are of all frames up to a bound.
    ordered = all(low <= high for low, high in pairwise([0.0, *counts]))
    whole = (
        ordered and sum_ms >= 0 and math.isfinite(sum_ms + sum(counts)) and all(map(float.is_integer, counts))
    )
    if len(counts) == len(BOUNDS_S) and counts[-1] and whole:
        family.add_metric(labels, list(zip(BOUNDS_S, counts, strict=True)), sum_ms / 1e3)
