"""Figures of the machine from /proc, /sys and NVML. A figure that cannot be read states the reason."""

from edge_vision.diagnostics.sensors.system import SystemMeter
from edge_vision.diagnostics.sensors.tree import Tree, Unavailable, Value, number

__all__ = ["SystemMeter", "Tree", "Unavailable", "Value", "number"]
