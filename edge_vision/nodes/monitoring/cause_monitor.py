"""Finds out why a pipeline publishes nothing, from its nodes' reports and the ROS graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rclpy.node import Node

from edge_vision.core.running_clock import running_s
from edge_vision.diagnostics.causes import Cause, find_cause
from edge_vision.diagnostics.process_usage import process_state
from edge_vision.diagnostics.snapshot import NodeReport, PipelineSnapshot, count_of
from edge_vision.nodes.base_node import OK
from edge_vision.nodes.monitoring.image_input_probe import FLOW, ImageInputProbe

NODE_SILENT_MS = 2300.0
"""A node, which reports once a second, counts as silent after this long or `stale_ms`, whichever is less: its
silence is reported within 3 s."""
REPEAT_CAUSE_S = 60.0
"""A cause that disappeared for this long is reported again."""


class CauseMonitor:
    """Call `add_report` with each report, and `update` twice a second.

    stale_ms: gives the age above which a report is ignored. on_cause: called with a new cause. namespace: of
    the pipeline, by default the node's. expected: returns the names of the nodes that must report.
    """

    def __init__(
        self,
        node: Node,
        stale_ms: Callable[[], float],
        on_cause: Callable[[Cause], None],
        namespace: str | None = None,
        expected: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._node, self._stale_ms, self._on_cause = node, stale_ms, on_cause
        self._namespace = node.get_namespace() if namespace is None else namespace
        self._expected = expected
        self._probe = ImageInputProbe(node, self._namespace)
        self._reports: dict[str, tuple[NodeReport, float]] = {}
        self._local_pids: set[int] = set()
        self._candidate, self._since_s = "", 0.0
        self._reported_s: dict[str, float] = {}
        self.cause: Cause | None = None
        self.begin()

    def begin(self) -> None:
        """Measure all times from now: earlier reports were not received."""
        self._begun_s = self._inferred_s = self._explained_s = running_s()

    @property
    def since_s(self) -> float | None:
        """How long the cause has existed."""
        return running_s() - self._since_s if self.cause else None

    def add_report(self, name: str, message: str, values: dict[str, str], level: int = OK) -> None:
        """Add the status of a node."""
        if name not in FLOW:
            return
        before = self._reports[name][0] if name in self._reports else None
        added = counter_increments(before.values, values) if before else {}
        count = before.report_count + 1 if before else 1
        self._reports[name] = (NodeReport(name, message, values, added, None, count, level), running_s())
        pid = _pid(values)
        if pid and pid not in self._local_pids and process_state(pid) == "running":
            self._local_pids.add(pid)
        if before is None or added.get("ledger.inferred"):
            self._inferred_s = running_s()

    def update(self) -> bool:
        """Search for a cause, and report a new one. Returns whether it has changed."""
        found, now_s = find_cause(self._snapshot()), running_s()
        if found and found.name != "nothing_published":
            self._explained_s = now_s
        name = found.name if found else ""
        if name != self._candidate:
            self._candidate, self._since_s = name, now_s
        before = self.cause
        self.cause = found if found and now_s - self._since_s >= found.wait_s else None
        if self.cause:
            self._report(self.cause, now_s)
        return (self.cause.name if self.cause else "") != (before.name if before else "")

    def _report(self, cause: Cause, now_s: float) -> None:
        """Report a cause once while it lasts, and one that is not a fault only once."""
        last_s, self._reported_s[cause.name] = self._reported_s.get(cause.name), now_s
        if last_s is None or (cause.level != OK and now_s - last_s > REPEAT_CAUSE_S):
            self._on_cause(cause)

    def close(self) -> None:
        self._probe.close()
        self._reports.clear()
        self._local_pids.clear()
        self.cause, self._candidate = None, ""

    def _snapshot(self) -> PipelineSnapshot:
        now_s, limit_s = running_s(), min(self._stale_ms(), NODE_SILENT_MS) / 1e3
        known = [self._reports[name] for name in FLOW if name in self._reports]
        stages = tuple(self._probe.with_image_input(one) for one, at_s in known if now_s - at_s <= limit_s)
        silent = tuple(self._silent(one, now_s - at_s) for one, at_s in known if now_s - at_s > limit_s)
        expected = self._expected() if now_s - self._begun_s > limit_s else ()
        missing = tuple(name for name in FLOW if name in expected and name not in self._reports)
        sim_time = any(stage.flag("use_sim_time") for stage in stages)
        clocks = self._node.count_publishers("/clock") if sim_time else 1
        no_inference_s = now_s - self._inferred_s if any(stage.name == FLOW[-1] for stage in stages) else None
        unexplained_s = None if no_inference_s is None else min(no_inference_s, now_s - self._explained_s)
        return PipelineSnapshot(
            stages, clocks, self._namespace, silent, missing, no_inference_s, unexplained_s
        )

    def _silent(self, report: NodeReport, silent_s: float) -> NodeReport:
        """The report of a silent node, with the state of its process if that runs on this machine."""
        pid = _pid(report.values)
        state = process_state(pid) if pid in self._local_pids else ""
        return replace(report, silent_s=silent_s, process_state=state)


def output_status(monitor: CauseMonitor) -> tuple[int, str, dict[str, Any]]:
    """Level, text and values of the `output` status."""
    cause = monitor.cause
    if cause is None:
        return OK, "no problem found", {"cause": "none", "since_s": 0.0}
    values = {"cause": cause.name, "since_s": monitor.since_s}
    return cause.level, f"{cause.name}: {cause.text}", values


def _pid(values: Mapping[str, str]) -> int:
    """The process id in a report, 0 if there is none."""
    return count_of(values.get("pid", "")) or 0


def counter_increments(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, int]:
    """Increments of the counters between two reports; empty if one decreased, after a reset or restart."""
    increments = {}
    for key, text in now.items():
        if key.startswith("ledger.") or key in ("detections_total", "format_changes", "lost_images"):
            after, earlier = count_of(text), count_of(before.get(key, "0"))
            if after is None or earlier is None:
                continue
            increments[key] = after - earlier
            if after < earlier and key != "ledger.in_flight":
                return {}
    return increments
