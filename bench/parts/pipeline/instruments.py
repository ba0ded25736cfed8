"""The real nodes, with marks of when each frame passes where. They change nothing else."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edge_vision.backends.base import Session
from edge_vision.core.detections import DetectionResult, Detections
from edge_vision.core.frame import Frame
from edge_vision.core.frame_event import FrameEvent
from edge_vision.nodes.base_node import BaseNode
from edge_vision.nodes.cascade_node import CascadeNode
from edge_vision.nodes.detector_node import DetectorNode
from edge_vision.nodes.diagnostics_node import DiagnosticsNode
from edge_vision.nodes.gate_node import GateNode
from edge_vision.nodes.source_node import SourceNode

LONGEST_START_S = 30.0

# Of the frames under measurement, by seq: mark -> perf_counter in s, or a duration in ms.
MARKS: dict[int, dict[str, float]] = defaultdict(dict)


class TimedGate(GateNode):
    """Marks intake, gate_start and gate_end."""

    def accept(self, frame: Frame, event: FrameEvent | None) -> None:
        MARKS[frame.seq]["intake"] = time.perf_counter()
        super().accept(frame, event)

    def process(self, frame: Frame, event: FrameEvent | None) -> None:
        MARKS[frame.seq]["gate_start"] = time.perf_counter()
        super().process(frame, event)

    def forward(self, frame: Frame, *args: Any, **kwargs: Any) -> None:
        MARKS[frame.seq]["gate_end"] = time.perf_counter()
        super().forward(frame, *args, **kwargs)


class TimedDetector(DetectorNode):
    """Marks detector_start, detect_end and published, and the CPU time of the inference."""

    def configure(self) -> None:
        super().configure()
        if model := self.model.current:
            model.runner.session = CpuTimedSession(model.runner.session)

    def process(self, frame: Frame, event: FrameEvent | None) -> None:
        MARKS[frame.seq]["detector_start"] = time.perf_counter()
        super().process(frame, event)
        MARKS[frame.seq]["detector_end"] = time.perf_counter()

    def _publish(self, frame: Frame, found: Detections) -> None:
        marks = MARKS[frame.seq]
        marks["detect_end"] = time.perf_counter()
        super()._publish(frame, found)
        marks["published"] = time.perf_counter()

    def _measure(self, frame: Frame, result: DetectionResult) -> None:
        super()._measure(frame, result)
        marks = MARKS[frame.seq]
        marks["detect_ms"], marks["inference_ms"] = result.timing.total_ms, result.timing.inference_ms
        if model := self.model.current:
            marks["inference_cpu_ms"] = model.runner.session.cpu_ms  # type: ignore[attr-defined]


class IdleDetector(DetectorNode):
    """Has the frame, and does nothing with it: for the hop alone."""

    def process(self, frame: Frame, event: FrameEvent | None) -> None:
        MARKS[frame.seq]["detector_start"] = time.perf_counter()
        self.settle(frame, "inferred", "")


class CpuTimedSession(Session):
    """A session that notes the CPU time, of all threads, that the last run cost."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.inputs, self.outputs, self.actual = session.inputs, session.outputs, session.actual
        self.cpu_ms = 0.0

    def run(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        started = time.process_time()
        outputs = self._session.run(tensors)
        self.cpu_ms = (time.process_time() - started) * 1e3
        return outputs

    def close(self) -> None:
        self._session.close()


class Run:
    """The composed pipeline in this process, fed with pictures by reference from a thread of its own.

    fps_hz: 0 = the next frame as soon as the last one is through.
    """

    def __init__(
        self, pictures: Sequence[np.ndarray], fps_hz: float, count: int, detector: type[DetectorNode]
    ) -> None:
        self._pictures, self._fps_hz, self._count = pictures, fps_hz, count
        self._detector = detector
        self._nodes: list[BaseNode] = []
        self.marks: list[dict[str, float]] = []
        self.cpu_ms = 0.0
        self.failure = ""

    def __call__(self, overrides: dict[str, dict[str, Any]]) -> None:
        """Run to the end. Raises RuntimeError where the pipeline did not come up."""
        from edge_vision.nodes import run

        stop = threading.Event()
        kinds = [self._keep(k) for k in (SourceNode, TimedGate, CascadeNode, self._detector, DiagnosticsNode)]
        feeder = threading.Thread(target=self._feed, args=(stop,), daemon=True)
        feeder.start()
        run.run(kinds, overrides, stop)
        feeder.join()
        if self.failure:
            raise RuntimeError(self.failure)

    def _keep(self, kind: type[BaseNode]) -> Any:
        def make(hub: Any, overrides: dict[str, Any]) -> BaseNode:
            self._nodes.append(kind(hub, overrides))
            return self._nodes[-1]

        make.spec = kind.spec  # type: ignore[attr-defined]
        return make

    def _feed(self, stop: threading.Event) -> None:
        try:
            gate = self._wait_for_gate()
            first = gate.hub.next_seq() + 1
            # The first few find cold caches: they are fed, and not counted.
            warm = min(10, self._count)
            self._send(gate, warm)
            cpu_s = time.process_time()
            self._send(gate, self._count)
            self.cpu_ms = (time.process_time() - cpu_s) * 1e3 / self._count
            self.marks = [MARKS[seq] for seq in range(first + warm, first + warm + self._count)]
        except Exception as error:  # The main thread, which would wait for ever, reports it.
            self.failure = str(error)
        finally:
            stop.set()

    def _wait_for_gate(self) -> TimedGate:
        limit_s = time.monotonic() + LONGEST_START_S
        while time.monotonic() < limit_s:
            nodes = {node.spec.name: node for node in list(self._nodes)}
            gate, detector = nodes.get("gate"), nodes.get("detector")
            if isinstance(gate, TimedGate) and detector and gate.state == detector.state == "active":
                time.sleep(1.0)  # The subscriber in the other process is found in this time.
                return gate
            time.sleep(0.05)
        problems = "; ".join(node.failure for node in self._nodes if node.failure)
        raise RuntimeError(
            f"the pipeline was not active after {LONGEST_START_S:.0f} s: {problems or 'no reason given'}"
        )

    def _send(self, gate: TimedGate, count: int) -> None:
        due_s = time.monotonic()
        for i in range(count):
            if self._fps_hz:
                due_s += 1 / self._fps_hz
                time.sleep(max(0.0, due_s - time.monotonic()))
            stamp_ns = gate.get_clock().now().nanoseconds
            picture = self._pictures[i % len(self._pictures)]
            gate.accept(Frame(picture, stamp_ns, "camera", "bgr8", gate.hub.next_seq()), None)
            if not self._fps_hz:
                gate.hub.ledger.wait_idle(5.0)
        gate.hub.ledger.wait_idle(5.0)
        time.sleep(0.05)
