"""Head of image classifiers: one score per class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np

from edge_vision.detect.heads.base import ClassificationHead
from edge_vision.detect.heads.decoding import softmax

ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"softmax": softmax, "none": np.copy}


class ClassifierHead(ClassificationHead):
    """Role: logits (n, classes), n being 1 or free. Option: activation, softmax, or none for a graph with its
    own.
    """

    defaults: ClassVar[Mapping[str, object]] = {"activation": "softmax"}

    def set_up(self) -> None:
        self._activate = ACTIVATIONS[self.choice("activation", ACTIVATIONS)]
        self._logits = self.output("logits", ("n", self._n_labels))

    def decode(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        return self.decode_batch(outputs, 1)[0]

    def decode_batch(self, outputs: Mapping[str, np.ndarray], n: int) -> np.ndarray:
        logits = self._logits.read(outputs)
        if len(logits) != n:
            raise self._logits.shape_error(logits.shape)
        if self._activate is np.copy:
            self._logits.check_scores(logits, "logits? set head.options.activation to softmax in bundle.yaml")
        return self._activate(logits)
