"""Head of image classifiers: one score per class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edge_vision.backends.base import TensorSpec
from edge_vision.core.model_spec import HeadSpec, InputSpec
from edge_vision.detect.heads.base import ClassificationHead, OutputReader, choice_option, read_options
from edge_vision.detect.heads.decoding import softmax

ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"softmax": softmax, "none": np.copy}


class ClassifierHead(ClassificationHead):
    """Role: logits (n, classes), n being 1 or free. Option: activation, softmax, or none for a graph with its
    own.
    """

    def __init__(
        self, spec: HeadSpec, input_spec: InputSpec, outputs: Sequence[TensorSpec], n_labels: int
    ) -> None:
        options = read_options(spec, {"activation": "softmax"})
        self._activate = ACTIVATIONS[choice_option(spec, "activation", options["activation"], ACTIVATIONS)]
        self._logits = OutputReader.find(spec, "logits", outputs, ("n", n_labels))

    def decode(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        return self.decode_batch(outputs, 1)[0]

    def decode_batch(self, outputs: Mapping[str, np.ndarray], n: int) -> np.ndarray:
        logits = self._logits.read(outputs)
        if len(logits) != n:
            raise self._logits.shape_error(logits.shape)
        if self._activate is np.copy:
            self._logits.check_scores(logits, "logits? set head.options.activation to softmax in bundle.yaml")
        return self._activate(logits)
