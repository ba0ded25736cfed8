"""The cameras of one process, each with the same nodes in a namespace of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from rclpy.node import Node

from edge_vision.nodes.interface.specs import PIPELINE

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_PARAM = PIPELINE.param("cameras")


class CameraSetup(NamedTuple):
    """One camera. name: "" if the process serves only one. node_args: for the constructors of its nodes."""

    name: str
    node_args: dict[str, Any]


def camera_setups(option: str | None) -> list[CameraSetup]:
    """The cameras of the command line option, or of the parameter without one. Needs rclpy.init.

    Raises ValueError if a name is invalid.
    """
    # Its parameters and namespace follow the command line and the parameter files, as those of every node.
    node = Node(
        PIPELINE.name,
        start_parameter_services=False,
        enable_rosout=False,
        automatically_declare_parameters_from_overrides=True,
    )
    try:
        given = node.get_parameter_or(_PARAM.name).value
        base = node.get_namespace().rstrip("/")
    finally:
        node.destroy_node()
    names = checked_names(option.split(",") if option else [] if given is None else _PARAM.check(given))
    # For a node, __ns of its own precedes that of the process.
    return [
        CameraSetup(name, {"cli_args": ["--ros-args", "-r", f"__ns:={base}/{name}"]}) for name in names
    ] or [CameraSetup("", {})]


def checked_names(names: Sequence[str]) -> list[str]:
    """The names of cameras, stripped. Raises ValueError unless they are different names of namespaces."""
    stripped = [name.strip() for name in names]
    for i, name in enumerate(stripped):
        problem = "twice" if name in stripped[:i] else "" if _NAME.fullmatch(name) else "as a name"
        if problem:
            raise ValueError(
                "cameras: expected different names of letters, digits and underscores, as in front,rear; "
                f"got '{name:.80}' {problem}"
            )
    return stripped
