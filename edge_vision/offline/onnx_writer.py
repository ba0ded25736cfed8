"""Writes an ONNX graph node by node. Imports `onnx` when used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edge_vision.errors import BundleError

# Supported by ONNX Runtime 1.16, OpenVINO 2023 and TensorRT 8.6.
OPSET = 17
IR_VERSION = 8


def import_onnx() -> Any:
    """The onnx package. Raises BundleError if it is not installed."""
    try:
        import onnx
    except ImportError as error:
        raise BundleError(
            f"making a bundle expects the package onnx, got: {error}; install it: pip install onnx"
        ) from None
    return onnx


class OnnxWriter:
    """Nodes and weights in the order in which they are added, so that the same calls give the same bytes."""

    def __init__(self, name: str) -> None:
        self._onnx = import_onnx()
        self._name = name
        self._nodes: list[Any] = []
        self._weights: dict[str, Any] = {}

    def weight(self, name: str, array: np.ndarray) -> str:
        """Add a constant, unless it was added before. Returns its name."""
        if name not in self._weights:
            self._weights[name] = self._onnx.numpy_helper.from_array(np.array(array, order="C"), name)
        return name

    def node(self, op: str, inputs: Sequence[str], output: str, *more: str, **attributes: Any) -> str:
        """Add a node with one output, or more. Returns the first one's name, which is also the node's."""
        outputs = [output, *more]
        self._nodes.append(self._onnx.helper.make_node(op, list(inputs), outputs, name=output, **attributes))
        return output

    def relu6(self, value: str, output: str) -> str:
        """min(max(value, 0), 6)."""
        zero, six = (
            self.weight(name, np.array(limit, np.float32)) for name, limit in (("zero", 0), ("six", 6))
        )
        return self.node("Clip", [value, zero, six], output)

    def model(self, inputs: Mapping[str, Sequence[int]], outputs: Mapping[str, Sequence[int]]) -> bytes:
        """The serialised float32 model, checked by onnx, including the shapes of the outputs."""
        helper, onnx = self._onnx.helper, self._onnx
        graph = helper.make_graph(
            self._nodes, self._name, self._values(inputs), self._values(outputs), list(self._weights.values())
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="edge_vision",
        )
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString(deterministic=True))

    def _values(self, shapes: Mapping[str, Sequence[int]]) -> list[Any]:
        make, kind = self._onnx.helper.make_tensor_value_info, self._onnx.TensorProto.FLOAT
        return [make(name, kind, list(shape)) for name, shape in shapes.items()]
