"""Keeps the load of a process within the limits that its gate's parameters set, with models of a ladder."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.parameter import Parameter, parameter_value_to_python

from edge_vision.bundles.ladder import Rung, run_parameters
from edge_vision.bundles.store import bundle_folder
from edge_vision.core.diagnostic_status import finite_number
from edge_vision.diagnostics.sensors import Unavailable, Value, number
from edge_vision.diagnostics.sensors.system import HeatSensors
from edge_vision.errors import BundleError
from edge_vision.gate.frame_gate import FrameGate
from edge_vision.gate.governor import Governor, GovernorStep
from edge_vision.gate.inference_limiter import InferenceLimit, InferenceLimiter, PassCounts
from edge_vision.gate.load_cap import HeatReadings, LoadCap, LoadLimits
from edge_vision.nodes.base_node import BaseNode
from edge_vision.nodes.interface.status_messages import status_values
from edge_vision.nodes.transport.qos import STATUS

SENSOR_PERIOD_S = 5.0
NEED_STEP = 0.1
"""Weight of the newest update in the mean of what a camera needs."""
_LEAST_NEED = 1e-3
CLEARLY_FASTER = 0.95
"""Relative time of an inference below which a model of the ladder is a step down."""
_LADDER_PARAMETERS = tuple(run_parameters("", "", "", 0))
LIMITS = tuple(field.name for field in fields(LoadLimits))


@dataclass(slots=True)
class _Governed:
    """One camera's gate. detector: subscription to the status of a detector in another process. limiter,
    counts: as of the last update. need: inferences per update, a mean."""

    gate: Callable[[], FrameGate]
    detector: Any
    limiter: InferenceLimiter | None = None
    counts: PassCounts = field(default_factory=PassCounts)
    need: float = 0.0


class ProcessGovernor:
    """One per process: it measures the process, and limits the gates of all cameras alike.

    The limits and the ladder are those of the first gate that joined. The executor calls all methods, any
    thread `model_began`.
    """

    sensor_root = "/"

    def __init__(self) -> None:
        self._gates: dict[BaseNode, _Governed] = {}
        self._governor, self._cap = Governor(), LoadCap()
        self._limits = LoadLimits()
        self._sensors = HeatSensors(self.sensor_root)
        self._readings: dict[str, Value] = {}
        self._read_s = float("-inf")
        self._totals = PassCounts()
        self._rungs: tuple[Rung, ...] = ()
        self._ladder: ModelLadder | None = None
        self._rung = self._steps = 0
        self._ladder_begun = self._model_began = False
        self._detector_cpu_s = 0.0
        """Of a detector in another process."""

    def join(self, node: BaseNode, gate: Callable[[], FrameGate], rungs: Sequence[Rung]) -> None:
        """Govern a node's gate. rungs: of its parameter `ladder`."""
        detector: Any = None
        if not node.hub.has_sender(node.resolve_topic_name("detections")):
            on_status = partial(self._on_detector, node)
            detector = node.create_subscription(DiagnosticArray, "detector/status", on_status, STATUS)
        self._gates[node] = _Governed(gate, detector)
        self.use_rungs(node, rungs)
        self._governor.restart()

    def use_rungs(self, node: BaseNode, rungs: Sequence[Rung]) -> None:
        """Use another ladder, if it is the first gate's; the detector first returns to its own model."""
        if self._is_first(node) and self._rungs != tuple(rungs):
            self._close_ladder()
            self._rungs = tuple(rungs)

    def leave(self, node: BaseNode) -> None:
        """Stop governing a node's gate."""
        governed = self._gates.pop(node, None)
        if governed and governed.detector:
            node.destroy_subscription(governed.detector)
            self._detector_cpu_s = 0.0
        self._governor.restart()

    def model_began(self) -> None:
        """Another model runs, or the same again."""
        self._model_began = True

    def _is_first(self, node: BaseNode) -> bool:
        return node is next(iter(self._gates), None)

    # Once per status of each gate; the first one acts.
    def update(self, node: BaseNode) -> None:
        """Measure and control."""
        if not self._is_first(node):
            return
        limits = {name: node.params[name] for name in LIMITS} if node.params["enabled"] else {}
        self._limits = LoadLimits(**limits)
        if self._gates[node].detector is None:  # Otherwise with each of its statuses, which has its CPU time.
            self._control(node)

    def _on_detector(self, node: BaseNode, message: DiagnosticArray) -> None:
        for status in message.status[:1] if self._is_first(node) else ():
            cpu_s = finite_number(status_values(status), "cpu_s") or 0.0
            if cpu_s < self._detector_cpu_s:  # It has restarted.
                self._governor.restart()
            self._detector_cpu_s = cpu_s
            self._control(node)

    def _control(self, node: BaseNode) -> None:
        governor, now_s = self._governor, time.monotonic()
        self._use_ladder(node)
        self._count()
        if self._model_began:
            self._model_began = False
            governor.model_began()
        if self._limits.any and now_s - self._read_s >= SENSOR_PERIOD_S and governor.load:
            self._read_s = now_s
            self._read_sensors(governor.load.cpu_percent)
        cpu_s = (time.process_time() + self._detector_cpu_s) / (os.cpu_count() or 1)
        promise = next(iter(self._gates.values())).gate().config.promise
        budget = self._cap.budget(self._limits)
        self._report(node, governor.update(now_s, cpu_s, self._totals, promise, budget, len(self._gates)))
        self._apply()

    def _read_sensors(self, cpu_percent: float) -> None:
        limits = self._limits
        values = self._sensors.read(bool(limits.max_power_w), bool(limits.max_temperature_c))
        throttling = values["throttling"]
        active = isinstance(throttling, str) and throttling != "no"
        power_w, temperature_c = (number(values.get(key, "")) for key in ("power_w", "temperature_c"))
        readings = HeatReadings(power_w, temperature_c, str(throttling) if active else "")
        self._readings = values
        self._cap.observe(limits, readings, cpu_percent)

    def _count(self) -> None:
        """Add what the gates have counted since the last update."""
        for governed in self._gates.values():
            limiter = governed.gate().limiter
            before = governed.counts if limiter is governed.limiter else PassCounts()
            governed.limiter, governed.counts = limiter, limiter.counts
            new = governed.counts.plus(before, -1)
            governed.need += NEED_STEP * (new.needed - governed.need)
            self._totals = self._totals.plus(new)

    def _apply(self) -> None:
        """Divide the limit by what the cameras need, so that all delays grow alike."""
        limit = self._governor.limit
        total = sum(governed.need + _LEAST_NEED for governed in self._gates.values())
        for governed in self._gates.values():
            share = (governed.need + _LEAST_NEED) / total
            governed.gate().limiter.limit = limit and InferenceLimit(limit.rate_hz * share, limit.keep_delay)
        if self._ladder and self._rung != self._governor.rung:
            self._rung = self._governor.rung
            self._ladder.select(self._rung)

    # The ladder.
    def _use_ladder(self, node: BaseNode) -> None:
        """Learn which models there are, once a limit applies."""
        if not (self._limits.any and self._rungs) or self._ladder_begun:
            return
        self._ladder = self._ladder or ModelLadder(node, self._rungs, partial(self._on_refused, node))
        if relative := self._ladder.relative_times():
            self._governor.rungs, self._ladder_begun = relative, True

    def _close_ladder(self) -> None:
        """Forget the ladder, and have the detector return to the model that it was given."""
        if self._ladder and self._rung:
            self._ladder.select(0)
        if self._ladder:
            self._ladder.close()
        self._governor, self._ladder, self._ladder_begun, self._rung = Governor(), None, False, 0

    def _on_refused(self, node: BaseNode, reason: str) -> None:
        self._report(node, self._governor.swap_failed(reason))
        self._rung = self._governor.rung

    # Reports.
    def _report(self, node: BaseNode, step: GovernorStep | None) -> None:
        if step is None:
            return
        self._steps += 1
        level = "warning" if self._governor.trouble or step.event == "unreachable" else "info"
        node.structured_log.event(f"governor_{step.event}", step.text, level, **self.status_values())

    def trouble(self) -> str:
        """What is not kept, or cannot be limited, in one sentence; "" if nothing."""
        for key, name in (("power_w", "max_power_w"), ("temperature_c", "max_temperature_c")):
            if isinstance(reading := self._readings.get(key), Unavailable) and getattr(self._limits, name):
                return f"{name} has no effect, as {key} is unavailable: {reading.reason}"
        return self._governor.trouble

    def status_values(self) -> dict[str, Any]:
        """Status values, equal for all cameras."""
        if not self._limits.any:
            return {"governor.level": "off"}
        governor, budget = self._governor, self._cap.budget(self._limits)
        load, limit = governor.load, governor.limit
        return {
            "governor.level": governor.level,
            "governor.cpu_percent": load and load.cpu_percent,
            "governor.budget_percent": budget and budget.percent,
            "governor.cause": budget.cause if budget else "",
            "governor.max_inferences_hz": limit and limit.rate_hz,
            "governor.needed_hz": load and load.needed_hz,
            "governor.rung": governor.rung,
            "governor.steps": self._steps,
            **{f"governor.{key}": value for key, value in self._readings.items()},
        }


