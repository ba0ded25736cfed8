"""The diagnostics node: gathers what the nodes report, and what their processes cost, for /diagnostics."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from edge_vision.core.resources import ProcessMeter
from edge_vision.core.sensors import Missing
from edge_vision.nodes import run, specs
from edge_vision.nodes.base import ERROR, OK, RESULTS, STATUS, WARN, EdgeNode, steady_clock
from edge_vision.nodes.causes import CauseWatch
from edge_vision.nodes.conversions import status_message, status_values
from edge_vision.nodes.system import SystemReport

STALE = 3
LOOK_PERIOD_S = 0.5


@dataclass(slots=True)
class _Report:
    status: DiagnosticStatus
    values: dict[str, str]
    arrived_s: float


class DiagnosticsNode(EdgeNode):
    """Publishes one status per watched node, one per process and one of the machine, once a second."""

    spec = specs.DIAGNOSTICS
    # Where /proc and /sys lie; tests give another tree.
    sensor_root = "/"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reports: dict[str, _Report] = {}
        self._meters: dict[int, ProcessMeter] = {}
        self._watched: list[Any] = []
        self._system = SystemReport(self.sensor_root)
        self._causes = CauseWatch(self)
        self._look_timer = self.create_timer(LOOK_PERIOD_S, self._look, clock=steady_clock())
        self._publisher: Any = None
        self._since_s = time.monotonic()

    def activate(self) -> None:
        self._since_s = time.monotonic()
        self._publisher = self.create_publisher(DiagnosticArray, "/diagnostics", RESULTS)
        self._watched = [
            self.create_subscription(DiagnosticArray, f"{name}/status", partial(self._take, name), STATUS)
            for name in self.params["watched_nodes"]
        ]

    def deactivate(self) -> None:
        for subscription in self._watched:
            self.destroy_subscription(subscription)
        self._watched = []
        if self._publisher:
            self.destroy_publisher(self._publisher)
            self._publisher = None
        self._system.close()
        self._causes.close()

    def reset_stats(self) -> None:
        self._system.reset()

    def _take(self, name: str, message: DiagnosticArray) -> None:
        for status in message.status[:1]:
            values = status_values(status)
            self._reports[name] = _Report(status, values, time.monotonic())
            self._causes.note(name, status.message, values)

    def _look(self) -> None:
        if self._publisher and self._causes.look():
            self._publish([self._output_status()])

    def _output_status(self) -> DiagnosticStatus:
        """Whether detections come out, and if not why."""
        cause = self._causes.cause
        values = {"cause": cause.name if cause else "none", "since_s": self._causes.since_s if cause else 0.0}
        level, text = (cause.level, f"{cause.name}: {cause.text}") if cause else (OK, "nothing is in the way")
        return status_message(self._title("output"), self.camera, level, text, values)

    def publish_status(self) -> None:
        super().publish_status()
        if self._publisher:
            self._publish(self._gathered())

    def _publish(self, statuses: list[DiagnosticStatus]) -> None:
        message = DiagnosticArray(status=statuses)
        message.header.stamp = self.get_clock().now().to_msg()
        self._publisher.publish(message)

    def _gathered(self) -> list[DiagnosticStatus]:
        nodes = [self._node_status(name) for name in self.params["watched_nodes"]]
        pids = {int(report.values["pid"]) for report in self._reports.values() if "pid" in report.values}
        self._meters = {pid: self._meters.get(pid) or ProcessMeter(pid) for pid in sorted(pids)}
        return (
            [status for status in nodes if status]
            + [self._process_status(meter) for meter in self._meters.values()]
            + [self._system_status(), self._output_status()]
        )

    def _system_status(self) -> DiagnosticStatus:
        inferred = [
            int(report.values["ledger.inferred"])
            for report in self._reports.values()
            if report.values.get("stage") == "detector"
        ]
        level, text, values = self._system.read(self.params, sum(inferred) if inferred else None)
        return status_message(self._title("system"), self.camera, level, text, values)

    def _title(self, name: str) -> str:
        return f"{self.get_namespace()}/{name}".lstrip("/")

    def _node_status(self, name: str) -> DiagnosticStatus | None:
        report = self._reports.get(name)
        now_s = time.monotonic()
        silent_s = now_s - (report.arrived_s if report else self._since_s)
        title = self._title(name)
        if silent_s * 1e3 > self.params["stale_ms"]:
            text = f"no report for {silent_s:.0f} s: is the node running?"
            return status_message(title, self.camera, STALE, text, {})
        if report is None:
            return None
        level, text = self._judge(report)
        status = report.status
        status.level, status.message = bytes([level]), text
        return status

    def _judge(self, report: _Report) -> tuple[int, str]:
        """The node's own level, or worse where a limit of this node is passed."""
        level, text = report.status.level[0], report.status.message
        if report.values.get("ledger.balanced") == "False":
            return ERROR, "the books do not balance: please report this"
        age_ms = _number(report.values.get("age_ms.p95"))
        if age_ms is not None and age_ms > self.params["max_age_ms"] and level == OK:
            limit = self.params["max_age_ms"]
            return (
                WARN,
                f"age at output {age_ms:.0f} ms (p95) is above max_age_ms {limit:.0f}: clocks or load?",
            )
        return level, text

    def _process_status(self, meter: ProcessMeter) -> DiagnosticStatus:
        usage = meter.read()
        level, text = OK, "running"
        if usage.rss_mb is None:
            text = "not on this machine, or gone"
        elif usage.fds is not None and usage.fds > self.params["max_fds"]:
            level, text = WARN, f"{usage.fds} open files, more than max_fds {self.params['max_fds']}: a leak?"
        elif usage.rss_mb > self.params["max_rss_mb"]:
            level, text = (
                WARN,
                f"memory {usage.rss_mb:.0f} MB is above max_rss_mb {self.params['max_rss_mb']:.0f}",
            )
        figures = {
            name: getattr(usage, name) for name in ("cpu_percent", "cpu_s", "rss_mb", "threads", "fds")
        }
        why = Missing(text if usage.rss_mb is None else "not readable for this user")
        values = {
            **{name: why if value is None else value for name, value in figures.items()},
            "pid": meter.pid,
        }
        return status_message(self._title(f"process {meter.pid}"), self.camera, level, text, values)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def main(args: list[str] | None = None) -> int:
    """Run the diagnostics alone."""
    return run.main([DiagnosticsNode], "diagnostics_node", args)
