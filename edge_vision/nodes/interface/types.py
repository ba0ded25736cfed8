"""Specifications of parameters, topics and nodes, and the parameters that nodes share. Imports no ROS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import Any

from edge_vision.core.frame import MAX_PIXELS
from edge_vision.core.redaction import redact_text


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers that a parameter accepts. special: one outside low..high."""

    unit: str
    low: float
    high: float
    special: float | None = None

    def accepts(self, value: float) -> bool:
        """Whether a number is in the range."""
        return self.low <= value <= self.high or value == self.special

    def __str__(self) -> str:
        special = "" if self.special is None else f"{self.special:.10g} or "
        return f"{special}{self.low:.10g}..{self.high:.10g}"


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter of a node.

    range: of a number. applies: when a change takes effect: "live" (at once), "configure" (refused while the
    node is configured) or "start" (read-only). validate: raises ValueError for other values that are not
    allowed. An int is accepted for a float, and for free text: ROS parses `uri:=0` as a number.
    """

    name: str
    default: Any
    description: str
    range: Range | None = None
    choices: tuple[str, ...] = ()
    applies: str = "live"
    validate: Callable[[Any], object] | None = None

    @property
    def unit(self) -> str:
        return self.range.unit if self.range else ""

    @property
    def type_name(self) -> str:
        """The name of its ROS type."""
        if isinstance(self.default, (list, tuple)):
            return "string[]"
        return {bool: "bool", int: "int", float: "double", str: "string"}[type(self.default)]

    @property
    def constraints(self) -> str:
        """The allowed values as text; "" if all of the type are."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        return str(self.range) if self.range else ""

    def check(self, value: Any) -> Any:
        """The value, converted to the type. Raises ValueError with the expected and the given value."""
        value = self._typed(value)
        if self.choices and value not in self.choices:
            raise ValueError(f"{self.name}: expected {self.constraints}, got '{value:.200}'")
        if self.range and not self.range.accepts(value):
            limits = f"{self.range} {self.unit}".rstrip()
            raise ValueError(f"{self.name}: expected {limits}, got {value}")
        if self.validate:
            try:
                self.validate(value)
            except ValueError as error:
                raise ValueError(f"{self.name}: {error}") from None
        return value

    def _typed(self, value: Any) -> Any:
        if isinstance(self.default, (list, tuple)):
            if isinstance(value, (list, tuple)) and all(isinstance(v, str) or _is_int(v) for v in value):
                return [str(v) for v in value]
        elif isinstance(self.default, str) and not self.choices and _is_int(value):
            return str(value)
        elif value is False and "off" in self.choices:  # YAML reads `off` without quotes as false.
            return "off"
        elif (
            isinstance(self.default, float)
            and isinstance(value, (int, float))
            and not isinstance(value, bool)
        ):
            with suppress(OverflowError):  # Of an int above any float.
                return float(value)
        elif type(value) is type(self.default):
            return value
        shown = redact_text(str(value))
        raise ValueError(f"{self.name}: expected {self.type_name}, got {type(value).__name__} '{shown:.200}'")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic of a node. direction: "in" or "out".

    only_with: parameters and the values at which the topic exists, as in (("ego_prior", ("imu",)),); empty =
    always. "shapes" stands for `ObjectShapes.kind` of the model. package: the ROS package that the topic
    needs, if it is optional. only_if: a further condition on the parameters.
    """

    name: str
    type: str
    direction: str
    description: str
    only_with: tuple[tuple[str, tuple[object, ...]], ...] = ()
    package: str = ""
    only_if: Callable[[Mapping[str, object]], object] = lambda values: True

    def exists(self, values: Mapping[str, object]) -> bool:
        """Whether a node with these parameters has the topic."""
        installed = not self.package or find_spec(self.package) is not None
        allowed = all(values.get(name) in wanted for name, wanted in self.only_with)
        return bool(installed and allowed and self.only_if(values))


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """The interface of a node."""

    name: str
    summary: str
    params: tuple[Param, ...]
    topics: tuple[Topic, ...]
    services: tuple[tuple[str, str, str], ...] = ()
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)
    """Defaults by the value of the parameter `preset`, which is declared before them."""

    @property
    def preset_names(self) -> frozenset[str]:
        """The parameters whose defaults a preset sets."""
        return frozenset(name for values in self.presets.values() for name in values)

    def param(self, name: str) -> Param:
        """The parameter of this name. Raises KeyError."""
        return {p.name: p for p in self.params}[name]


at_configure, at_start = partial(Param, applies="configure"), partial(Param, applies="start")
IMAGE, COMPRESSED_IMAGE = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
DETECTION_ARRAY = "vision_msgs/msg/Detection2DArray"
LABEL_INFO, VISION_INFO = "vision_msgs/msg/LabelInfo", "vision_msgs/msg/VisionInfo"
DIAGNOSTIC_ARRAY, STRING = "diagnostic_msgs/msg/DiagnosticArray", "std_msgs/msg/String"

AUTOSTART = at_start("autostart", True, "Configures and activates the node at start, retrying every 5 s.")
JSON_LOG = at_start("json_log", "", "Writes the log as lines of JSON to this file; stdout = standard output.")
COMMON = (AUTOSTART, JSON_LOG)
"""Parameters of every node."""
IMAGE_TRANSPORT = at_configure(
    "image_transport",
    "raw",
    "Subscribes to raw images, or to JPEG/PNG on `<topic>/compressed`.",
    choices=("raw", "compressed"),
)
MAX_IMAGE_MEGAPIXELS = Param(
    "max_image_megapixels",
    MAX_PIXELS / 1e6,
    "Refuses larger images as `too_large`, compressed ones before decoding.",
    Range("MP", 0.0001, 268.0),
)
IMAGES = (IMAGE_TRANSPORT, MAX_IMAGE_MEGAPIXELS)
"""Parameters of every node that subscribes to images."""
ENABLE = ("~/enable", "std_srvs/srv/SetBool", "Sets the parameter `enabled`.")
RESET = ("~/reset_stats", "std_srvs/srv/Trigger", "Resets the frame counts and latencies.")
STATUS = Topic("~/status", DIAGNOSTIC_ARRAY, "out", "State, frame accounting, rates and latencies, at 1 Hz.")


def compressed(topic: str) -> Topic:
    """The compressed counterpart of an image topic."""
    return Topic(
        f"{topic}/compressed",
        COMPRESSED_IMAGE,
        "in",
        "Replaces the raw topic with image_transport: compressed.",
    )