class ModelLadder:
    """The ladder of one detector, which may be in another process. The executor calls it.

    The first rung is the model that the detector was given. on_refused: called with the reason.
    """

    def __init__(self, node: BaseNode, rungs: Sequence[Rung], on_refused: Callable[[str], None]) -> None:
        self._node, self._on_refused = node, on_refused
        self._rungs = rungs
        self._choices: list[dict[str, Any]] = []
        self._get = node.create_client(GetParameters, "detector/get_parameters")
        self._set = node.create_client(SetParametersAtomically, "detector/set_parameters_atomically")
        self._request: Any = None

    def close(self) -> None:
        """Stop using the detector's services."""
        for client in (self._get, self._set):
            self._node.destroy_client(client)

    def relative_times(self) -> tuple[float, ...]:
        """Of the models to choose from, slowest first; empty until the detector has said which it has."""
        if (
            not self._choices
            and self._get.service_is_ready()
            and (self._request is None or self._request.done())
        ):
            self._request = self._get.call_async(GetParameters.Request(names=list(_LADDER_PARAMETERS)))
            self._request.add_done_callback(lambda done: self._start(done.result()))
        return tuple(choice["relative"] for choice in self._choices)

    def _start(self, given: GetParameters.Response | None) -> None:
        """Begin the ladder at the detector's model. One that it does not have is taken for the baseline."""
        values = [parameter_value_to_python(value) for value in given.values] if given else []
        if len(values) != len(_LADDER_PARAMETERS) or self._choices:
            return
        present = dict(zip(_LADDER_PARAMETERS, values, strict=True))
        rungs, at = self._rungs, self._position(str(present["model"]))
        relative = 1.0 if at is None else rungs[at].relative
        below = [rung for rung in rungs if rung.relative < relative * CLEARLY_FASTER]
        self._choices = [
            {"relative": relative, "parameters": present},
            *({"relative": rung.relative, "parameters": rung.parameters} for rung in below),
        ]

    def _position(self, model: str) -> int | None:
        try:
            folder = bundle_folder(model).resolve()
        except BundleError:  # On another machine.
            return None
        folders = [bundle_folder(rung.model).resolve() for rung in self._rungs]
        return folders.index(folder) if folder in folders else None

    def select(self, rung: int) -> None:
        """Request a model. It is loaded in the background; `vision_info` reports when it runs."""
        values = self._choices[rung]["parameters"]
        parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        future = self._set.call_async(SetParametersAtomically.Request(parameters=parameters))
        future.add_done_callback(lambda done: self._on_set(done.result()))

    def _on_set(self, response: SetParametersAtomically.Response | None) -> None:
        if response is not None and not response.result.successful:
            self._on_refused(response.result.reason)
