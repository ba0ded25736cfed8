"""Declares a node's parameters from its spec, and keeps them checked: a bad value is refused whole."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter

from edge_vision.core.printable import printable
from edge_vision.core.redaction import redact_text
from edge_vision.nodes.interface.specs import NodeSpec, Param
from edge_vision.nodes.structured_log import StructuredLog

_FREE = ("use_sim_time", "qos_overrides.", "start_type_description_service")


class Parameters:
    """The parameters of one node, by attribute-like access: `params["max_blind_ms"]`.

    configured: tells whether the node is configured now, when parameters that apply at configure are
    locked. on_change: called after live parameters changed, with their names. check: raises ValueError for
    values that do not go together; it is given all, as they would be.
    """

    def __init__(
        self,
        node: Node,
        structured_log: StructuredLog,
        spec: NodeSpec,
        configured: Callable[[], bool],
        on_change: Callable[[set[str]], None],
        check: Callable[[Mapping[str, Any]], None] = lambda values: None,
    ) -> None:
        self._node = node
        self._structured_log = structured_log
        self._spec = spec
        self._configured = configured
        self._on_change = on_change
        self._check_all = check
        self._values: dict[str, Any] = {}
        self.errors: list[str] = []
        for param in spec.params:
            self._declare(param)
        self._warn_unknown()
        node.add_on_set_parameters_callback(self._refuse_bad)
        node.add_post_set_parameters_callback(self._take)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def _declare(self, param: Param) -> None:
        """Declare one; a bad start value is replaced by the default, loudly, so that the node still runs."""
        name, descriptor = param.name, _descriptor(param)
        try:
            self._values[name] = param.check(
                self._node.declare_parameter(name, param.default, descriptor).value
            )
        except (ValueError, ParameterException) as error:
            self.errors.append(f"{error}; running with {param.default!r} instead")
            self._structured_log.log("error", f"parameter refused: {self.errors[-1]}")
            if self._node.has_parameter(name):
                self._node.undeclare_parameter(name)
            self._node.declare_parameter(name, param.default, descriptor, ignore_override=True)
            self._values[name] = param.default

    def _warn_unknown(self) -> None:
        """Name parameters that were given but do not exist: ROS drops them without a word."""
        known = [param.name for param in self._spec.params]
        for name in getattr(self._node, "_parameter_overrides", {}):
            close = difflib.get_close_matches(name, known, 1, 0.75)
            if name not in known and not name.startswith(_FREE) and close:
                self.errors.append(f"there is no parameter '{name}': did you mean '{close[0]}'?")
                self._structured_log.log("error", self.errors[-1])

    def _refuse_bad(self, params: Sequence[Parameter]) -> SetParametersResult:
        try:
            would_be = dict(self._values)
            for given in params:
                if given.name in self._values:
                    would_be[given.name] = self._check(self._spec.param(given.name), given.value)
            self._check_all(would_be)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=printable(redact_text(str(error))))
        return SetParametersResult(successful=True)

    def _check(self, param: Param, value: Any) -> Any:
        checked = param.check(value)
        if param.applies == "configure" and self._configured() and checked != self._values[param.name]:
            raise ValueError(
                f"{param.name} acts when the node is configured: deactivate and clean up the node first"
            )
        return checked

    def _take(self, params: Sequence[Parameter]) -> None:
        changed = set()
        for given in params:
            if given.name in self._values:
                self._values[given.name] = self._spec.param(given.name).check(given.value)
                changed.add(given.name)
        if changed:
            self._on_change(changed)


def _descriptor(param: Param) -> ParameterDescriptor:
    unit = f" [{param.unit}]" if param.unit else ""
    when = {"live": "", "configure": " Acts when the node is configured.", "start": " Acts at start."}[
        param.applies
    ]
    descriptor = ParameterDescriptor(
        description=f"{param.description}{unit}{when}",
        additional_constraints=f"{param.type_name}; {param.constraints}".rstrip("; "),
        read_only=param.applies == "start",
        # ROS would refuse 500 where 500.0 is meant, has no type for an empty list, and does not name the
        # parameter that it refuses; our own check does.
        dynamic_typing=param.applies != "start",
    )
    if param.low is None or param.high is None:
        return descriptor
    low = param.low if param.special is None else min(param.low, param.special)
    high = param.high if param.special is None else max(param.high, param.special)
    if isinstance(param.default, float):
        descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
    else:
        descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
    return descriptor
