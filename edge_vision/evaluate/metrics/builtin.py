"""The built-in metrics. The order of METRICS is that of the columns in tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edge_vision.evaluate.metrics.clopper_pearson import clopper_pearson_lower
from edge_vision.evaluate.metrics.delays import LATER_MS, SOON_MS
from edge_vision.evaluate.metrics.frame_f1 import pooled_f1
from edge_vision.evaluate.metrics.id_switches import id_switches
from edge_vision.evaluate.metrics.metric import MethodRun, Metric


class RecallWithin(Metric):
    """Share of events that are published within a limit."""

    unit, better = "share", "higher"

    def __init__(self, limit_ms: float, column: str = "") -> None:
        self.limit_ms, self.column = limit_ms, column
        self.name = f"recall_{limit_ms:.0f}ms"
        self.doc = f"Share of events that are published within {limit_ms:.0f} ms"

    def compute(self, run: MethodRun) -> float | None:
        return _share([delay.within(self.limit_ms) for delay in run.delays])


class RecallLowerBound(Metric):
    name, column, unit, better = "recall_low95", "95 % lower", "share", "higher"
    doc = f"Lower 95 % confidence bound (Clopper-Pearson) of the recall within {SOON_MS:.0f} ms"

    def compute(self, run: MethodRun) -> float | None:
        return clopper_pearson_lower(sum(delay.within(SOON_MS) for delay in run.delays), len(run.delays))


class DelayQuantile(Metric):
    """A quantile of the delays of all events, missed ones included."""

    unit, better = "ms", "lower"

    def __init__(self, percent: int, column: str = "") -> None:
        self.percent, self.column = percent, column
        self.name = "delay_ms_max" if percent == 100 else f"delay_ms_p{percent}"
        kind = "Longest delay" if percent == 100 else f"Quantile ({percent} %) of the delay"
        self.doc = f"{kind} from an event to its publication; a missed event counts until it ends"

    def compute(self, run: MethodRun) -> float | None:
        return _quantile([delay.ms for delay in run.delays], self.percent)


class FrameF1(Metric):
    name, column, unit, better = "frame_f1", "frame F1", "ratio", "higher"
    doc = "F1 of published boxes against the every-frame detector's: same class, IoU 0.5, pooled over frames"

    def compute(self, run: MethodRun) -> float | None:
        return pooled_f1(run.published.detections, run.data.reference.detections)


class Fidelity(Metric):
    name, column, unit, better = "fidelity", "fidelity", "ratio", "higher"
    doc = "Frame F1 divided by the noise ceiling: the detector's F1 against itself on slightly moved images"

    def compute(self, run: MethodRun) -> float | None:
        f1, ceiling = FrameF1().compute(run), run.data.noise_ceiling
        return f1 / ceiling if f1 is not None and ceiling else None


class DetectorRuns(Metric):
    name, unit, better = "detector_runs", "frames", "lower"
    doc = "Number of inferred frames"

    def compute(self, run: MethodRun) -> float:
        return int(run.published.inferred.sum())


class InferredShare(Metric):
    name, column, unit, better = "inferred_share", "inferred", "share", "lower"
    doc = "Share of frames that are inferred"

    def compute(self, run: MethodRun) -> float:
        return float(run.published.inferred.mean())


class WorstGap(Metric):
    name, column, unit, better = "worst_gap_ms", "worst gap", "ms", "lower"
    doc = "Longest time without an inference, up to the end of the condition"

    def compute(self, run: MethodRun) -> float:
        stamps_ns = run.data.reference.stamps_ns
        inferred_ns = stamps_ns[run.published.inferred]
        return float(np.diff(np.concatenate([stamps_ns[:1], inferred_ns, stamps_ns[-1:]])).max()) * 1e-6


class DecisionTime(Metric):
    """A quantile of the gate's wall time per frame."""

    unit, better = "ms", "lower"

    def __init__(self, percent: int, column: str = "") -> None:
        self.percent, self.column = percent, column
        self.name = f"gate_ms_p{percent}"
        self.doc = f"Quantile ({percent} %) of the wall time of the gate's decision on a frame"

    def compute(self, run: MethodRun) -> float | None:
        return _quantile(list(run.cost.decision_ms), self.percent)

    def text(self, value: float | None) -> str:
        return "n/a" if value is None else f"{value:.2f} ms"


class CpuPer1000(Metric):
    name, column, unit, better = "cpu_s_per_1000", "CPU per 1000", "s", "lower"
    doc = "CPU seconds of gate, cascade, detector and tracker per 1000 frames"

    def compute(self, run: MethodRun) -> float:
        reference, published = run.data.reference, run.published
        decisions_s = (run.cost.cpu_s + published.tracker_cpu_s) / len(reference)
        return (decisions_s + float(published.inferred.mean()) * reference.detector_cpu_s) * 1000


class IdSwitches(Metric):
    name, column, unit, better = "id_switches", "id switches", "count", "lower"
    doc = "How often an object is published under another track id than before: the mismatches of MOTA"

    def compute(self, run: MethodRun) -> float | None:
        published, data = run.published, run.data
        if published.ids is None:
            return None
        return id_switches(published.detections, published.ids, data.reference.detections, data.track_ids)


def _share(flags: Sequence[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None


def _quantile(values: Sequence[float], percent: int) -> float | None:
    """A measured quantile: the next higher value instead of an interpolated one."""
    return float(np.percentile(values, percent, method="higher")) if len(values) else None


METRICS: tuple[Metric, ...] = (
    RecallWithin(SOON_MS, "recall in 100 ms"),
    RecallLowerBound(),
    RecallWithin(LATER_MS),
    DelayQuantile(50),
    DelayQuantile(95, "delay p95"),
    DelayQuantile(100),
    FrameF1(),
    Fidelity(),
    DetectorRuns(),
    InferredShare(),
    WorstGap(),
    DecisionTime(50, "gate p50"),
    DecisionTime(95),
    CpuPer1000(),
    IdSwitches(),
)
BY_NAME = {metric.name: metric for metric in METRICS}
BETTER: dict[str | None, Callable[..., Any]] = {"higher": max, "lower": min}
"""Selects the better of several values of a metric."""
