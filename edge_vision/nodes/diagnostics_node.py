"""The diagnostics node: publishes the state of nodes, processes and machine on /diagnostics."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from edge_vision.core.diagnostic_status import finite_number
from edge_vision.core.running_clock import running_s
from edge_vision.diagnostics.causes import Cause
from edge_vision.diagnostics.causes.frames import has_stamps_of_file
from edge_vision.diagnostics.process_usage import ProcessMeter
from edge_vision.diagnostics.sensors import Unavailable
from edge_vision.diagnostics.snapshot import count_of
from edge_vision.nodes import run
from edge_vision.nodes.base_node import ERROR, OK, STOPPED, WARN, BaseNode
from edge_vision.nodes.interface import specs
from edge_vision.nodes.interface.status_messages import (
    MAX_STATUS_CHARS,
    status_chars,
    status_message,
    status_values,
)
from edge_vision.nodes.monitoring.cause_monitor import CauseMonitor, output_status
from edge_vision.nodes.monitoring.image_input_probe import FLOW
from edge_vision.nodes.monitoring.system_report import SystemReport
from edge_vision.nodes.transport.qos import RESULTS, STATUS

STALE = 3
CAUSE_PERIOD_S = 0.5


@dataclass(slots=True)
class _Report:
    status: DiagnosticStatus
    values: dict[str, str]
    arrived_s: float


class DiagnosticsNode(BaseNode):
    """Publishes one status per watched node, one per process and one of the machine, once a second."""

    spec = specs.DIAGNOSTICS
    # The root of /proc and /sys, which tests replace.
    sensor_root = "/"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reports: dict[str, _Report] = {}
        self._meters: dict[int, ProcessMeter] = {}
        self._watched: dict[str, Any] = {}
        self._system = SystemReport(self.sensor_root)
        self._causes = CauseMonitor(
            self,
            lambda: float(self.params["stale_ms"]),
            self._on_cause,
            expected=lambda: tuple(self.params["watched_nodes"]),
        )
        self._cause_timer = self.create_timer(CAUSE_PERIOD_S, self._update_cause, clock=self.steady_clock)
        self._publisher: Any = None
        self._since_s = running_s()
        # Exceeded limits by status.
        self._exceeded: dict[str, set[str]] = {}

    def activate(self) -> None:
        self._since_s = running_s()
        self._causes.begin()
        self._publisher = self.create_publisher(DiagnosticArray, "/diagnostics", RESULTS)
        receive, subscribe = self._receive, self.create_subscription
        self._watched = {
            name: subscribe(DiagnosticArray, f"{name}/status", partial(receive, name), STATUS)
            for name in dict.fromkeys((*self.params["watched_nodes"], *specs.PARTS))
        }

    def deactivate(self) -> None:
        for subscription in self._watched.values():
            self.destroy_subscription(subscription)
        self._watched = {}
        self._reports.clear()
        if self._publisher:
            self.destroy_publisher(self._publisher)
            self._publisher = None
        self._system.close()
        self._causes.close()

    def reset_stats(self) -> None:
        self._system.reset()

    def _receive(self, name: str, message: DiagnosticArray) -> None:
        for status in message.status[:1]:
            if (chars := status_chars(status)) > MAX_STATUS_CHARS:
                text = f"expected a status of at most {MAX_STATUS_CHARS} characters, got {chars}"
                self.refuse_message(f"{name}/status", ValueError(text))
                return
            values = status_values(status)
            self._reports[name] = _Report(status, values, running_s())
            self._causes.add_report(name, status.message, values, status.level[0])
        if name == FLOW[-1]:  # Its report has the complete ledger: the cause can be updated at once.
            self._update_cause()

    def _update_cause(self) -> None:
        if self._publisher and self._causes.update():
            self._publish([self._output_status()])

    def _on_cause(self, cause: Cause) -> None:
        level = "info" if cause.level == OK else "warning"
        self.structured_log.log(level, f"{cause.name}: {cause.text}", "cause", cause=cause.name)

    def _output_status(self) -> DiagnosticStatus:
        """Whether detections are published, and if not, why."""
        level, text, values = output_status(self._causes)
        return status_message(self._title("output"), self.camera, level, text, values)

    def publish_status(self) -> None:
        super().publish_status()
        if self._publisher:
            self._publish(self._statuses())

    def _publish(self, statuses: list[DiagnosticStatus]) -> None:
        message = DiagnosticArray(status=statuses)
        message.header.stamp = self.get_clock().now().to_msg()
        self._publisher.publish(message)

    def _statuses(self) -> list[DiagnosticStatus]:
        nodes = [self._node_status(name) for name in self._watched]
        pids = {count_of(report.values.get("pid", "")) for report in self._reports.values()}
        self._meters = {pid: self._meters.get(pid) or ProcessMeter(pid) for pid in sorted(filter(None, pids))}
        return (
            [status for status in nodes if status]
            + [self._process_status(meter) for meter in self._meters.values()]
            + [self._system_status(), self._output_status()]
        )

    def _system_status(self) -> DiagnosticStatus:
        inferred = [
            count
            for report in self._reports.values()
            if report.values.get("stage") == "detector"
            and (count := count_of(report.values.get("ledger.inferred", ""))) is not None
        ]
        exceeded, values = self._system.read(self.params, sum(inferred) if inferred else None)
        self._log_limits("system", exceeded)
        level, text = (WARN, "; ".join(exceeded.values())) if exceeded else (OK, "within limits")
        return status_message(self._title("system"), self.camera, level, text, values)

    def _log_limits(self, name: str, exceeded: dict[str, str]) -> None:
        """Log the limits of a status that are newly exceeded (limit -> text), or met again."""
        before = self._exceeded.get(name, set())
        for limit in sorted(before ^ exceeded.keys()):
            values = {"about": f"{name} {limit}", "status": name, "limit": limit}
            if limit in exceeded:
                self.structured_log.event("limit_exceeded", f"{name}: {exceeded[limit]}", "warning", **values)
            else:
                self.structured_log.event("limit_met", f"{name}: within {limit} again", "info", **values)
        self._exceeded[name] = set(exceeded)

    def _title(self, name: str) -> str:
        return f"{self.get_namespace()}/{name}".lstrip("/")

    def _node_status(self, name: str) -> DiagnosticStatus | None:
        report = self._reports.get(name)
        ended = report is None or report.status.message == STOPPED
        if ended and name not in self.params["watched_nodes"]:
            return None
        silent_s = running_s() - (report.arrived_s if report else self._since_s)
        title = self._title(name)
        if silent_s * 1e3 > self.params["stale_ms"]:
            text = f"no report for {silent_s:.0f} s: is the node running?"
            self._log_limits(name, {"stale_ms": text})
            return status_message(title, self.camera, STALE, text, {})
        if report is None:
            return None
        return status_message(title, self.camera, *self._checked_level(name, report), report.values)

    def _checked_level(self, name: str, report: _Report) -> tuple[int, str]:
        """The node's own level and text, or a worse one if it exceeds a limit."""
        level, text = report.status.level[0], report.status.message
        exceeded = {}
        age_ms, limit_ms = finite_number(report.values, "age_ms.p95"), self.params["max_age_ms"]
        source = self._reports.get("source")
        of_file = source is not None and has_stamps_of_file(source.values)
        if age_ms is not None and age_ms > limit_ms and not of_file:
            exceeded["max_age_ms"] = (
                f"age at output {age_ms:.0f} ms (p95) is above max_age_ms {limit_ms:.0f}: clocks or load?"
            )
        if report.values.get("ledger.balanced") == "False":
            exceeded["balanced ledger"] = (
                "the frame counts do not add up: does another node publish on its topics?"
            )
        self._log_limits(name, exceeded)
        if "balanced ledger" in exceeded:
            return ERROR, exceeded["balanced ledger"]
        return (WARN, exceeded["max_age_ms"]) if exceeded and level == OK else (level, text)

    def _process_status(self, meter: ProcessMeter) -> DiagnosticStatus:
        usage, name, exceeded = meter.read(), f"process {meter.pid}", {}
        text = "running" if usage.rss_mb is not None else "not on this machine, or ended"
        max_fds, max_rss_mb = self.params["max_fds"], self.params["max_rss_mb"]
        if usage.fds is not None and usage.fds > max_fds:
            exceeded["max_fds"] = f"{usage.fds} open files, more than max_fds {max_fds}: a leak?"
        if usage.rss_mb is not None and usage.rss_mb > max_rss_mb:
            exceeded["max_rss_mb"] = f"memory {usage.rss_mb:.0f} MB is above max_rss_mb {max_rss_mb:.0f}"
        self._log_limits(name, exceeded)
        level, text = (WARN, "; ".join(exceeded.values())) if exceeded else (OK, text)
        why = Unavailable(text if usage.rss_mb is None else "not readable for this user")
        figures = ((key, getattr(usage, key)) for key in ("cpu_percent", "cpu_s", "rss_mb", "threads", "fds"))
        values = {key: why if value is None else value for key, value in figures} | {"pid": meter.pid}
        return status_message(self._title(name), self.camera, level, text, values)


def main(args: list[str] | None = None) -> int:
    return run.main([DiagnosticsNode], "diagnostics_node", args)
