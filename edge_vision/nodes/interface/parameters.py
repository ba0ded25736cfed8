"""Declares a node's parameters from its spec and checks every change: an invalid set is refused whole."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter

from edge_vision.core.printable import bounded_text
from edge_vision.nodes.interface.specs import NODES, PIPELINE, NodeSpec, Param
from edge_vision.nodes.structured_log import StructuredLog

_BUILT_IN = ("use_sim_time", "qos_overrides.", "start_type_description_service")
_KNOWN = {param.name for spec in (*NODES, PIPELINE) for param in spec.params}
"""`-p NAME:=VALUE` reaches all nodes of a process, also those without such a parameter."""
PARAMETER_TYPES = {
    "bool": Parameter.Type.BOOL,
    "int": Parameter.Type.INTEGER,
    "double": Parameter.Type.DOUBLE,
    "string": Parameter.Type.STRING,
    "string[]": Parameter.Type.STRING_ARRAY,
}
_TAKES_EFFECT = {
    "live": "",
    "configure": " Takes effect when the node is configured.",
    "start": " Takes effect at start.",
}


class Parameters:
    """The parameters of one node: `params["max_blind_ms"]`.

    is_configured: whether the node is configured, which locks the parameters that apply at configure.
    on_change: called with the names of live parameters after a change. check: called with all values as they
    would be and the names of those that would change; raises ValueError for values that are not allowed.
    errors: what was wrong with the values given at start.
    """

    def __init__(
        self,
        node: Node,
        structured_log: StructuredLog,
        spec: NodeSpec,
        is_configured: Callable[[], bool],
        on_change: Callable[[set[str]], None],
        check: Callable[[Mapping[str, Any], set[str]], None] = lambda values, changed: None,
    ) -> None:
        self._node = node
        self._structured_log = structured_log
        self._spec = spec
        self._is_configured = is_configured
        self._on_change = on_change
        self._check_all = check
        self._values: dict[str, Any] = {}
        self._given: Mapping[str, Parameter] = getattr(node, "_parameter_overrides", {})
        self.errors: list[str] = []
        for param in spec.params:
            self._values[param.name] = self._declare(self._with_preset(param))
        self._log_preset()
        self._report_unknown()
        node.add_pre_set_parameters_callback(self._with_declared_types)
        node.add_on_set_parameters_callback(self._validate)
        node.add_post_set_parameters_callback(self._apply)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def values(self) -> dict[str, Any]:
        return dict(self._values)

    def _declare(self, param: Param) -> Any:
        """Declare a parameter and return its value. An invalid start value is reported and replaced by the
        default, so that the node still runs."""
        name, descriptor = param.name, _descriptor(param)
        try:
            # Before it is declared, as a read-only parameter cannot be declared again.
            if param.applies == "start" and name in self._given:
                param.check(self._given[name].value)
            given = self._node.declare_parameter(name, param.default, descriptor).value
            value = param.check(given)
            if type(value) is type(given):
                return value
        except (ValueError, ParameterException) as error:
            value = param.default
            self._report(f"{error}; running with {param.default!r} instead", "parameter refused: ")
        # Declared again, as an override of another type, such as 500 for 500.0, would change the type.
        if self._node.has_parameter(name):
            self._node.undeclare_parameter(name)
        self._node.declare_parameter(name, value, descriptor, ignore_override=True)
        return value

    def _with_preset(self, param: Param) -> Param:
        """The parameter with its default in the preset. A value that is given wins."""
        preset = self._spec.presets.get(self._values.get("preset", ""), {})
        return replace(param, default=preset[param.name]) if param.name in preset else param

    def _log_preset(self) -> None:
        """Log the preset and the values that it sets, or that were given instead."""
        preset = self._spec.presets.get(self._values.get("preset", ""), {})
        values = [
            f"{name} {self._values[name]:g}"
            + (f" (given, preset {default:g})" if self._values[name] != default else "")
            for name, default in preset.items()
        ]
        if values:
            source = "given" if "preset" in self._given else "the default"
            text = f"preset {self._values['preset']} ({source}): {', '.join(values)}"
            self._structured_log.log("info", text, "preset")
            of_file = self._node.handle.get_parameters(Parameter).get("preset")
            if of_file and of_file.value not in (self._spec.param("preset").default, self._values["preset"]):
                text = (
                    f"preset {of_file.value} of the parameter file has no effect: the command line selects "
                )
                self._structured_log.log("warning", f"{text}{self._values['preset']}", "parameters")

    def _report_unknown(self) -> None:
        """Report given parameters that do not exist: ROS ignores them silently. One that resembles none may
        be meant for a node of another program."""
        known = [param.name for param in self._spec.params]
        for name in sorted(self._given.keys() - _KNOWN):
            close = difflib.get_close_matches(name, known, 1, 0.75)
            if close:
                self._report(f"there is no parameter '{name}': did you mean '{close[0]}'?")
            elif not name.startswith(_BUILT_IN):
                text = f"there is no parameter '{name}', it is ignored: `ros2 param list` shows the others"
                self._structured_log.log("warning", text, "parameters")

    def _report(self, error: str, prefix: str = "") -> None:
        self.errors.append(error)
        self._structured_log.log("error", prefix + error)

    def _with_declared_types(self, params: list[Parameter]) -> list[Parameter]:
        """The parameters with values of the declared types: 500 becomes 500.0 for a double."""
        return [self._with_declared_type(given) for given in params]

    def _with_declared_type(self, given: Parameter) -> Parameter:
        if given.name not in self._values:
            return given
        param = self._spec.param(given.name)
        try:
            return Parameter(given.name, PARAMETER_TYPES[param.type_name], param.check(given.value))
        except ValueError:  # Refused by `_validate`, with the reason.
            return given

    def _validate(self, params: Sequence[Parameter]) -> SetParametersResult:
        try:
            values = dict(self._values)
            for given in params:
                if given.name in values:
                    values[given.name] = self._spec.param(given.name).check(given.value)
            changed = {name for name, value in values.items() if value != self._values[name]}
            self._check_lock(changed)
            self._check_all(values, changed)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=bounded_text(str(error)))
        return SetParametersResult(successful=True)

    def _check_lock(self, changed: set[str]) -> None:
        for name in sorted(changed):
            if self._spec.param(name).applies == "configure" and self._is_configured():
                raise ValueError(
                    f"{name} takes effect when the node is configured: deactivate and clean up the node first"
                )

    def _apply(self, params: Sequence[Parameter]) -> None:
        names = {given.name for given in params} & self._values.keys()
        self._values.update({given.name: given.value for given in params if given.name in names})
        if names:
            self._on_change(names)


def _descriptor(param: Param) -> ParameterDescriptor:
    unit = f" [{param.unit}]" if param.unit else ""
    descriptor = ParameterDescriptor(
        description=f"{param.description}{unit}{_TAKES_EFFECT[param.applies]}",
        additional_constraints=f"{param.type_name}; {param.constraints}".rstrip("; "),
        read_only=param.applies == "start",
        # With static typing, ROS refuses a wrong type without naming the parameter, and has no type for an
        # empty list. `Parameters` converts and checks the types instead.
        dynamic_typing=param.applies != "start",
    )
    if param.range is None:
        return descriptor
    accepted = [param.range.low, param.range.high]
    accepted += [] if param.range.special is None else [param.range.special]
    low, high = min(accepted), max(accepted)
    if isinstance(param.default, float):
        descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
    else:
        descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
    return descriptor
