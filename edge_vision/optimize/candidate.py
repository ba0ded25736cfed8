"""Candidates: combinations of backend, precision, input size and thread count."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edge_vision.core.model_spec import InputSpec
from edge_vision.optimize.errors import OptimizeError

LIBRARY_DEFAULT = "int8_default"
"""int8 as `quantize_static` makes it by default; measured for comparison."""
_STEP_PX = 32
"""The stride that the input sides of most networks must be divisible by."""


@dataclass(frozen=True, slots=True)
class Size:
    """An input size in pixels."""

    width_px: int
    height_px: int

    def __str__(self) -> str:
        return f"{self.width_px}x{self.height_px}"

    @property
    def area(self) -> int:
        """In pixels."""
        return self.width_px * self.height_px

    @staticmethod
    def of(spec: InputSpec) -> Size:
        """The input size of a bundle."""
        return Size(spec.width_px, spec.height_px)

    @staticmethod
    def parse(text: str, native: Size) -> Size:
        """`256` (the longer side; the other keeps the aspect ratio), `320x240` or `native`.

        Raises OptimizeError.
        """
        if text == "native":
            return native
        match = re.fullmatch(r"(\d{1,4})(?:x(\d{1,4}))?", text)
        sides = [int(side) for side in match.groups() if side] if match else []
        if not sides or min(sides) < _STEP_PX:
            raise OptimizeError(f"sizes: expected native, a side like 256 or 320x240, got {text!r}")
        if len(sides) == 2:
            return Size(*sides)
        return native.scaled(sides[0] / max(native.width_px, native.height_px))

    def scaled(self, factor: float) -> Size:
        """Scaled with the aspect ratio preserved as far as whole strides allow."""
        if self.width_px == self.height_px:
            side = round(self.width_px * factor)
            return Size(side, side)
        sides = [
            max(1, round(side * factor / _STEP_PX)) * _STEP_PX for side in (self.width_px, self.height_px)
        ]
        return Size(*sides)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run the model. precision: one of settings.PRECISIONS, or LIBRARY_DEFAULT. trained: name of a
    bundle of `optimize train`, or of the model's own int8 graph, that runs instead of it, "" = none."""

    backend: str
    precision: str
    size: Size
    threads: int
    trained: str = ""

    @property
    def id(self) -> str:
        """Its name in reports and files."""
        recipe = f"-{self.trained}" if self.trained else ""
        return f"{self.backend}{recipe}-{self.precision}-{self.size}-t{self.threads}"

    @property
    def graph_precision(self) -> str:
        """The precision of its graph file. For bf16 the runtime converts the fp32 graph."""
        return "fp32" if self.precision == "bf16" else self.precision


def default_sizes(native: Size, task: str) -> list[Size]:
    """The native size and smaller ones: down to 128 for a classifier, to three quarters for a detector."""
    if task == "classify":
        smaller = [Size.parse(str(side), native) for side in (192, 160, 128)]
    else:
        longer = max(native.width_px, native.height_px)
        smaller = [Size.parse(str(int(longer * f) // _STEP_PX * _STEP_PX), native) for f in (0.87, 0.76)]
    return [native, *(size for size in smaller if size.area < native.area)]
