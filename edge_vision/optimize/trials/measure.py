"""Trial: times a candidate alternating with its parent, each in a fresh process, and rates its predictions.

The speed of a machine drifts, so only simultaneous measurements are comparable: the ratio to the parent is
the median over rounds of the ratio of their medians, with a 95 % confidence interval of that median.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edge_vision.backends.host import usable_cores
from edge_vision.backends.selection.parity import sqnr_db
from edge_vision.diagnostics.sensors.power import PowerMeter
from edge_vision.diagnostics.sensors.tree import Tree
from edge_vision.errors import BackendError
from edge_vision.optimize.agreement import Agreement, agreement, read_detections, rename_classes
from edge_vision.optimize.data import ground_truth
from edge_vision.optimize.processor import cpu_name
from edge_vision.optimize.trials.worker import WorkerProcess, WorkerSetup

WARM_UP, PER_ROUND, MIN_ROUNDS, MAX_ROUNDS = 3, 5, 8, 40

PassTimes = tuple[float, float, float]
"""ms of a pass, of its inference, of its CPU time."""


@dataclass(frozen=True, slots=True)
class MeasureTask:
    """parent: None for the baseline. predictions: file to write; reference: that of the baseline.

    exact: outputs of exact arithmetic of an int8 graph, see `variant`. labels: ground truth file. "" = none.
    class_ids: the reference's ids of the candidate's labels; empty = the same labels.
    """

    candidate: WorkerSetup
    parent: WorkerSetup | None
    task: str
    measure_s: float
    predictions: str
    reference: str
    exact: str = ""
    labels: str = ""
    class_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Timing:
    """A pass is preparation, inference and decoding of one image.

    p50_band_ms, ratio_band: 95 % confidence intervals. ratio_to_parent: below 1 is faster. energy_mj: of one
    pass; None if no power sensor can be read.
    """

    p50_ms: float
    p95_ms: float
    p99_ms: float
    p50_band_ms: tuple[float, float]
    inference_p50_ms: float
    cpu_p50_ms: float
    passes: int
    ratio_to_parent: float = 1.0
    ratio_band: tuple[float, float] = (1.0, 1.0)
    inference_ratio: float = 1.0
    energy_mj: float | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """actual: BackendActual as a mapping. saturation_db: loss against exact arithmetic; None unless int8.

    cold_start_s: from process start to the first result. rss_mb: peak memory of the process. machine:
    where it was measured.
    """

    timing: Timing
    agreement: Agreement
    actual: Mapping[str, Any]
    cold_start_s: float
    rss_mb: float
    mean_ap: ground_truth.MeanAp | None = None
    saturation_db: float | None = None
    machine: str = ""


def run(task: MeasureTask) -> Measurement:
    """Measure a candidate. Raises BackendError, HeadError, BundleError, OptimizeError."""
    with ExitStack() as stack:
        parent = stack.enter_context(WorkerProcess("the parent", task.parent)) if task.parent else None
        worker = stack.enter_context(WorkerProcess("the candidate", task.candidate))
        timing = timed(worker, parent, task.measure_s)
        rss_mb = round(worker.request("rss"), 1)
        worker.request("predict", images=task.candidate.images, out=task.predictions)
        if task.class_ids:
            rename_classes(Path(task.predictions), task.class_ids)
        return Measurement(
            timing,
            agreement(task.task, Path(task.predictions), Path(task.reference), task.class_ids),
            worker.actual,
            round(worker.cold_start_s, 3),
            rss_mb,
            _mean_ap(worker, task) if task.labels else None,
            _saturation_db(worker, Path(task.exact)) if task.exact else None,
            f"{cpu_name()}, {usable_cores()} cores",
        )


def timed(worker: WorkerProcess, parent: WorkerProcess | None, measure_s: float) -> Timing:
    """Time a worker in rounds that alternate with its parent."""
    for one in filter(None, (parent, worker)):
        one.request("time", n=WARM_UP)
    meter, energy_j = PowerMeter(Tree()), 0.0
    passes: list[PassTimes] = []
    medians: list[float] = []
    ratios: list[tuple[float, float]] = []
    deadline_s = time.monotonic() + measure_s * (2 if parent else 1)
    for number in range(MAX_ROUNDS):
        if number >= MIN_ROUNDS and time.monotonic() > deadline_s:
            break
        # The order alternates too, so that a drift within a round favours neither.
        theirs = parent.request("time", n=PER_ROUND) if parent and number % 2 == 0 else None
        before = meter.read(time.monotonic())
        ours = worker.request("time", n=PER_ROUND)
        energy_j += _energy_j(before, meter.read(time.monotonic()))
        if parent:
            ratios.append(_ratios(ours, theirs or parent.request("time", n=PER_ROUND)))
        passes += ours
        medians.append(median(one[0] for one in ours))
    return _timing(passes, medians, ratios, energy_j)


def _ratios(ours: Sequence[PassTimes], theirs: Sequence[PassTimes]) -> tuple[float, float]:
    """Of the medians of a round: passes, inferences."""
    whole, inference = (median(one[at] for one in ours) / median(one[at] for one in theirs) for at in (0, 1))
    return whole, inference


def _timing(
    passes: Sequence[PassTimes],
    medians: Sequence[float],
    ratios: Sequence[tuple[float, float]],
    energy_j: float,
) -> Timing:
    pass_ms, inference_ms, cpu_ms = zip(*passes, strict=True)
    p50, p95, p99 = (round(float(np.percentile(pass_ms, p)), 3) for p in (50, 95, 99))
    whole, inference = zip(*(ratios or [(1.0, 1.0)]), strict=True)
    return Timing(
        p50,
        p95,
        p99,
        _rounded(median_band(medians), 3),
        round(median(inference_ms), 3),
        round(median(cpu_ms), 3),
        len(passes),
        round(median(whole), 4),
        _rounded(median_band(whole), 4),
        round(median(inference), 4),
        round(1e3 * energy_j / len(passes), 1) if energy_j > 0 else None,
    )


def _rounded(band: tuple[float, float], digits: int) -> tuple[float, float]:
    return round(band[0], digits), round(band[1], digits)


def median_band(values: Sequence[float]) -> tuple[float, float]:
    """A distribution-free 95 % confidence interval of the median, from order statistics.

    Source of the method: Conover, "Practical Nonparametric Statistics" (1999), 3.2, its normal approximation.
    """
    ordered = sorted(values)
    n = len(ordered)
    low = max(0, math.floor(n / 2 - 1.96 * math.sqrt(n) / 2))
    return ordered[low], ordered[n - 1 - low]


def _energy_j(before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    """Energy between two readings of one sensor; 0 if it cannot be read."""
    first, second = before.get("energy_j"), after.get("energy_j")
    if isinstance(first, float) and isinstance(second, float):
        return second - first if before["power_source"] == after["power_source"] else 0.0
    return 0.0


def _mean_ap(worker: WorkerProcess, task: MeasureTask) -> ground_truth.MeanAp:
    """mAP over all scores. Lowers the worker's score threshold."""
    file = f"{task.predictions.removesuffix('.npz')}.all.npz"
    threshold = ground_truth.SCORE_THRESHOLD
    worker.request("predict", images=task.candidate.images, out=file, score_threshold=threshold)
    labels = json.loads(Path(task.labels).read_text("utf-8"))
    return ground_truth.mean_ap(read_detections(Path(file)), labels)


