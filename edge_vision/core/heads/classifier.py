"""The head of image classifiers: one number per class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edge_vision.core.heads.base import ClassificationHead, OutputReader, choose, read_options
from edge_vision.core.heads.scores import softmax
from edge_vision.core.specs import HeadSpec, InputSpec

if TYPE_CHECKING:
    from edge_vision.backends.base import TensorSpec


ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"softmax": softmax, "none": np.copy}


class ClassifierHead(ClassificationHead):
    """Role: logits (1, classes). Option: activation, softmax, or none for a graph with its own."""

    def __init__(
        self, spec: HeadSpec, input_spec: InputSpec, outputs: Sequence[TensorSpec], n_labels: int
    ) -> None:
        """Raises HeadError where the options or the outputs do not fit."""
        options = read_options(spec, {"activation": "softmax"})
        self._activate = ACTIVATIONS[choose(spec, "activation", options["activation"], ACTIVATIONS)]
        self._logits = OutputReader.find(spec, "logits", outputs, (1, n_labels))

    def decode(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """(k,) float32, the array is the caller's."""
        return self._activate(self._logits.read(outputs)[0])
