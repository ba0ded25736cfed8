"""The parameter file of a release: values that the updater sets on running nodes. Imports no ROS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_vision.bundles import schema
from edge_vision.errors import BundleError
from edge_vision.nodes.interface.specs import NODES, NodeSpec

NodeValues = Mapping[str, Mapping[str, Any]]
"""Node -> parameter -> value."""


def parse_live_parameters(text: str, where: str) -> NodeValues:
    """The values in a ROS parameter file, checked.

    Raises BundleError for other nodes, and for parameters that do not exist, do not apply live, or are the
    detector's `model`, which is the release's own.
    """
    specs = {f"/**/{spec.name}": spec for spec in NODES if spec.name != "updater"}
    top = schema.Section(schema.load_yaml(text, where), where, "", tuple(specs))
    return {
        spec.name: values
        for key, spec in specs.items()
        if (values := _values(spec, top.section(key, ("ros__parameters",), {"ros__parameters": {}}), where))
    }


def _values(spec: NodeSpec, section: schema.Section, where: str) -> dict[str, Any]:
    given = section.take("ros__parameters", schema.plain_mapping, "a mapping")
    return {name: _value(spec, name, value, where) for name, value in given.items()}


def _value(spec: NodeSpec, name: str, value: Any, where: str) -> Any:
    live = [param.name for param in spec.params if param.applies == "live"]
    if name not in live or (spec.name, name) == ("detector", "model"):
        raise BundleError(
            f"{where}: {spec.name}: expected parameters that apply live, got {name!r:.80}"
            f"{schema.nearest(name, live)}"
        )
    try:
        return spec.param(name).check(value)
    except ValueError as error:
        raise BundleError(f"{where}: {spec.name}: {error}") from None
