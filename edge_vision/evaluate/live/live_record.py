"""The record of a run whose published boxes are compared with others, frame by frame. Imports no ROS."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.evaluate.live.pipeline_process import PipelineProcess
from edge_vision.evaluate.live.run_record import RunRecord
from edge_vision.evaluate.simulation import Published


class LiveRecord(RunRecord):
    """Also records predicted boxes, the gate's decisions, and the CPU time from the first frame on.

    limit: the number of frames that count, None = all of the file.
    """

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic, limit: int | None = None) -> None:
        super().__init__(monotonic_s)
        self.limit = limit
        self.process: PipelineProcess | None = None
        self.tracked: dict[int, Detections] = {}
        self.gate_decisions: dict[int, tuple[bool, str]] = {}
        self.first_index, self.last_index = 0, -1
        self.first_cpu_s = 0.0
        self._limit_cpu_s: float | None = None

    def on_tracks(self, stamp_ns: int, found: Detections) -> None:
        self.tracked[stamp_ns] = found

    def on_gate_event(self, stamp_ns: int, passed: bool, reason: str) -> None:
        self.gate_decisions[stamp_ns] = passed, reason

    def on_source(self, stamp_ns: int, index: int) -> None:
        super().on_source(stamp_ns, index)
        if self.last_index < 0:
            self.first_index, self.first_cpu_s = index, self.cpu_s()
        self.last_index = index
        if self.limit and index >= self.limit - 1 and self._limit_cpu_s is None:
            self._limit_cpu_s = self.cpu_s()

    def played_cpu_s(self, cpu_s: float | None) -> float | None:
        """CPU time from the first frame to the last one that counts. cpu_s: of the whole run."""
        end_s = cpu_s if self._limit_cpu_s is None else self._limit_cpu_s
        return None if end_s is None else end_s - self.first_cpu_s

    def frame_counts(self) -> tuple[int, int]:
        """How many frames count, and how many of them were inferred."""
        received, inferred = self.ledger["received"], self.ledger["inferred"]
        if not self.limit or received <= self.limit:
            return received, inferred
        return self.limit, sum(index < self.limit for index in self.by_frame())

    def cpu_s(self) -> float:
        """CPU time of the pipeline so far."""
        usage = self.process.measure() if self.process else None
        return usage.cpu_s or 0.0 if usage else 0.0

    def is_over(self, n: int) -> bool:
        """Whether the first n frames are through."""
        return self.finished or self.last_index >= n - 1

    def published(self, n: int) -> tuple[Published, int]:
        """What was published on each of the first n frames, and for how many nothing was received."""
        found = self.by_frame()
        shown = {self.index_of.get(stamp_ns, n): one for stamp_ns, one in self.tracked.items()} | found
        inferred = np.array([at in found for at in range(n)])
        detections = [shown.get(at, Detections.empty()) for at in range(n)]
        return Published(inferred, detections), sum(at not in shown for at in range(n))
