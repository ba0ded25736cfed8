"""What the machine tells of itself: /proc, /sys, NVML. Every figure is there, or says why it is not."""

from edge_vision.diagnostics.sensors.system import SystemMeter
from edge_vision.diagnostics.sensors.tree import Tree, Unavailable, Value, number

__all__ = ["SystemMeter", "Tree", "Unavailable", "Value", "number"]
