"""The base of every node: parameters, life cycle, services, and a status once a second."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger

from edge_vision.core.latency import PERCENTILES, LatencyWindow
from edge_vision.nodes.interface.parameters import Parameters
from edge_vision.nodes.interface.specs import NodeSpec
from edge_vision.nodes.interface.status_messages import status_message
from edge_vision.nodes.structured_log import MESSAGE, StructuredLog
from edge_vision.nodes.transport.intra_process import IntraProcess
from edge_vision.nodes.transport.qos import STATUS

OK, WARN, ERROR = 0, 1, 2
STOPPED = "stopped"
STATUS_PERIOD_S = 1.0
RETRY_PERIOD_S = 5.0
REPEAT_LOG_S = 10.0


class BaseNode(LifecycleNode):
    """A lifecycle node. Subclasses define `spec` and override the hooks configure, activate, deactivate and
    cleanup; an exception in one fails the transition with its message, and leaves the state unchanged.
    """

    spec: NodeSpec

    def __init__(
        self, hub: IntraProcess | None = None, overrides: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        given = [Parameter(name, value=value) for name, value in (overrides or {}).items()]
        super().__init__(self.spec.name, parameter_overrides=given, **kwargs)
        self.hub = hub or IntraProcess()
        self.steady_clock = Clock(clock_type=ClockType.STEADY_TIME)
        """Unaffected by use_sim_time. One per node: the events executor has a thread for each clock."""
        self.failure = ""
        self.last_model = ""
        self.logged_plugins: set[str] = set()
        self._stopped = False
        self._logged_s: dict[str, float] = {}
        self._refused_messages: Counter[str] = Counter()
        self._refuse_impossible_transitions()
        self.structured_log = StructuredLog(self)
        self.params = Parameters(
            self, self.structured_log, self.spec, self._is_configured, self.on_params, self.check_params
        )
        self._open_structured_log()
        self._status_publisher = self.create_publisher(DiagnosticArray, "~/status", STATUS)
        self._services_made = [self.create_service(Trigger, "~/reset_stats", self._on_reset_stats)]
        if "enabled" in {param.name for param in self.spec.params}:
            self._services_made.append(self.create_service(SetBool, "~/enable", self._on_enable))
        # Steady time: the status is published while a simulated clock stands still.
        self._status_timer = self.create_timer(STATUS_PERIOD_S, self.publish_status, clock=self.steady_clock)
        if self.params["autostart"]:
            self._retry_timer = self.create_timer(RETRY_PERIOD_S, self.bring_up, clock=self.steady_clock)

    # Hooks.
    def configure(self) -> None:
        """Load, verify and warm up."""

    def activate(self) -> None:
        """Subscribe and start."""

    def deactivate(self) -> None:
        """Stop."""

    def cleanup(self) -> None:
        """Free the memory."""

    def check_params(self, values: Mapping[str, Any], changed: set[str]) -> None:
        """Raise ValueError, which names the parameter, to refuse new values. changed: the names of those
        that differ from the present ones."""

    def on_params(self, names: set[str]) -> None:
        """Apply live parameters of these names, which have changed."""

    def reset_stats(self) -> None:
        """Reset counts and latencies."""

    def status_values(self) -> dict[str, Any]:
        """Values that this node adds to its status."""
        return {}

    def health(self) -> tuple[int, str]:
        """Level and text of the status while active."""
        return OK, "running"

    # Life cycle.
    @property
    def state(self) -> str:
        """unconfigured, inactive, active or finalized."""
        return str(self._state_machine.current_state[1])

    def _is_configured(self) -> bool:
        return self.state in ("inactive", "active")

    def bring_up(self) -> bool:
        """Configure and activate as far as possible. A node that was shut down is left alone."""
        if self.state == "unconfigured":
            self.trigger_configure()
        # A node that was active before has been deactivated on purpose.
        if self.state == "inactive" and not getattr(self, "_was_up", False):
            self.trigger_activate()
        return self.state == "active"

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._was_up = False
        return self._log_transition(self._attempt("configure", self.configure), "unconfigured", "inactive")

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = self._attempt("activate", self.activate)
        self._was_up = result == TransitionCallbackReturn.SUCCESS
        if not self._was_up:
            # Undone, or the next attempt would create everything twice.
            reason = self.failure
            self._attempt("deactivate", self.deactivate)
            self.failure = reason
        return self._log_transition(result, "inactive", "active")

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._log_transition(self._attempt("deactivate", self.deactivate), "active", "inactive")

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop_retrying()
        return self._log_transition(self._attempt("clean up", self.cleanup), "inactive", "unconfigured")

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop_retrying()
        self.stop()
        self.free()
        return TransitionCallbackReturn.SUCCESS

    def stop(self) -> None:
        """Stop in any state, before the process ends. An earlier failure stays in the last status."""
        failure = self.failure
        self._attempt("deactivate", self.deactivate)
        self.failure = self.failure or failure
        if not self._stopped:
            self.structured_log.log("info", "stopped", "lifecycle", after="stopped")
        self._stopped = True

    def free(self) -> None:
        """Free the memory, after `stop`."""
        self._attempt("clean up", self.cleanup)

    def _log_transition(
        self, result: TransitionCallbackReturn, before: str, after: str
    ) -> TransitionCallbackReturn:
        """Log a successful transition, and return its result; a failed one is already logged."""
        if result == TransitionCallbackReturn.SUCCESS:
            self.structured_log.log("info", f"{after}, was {before}", "lifecycle", before=before, after=after)
        return result

    def _stop_retrying(self) -> None:
        timer = getattr(self, "_retry_timer", None)
        if timer is not None:
            timer.cancel()

    def _attempt(self, what: str, hook: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            hook()
        except Exception as error:  # A model or driver may raise anything; it must not crash the process.
            self.failure = f"cannot {what}: {error}"
            self.log_throttled("error", self.failure, event="lifecycle_failed")
            return TransitionCallbackReturn.FAILURE
        self.failure = ""
        return TransitionCallbackReturn.SUCCESS

    # Reports.
    def _open_structured_log(self) -> None:
        error = self.structured_log.open(self.params["json_log"])
        if error:
            self.params.errors.append(error)
            self.structured_log.log("error", error)

    def log_throttled(self, severity: str, text: str, key: str = "", event: str = MESSAGE) -> None:
        """Log a message unless one with the same key (the text by default) was logged in the last 10 s."""
        now_s = time.monotonic()
        if now_s - self._logged_s.get(key or text, float("-inf")) >= REPEAT_LOG_S:
            self._logged_s[key or text] = now_s
            self.structured_log.log(severity, text, event)

    def refuse_message(self, topic: str, error: Exception) -> None:
        """Count and log an invalid message of another node. topic: as in the node's spec."""
        self._refused_messages[topic] += 1
        text = f"invalid message on {self.resolve_topic_name(topic)}: {error}. Check who publishes on it"
        self.log_throttled("error", text, topic)

    def publish_status(self) -> None:
        """Publish `~/status`: once a second, and when the node stops."""
        level, text = self._overall_health()
        values = {
            "state": self.state,
            "pid": os.getpid(),
            "cpu_s": time.process_time(),
            "failure": self.failure,
            "use_sim_time": bool(self.get_parameter("use_sim_time").value),
            **self.status_values(),
            **{f"invalid_messages.{topic}": count for topic, count in self._refused_messages.items()},
        }
        status = status_message(self.get_fully_qualified_name().lstrip("/"), self.camera, level, text, values)
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._status_publisher.publish(message)

    @property
    def camera(self) -> str:
        """The camera that this pipeline serves: its namespace."""
        return self.get_namespace()

    def _overall_health(self) -> tuple[int, str]:
        if self.failure:
            return ERROR, self.failure
        if self.state == "finalized":
            text = "finalized: the node was shut down and cannot be activated again; restart its process"
            return ERROR, text
        if self._stopped:
            return OK, STOPPED
        if self.state != "active":
            return WARN, f"{self.state}: no frames are processed"
        level, text = self.health()
        if self.params.errors and level == OK:
            return WARN, "parameter refused: " + "; ".join(self.params.errors)
        return level, text

    # Services.
    def _refuse_impossible_transitions(self) -> None:
        """Answer requests for impossible transitions: rclpy raises instead, and leaves the caller waiting."""
        change_state = self._service_change_state.callback

        def answer(request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
            try:
                return change_state(request, response)
            except RuntimeError as error:  # rclpy's RCLError
                self.log_throttled(
                    "error", f"transition {request.transition.id} refused in state {self.state}: {error}"
                )
                response.success = False
                return response

        self._service_change_state.callback = answer

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        result = self.set_parameters([Parameter("enabled", value=bool(request.data))])[0]
        response.success = result.successful
        response.message = result.reason or ("enabled" if request.data else "disabled")
        return response

    def _on_reset_stats(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.hub.ledger.reset()
        self._refused_messages.clear()
        self.reset_stats()
        response.success, response.message = True, "frame counts and latencies reset"
        return response


def latency_values(name: str, window: LatencyWindow) -> dict[str, Any]:
    """`name.p50`, `.p95` and `.p99` in ms, None if nothing was measured, and `.histogram`."""
    found = window.percentiles() or {}
    return {f"{name}.p{p}": found.get(f"p{p}") for p in PERCENTILES} | {
        f"{name}.histogram": window.histogram()
    }
