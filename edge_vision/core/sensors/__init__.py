"""What the machine tells of itself: /proc, /sys, NVML. Every figure is there, or says why it is not."""

from edge_vision.core.sensors.system import SystemMeter
from edge_vision.core.sensors.tree import Missing, Tree, Value, number

__all__ = ["Missing", "SystemMeter", "Tree", "Value", "number"]