def _saturation_db(worker: WorkerProcess, exact: Path) -> float:
    """Loss of the runtime's int8 arithmetic against exact arithmetic on the same tensors, dB."""
    out = exact.with_name("outputs.npz")
    worker.request("raw", tensors=str(exact.with_name("tensors.npz")), out=str(out))
    with np.load(exact) as kept, np.load(out) as outputs:
        arrays = (_with_prefix(kept, "fp32."), _with_prefix(kept, "exact."), _with_prefix(outputs, ""))
        return round(saturation_db(*arrays), 2)


def saturation_db(
    reference: Mapping[str, np.ndarray], exact: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]
) -> float:
    """SQNR of exact QDQ arithmetic minus that of the runtime, both against the fp32 outputs, dB.

    Rounding alone accounts for some hundredths. Raises BackendError if outputs are missing or not finite.
    """
    missing = set(exact) - set(outputs)
    if missing:
        raise BackendError(f"expected the outputs {', '.join(sorted(exact))}, the runtime lacks {missing}")
    return _mean_sqnr_db(reference, exact) - _mean_sqnr_db(reference, outputs)


def _mean_sqnr_db(reference: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> float:
    return float(np.mean([sqnr_db({name: reference[name]}, {name: outputs[name]}) for name in reference]))


def _with_prefix(arrays: Any, prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): arrays[name] for name in arrays.files if name.startswith(prefix)}
