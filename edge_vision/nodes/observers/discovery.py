"""The short-lived nodes of the command line tools."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from edge_vision.nodes.run import make_executor

_PROFILE = """<?xml version="1.0" encoding="UTF-8"?>
<dds xmlns="http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles"><profiles>
  <participant profile_name="edge_vision_monitor" is_default_profile="true"><rtps><builtin><discovery_config>
    <initialAnnouncements>
      <count>30</count><period><sec>0</sec><nanosec>100000000</nanosec></period>
    </initialAnnouncements>
  </discovery_config></builtin></rtps></participant>
</profiles></dds>
"""
_PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


@contextlib.contextmanager
def eager_discovery() -> Iterator[None]:
    """Make Fast DDS announce participants created in this context for 3 s, unless the user chose a profile.

    By default it announces them for 0.5 s, then every 3 s. In a third of the starts, a pipeline that started
    after those 0.5 s found its subscriber only 3 s later.
    """
    if any(name in os.environ for name in _PROFILE_VARIABLES):
        yield
        return
    with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
        file.write(_PROFILE)
        file.flush()
        os.environ.update(dict.fromkeys(_PROFILE_VARIABLES, file.name))
        try:
            yield
        finally:
            for name in _PROFILE_VARIABLES:
                del os.environ[name]


@contextlib.contextmanager
def observing_node(name: str, args: Sequence[str] = (), **options: Any) -> Iterator[tuple[Node, Any]]:
    """A node and its executor, with rclpy running. args: the command line. options: of the node.

    Raises RuntimeError if the command line is invalid.
    """
    try:
        with eager_discovery():
            rclpy.init(args=list(args), signal_handler_options=SignalHandlerOptions.NO)
            node = Node(name, **options)
        executor = make_executor()
        executor.add_node(node)
        try:
            yield node, executor
        finally:
            executor.shutdown(0)
            node.destroy_node()
    finally:
        rclpy.try_shutdown()
