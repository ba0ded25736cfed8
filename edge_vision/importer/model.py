"""What a model file declares about itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_vision.backends.base import TensorSpec
from edge_vision.errors import BundleError

IMAGE_DTYPES = ("float32", "float16", "uint8")
# Inputs of known exports that take the image size, which becomes a constant: name -> values, from width
# and height of the input tensor.
SIZE_INPUTS: dict[str, Callable[[int, int], tuple[int, int]]] = {
    "orig_target_sizes": lambda width, height: (width, height),  # RT-DETR, D-FINE
    "im_shape": lambda width, height: (height, width),  # PaddleDetection
    "scale_factor": lambda _width, _height: (1, 1),  # PaddleDetection
}

MAX_MB = 2000


@dataclass(frozen=True, slots=True)
class Model:
    """format: as in a bundle's graphs. sha256: of the file. producer: the exporter, "" if not declared.

    first_step: the operator with which the graph normalises its input, "" for none. labels: class names in
    the file, apart from its metadata.
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
class ImageTensor:
    """The input for the image. width_px, height_px: None if the graph takes any size."""

    name: str
    layout: str
    channels: int
    dtype: str
    width_px: int | None
    height_px: int | None

    def shape(self, width_px: int, height_px: int) -> tuple[int, int, int, int]:
        """The shape of a batch of one image of this size."""
        if self.layout == "nchw":
            return (1, self.channels, height_px, width_px)
        return (1, height_px, width_px, self.channels)


class ModelSource(ABC):
    """An opened model file."""

    model: Model

    @abstractmethod
    def fixed(self, name: str, shape: tuple[int, ...], constants: Mapping[str, np.ndarray]) -> bytes:
        """The file for a bundle: one image of this shape, the other inputs as constants.

        The unchanged bytes if nothing has to change. Raises BundleError if the file cannot be changed.
        """


def find_image_tensor(model: Model) -> ImageTensor:
    """The one input for an image. Raises BundleError for none, several, or another kind."""
    declared = "; ".join(
        f"'{i.name}' [{', '.join(str(s or 'any') for s in i.shape)}] {i.dtype}" for i in model.inputs
    )
    others = [one for one in model.inputs if one.name not in SIZE_INPUTS]
    if len(others) != 1:
        raise BundleError(
            f"{model.path}: expected one input for an image, got {len(others)}: {declared or 'none'}; export "
            f"the model with the others as constants"
        )
    one = others[0]
    if len(one.shape) != 4:
        raise BundleError(
            f"{model.path}: expected an input of four dimensions, for an image, got {declared}; edge_vision "
            f"runs image models only"
        )
    if one.dtype not in IMAGE_DTYPES:
        raise BundleError(
            f"{model.path}: expected an image as {', '.join(IMAGE_DTYPES)}, got {declared}; export the model "
            f"with such an input"
        )
    return _image_tensor(model, one, declared)


def size_constants(model: Model, width: int, height: int) -> dict[str, np.ndarray]:
    """The values of the inputs that take the image size, by name."""
    return {
        one.name: np.array([SIZE_INPUTS[one.name](width, height)])
        for one in model.inputs
        if one.name in SIZE_INPUTS
    }


@contextmanager
def batch_remedy(model: Model, image_tensor: ImageTensor) -> Iterator[None]:
    """Add to a BundleError that the model was exported for several images at a time, if it was."""
    try:
        yield
    except BundleError as error:
        batch = next(one.shape[0] for one in model.inputs if one.name == image_tensor.name)
        if batch in (None, 1):
            raise
        raise BundleError(
            f"{error}. The graph takes a batch of {batch} images, edge_vision runs one at a time: export the "
            f"model with batch size 1"
        ) from None


def _image_tensor(model: Model, one: TensorSpec, declared: str) -> ImageTensor:
    _, a, b, c = one.shape
    if a in (1, 3):
        return ImageTensor(one.name, "nchw", a, one.dtype, c, b)
    if c in (1, 3):
        return ImageTensor(one.name, "nhwc", c, one.dtype, b, a)
    raise BundleError(
        f"{model.path}: expected 1 or 3 channels in dimension 2 or 4 of the input, got {declared}; "
        f"edge_vision feeds single grey or colour images"
    )
