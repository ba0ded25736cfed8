#!/usr/bin/env python3
"""A backend that runs ONNX graphs on OpenCV's DNN module, compared with ONNX Runtime on a shipped bundle.

A package registers it as an entry point: "edge_vision.backends": opencv = "my_package.backend:OpenCvBackend".
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import onnx

from edge_vision.backends import BackendRequest, open_session
from edge_vision.backends.base import Backend, BackendActual, Session, TensorSpec, check_tensors
from edge_vision.bundles import load_bundle
from edge_vision.errors import BackendError


class OpenCvSession(Session):
    def __init__(self, graph: Path) -> None:
        description = onnx.load(graph).graph
        self.inputs = tuple(map(spec_of, description.input))
        self.outputs = tuple(map(spec_of, description.output))
        self.actual = BackendActual("opencv", cv2.__version__, "cpu", "dnn", "fp32", cv2.getNumThreads())
        self._net = cv2.dnn.readNetFromONNX(str(graph))

    def run(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        check_tensors("opencv", self.inputs, tensors)
        for name, values in tensors.items():
            self._net.setInput(values, name)
        names = [output.name for output in self.outputs]
        try:
            return dict(zip(names, self._net.forward(names), strict=True))
        except cv2.error as error:
            raise BackendError(f"opencv failed: {error.err}; use another backend") from error


class OpenCvBackend(Backend):
    name, title = "opencv", "OpenCV DNN"
    formats = ("onnx",)
    install_hint = "pip install opencv-python-headless onnx"
    distributions = ("opencv-python",)

    def load(self, graph: Path, request: BackendRequest) -> Session:
        request.check_options(self.name, ())
        try:
            return OpenCvSession(graph)
        except cv2.error as error:
            raise BackendError(f"opencv cannot load {graph}: {error.err}; use another backend") from error


def spec_of(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return TensorSpec(value.name, tuple(side.dim_value or None for side in tensor.shape.dim), dtype.name)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    bundle = load_bundle("efficientnet_lite0_imagenet")
    reference, _ = open_session(bundle, "onnxruntime")
    session = OpenCvBackend().load(bundle.folder / bundle.manifest.graphs[0].file, BackendRequest())
    noise = np.random.default_rng(1).normal(size=(1, 3, 224, 224)).astype(np.float32)
    tensors = {bundle.manifest.input.name: noise}
    expected, outputs = reference.run(tensors), session.run(tensors)
    difference = max(float(np.abs(outputs[name] - values).max()) for name, values in expected.items())
    assert difference < 0.01
    print(
        f"{session.actual.backend} {session.actual.version} agrees with onnxruntime within {difference:.0e}"
    )


if __name__ == "__main__":
    main()
