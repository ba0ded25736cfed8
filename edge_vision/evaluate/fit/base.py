"""The frozen backbone: a classifier's graph up to its pooled layer, at a small input size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from edge_vision.backends import BackendRequest
from edge_vision.backends.runtimes.onnxruntime import OnnxRuntimeBackend
from edge_vision.backends.trial.parent import try_graph
from edge_vision.bundles.store import Bundle
from edge_vision.core.frame import Frame
from edge_vision.core.model_spec import InputSpec
from edge_vision.core.preprocess import Preprocessor
from edge_vision.detect.classifier import MAX_BATCH
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.offline.linear_head import cut_features

OUTPUT = "features"
"""The name of the pooled layer in the bundles that this package makes."""


class FrozenFeatures:
    """Computes features of crops. input_spec: of the graph. graph: serialized ONNX."""

    def __init__(self, bundle: Bundle, output: str, size_px: int, folder: Path) -> None:
        """Cut the bundle's ONNX graph and load it from a file in `folder`. Raises EdgeVisionError."""
        manifest = bundle.manifest
        if (
            manifest.task != "classify"
            or manifest.input.layout != "nchw"
            or manifest.input.dtype != "float32"
        ):
            raise EvaluateError(
                f"expected a classifier with float32 input in nchw as --base, got {bundle.name}, a bundle to "
                f"{manifest.task} with {manifest.input.dtype} in {manifest.input.layout}"
            )
        self.bundle = bundle
        # Crops and input are both square, so nothing is cut off or padded.
        self.input_spec: InputSpec = replace(
            manifest.input, width_px=size_px, height_px=size_px, resize="stretch"
        )
        path, _ = bundle.graph_path(("onnx",))
        self.graph = cut_features(path.read_bytes(), output, size_px)
        file = folder / "features.onnx"
        file.write_bytes(self.graph)
        backend, request = OnnxRuntimeBackend(), BackendRequest(device="cpu", threads=1)
        try_graph(backend, file, request)
        self._session = backend.load(file, request)
        self._output = output
        self._preprocessor = Preprocessor(self.input_spec)

    def features(self, crops: list[Frame]) -> np.ndarray:
        """(n, k) float32 features of n crops. Raises ImageError, BackendError."""
        rows = [self._run(crops[at : at + MAX_BATCH]) for at in range(0, len(crops), MAX_BATCH)]
        return np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)

    def _run(self, crops: list[Frame]) -> np.ndarray:
        batch = np.concatenate([self._preprocessor.prepare(crop)[0].copy() for crop in crops])
        return np.array(self._session.run({self.input_spec.name: batch})[self._output], np.float32)
