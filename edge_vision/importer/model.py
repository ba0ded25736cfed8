"""What a model file says of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_vision.backends.base import TensorSpec
from edge_vision.errors import BundleError

PICTURE_DTYPES = ("float32", "float16", "uint8")
# Further inputs of known exports that tell the picture's size: they get it as a constant. Name -> the values
# from the width and height of the input tensor.
SIZE_INPUTS: dict[str, Callable[[int, int], tuple[int, int]]] = {
    "orig_target_sizes": lambda width, height: (width, height),  # RT-DETR, D-FINE
    "im_shape": lambda width, height: (height, width),  # PaddleDetection
    "scale_factor": lambda _width, _height: (1, 1),  # PaddleDetection
}

MAX_MB = 2000


@dataclass(frozen=True, slots=True)
class Model:
    """path: the file. format: as in a bundle's graphs. sha256: of the file. producer: who wrote it, "" if
    untold.

    first_step: the operator that the graph itself normalises its picture with, "" for none. labels: the names
    that the file carries besides its metadata.
    """

    path: Path
    format: str
    size_bytes: int
    sha256: str
    producer: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    precision: str = "fp32"
    first_step: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """The input that takes the picture. width_px, height_px: None where the graph leaves them open."""

    name: str
    layout: str
    channels: int
    dtype: str
    width_px: int | None
    height_px: int | None

    def shape(self, width_px: int, height_px: int) -> tuple[int, int, int, int]:
        """The whole shape of one picture of that size."""
        if self.layout == "nchw":
            return (1, self.channels, height_px, width_px)
        return (1, height_px, width_px, self.channels)


class ModelSource(ABC):
    """An opened model file."""

    model: Model

    @abstractmethod
    def fixed(self, name: str, shape: tuple[int, ...], constants: Mapping[str, np.ndarray]) -> bytes:
        """The file for a bundle: one picture of this shape, the other inputs as constants.

        The file's own bytes where nothing has to change. Raises BundleError where it cannot be changed so.
        """


def find_picture(model: Model) -> Picture:
    """The one input that takes a picture. Raises BundleError for none, several, or another kind."""
    told = "; ".join(
        f"'{i.name}' [{', '.join(str(s or 'any') for s in i.shape)}] {i.dtype}" for i in model.inputs
    )
    others = [one for one in model.inputs if one.name not in SIZE_INPUTS]
    if len(others) != 1:
        raise BundleError(
            f"{model.path}: expected one input, for a picture, got {len(others)}: {told or 'none'}; export "
            f"the model with the others as constants"
        )
    one = others[0]
    if len(one.shape) != 4:
        raise BundleError(
            f"{model.path}: expected an input of four dimensions, for a picture, got {told}; edge_vision "
            f"runs models of pictures only"
        )
    if one.dtype not in PICTURE_DTYPES:
        raise BundleError(
            f"{model.path}: expected a picture as {', '.join(PICTURE_DTYPES)}, got {told}; export the model "
            f"with such an input"
        )
    return _picture(model, one, told)


def _picture(model: Model, one: TensorSpec, told: str) -> Picture:
    _, a, b, c = one.shape
    if a in (1, 3):
        return Picture(one.name, "nchw", a, one.dtype, c, b)
    if c in (1, 3):
        return Picture(one.name, "nhwc", c, one.dtype, b, a)
    raise BundleError(
        f"{model.path}: expected 1 or 3 channels in the second or last place of the input, got {told}; "
        f"edge_vision feeds grey or colour pictures, one at a time"
    )
